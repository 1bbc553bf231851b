"""Preference pairs from what people did with drafts: the text they sent is chosen, the draft they changed or threw away is rejected."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from rlaas.ids import canonical_sha256
from rlaas.telemetry.events import FeedbackSubmitted, InteractionCreated, Message, OutputProduced
from rlaas.telemetry.store import StoredEvent

DropReason = Literal["no_final_text", "unchanged", "empty", "no_prompt", "duplicate", "no_output", "shadow"]
"""Why an output with feedback made no pair; `no_output` counts outputs that never landed, `shadow` those that no user saw."""
MIN_WORDS = 3
"""A final text of fewer words is no answer to learn from."""
HELD_OUT_TAG = "held-out"
"""Interactions with this tag are kept for evaluation: their pairs go to the test split."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One preference with its provenance. `prompt` is what the model saw; `discarded` says the draft was thrown away, not edited.

    `held_out` pairs come from interactions tagged `held-out`: they are judged on and never trained on.
    """

    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    interaction_id: str
    output_id: str
    feedback_ids: tuple[str, ...]
    thread: str
    policy_id: str | None
    occurred_at: str
    discarded: bool
    held_out: bool

    @property
    def unchanged(self) -> bool:
        """Whether the draft was sent as it was. That teaches no preference, but policies are judged on it too: on edited drafts alone, the
        one that wrote them would look worse than it is."""
        return self.chosen == self.rejected

    @property
    def content_sha256(self) -> str:
        """Equal for pairs that teach the same: same prompt, chosen and rejected text, whatever their spacing."""
        prompt = [f"{message.role}: {_spaced(message.content)}" for message in self.prompt]
        return canonical_sha256([*prompt, _spaced(self.chosen), _spaced(self.rejected)])


@dataclass(frozen=True, slots=True)
class PairSet:
    """The pairs, oldest first, and how many outputs with feedback were dropped for which reason."""

    pairs: tuple[Pair, ...]
    dropped: dict[DropReason, int]


def build_pairs(events: Iterable[StoredEvent]) -> PairSet:
    """Pairs from one tenant's and skill's events, in any order and possibly repeated. O(events).

    The latest edit of an output is its final text; an output sent without an edit is its own. Of pairs that teach the same, the oldest
    stays.
    """
    by_id = {event.event_id: event for event in events}
    feedback: dict[str, list[StoredEvent]] = {}
    tagged: set[str] = set()
    for stored in by_id.values():
        if stored.event_type == "feedback" and stored.output_id is not None:
            feedback.setdefault(stored.output_id, []).append(stored)
        elif stored.event_type == "interaction":
            event = stored.event()
            if isinstance(event, InteractionCreated) and HELD_OUT_TAG in event.tags:
                tagged.add(stored.event_id)
    dropped: Counter[DropReason] = Counter()
    pairs: dict[str, Pair] = {}
    outputs = [by_id[output_id] for output_id in feedback if output_id in by_id]
    if len(outputs) < len(feedback):
        dropped["no_output"] = len(feedback) - len(outputs)
    for output in sorted(outputs, key=lambda stored: (stored.occurred_at, stored.event_id)):
        made = _pair(output, feedback[output.event_id], held_out=output.interaction_id in tagged)
        if isinstance(made, str):
            dropped[made] += 1
        elif made.content_sha256 in pairs:
            dropped["duplicate"] += 1
        else:
            pairs[made.content_sha256] = made
    return PairSet(pairs=tuple(pairs.values()), dropped=dict(dropped))


def _pair(output: StoredEvent, feedback: Iterable[StoredEvent], *, held_out: bool) -> Pair | DropReason:
    produced = output.event()
    if not isinstance(produced, OutputProduced) or not produced.messages:
        return "no_prompt"
    if produced.decision is not None and produced.decision.shadow:
        return "shadow"
    said = sorted(feedback, key=lambda stored: (stored.occurred_at, stored.event_id))
    counted = [(stored, event) for stored in said if isinstance(event := stored.event(), FeedbackSubmitted)]
    finals = [event.final_text for _, event in counted if event.final_text is not None]
    actions = [event.action for _, event in counted if event.action is not None]
    if actions and actions[-1] == "sent":
        finals.insert(0, produced.text)
    if not finals:
        return "no_final_text"
    chosen, rejected = finals[-1].strip(), produced.text.strip()
    if len(chosen.split()) < MIN_WORDS or not rejected:
        return "empty"
    return Pair(
        prompt=produced.messages,
        chosen=chosen,
        rejected=rejected,
        interaction_id=produced.interaction_id,
        output_id=output.event_id,
        feedback_ids=tuple(stored.event_id for stored, event in counted if event.kind in ("edit", "action")),
        thread=output.thread_id or produced.interaction_id,
        policy_id=output.policy_id,
        occurred_at=output.occurred_at.isoformat(),
        discarded=bool(actions) and actions[-1] != "sent",
        held_out=held_out,
    )


def _spaced(text: str) -> str:
    return " ".join(text.split())
