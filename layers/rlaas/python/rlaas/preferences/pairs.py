"""Preference pairs from what people did with drafts: the text that they sent is chosen, and the draft that they changed
or discarded is rejected. When they compared two outputs, the preferred one is chosen."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from rlaas.chat import Message
from rlaas.ids import hash_canonical_json
from rlaas.preferences.left_out import MIN_WORDS, DropReason
from rlaas.preferences.prompts import find_prompt, find_tools, make_comparison_key
from rlaas.preferences.words import count_words, normalize_spacing
from rlaas.telemetry.events import FeedbackSubmitted, InteractionCreated, OutputProduced
from rlaas.telemetry.store import StoredEvent
from rlaas.voices import identify_person

HELD_OUT_TAG = "held-out"
"""The tag of interactions that are kept for evaluation: their pairs go to the test split."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One preference with its provenance. `prompt` is what the model got, or else what the interaction asked
    (`prompts.find_prompt`); `tools` is the JSON of the tools in the request. `discarded`: the draft was discarded, and
    not edited.

    `output_id` is the rejected output, and `preferred_output_id` the chosen one when two were compared. `person` is the
    person whose preference it is (`voices.identify_person`). `held_out` pairs come from interactions tagged `held-out`:
    they are used for evaluation and never for training.
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
        """Whether the draft was sent as it was, apart from spacing. This teaches no preference, but is used for
        evaluation: with edited drafts only, the policy that wrote them would look worse than it is."""
        return normalize_spacing(self.chosen) == normalize_spacing(self.rejected)

    @property
    def demonstration(self) -> bool:
        """Whether SFT can learn from it: a text sent as it was that no policy of the skill wrote, such as a fine-tuning
        example or another model's draft. A policy's own text would teach it what it already does."""
        return self.policy_id is None and not self.discarded and self.preferred_output_id is None and self.unchanged

    @property
    def content_sha256(self) -> str:
        """A hash that is equal for pairs that teach the same: those with the same prompt, chosen and rejected text,
        whatever their spacing and the ids of tool calls."""
        texts = [normalize_spacing(self.chosen), normalize_spacing(self.rejected)]
        return hash_canonical_json([*make_comparison_key(self.prompt, self.tools), *texts])


@dataclass(frozen=True, slots=True)
class PairSet:
    """The pairs, oldest first, the number of all `outputs`, and how many of them made no pair (`dropped`), by
    reason."""

    pairs: tuple[Pair, ...]
    dropped: dict[DropReason, int]
    outputs: int = 0


def build_pairs(events: Iterable[StoredEvent]) -> PairSet:
    """Build the pairs of one skill of one tenant from its events, in any order and possibly repeated.
    O(events * log(events)).

    Events count in the order in which they were received: clients' clocks decide nothing. The final text is the latest
    edit of an output, or the output itself if it was sent without an edit. Feedback that names no output is about the
    last one of its interaction. The latest comparison of two outputs makes a pair of them; a comparison that names only
    the preferred output prefers it to all others of the interaction. Of pairs that teach the same, the oldest stays.
    Feedback with the key of a page does not count on an output that the same key asked for.
    """
    by_id = {event.event_id: event for event in events}
    outputs = sorted((event for event in by_id.values() if event.event_type == "output"), key=_sort_key)
    feedback = _index_feedback(by_id, outputs)
    pairs: dict[str, Pair] = {}
    paired_ids: set[str] = set()
    reasons: dict[str, DropReason] = {}
    for output in outputs:
        for output_ids, outcome in _try_pairs(output, feedback, by_id):
            if isinstance(outcome, str):
                reasons.update((event_id, outcome) for event_id in output_ids if event_id not in reasons)
            elif pairs.setdefault(outcome.content_sha256, outcome) is outcome:
                paired_ids.update(output_ids)
            else:
                reasons.update((event_id, "duplicate") for event_id in output_ids if event_id not in reasons)
    dropped = Counter(reasons.get(output.event_id, "no_feedback") for output in outputs if output.event_id not in paired_ids)
    if feedback.missing_ids:
        dropped["no_output"] = len(feedback.missing_ids)
    return PairSet(pairs=tuple(pairs.values()), dropped=dict(dropped), outputs=len(outputs))


@dataclass(frozen=True, slots=True)
class _FeedbackIndex:
    """`by_output` has the feedback on each output, oldest first. `winners` has, for each output that lost a comparison,
    the outputs preferred to it, each with its feedback. `missing_ids` are outputs and interactions that feedback names
    but that never arrived."""

    by_output: dict[str, list[tuple[StoredEvent, FeedbackSubmitted]]] = field(default_factory=dict)
    winners: dict[str, dict[str, StoredEvent]] = field(default_factory=dict)
    missing_ids: set[str] = field(default_factory=set)


def _index_feedback(by_id: Mapping[str, StoredEvent], outputs: Sequence[StoredEvent]) -> _FeedbackIndex:
    index = _FeedbackIndex()
    visible: dict[str | None, list[StoredEvent]] = {}
    for output in outputs:
        if not _is_shadow(output):
            visible.setdefault(output.interaction_id, []).append(output)
    comparisons: dict[frozenset[str], tuple[str, StoredEvent]] = {}
    for stored_event in sorted((event for event in by_id.values() if event.event_type == "feedback"), key=_sort_key):
        event = stored_event.event()
        if not isinstance(event, FeedbackSubmitted):
            continue
        siblings = visible.get(stored_event.interaction_id, [])
        if event.page_key_id is not None and any(_was_asked_by(event.page_key_id, output) for output in siblings):
            continue
        winner = event.preferred_output_id
        if winner is not None:
            losers = [stored_event.output_id] if stored_event.output_id not in (None, winner) else [output.event_id for output in siblings]
            comparisons.update((frozenset((winner, loser)), (winner, stored_event)) for loser in losers if loser not in (None, winner))
            index.missing_ids.update(event_id for event_id in (winner, *losers) if event_id is not None and event_id not in by_id)
        elif stored_event.output_id is not None or siblings:
            output_id = stored_event.output_id or siblings[-1].event_id
            index.by_output.setdefault(output_id, []).append((stored_event, event))
            if output_id not in by_id:
                index.missing_ids.add(output_id)
        elif stored_event.interaction_id is not None and event.kind in ("edit", "action"):
            index.missing_ids.add(stored_event.interaction_id)
    for both, (winner, stored_event) in comparisons.items():
        if all(event_id in by_id for event_id in both):
            (loser,) = both - {winner}
            index.winners.setdefault(loser, {})[winner] = stored_event
    return index


def _sort_key(event: StoredEvent) -> tuple[datetime, str]:
    return event.received_at, event.event_id


def _is_shadow(output: StoredEvent) -> bool:
    """Whether nobody saw the output; it is only parsed if its JSON has the words for it."""
    if '"shadow":true' not in output.payload:
        return False
    event = output.event()
    return isinstance(event, OutputProduced) and event.decision is not None and event.decision.shadow


def _was_asked_by(key_id: str, output: StoredEvent) -> bool:
    """Whether the request for the output came with the key. A page's key that also judges the output could teach
    anything: anybody can read it."""
    return f'"key_id":"{key_id}"' in output.payload


def _try_pairs(
    output: StoredEvent, feedback: _FeedbackIndex, by_id: Mapping[str, StoredEvent]
) -> Iterator[tuple[tuple[str, ...], Pair | DropReason]]:
    """The pairs in which `output` is rejected, or the reasons why there are none, each with the ids of its outputs."""
    on_output, winners = feedback.by_output.get(output.event_id), feedback.winners.get(output.event_id, {})
    if not on_output and not winners:
        if _is_shadow(output):
            yield (output.event_id,), "shadow"
        return
    draft = _Answer.of(output, by_id)
    if on_output:
        yield (output.event_id,), draft if isinstance(draft, str) else _pair_edit(draft, on_output)
    for winner_id, feedback_event in winners.items():
        winner = _Answer.of(by_id[winner_id], by_id)
        output_ids = (output.event_id, winner_id)
        if isinstance(draft, str):
            yield output_ids, draft
        elif isinstance(winner, str):
            yield output_ids, winner
        else:
            yield output_ids, _pair_comparison(winner, draft, feedback_event)


@dataclass(frozen=True, slots=True)
class _Answer:
    """An output that people saw, with the prompt that it answered."""

    stored_event: StoredEvent
    output: OutputProduced
    prompt: tuple[Message, ...]
    tools: str | None
    thread: str
    person: str
    held_out: bool

    @classmethod
    def of(cls, stored_event: StoredEvent, by_id: Mapping[str, StoredEvent]) -> "_Answer | DropReason":
        """The output `stored_event` with its prompt, or the reason why it makes no pair."""
        output = stored_event.event()
        if not isinstance(output, OutputProduced):
            return "no_output"
        if output.decision is not None and output.decision.shadow:
            return "shadow"
        if output.key_id is not None and output.messages is None:  # RLaaS answered without asking a model
            return "blocked"
        if output.tool_calls:
            return "called_tools"
        question = by_id.get(output.interaction_id)
        needs_user = output.user_id is None and question is not None and '"user_id"' in question.payload
        interaction = _read_interaction(question, whole=needs_user or not output.messages) if question is not None else None
        prompt = find_prompt(output, interaction)
        if not prompt:
            return "no_prompt"
        if any(message.parts for message in prompt):
            return "not_text"
        thread = stored_event.thread_id or (question and question.thread_id) or output.interaction_id
        return cls(
            stored_event=stored_event,
            output=output,
            prompt=prompt,
            tools=find_tools(interaction),
            thread=thread,
            person=identify_person(output.user_id or (interaction.user_id if interaction else None), thread, thread),
            held_out=interaction is not None and HELD_OUT_TAG in interaction.tags,
        )


def _read_interaction(stored_event: StoredEvent, *, whole: bool) -> InteractionCreated | None:
    """The interaction; unless `whole`, only if its JSON may have tools or the tag `held-out`, which saves parsing
    it."""
    if not whole and HELD_OUT_TAG not in stored_event.payload and '"tools"' not in stored_event.payload:
        return None
    event = stored_event.event()
    return event if isinstance(event, InteractionCreated) else None


def _pair_edit(draft: _Answer, feedback: Sequence[tuple[StoredEvent, FeedbackSubmitted]]) -> Pair | DropReason:
    finals = [event.final_text for _, event in feedback if event.final_text is not None]
    actions = [event.action for _, event in feedback if event.action is not None]
    if actions and actions[-1] == "sent":
        finals.insert(0, draft.output.text)
    if not finals:
        return "no_final_text"
    feedback_ids = [stored_event.event_id for stored_event, event in feedback if event.kind in ("edit", "action")]
    return _make_pair(draft, finals[-1], feedback_ids, discarded=bool(actions) and actions[-1] != "sent")


def _pair_comparison(winner: _Answer, draft: _Answer, feedback: StoredEvent) -> Pair | DropReason:
    if make_comparison_key(winner.prompt, winner.tools) != make_comparison_key(draft.prompt, draft.tools):
        return "other_prompt"
    return _make_pair(draft, winner.output.text, [feedback.event_id], preferred=winner)


def _make_pair(
    draft: _Answer, final: str, feedback_ids: Iterable[str], *, discarded: bool = False, preferred: _Answer | None = None
) -> Pair | DropReason:
    chosen, rejected = final.strip(), draft.output.text.strip()
    if count_words(chosen) < MIN_WORDS or not rejected:
        return "empty"
    return Pair(
        prompt=draft.prompt,
        chosen=chosen,
        rejected=rejected,
        interaction_id=draft.output.interaction_id,
        output_id=draft.stored_event.event_id,
        feedback_ids=tuple(feedback_ids),
        thread=draft.thread,
        policy_id=draft.stored_event.policy_id,
        occurred_at=draft.stored_event.occurred_at.isoformat(),
        discarded=discarded,
        held_out=draft.held_out or (preferred is not None and preferred.held_out),
        tools=draft.tools,
        preferred_output_id=preferred.stored_event.event_id if preferred is not None else None,
        person=draft.person,
    )
