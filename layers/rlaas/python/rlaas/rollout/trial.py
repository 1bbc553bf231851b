"""A rollout's trial: the evidence on candidate and control so far, brought up to date from the stored events.

A look reads only what was stored since the last one, so that it costs the same after a thousand units and after a
million. It reads three lists, each from its own watermark on:

- decisions, as soon as they are `lag_seconds` old: harm that shows at once (failures, empty, unsafe and slow answers);
- rewards, as soon as they are that old: they say which drafts were sent. Until its window closes, a draft that nobody
  acted on counts as sent for the candidate and as not sent for the control. So the evidence of harm is never more than
  it will be when every outcome is known, and its guarantee holds however late outcomes arrive, and for whichever arm;
- decisions whose attribution window has closed: the settled rewards, the only evidence in favour of the candidate.

A unit counts once, and a person's units only up to their share (`rlaas.voices`): whether a unit counts is decided in
the order of decisions, and looked up when its outcome arrives.

State and watermarks are one item, written only if no other look has written it: a look that dies is repeated from where
the last one ended, and nothing counts twice. A trial that starts anew reaches the same state, in whatever order,
however often and in whatever batches its looks are made.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol, Self

from pydantic import Field

from rlaas.clock import Timestamp
from rlaas.experiments.harm import ROLLOUT_WEIGHTS, WORSE, Evidence, HarmKind, HarmLedger, log_wealth, profit_over_control, weigh_evidence
from rlaas.experiments.sequential import SequentialTest, SettledUnit
from rlaas.experiments.settlement import (
    Deal,
    FirstRequest,
    find_harms,
    find_person,
    find_stratum,
    list_decisions,
    select_first_requests,
    select_firsts,
    settle_deal,
    was_sent,
)
from rlaas.ids import SkillName, TenantId, hash_text
from rlaas.rollout.steps import Rollout
from rlaas.telemetry.store import EventStore, StoredEvent
from rlaas.voices import Voices
from rlaas.wire import WireModel

MOST = 500
"""Decisions and rewards that one look reads, which takes a small function seconds. The next look goes on from there."""
_POINTS = 150
"""Points of the evidence over time that are stored; beyond that, every other one is dropped."""
_HARM_CENTRE = 0.01
_LEAST_LEFT = 1e-9
_LONG_WINDOW_HOURS = 48
"""For longer windows than this, silence is stored by the day rather than the hour, so that the state stays small."""


class LookPoint(WireModel):
    """The result of a look: the evidence for the step's claim and of harm, and the units settled in each arm."""

    at: Timestamp
    better: float
    harm: float
    n_candidate: int
    n_control: int


@dataclass(slots=True)
class HarmCounts:
    """Units by arm."""

    candidate: int = 0
    control: int = 0


class TrialState(WireModel):
    """The state of a rollout's trial.

    The evidence of harm has decisions and rewards up to `watched_until`, the test decisions up to `settled_until`.
    `served` counts the units watched, once a day; `harmed` those of them with each kind of harm (`unsent` once per
    unit). `watched` and `counted` say whose units are in the evidence of harm and in the test.
    """

    tenant_id: TenantId
    skill: SkillName
    rollout_id: str
    test: SequentialTest
    harm: HarmLedger
    served: HarmCounts = Field(default_factory=HarmCounts)
    harmed: dict[str, HarmCounts] = Field(default_factory=dict)
    watched: Voices = Field(default_factory=Voices)
    counted: Voices = Field(default_factory=Voices)
    watched_until: Timestamp
    settled_until: Timestamp
    points: tuple[LookPoint, ...] = ()
    version: int = Field(default=0, ge=0)

    @classmethod
    def begin(cls, rollout: Rollout) -> Self:
        """The state before the first look."""
        nulls = [-rollout.settings.gate(index).margin for index in range(len(rollout.settings.planned))]
        before = rollout.plan.traffic.people if rollout.plan else 0
        silence = 1 if rollout.settings.window_hours <= _LONG_WINDOW_HOURS else 24
        return cls(
            tenant_id=rollout.tenant_id,
            skill=rollout.skill,
            rollout_id=rollout.rollout_id,
            test=SequentialTest.against(nulls, rollout.prior_mean),
            harm=HarmLedger(first=rollout.created_at.toordinal()),
            watched=Voices(before=before, silence_hours=silence),
            counted=Voices(before=before),
            watched_until=rollout.created_at,
            settled_until=rollout.created_at,
        )

    def evidence_of_harm(self) -> Evidence:
        """The evidence that the candidate does harm, to compare with 1/alpha."""
        wealth = {kind: self.harm.compute_evidence(kind) for kind in ROLLOUT_WEIGHTS if kind != WORSE}
        return weigh_evidence({**wealth, WORSE: self.test.evidence_worse}, ROLLOUT_WEIGHTS)


class TrialStore(Protocol):
    """The state of each rollout's trial."""

    def load(self, tenant_id: str, skill: str, rollout_id: str) -> TrialState | None:
        """The state, strongly consistent; `None` before the first look."""
        ...

    def save(self, state: TrialState) -> None:
        """Store version `state.version`, which follows the one stored. Raises: Conflict when it does not."""
        ...


def look(state: TrialState, rollout: Rollout, *, events: EventStore, now: datetime, most: int = MOST) -> TrialState:
    """`state` brought up to `now` from at most `most` decisions and rewards of each list: the next version, or `state`
    itself when there was nothing new. O(what is new).

    Raises: DependencyUnavailable.
    """
    return _Look(state.model_copy(deep=True), rollout, events, now, most).update(state)


def catch_up(rollout: Rollout, *, events: EventStore, now: datetime) -> TrialState:
    """The state at `now`, computed from the events alone. Raises: DependencyUnavailable."""
    state = TrialState.begin(rollout)
    while (successor := look(state, rollout, events=events, now=now)) is not state:
        state = successor
    return state


@dataclass(slots=True)
class _Look:
    state: TrialState
    rollout: Rollout
    events: EventStore
    now: datetime
    most: int

    def update(self, before: TrialState) -> TrialState:
        """The state that follows `before`; `before` itself when there was nothing new."""
        settings = self.rollout.settings
        lag, window = timedelta(seconds=settings.lag_seconds), timedelta(hours=settings.window_hours)
        state = self.state
        watched_until, n_watched = self._watch(lag, window)
        # A unit is watched before it is settled: settling replaces the outcome that was assumed for it.
        settled_until, n_settled = self._settle(watched_until, lag, window)
        if not n_watched and not n_settled:
            return before
        successor = state.model_copy(update={"watched_until": watched_until, "settled_until": settled_until, "version": before.version + 1})
        return successor.model_copy(update={"points": self._add_point(successor)})

    def _watch(self, lag: timedelta, window: timedelta) -> tuple[datetime, int]:
        state, since = self.state, self.state.watched_until
        deals, until = self._list_decisions(since, self.now - lag, lag)
        rewards, until = self._list_rewards(since, until)
        deals = [deal for deal in deals if deal.decision.decided_at <= until]
        for request in select_first_requests(self.events, deals, lag=lag):
            person = find_person(request.deal, request.history, lag=lag)
            if not state.watched.hear(person, request.deal.decision.decided_at):
                continue
            self._count_harms(request)
            if request.new:
                self._enter(request.deal, request.history, until)
        interaction_ids = dict.fromkeys(stored.interaction_id for stored in rewards if stored.interaction_id is not None)
        earlier_deals = [
            deal
            for interaction_id in interaction_ids
            for deal in self._find_decisions(interaction_id)
            if deal.decision.decided_at <= since and deal.stored.event_type == "output"
        ]
        for deal, history in select_firsts(self.events, earlier_deals, lag=lag):
            if not state.watched.was_heard(find_person(deal, history, lag=lag), deal.decision.decided_at):
                continue
            window_end = deal.decision.decided_at + window
            before, after = (was_sent(deal, history, min(moment, window_end)) for moment in (since, until))
            if before is None and after is not None:
                self._record_action(deal, sent=after)
        return until, len(deals) + len(rewards)

    def _settle(self, watched_until: datetime, lag: timedelta, window: timedelta) -> tuple[datetime, int]:
        state = self.state
        deals, until = self._list_decisions(state.settled_until, min(watched_until, self.now - lag - window), window + lag)
        for deal, history in select_firsts(self.events, deals, lag=window + lag):
            at = deal.decision.decided_at
            if state.counted.hear(find_person(deal, history, lag=window + lag), at):
                state.test.add(self._settle_unit(deal, history, at + window))
            is_watched = deal.stored.event_type == "output" and deal.stored.received_at <= at + lag
            is_watched = is_watched and state.watched.was_heard(find_person(deal, history, lag=lag), at)
            if is_watched and was_sent(deal, history, at + window) is None:
                self._record_action(deal, sent=(self.rollout.reward_spec.missing.sent or 0.0) >= 0.5)
        state.watched.forget(until)
        state.counted.forget(until)
        return until, len(deals)

    def _settle_unit(self, deal: Deal, history: Sequence[StoredEvent], window_end: datetime) -> SettledUnit:
        settlement = settle_deal(deal, history, self.rollout.reward_spec, until=window_end)
        stratum = find_stratum(history, self.rollout.settings.stratify_by)
        return SettledUnit(
            reward=settlement.reward,
            candidate=deal.policy_id == self.rollout.candidate,
            propensity=deal.probability(self.rollout.candidate),
            missing=bool(settlement.missing),
            unknown=settlement.unknown,
            answered=not deal.failed,
            stratum=hash_text(stratum)[:12] if stratum is not None else None,
        )

    def _count_harms(self, request: FirstRequest) -> None:
        """Count the harm of a unit's first request of the day."""
        deal = request.deal
        candidate, p = deal.policy_id == self.rollout.candidate, deal.probability(self.rollout.candidate)
        harms, bounds = find_harms(deal, request.history), self.rollout.settings.harm
        kinds: dict[HarmKind, tuple[bool, float]] = {
            "failed": (harms.failed, bounds.failed),
            "empty": (harms.empty, bounds.empty),
            "unsafe": (harms.unsafe, bounds.unsafe),
            "slow": (harms.latency_ms is not None and harms.latency_ms > bounds.slow_ms, bounds.slow),
        }
        _count(self.state.served, candidate)
        day = deal.decision.decided_at.date()
        for kind, (harmed, margin) in kinds.items():
            profit = profit_over_control(harmed, candidate=candidate, propensity=p, centre=_HARM_CENTRE, margin=margin)
            logs = log_wealth(profit)
            self.state.harm.add_daily(kind, day, logs)
            if request.new:
                self.state.harm.add(kind, day, logs)
            if harmed:
                _count(self.state.harmed.setdefault(kind, HarmCounts()), candidate)

    def _enter(self, deal: Deal, history: Sequence[StoredEvent], until: datetime) -> None:
        """Bet on a unit that is new in the trial: by the assumed outcome, or by the real one if the draft was already
        sent or discarded."""
        candidate = deal.policy_id == self.rollout.candidate
        if self._watches_actions:
            self._bet_on_unsent(deal, unsent=not candidate)
            window_end = deal.decision.decided_at + timedelta(hours=self.rollout.settings.window_hours)
            sent = was_sent(deal, history, min(until, window_end))
            if sent is not None:
                self._record_action(deal, sent=sent)

    def _record_action(self, deal: Deal, *, sent: bool) -> None:
        """Record whether the draft was sent; until now it counted as sent for the candidate and as not sent for the
        control."""
        candidate = deal.policy_id == self.rollout.candidate
        if self._watches_actions and sent != candidate:
            self._bet_on_unsent(deal, unsent=not candidate, times=-1)
            self._bet_on_unsent(deal, unsent=not sent)
        if not sent:
            _count(self.state.harmed.setdefault("unsent", HarmCounts()), candidate)

    def _bet_on_unsent(self, deal: Deal, *, unsent: bool, times: int = 1) -> None:
        profit = profit_over_control(
            unsent,
            candidate=deal.policy_id == self.rollout.candidate,
            propensity=deal.probability(self.rollout.candidate),
            centre=self.rollout.prior_unsent,
            margin=0.0,
        )
        self.state.harm.add("unsent", deal.decision.decided_at.date(), log_wealth(profit), times=times)

    @property
    def _watches_actions(self) -> bool:
        return "sent" in self.rollout.reward_spec.weights

    def _list_decisions(self, after: datetime, until: datetime, lag: timedelta) -> tuple[list[Deal], datetime]:
        """The decisions between candidate and control, and the time up to which the list is complete."""
        deals, until = list_decisions(
            self.events, self.state.tenant_id, self.state.skill, self.rollout.rollout_id, after=after, until=until, lag=lag, most=self.most
        )
        return [deal for deal in deals if self._by_chance(deal)], until

    def _find_decisions(self, interaction_id: str) -> list[Deal]:
        history = self.events.read_interaction(self.state.tenant_id, interaction_id)
        deals = [Deal.of(stored) for stored in history if stored.trial is not None and stored.trial.name == self.rollout.rollout_id]
        lag = timedelta(seconds=self.rollout.settings.lag_seconds)
        return [deal for deal in deals if deal.stored.received_at <= deal.decision.decided_at + lag and self._by_chance(deal)]

    def _by_chance(self, deal: Deal) -> bool:
        """Whether chance chose between candidate and control."""
        p = deal.probability(self.rollout.candidate)
        return deal.policy_id in (self.rollout.candidate, self.rollout.control) and _LEAST_LEFT < p < 1 - _LEAST_LEFT

    def _list_rewards(self, after: datetime, until: datetime) -> tuple[list[StoredEvent], datetime]:
        """The skill's rewards after `after`, by time, and the time up to which the list is complete: `until`, or
        earlier."""
        rewards: list[StoredEvent] = []
        day = after.date()
        while self._watches_actions and after < until and day <= until.date():
            for stored in self.events.iterate_day(self.state.tenant_id, self.state.skill, "reward", day, since=after):
                if stored.occurred_at > until:
                    break
                if len(rewards) >= self.most and stored.occurred_at > rewards[-1].occurred_at:
                    return rewards, rewards[-1].occurred_at
                if stored.occurred_at > after:
                    rewards.append(stored)
            day += timedelta(days=1)
        return rewards, until

    def _add_point(self, state: TrialState) -> tuple[LookPoint, ...]:
        margin = self.rollout.settings.gate(max(0, len(self.rollout.steps) - 1)).margin
        point = LookPoint(
            at=self.now,
            better=state.test.evidence_better(-margin * state.test.known_share),
            harm=state.evidence_of_harm().value,
            n_candidate=state.test.candidate.n,
            n_control=state.test.control.n,
        )
        points = (*state.points, point)
        return points if len(points) <= _POINTS else (*points[:-1:2], points[-1])


def _count(counts: HarmCounts, candidate: bool) -> None:
    if candidate:
        counts.candidate += 1
    else:
        counts.control += 1
