"""Preference pairs from what people did with drafts: the text they sent is chosen, the draft they changed or threw away
is rejected; of two outputs compared, the preferred is chosen."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from rlaas.chat import Message
from rlaas.ids import canonical_sha256
from rlaas.preferences.left_out import MIN_WORDS, DropReason
from rlaas.preferences.prompts import prompt_of, sameness, tools_of
from rlaas.preferences.words import count_words, evenly_spaced
from rlaas.telemetry.events import FeedbackSubmitted, InteractionCreated, OutputProduced
from rlaas.telemetry.store import StoredEvent
from rlaas.voices import person

HELD_OUT_TAG = "held-out"
"""Interactions with this tag are kept for evaluation: their pairs go to the test split."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One preference with its provenance. `prompt` is what the model saw, or what was asked (`prompts.prompt_of`),
    `tools` the JSON of the tools that the request offered; `discarded` says the draft was thrown away, not edited.

    `output_id` is the rejected output, `preferred_output_id` the chosen one where two were compared; `person` is whose
    word it is (`voices.person`). `held_out` pairs come from interactions tagged `held-out`: they are judged on and
    never trained on.
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
    tools: str | None = None
    preferred_output_id: str | None = None
    person: str = ""

    @property
    def unchanged(self) -> bool:
        """Whether the draft was sent as it was, spacing aside. That teaches no preference, but policies are judged on
        it too: on edited drafts alone, the one that wrote them would look worse than it is."""
        return evenly_spaced(self.chosen) == evenly_spaced(self.rejected)

    @property
    def demonstration(self) -> bool:
        """Whether it shows what to write, for SFT alone: a text sent as it was that none of the skill's policies
        wrote, such as a fine-tuning example or another model's draft. A policy's own text would teach it what it
        does already."""
        return self.policy_id is None and not self.discarded and self.preferred_output_id is None and self.unchanged

    @property
    def content_sha256(self) -> str:
        """Equal for pairs that teach the same: same prompt, chosen and rejected text, whatever their spacing and their
        calls' ids."""
        return canonical_sha256([*sameness(self.prompt, self.tools), evenly_spaced(self.chosen), evenly_spaced(self.rejected)])


@dataclass(frozen=True, slots=True)
class PairSet:
    """The pairs, oldest first, and how many of all `outputs` are in none for which reason."""

    pairs: tuple[Pair, ...]
    dropped: dict[DropReason, int]
    outputs: int = 0


def build_pairs(events: Iterable[StoredEvent]) -> PairSet:
    """Pairs from one tenant's and skill's events, in any order and possibly repeated. O(events).

    What was received last is the last word: a client's clock decides nothing. The latest edit of an output is its final
    text; an output sent without an edit is its own. Feedback that names no output is about its interaction's last. The
    latest comparison of two outputs makes a pair of them; one that names the preferred output alone prefers it to the
    interaction's others. Of pairs that teach the same, the oldest stays.
    """
    by_id = {event.event_id: event for event in events}
    outputs = sorted((event for event in by_id.values() if event.event_type == "output"), key=_when)
    said = _said(by_id, outputs)
    pairs: dict[str, Pair] = {}
    paired: set[str] = set()
    reasons: dict[str, DropReason] = {}
    for output in outputs:
        for involved, made in _tries(output, said, by_id):
            if isinstance(made, str):
                reasons.update((event_id, made) for event_id in involved if event_id not in reasons)
            elif pairs.setdefault(made.content_sha256, made) is made:
                paired.update(involved)
            else:
                reasons.update((event_id, "duplicate") for event_id in involved if event_id not in reasons)
    dropped = Counter(reasons.get(output.event_id, "no_feedback") for output in outputs if output.event_id not in paired)
    if said.missing:
        dropped["no_output"] = len(said.missing)
    return PairSet(pairs=tuple(pairs.values()), dropped=dict(dropped), outputs=len(outputs))


@dataclass(frozen=True, slots=True)
class _Said:
    """Feedback by the output it is about, oldest first; per output that lost a comparison, the outputs preferred to it
    and the feedback that says so; and what feedback is about that never landed."""

    about: dict[str, list[tuple[StoredEvent, FeedbackSubmitted]]] = field(default_factory=dict)
    preferred: dict[str, dict[str, StoredEvent]] = field(default_factory=dict)
    missing: set[str] = field(default_factory=set)


def _said(by_id: Mapping[str, StoredEvent], outputs: Sequence[StoredEvent]) -> _Said:
    said = _Said()
    seen: dict[str | None, list[StoredEvent]] = {}
    for output in outputs:
        if not _is_shadow(output):
            seen.setdefault(output.interaction_id, []).append(output)
    compared: dict[frozenset[str], tuple[str, StoredEvent]] = {}
    for stored in sorted((event for event in by_id.values() if event.event_type == "feedback"), key=_when):
        event = stored.event()
        if not isinstance(event, FeedbackSubmitted):
            continue
        beside = seen.get(stored.interaction_id, [])
        winner = event.preferred_output_id
        if winner is not None:
            named = [stored.output_id] if stored.output_id not in (None, winner) else [output.event_id for output in beside]
            compared.update((frozenset((winner, loser)), (winner, stored)) for loser in named if loser not in (None, winner))
            said.missing.update(event_id for event_id in (winner, *named) if event_id is not None and event_id not in by_id)
        elif stored.output_id is not None or beside:
            output_id = stored.output_id or beside[-1].event_id
            said.about.setdefault(output_id, []).append((stored, event))
            if output_id not in by_id:
                said.missing.add(output_id)
        elif stored.interaction_id is not None and event.kind in ("edit", "action"):
            said.missing.add(stored.interaction_id)
    for both, (winner, stored) in compared.items():
        if all(event_id in by_id for event_id in both):
            (loser,) = both - {winner}
            said.preferred.setdefault(loser, {})[winner] = stored
    return said


def _when(stored: StoredEvent) -> tuple[datetime, str]:
    return stored.received_at, stored.event_id


def _is_shadow(output: StoredEvent) -> bool:
    """Reads an output only where its JSON could say so."""
    if '"shadow":true' not in output.payload:
        return False
    event = output.event()
    return isinstance(event, OutputProduced) and event.decision is not None and event.decision.shadow


def _tries(output: StoredEvent, said: _Said, by_id: Mapping[str, StoredEvent]) -> Iterator[tuple[tuple[str, ...], Pair | DropReason]]:
    """The pairs in which `output` is rejected, or why there is none, each with the outputs that it is about."""
    about, preferred = said.about.get(output.event_id), said.preferred.get(output.event_id, {})
    if not about and not preferred:
        if _is_shadow(output):
            yield (output.event_id,), "shadow"
        return
    draft = _Answer.of(output, by_id)
    if about:
        yield (output.event_id,), draft if isinstance(draft, str) else _edited(draft, about)
    for winner, stored in preferred.items():
        better = _Answer.of(by_id[winner], by_id)
        involved = (output.event_id, winner)
        yield involved, draft if isinstance(draft, str) else better if isinstance(better, str) else _compared(better, draft, stored)


@dataclass(frozen=True, slots=True)
class _Answer:
    """An output that people saw, with what it answered."""

    stored: StoredEvent
    produced: OutputProduced
    prompt: tuple[Message, ...]
    tools: str | None
    thread: str
    person: str
    held_out: bool

    @classmethod
    def of(cls, stored: StoredEvent, by_id: Mapping[str, StoredEvent]) -> "_Answer | DropReason":
        """`stored` with its prompt, or why it has no place in a pair."""
        produced = stored.event()
        if not isinstance(produced, OutputProduced):
            return "no_output"
        if produced.decision is not None and produced.decision.shadow:
            return "shadow"
        if produced.key_id is not None and produced.messages is None:  # RLaaS answered, and asked no model
            return "blocked"
        if produced.tool_calls:
            return "called_tools"
        asked = by_id.get(produced.interaction_id)
        nobody = produced.user_id is None and asked is not None and '"user_id"' in asked.payload
        interaction = _read(asked, whole=nobody or not produced.messages) if asked is not None else None
        prompt = prompt_of(produced, interaction)
        if not prompt:
            return "no_prompt"
        thread = stored.thread_id or (asked and asked.thread_id) or produced.interaction_id
        return cls(
            stored=stored,
            produced=produced,
            prompt=prompt,
            tools=tools_of(interaction),
            thread=thread,
            person=person(produced.user_id or (interaction.user_id if interaction else None), thread, thread),
            held_out=interaction is not None and HELD_OUT_TAG in interaction.tags,
        )


def _read(asked: StoredEvent, *, whole: bool) -> InteractionCreated | None:
    """The interaction; unless it is wanted `whole`, only where its JSON could name tools or the tag."""
    if not whole and HELD_OUT_TAG not in asked.payload and '"tools"' not in asked.payload:
        return None
    event = asked.event()
    return event if isinstance(event, InteractionCreated) else None


def _edited(draft: _Answer, feedback: Sequence[tuple[StoredEvent, FeedbackSubmitted]]) -> Pair | DropReason:
    finals = [event.final_text for _, event in feedback if event.final_text is not None]
    actions = [event.action for _, event in feedback if event.action is not None]
    if actions and actions[-1] == "sent":
        finals.insert(0, draft.produced.text)
    if not finals:
        return "no_final_text"
    told = [stored.event_id for stored, event in feedback if event.kind in ("edit", "action")]
    return _pair(draft, finals[-1], told, discarded=bool(actions) and actions[-1] != "sent")


def _compared(better: _Answer, draft: _Answer, feedback: StoredEvent) -> Pair | DropReason:
    if sameness(better.prompt, better.tools) != sameness(draft.prompt, draft.tools):
        return "other_prompt"
    return _pair(draft, better.produced.text, [feedback.event_id], preferred=better)


def _pair(
    draft: _Answer, final: str, feedback_ids: Iterable[str], *, discarded: bool = False, preferred: _Answer | None = None
) -> Pair | DropReason:
    chosen, rejected = final.strip(), draft.produced.text.strip()
    if count_words(chosen) < MIN_WORDS or not rejected:
        return "empty"
    return Pair(
        prompt=draft.prompt,
        chosen=chosen,
        rejected=rejected,
        interaction_id=draft.produced.interaction_id,
        output_id=draft.stored.event_id,
        feedback_ids=tuple(feedback_ids),
        thread=draft.thread,
        policy_id=draft.stored.policy_id,
        occurred_at=draft.stored.occurred_at.isoformat(),
        discarded=discarded,
        held_out=draft.held_out or (preferred is not None and preferred.held_out),
        tools=draft.tools,
        preferred_output_id=preferred.stored.event_id if preferred is not None else None,
        person=draft.person,
    )
