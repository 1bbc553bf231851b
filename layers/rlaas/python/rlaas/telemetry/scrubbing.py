"""Events without personal data: everything in them is searched except ids, which are pseudonymous by contract, and what
RLaaS itself adds."""

from collections.abc import Sequence

from rlaas.privacy import texts
from rlaas.privacy.scrub import Scrubber
from rlaas.telemetry.events import AnyEvent

_KEPT = frozenset(
    """
    skill thread_id user_id interaction_id output_id preferred_output_id feedback_id task_result_id reward_id guardrail_id failure_id
    event_ids policy_id key_id metric decision decision_token feedback_token
    preferred_feedback_token page_key_id url sha256
    """.split()
)
"""The ids by which events refer to each other, to a skill and its metrics, to policies and keys; decisions and
tokens, which RLaaS makes; a part's `url`, which is not stored, and its `sha256`."""


def scrub_events(events: Sequence[AnyEvent], scrubber: Scrubber) -> list[AnyEvent]:
    """`events` without personal data, all in one go. Raises: DependencyUnavailable."""
    return texts.scrub_models(events, scrubber, exempt=_KEPT)
