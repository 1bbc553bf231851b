"""Settlement: from stored events to what became of each decision. One way for rollouts, bandits and reports.

A unit enters a trial by its decision, in the order of decisions, once the attribution window has closed, with the
feedback that had arrived by then; what never came has the value that the skill's reward spec declares. Nothing is
counted by the moment its outcome happened to come: good drafts are sent at once and bad ones discarded when somebody
finds the time, so whoever counts as they come takes the quicker arm for the better one.

It counts for the arm that was dealt, whoever answered (intention to treat): a candidate that fails on hard requests may
not leave them to the control and be judged by the easy ones. A request that nobody answered is worth 0.

All times are our own clock's: `decided_at` and `received_at`. What clients say of theirs has no part in it.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from rlaas.rewards.reward import components_of
from rlaas.routing.assign import CONTROL, Decision
from rlaas.skills.skill import RewardSpec
from rlaas.telemetry.events import GuardrailActed, InteractionCreated, OutputProduced, RequestFailed, RewardComputed
from rlaas.telemetry.store import EventStore, StoredEvent
from rlaas.voices import person

T = TypeVar("T")
_READERS = 16


@dataclass(frozen=True, slots=True)
class Dealt:
    """A decision of a trial, and the output or the failure that came of it."""

    stored: StoredEvent
    decision: Decision
    user_id: str | None = None

    @classmethod
    def of(cls, stored: StoredEvent) -> "Dealt":
        """The decision of an output or failure that a trial lists. Raises: ValueError for any other event."""
        event = stored.event()
        if not isinstance(event, OutputProduced | RequestFailed) or event.decision is None:
            raise ValueError(f"{stored.event_id} has no decision")
        return cls(stored, event.decision, event.user_id)

    @property
    def policy_id(self) -> str:
        """The policy of the arm that was dealt, whoever answered."""
        return self.decision.candidates[0].policy_id if self.decision.dealt == CONTROL else self.decision.dealt

    @property
    def failed(self) -> bool:
        """Whether the arm's own backend did not answer."""
        return self.stored.event_type == "failure" or self.decision.fallback

    def probability(self, policy_id: str) -> float:
        """The probability that the unit would be dealt `policy_id`."""
        return next((one.probability for one in self.decision.candidates if one.policy_id == policy_id), 0.0)


@dataclass(frozen=True, slots=True)
class Harms:
    """What of a request can be told when its answer is there. Without an answer of the arm's own there is no latency
    and no cost."""

    failed: bool
    empty: bool
    unsafe: bool
    latency_ms: float | None
    cost_usd: float | None


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of a decision: its reward in [0, 1], the components that never came, and whether one of these has no
    declared value."""

    reward: float
    missing: tuple[str, ...]
    unknown: bool


def decisions(
    events: EventStore, tenant_id: str, skill: str, trial: str, *, after: datetime, until: datetime, lag: timedelta, most: int
) -> tuple[list[Dealt], datetime]:
    """The trial's decisions after `after`, in their order, and the time until which these are all: `until`, or earlier
    where there are more than `most`. What was reported later than `lag` after its decision is left out, so that a list
    read again is the same."""
    found: list[Dealt] = []
    if until <= after:
        return found, after
    for stored in events.by_trial(tenant_id, skill, trial, after=after, until=until):
        dealt = Dealt.of(stored)
        if len(found) >= most and dealt.decision.decided_at > found[-1].decision.decided_at:
            until = found[-1].decision.decided_at
            break
        if stored.received_at <= dealt.decision.decided_at + lag:
            found.append(dealt)
    return sorted(found, key=lambda one: (one.decision.decided_at, one.stored.event_id)), until


def side_by_side(read: Callable[[Dealt], T], dealt: Sequence[Dealt]) -> Iterator[tuple[Dealt, T]]:
    """Each decision with what `read` finds for it, in order; up to 16 at a time."""
    if len(dealt) <= 1:
        return ((one, read(one)) for one in dealt)
    with ThreadPoolExecutor(min(_READERS, len(dealt))) as readers:
        return zip(dealt, list(readers.map(read, dealt)), strict=True)


def is_first_of_unit(events: EventStore, dealt: Dealt, *, lag: timedelta, of_day: bool = False) -> bool:
    """Whether this is the first decision of its unit in the trial, or on its day (UTC), of those reported within `lag`.

    Raises: ValueError for a decision of no trial, DependencyUnavailable.
    """
    trial = dealt.stored.trial
    if trial is None:
        raise ValueError(f"{dealt.stored.event_id} is of no trial")
    midnight = trial.decided_at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    since = midnight if of_day else None
    for earlier in events.by_unit(dealt.stored.tenant_id, dealt.stored.skill, trial.name, trial.unit, since=since):
        if earlier.trial is None or earlier.trial.decided_at > trial.decided_at:
            break
        before = (earlier.trial.decided_at, earlier.event_id) < (trial.decided_at, dealt.stored.event_id)
        if before and earlier.received_at <= earlier.trial.decided_at + lag:
            return False
    return True


def first_of_units(
    events: EventStore, dealt: Sequence[Dealt], *, lag: timedelta, of_day: bool = False
) -> list[tuple[Dealt, list[StoredEvent]]]:
    """Those of `dealt` that are the first of their unit (`is_first_of_unit`) with the events around them, in order."""

    def read(one: Dealt) -> list[StoredEvent] | None:
        return events_around(events, one) if is_first_of_unit(events, one, lag=lag, of_day=of_day) else None

    return [(one, around) for one, around in side_by_side(read, dealt) if around is not None]


def events_around(events: EventStore, dealt: Dealt) -> list[StoredEvent]:
    """Every event of the decision's interaction, in the order received."""
    return events.by_interaction(dealt.stored.tenant_id, dealt.stored.interaction_id or "")


def person_of(dealt: Dealt, around: Sequence[StoredEvent], *, lag: timedelta) -> str:
    """Whose word the decision's outcome is (`voices.person`): its user's, whom the answer names, or else the
    interaction if that came within `lag` of the decision, so that the answer stays the same."""
    user_id, thread_id = dealt.user_id, dealt.stored.thread_id
    if user_id is None:
        asked = _asked([one for one in around if one.received_at <= dealt.decision.decided_at + lag])
        user_id, thread_id = (asked.user_id, thread_id or asked.thread_id) if asked is not None else (None, thread_id)
    return person(user_id, thread_id, f"{dealt.decision.bucket:.17g}")


@dataclass(frozen=True, slots=True)
class Served:
    """A unit's first request of a day, the events around it, and whether it is the unit's first in the trial."""

    dealt: Dealt
    around: list[StoredEvent]
    new: bool


def served_that_day(events: EventStore, dealt: Sequence[Dealt], *, lag: timedelta) -> list[Served]:
    """Those of `dealt` that are the first of their unit on their day, in order."""

    found = first_of_units(events, dealt, lag=lag, of_day=True)
    new = side_by_side(lambda one: is_first_of_unit(events, one, lag=lag), [one for one, _ in found])
    return [Served(one, around, is_new) for (one, around), (_, is_new) in zip(found, new, strict=True)]


def harms_of(dealt: Dealt, around: Sequence[StoredEvent]) -> Harms:
    """What harm the request came to, from the events `around` it."""
    acted = (stored.event() for stored in around if stored.event_type == "guardrail")
    unsafe = any(isinstance(event, GuardrailActed) and event.stage == "output" for event in acted)
    produced = dealt.stored.event()
    if dealt.failed or not isinstance(produced, OutputProduced):
        return Harms(failed=True, empty=False, unsafe=False, latency_ms=None, cost_usd=None)
    empty = not produced.text.strip() and not produced.tool_calls
    return Harms(failed=False, empty=empty, unsafe=unsafe, latency_ms=produced.latency_ms, cost_usd=produced.cost_usd)


def settle(dealt: Dealt, around: Sequence[StoredEvent], spec: RewardSpec, *, until: datetime) -> Settled:
    """What became of the decision by `until`, when its window closed, from the events `around` it.

    A failure whose interaction was answered after all counts by that answer.
    """
    output = _answer(dealt, around, until)
    if output is None:
        return Settled(reward=0.0, missing=(), unknown=False)
    components = components_of(output, _feedback(output, around, until)).values
    declared = {"edit_similarity": spec.missing.edit_similarity, "sent": spec.missing.sent}
    missing = tuple(name for name in spec.weights if name not in components)
    values = {name: components[name] if name in components else declared[name] or 0.0 for name in spec.weights}
    total = sum(spec.weights.values())
    reward = sum(weight * values[name] for name, weight in spec.weights.items()) / total if total else 0.0
    return Settled(reward=reward, missing=missing, unknown=any(declared[name] is None for name in missing))


def sent_by(dealt: Dealt, around: Sequence[StoredEvent], until: datetime) -> bool | None:
    """Whether the draft was sent, by the first of its rewards that knows; `None` while none has been received by
    `until`."""
    known = [
        event.components["sent"] > 0
        for one in around
        if one.event_type == "reward" and one.output_id == dealt.stored.event_id and one.received_at <= until
        if isinstance(event := one.event(), RewardComputed) and "sent" in event.components
    ]
    return known[0] if known else None


def stratum_of(dealt: Dealt, around: Sequence[StoredEvent], stratify_by: str | None) -> str | None:
    """What the unit is compared within: its user, or a field of the interaction's metadata (`metadata.<name>`)."""
    if stratify_by is None:
        return None
    asked = _asked(around)
    if asked is None:
        return None
    value = asked.user_id if stratify_by == "user" else asked.metadata.get(stratify_by.removeprefix("metadata."))
    return None if value is None else str(value)


def _asked(around: Sequence[StoredEvent]) -> InteractionCreated | None:
    events = (stored.event() for stored in around if stored.event_type == "interaction")
    return next((event for event in events if isinstance(event, InteractionCreated)), None)


def _answer(dealt: Dealt, around: Sequence[StoredEvent], until: datetime) -> StoredEvent | None:
    if dealt.stored.event_type == "output":
        return dealt.stored
    return next(
        (one for one in around if one.event_type == "output" and "shadow" not in one.marks and one.received_at <= until),
        None,
    )


def _feedback(output: StoredEvent, around: Sequence[StoredEvent], until: datetime) -> list[StoredEvent]:
    """Feedback on `output`; without an output id it is about the interaction's last output (by then)."""
    outputs = [one for one in around if one.event_type == "output" and "shadow" not in one.marks and one.received_at <= until]
    last = outputs[-1].event_id if outputs else output.event_id
    return [
        one for one in around if one.event_type == "feedback" and one.received_at <= until and (one.output_id or last) == output.event_id
    ]
