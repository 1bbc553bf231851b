"""What whom is believed: a page gives feedback on what its tokens are for, and says nothing else."""

from datetime import datetime

from rlaas.errors import Forbidden, InvalidInput
from rlaas.ids import bound_id, canonical_json, derived_id
from rlaas.privacy.scrub import Scrubber
from rlaas.telemetry.events import AnyEvent, FeedbackSubmitted
from rlaas.telemetry.feedback_token import Shown, read_feedback_token

FEEDBACK_ONLY = "a publishable key gives feedback only; do this from your back end, with a secret key"
"""What a page is told."""
_NAMES = ("skill", "interaction_id", "output_id", "thread_id", "user_id")


def permitted(
    event: AnyEvent, page_key_id: str | None, *, scrubber: Scrubber, now: datetime, idempotency_key: str | None = None
) -> AnyEvent:
    """`event` as RLaaS believes it. A server is believed; a page (`page_key_id`), and whoever passes on what a page
    said with its token, is held to what the token is for.

    Of a page's feedback its arrival is its time, and its id is one that no other event can have, always the same for
    the output and the `feedback_id` or idempotency key that the page chose.

    Raises: Forbidden, InvalidInput, naming the field.
    """
    if page_key_id is not None and not isinstance(event, FeedbackSubmitted):
        raise Forbidden(FEEDBACK_ONLY, param="type")
    if not isinstance(event, FeedbackSubmitted):
        return event
    if event.page_key_id is not None:
        raise InvalidInput("only RLaaS says which page reported", param="page_key_id")
    if event.feedback_token is None:
        if page_key_id is None:
            return event
        raise Forbidden(
            "a publishable key gives feedback on outputs whose feedback_token it has: your back end gets one with each answer",
            param="feedback_token",
        )
    shown = read_feedback_token(event.feedback_token, scrubber=scrubber, now=now, param="feedback_token")
    for name in _NAMES:
        if getattr(event, name) not in (None, getattr(shown, name)):
            raise Forbidden("the feedback_token is for another one", param=name)
    if event.tags:
        raise Forbidden("a page's feedback has no tags", param="tags")
    _check_preferred(event, shown, scrubber=scrubber, now=now)
    said: dict[str, object] = {name: getattr(shown, name) for name in _NAMES}
    if page_key_id is not None:
        said |= {"occurred_at": None, "page_key_id": page_key_id}
        if (chosen := event.feedback_id or idempotency_key) is not None:
            said["feedback_id"] = _feedback_id(shown, chosen, scrubber)
    return event.model_copy(update=said)


def _check_preferred(event: FeedbackSubmitted, shown: Shown, *, scrubber: Scrubber, now: datetime) -> None:
    """Of a comparison both outputs have to be the page's."""
    preferred, token = event.preferred_output_id, event.preferred_feedback_token
    if preferred is None:
        return
    if token is None:
        raise Forbidden("comparing two outputs takes the tokens of both", param="preferred_feedback_token")
    other = read_feedback_token(token, scrubber=scrubber, now=now, param="preferred_feedback_token")
    if (other.skill, other.output_id) != (shown.skill, preferred) or preferred == shown.output_id:
        raise Forbidden("the preferred_feedback_token is for another one", param="preferred_output_id")


def _feedback_id(shown: Shown, chosen: str, scrubber: Scrubber) -> str:
    tail = scrubber.digest_for("feedback_id")(canonical_json([shown.output_id, chosen]))[:20]
    return bound_id("fbk", shown.interaction_id, tail) or derived_id("fbk", shown.interaction_id, tail)
