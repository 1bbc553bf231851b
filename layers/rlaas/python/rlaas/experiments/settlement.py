"""Settlement: from stored events to the outcome of each decision, the same way for rollouts, bandits and reports.

A unit enters a trial by its decision, in the order of decisions, once the attribution window has closed, with the
feedback received by then; a component that never came has the value that the skill's reward spec declares. Units do not
enter in the order of their outcomes: good drafts are sent at once and bad ones discarded when somebody finds the time,
so counting outcomes as they arrive would take the quicker arm for the better one.

A unit counts for the arm that it was dealt, whoever answered (intention to treat). Otherwise a candidate that fails on
hard requests would leave them to the control and be judged by the easy ones. A request that nobody answered is worth 0.

All times are those of our own clock, `decided_at` and `received_at`; the clients' times are not used.
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
    """A decision of a trial, with the output or failure that followed."""

    stored: StoredEvent
    decision: Decision
    user_id: str | None = None

    @classmethod
    def of(cls, stored: StoredEvent) -> "Dealt":
        """The decision in a stored output or failure. Raises: ValueError for any other event."""
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
        """The probability in [0, 1] that the unit would be dealt `policy_id`."""
        return next((one.probability for one in self.decision.candidates if one.policy_id == policy_id), 0.0)


@dataclass(frozen=True, slots=True)
class Harms:
    """The harm of a request that shows with its answer. `latency_ms` (milliseconds) and `cost_usd` (US dollars) are
    `None` when the arm's own backend did not answer."""

    failed: bool
    empty: bool
    unsafe: bool
    latency_ms: float | None
    cost_usd: float | None


@dataclass(frozen=True, slots=True)
class Settled:
    """The outcome of a decision: its reward in [0, 1], the components that never came, and whether one of these has no
    declared value."""

    reward: float
    missing: tuple[str, ...]
    unknown: bool


def list_decisions(
    events: EventStore, tenant_id: str, skill: str, trial: str, *, after: datetime, until: datetime, lag: timedelta, most: int
) -> tuple[list[Dealt], datetime]:
    """The trial's decisions after `after`, in order, and the time up to which the list is complete: `until`, or earlier
    when there are more than about `most`. Events received more than `lag` after their decision are left out, so that
    the same list comes back when it is read again. Raises: DependencyUnavailable."""
    result: list[Dealt] = []
    if until <= after:
        return result, after
    for stored in events.by_trial(tenant_id, skill, trial, after=after, until=until):
        dealt = Dealt.of(stored)
        if len(result) >= most and dealt.decision.decided_at > result[-1].decision.decided_at:
            until = result[-1].decision.decided_at
            break
        if stored.received_at <= dealt.decision.decided_at + lag:
            result.append(dealt)
    return sorted(result, key=lambda one: (one.decision.decided_at, one.stored.event_id)), until


def read_in_parallel(read: Callable[[Dealt], T], dealt: Sequence[Dealt]) -> Iterator[tuple[Dealt, T]]:
    """Each decision with what `read` returns for it, in order; up to 16 are read at a time."""
    if len(dealt) <= 1:
        return ((one, read(one)) for one in dealt)
    with ThreadPoolExecutor(min(_READERS, len(dealt))) as readers:
        return zip(dealt, list(readers.map(read, dealt)), strict=True)


def is_first_of_unit(events: EventStore, dealt: Dealt, *, lag: timedelta, of_day: bool = False) -> bool:
    """Whether this is the first decision of its unit in the trial (with `of_day`: on its day, UTC) among those received
    within `lag`.

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
    """Those of `dealt` that are the first of their unit (`is_first_of_unit`), each with the events around it, in order.
    Raises: as `is_first_of_unit`."""

    def read(one: Dealt) -> list[StoredEvent] | None:
        return events_around(events, one) if is_first_of_unit(events, one, lag=lag, of_day=of_day) else None

    return [(one, around) for one, around in read_in_parallel(read, dealt) if around is not None]


def events_around(events: EventStore, dealt: Dealt) -> list[StoredEvent]:
    """Every event of the decision's interaction, in the order received."""
    return events.by_interaction(dealt.stored.tenant_id, dealt.stored.interaction_id or "")


def person_of(dealt: Dealt, around: Sequence[StoredEvent], *, lag: timedelta) -> str:
    """The person behind the decision's unit (`voices.person`): the user that the output names, else the one that the
    interaction names if it was received within `lag` of the decision, so that the result stays the same later."""
    user_id, thread_id = dealt.user_id, dealt.stored.thread_id
    if user_id is None:
        interaction = _find_interaction([one for one in around if one.received_at <= dealt.decision.decided_at + lag])
        user_id, thread_id = (interaction.user_id, thread_id or interaction.thread_id) if interaction is not None else (None, thread_id)
    return person(user_id, thread_id, f"{dealt.decision.bucket:.17g}")


@dataclass(frozen=True, slots=True)
class Served:
    """A unit's first request of a day, the events around it, and whether it is the unit's first request in the
    trial."""

    dealt: Dealt
    around: list[StoredEvent]
    new: bool


def served_that_day(events: EventStore, dealt: Sequence[Dealt], *, lag: timedelta) -> list[Served]:
    """Those of `dealt` that are the first of their unit on their day (UTC), in order. Raises: as `is_first_of_unit`."""
    firsts = first_of_units(events, dealt, lag=lag, of_day=True)
    new = read_in_parallel(lambda one: is_first_of_unit(events, one, lag=lag), [one for one, _ in firsts])
    return [Served(one, around, is_new) for (one, around), (_, is_new) in zip(firsts, new, strict=True)]


def harms_of(dealt: Dealt, around: Sequence[StoredEvent]) -> Harms:
    """The harm of the request, from the events `around` it."""
    actions = (stored.event() for stored in around if stored.event_type == "guardrail")
    unsafe = any(isinstance(event, GuardrailActed) and event.stage == "output" for event in actions)
    output = dealt.stored.event()
    if dealt.failed or not isinstance(output, OutputProduced):
        return Harms(failed=True, empty=False, unsafe=False, latency_ms=None, cost_usd=None)
    empty = not output.text.strip() and not output.tool_calls
    return Harms(failed=False, empty=empty, unsafe=unsafe, latency_ms=output.latency_ms, cost_usd=output.cost_usd)


def settle(dealt: Dealt, around: Sequence[StoredEvent], spec: RewardSpec, *, until: datetime) -> Settled:
    """The outcome of the decision at `until`, when its window closed, from the events `around` it.

    A failure whose interaction got an answer after all counts by that answer.
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
    """Whether the draft was sent, by the first of its rewards that says so; `None` when none of them was received by
    `until`."""
    outcomes = [
        event.components["sent"] > 0
        for one in around
        if one.event_type == "reward" and one.output_id == dealt.stored.event_id and one.received_at <= until
        if isinstance(event := one.event(), RewardComputed) and "sent" in event.components
    ]
    return outcomes[0] if outcomes else None


def stratum_of(dealt: Dealt, around: Sequence[StoredEvent], stratify_by: str | None) -> str | None:
    """The group that the unit is compared within: its user, or a field of the interaction's metadata
    (`metadata.<name>`); `None` where there is none."""
    if stratify_by is None:
        return None
    interaction = _find_interaction(around)
    if interaction is None:
        return None
    value = interaction.user_id if stratify_by == "user" else interaction.metadata.get(stratify_by.removeprefix("metadata."))
    return None if value is None else str(value)


def _find_interaction(around: Sequence[StoredEvent]) -> InteractionCreated | None:
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
    """Feedback on `output` received by `until`; feedback without an output id is about the interaction's last
    output."""
    outputs = [one for one in around if one.event_type == "output" and "shadow" not in one.marks and one.received_at <= until]
    last = outputs[-1].event_id if outputs else output.event_id
    return [
        one for one in around if one.event_type == "feedback" and one.received_at <= until and (one.output_id or last) == output.event_id
    ]
