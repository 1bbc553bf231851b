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

from rlaas.rewards.reward import compute_components
from rlaas.routing.assign import CONTROL, Decision
from rlaas.skills.skill import RewardSpec
from rlaas.telemetry.events import GuardrailActed, InteractionCreated, OutputProduced, RequestFailed, RewardComputed
from rlaas.telemetry.store import EventStore, StoredEvent
from rlaas.voices import identify_person

T = TypeVar("T")
_READERS = 16


@dataclass(frozen=True, slots=True)
class Deal:
    """A decision of a trial, with the output or failure that followed."""

    stored: StoredEvent
    decision: Decision
    user_id: str | None = None

    @classmethod
    def of(cls, stored: StoredEvent) -> "Deal":
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
        return next((candidate.probability for candidate in self.decision.candidates if candidate.policy_id == policy_id), 0.0)


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
class Settlement:
    """The outcome of a decision: its reward in [0, 1], the components that never came, and whether one of these has no
    declared value."""

    reward: float
    missing: tuple[str, ...]
    unknown: bool


def list_decisions(
    events: EventStore, tenant_id: str, skill: str, trial: str, *, after: datetime, until: datetime, lag: timedelta, most: int
) -> tuple[list[Deal], datetime]:
    """The trial's decisions after `after`, in order, and the time up to which the list is complete: `until`, or earlier
    when there are more than about `most`. Events received more than `lag` after their decision are left out, so that
    the same list comes back when it is read again. Raises: DependencyUnavailable."""
    deals: list[Deal] = []
    if until <= after:
        return deals, after
    for stored in events.iterate_trial(tenant_id, skill, trial, after=after, until=until):
        deal = Deal.of(stored)
        if len(deals) >= most and deal.decision.decided_at > deals[-1].decision.decided_at:
            until = deals[-1].decision.decided_at
            break
        if stored.received_at <= deal.decision.decided_at + lag:
            deals.append(deal)
    return sorted(deals, key=lambda deal: (deal.decision.decided_at, deal.stored.event_id)), until


def read_in_parallel(read: Callable[[Deal], T], deals: Sequence[Deal]) -> Iterator[tuple[Deal, T]]:
    """Each decision with what `read` returns for it, in order; up to 16 are read at a time."""
    if len(deals) <= 1:
        return ((deal, read(deal)) for deal in deals)
    with ThreadPoolExecutor(min(_READERS, len(deals))) as readers:
        return zip(deals, list(readers.map(read, deals)), strict=True)


def is_first_of_unit(events: EventStore, deal: Deal, *, lag: timedelta, of_day: bool = False) -> bool:
    """Whether this is the first decision of its unit in the trial (with `of_day`: on its day, UTC) among those received
    within `lag`.

    Raises: ValueError for a decision of no trial, DependencyUnavailable.
    """
    trial = deal.stored.trial
    if trial is None:
        raise ValueError(f"{deal.stored.event_id} is of no trial")
    midnight = trial.decided_at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    since = midnight if of_day else None
    for earlier in events.iterate_unit(deal.stored.tenant_id, deal.stored.skill, trial.name, trial.unit_id, since=since):
        if earlier.trial is None or earlier.trial.decided_at > trial.decided_at:
            break
        is_earlier = (earlier.trial.decided_at, earlier.event_id) < (trial.decided_at, deal.stored.event_id)
        if is_earlier and earlier.received_at <= earlier.trial.decided_at + lag:
            return False
    return True


def select_firsts(
    events: EventStore, deals: Sequence[Deal], *, lag: timedelta, of_day: bool = False
) -> list[tuple[Deal, list[StoredEvent]]]:
    """Those of `deals` that are the first of their unit (`is_first_of_unit`), each with the events around it, in order.
    Raises: as `is_first_of_unit`."""

    def read(deal: Deal) -> list[StoredEvent] | None:
        return read_history(events, deal) if is_first_of_unit(events, deal, lag=lag, of_day=of_day) else None

    return [(deal, history) for deal, history in read_in_parallel(read, deals) if history is not None]


def read_history(events: EventStore, deal: Deal) -> list[StoredEvent]:
    """Every event of the decision's interaction, in the order received."""
    return events.read_interaction(deal.stored.tenant_id, deal.stored.interaction_id or "")


def find_person(deal: Deal, history: Sequence[StoredEvent], *, lag: timedelta) -> str:
    """The person behind the decision's unit (`voices.identify_person`): the user that the output names, else the one
    that the interaction names if it was received within `lag` of the decision, so that the result stays the same
    later."""
    user_id, thread_id = deal.user_id, deal.stored.thread_id
    if user_id is None:
        interaction = _find_interaction([event for event in history if event.received_at <= deal.decision.decided_at + lag])
        user_id, thread_id = (interaction.user_id, thread_id or interaction.thread_id) if interaction is not None else (None, thread_id)
    return identify_person(user_id, thread_id, f"{deal.decision.bucket:.17g}")


@dataclass(frozen=True, slots=True)
class FirstRequest:
    """A unit's first request of a day, the events around it, and whether it is the unit's first request in the
    trial."""

    deal: Deal
    history: list[StoredEvent]
    new: bool


def select_first_requests(events: EventStore, deals: Sequence[Deal], *, lag: timedelta) -> list[FirstRequest]:
    """Those of `deals` that are the first of their unit on their day (UTC), in order. Raises: as `is_first_of_unit`."""
    firsts = select_firsts(events, deals, lag=lag, of_day=True)
    new = read_in_parallel(lambda deal: is_first_of_unit(events, deal, lag=lag), [deal for deal, _ in firsts])
    return [FirstRequest(deal, history, is_new) for (deal, history), (_, is_new) in zip(firsts, new, strict=True)]


def find_harms(deal: Deal, history: Sequence[StoredEvent]) -> Harms:
    """The harm of the request, from the events `history` of its interaction."""
    actions = (stored.event() for stored in history if stored.event_type == "guardrail")
    unsafe = any(isinstance(event, GuardrailActed) and event.stage == "output" for event in actions)
    output = deal.stored.event()
    if deal.failed or not isinstance(output, OutputProduced):
        return Harms(failed=True, empty=False, unsafe=False, latency_ms=None, cost_usd=None)
    empty = not output.text.strip() and not output.tool_calls
    return Harms(failed=False, empty=empty, unsafe=unsafe, latency_ms=output.latency_ms, cost_usd=output.cost_usd)


def settle_deal(deal: Deal, history: Sequence[StoredEvent], spec: RewardSpec, *, until: datetime) -> Settlement:
    """The outcome of the decision at `until`, when its window closed, from the events `history` of its interaction.

    A failure whose interaction got an answer after all counts by that answer.
    """
    output = _find_answer(deal, history, until)
    if output is None:
        return Settlement(reward=0.0, missing=(), unknown=False)
    components = compute_components(output, _select_feedback(output, history, until)).values
    defaults = {"edit_similarity": spec.missing.edit_similarity, "sent": spec.missing.sent}
    missing = tuple(name for name in spec.weights if name not in components)
    values = {name: components[name] if name in components else defaults[name] or 0.0 for name in spec.weights}
    total = sum(spec.weights.values())
    reward = sum(weight * values[name] for name, weight in spec.weights.items()) / total if total else 0.0
    return Settlement(reward=reward, missing=missing, unknown=any(defaults[name] is None for name in missing))


def was_sent(deal: Deal, history: Sequence[StoredEvent], until: datetime) -> bool | None:
    """Whether the draft was sent, by the first of its rewards that says so; `None` when none of them was received by
    `until`."""
    outcomes = [
        event.components["sent"] > 0
        for stored in history
        if stored.event_type == "reward" and stored.output_id == deal.stored.event_id and stored.received_at <= until
        if isinstance(event := stored.event(), RewardComputed) and "sent" in event.components
    ]
    return outcomes[0] if outcomes else None


def find_stratum(history: Sequence[StoredEvent], stratify_by: str | None) -> str | None:
    """The group that the unit is compared within: its user, or a field of the interaction's metadata
    (`metadata.<name>`); `None` where there is none."""
    if stratify_by is None:
        return None
    interaction = _find_interaction(history)
    if interaction is None:
        return None
    value = interaction.user_id if stratify_by == "user" else interaction.metadata.get(stratify_by.removeprefix("metadata."))
    return None if value is None else str(value)


def _find_interaction(history: Sequence[StoredEvent]) -> InteractionCreated | None:
    events = (stored.event() for stored in history if stored.event_type == "interaction")
    return next((event for event in events if isinstance(event, InteractionCreated)), None)


def _find_answer(deal: Deal, history: Sequence[StoredEvent], until: datetime) -> StoredEvent | None:
    if deal.stored.event_type == "output":
        return deal.stored
    return next(iter(_list_outputs(history, until)), None)


def _list_outputs(history: Sequence[StoredEvent], until: datetime) -> list[StoredEvent]:
    """The outputs that a user may have seen, received by `until`."""
    return [
        stored
        for stored in history
        if stored.event_type == "output" and "shadow" not in stored.shadow_roles and stored.received_at <= until
    ]


def _select_feedback(output: StoredEvent, history: Sequence[StoredEvent], until: datetime) -> list[StoredEvent]:
    """Feedback on `output` received by `until`; feedback without an output id is about the interaction's last
    output."""
    outputs = _list_outputs(history, until)
    last = outputs[-1].event_id if outputs else output.event_id
    return [
        stored
        for stored in history
        if stored.event_type == "feedback" and stored.received_at <= until and (stored.output_id or last) == output.event_id
    ]
