"""A rollout's trial: the evidence on candidate and control so far, brought up to date from the stored events.

A look reads only what was stored since the last one, so that it costs the same after a thousand units and after a
million. It reads three lists, each from its own watermark on:

- decisions, as soon as they are `lag_seconds` old: harm that shows at once (failures, empty, unsafe and slow answers);
- rewards, as soon as they are that old: which drafts were sent. Until its window closes, a draft that nobody acted on
  counts as sent for the candidate and as not sent for the control. So the evidence of harm is never more than it will
  be when every outcome is known, and its guarantee holds however late outcomes arrive, and for whichever arm;
- decisions whose attribution window has closed: the settled rewards, the only evidence in favour of the candidate.

A unit counts once, and a person's units only up to his share (`rlaas.voices`): whether a unit counts is decided in the
order of decisions, and looked up when its outcome arrives.

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
from rlaas.experiments.harm import ROLLOUT_WEIGHTS, WORSE, Evidence, HarmLedger, Kind, log_wealth, profit_over_control, weigh
from rlaas.experiments.sequential import SequentialTest, SettledUnit
from rlaas.experiments.settlement import (
    Dealt,
    Served,
    first_of_units,
    harms_of,
    list_decisions,
    person_of,
    sent_by,
    served_that_day,
    settle,
    stratum_of,
)
from rlaas.ids import SkillName, TenantId, text_sha256
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
        wealth = {kind: self.harm.evidence(kind) for kind in ROLLOUT_WEIGHTS if kind != WORSE}
        return weigh({**wealth, WORSE: self.test.evidence_worse}, ROLLOUT_WEIGHTS)

    def seen(self) -> object:
        """The part of the state that is the same however the looks were made: all but their times, and but for what no
        later look needs."""
        when = {"points", "version", "watched_until", "settled_until"}
        return self.model_dump(exclude={**dict.fromkeys(when, True), "watched": {"silent"}, "counted": {"silent"}})


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
    while (further := look(state, rollout, events=events, now=now)) is not state:
        state = further
    return state


@dataclass(slots=True)
class _Look:
    state: TrialState
    rollout: Rollout
    events: EventStore
    now: datetime
    most: int

    def update(self, before: TrialState) -> TrialState:
        settings = self.rollout.settings
        lag, window = timedelta(seconds=settings.lag_seconds), timedelta(hours=settings.window_hours)
        state = self.state
        watched, seen = self._watch(lag, window)
        # A unit is watched before it is settled: settling replaces the outcome that was assumed for it.
        settled, closed = self._settle(watched, lag, window)
        if not seen and not closed:
            return before
        moved = state.model_copy(update={"watched_until": watched, "settled_until": settled, "version": before.version + 1})
        return moved.model_copy(update={"points": self._add_point(moved)})

    def _watch(self, lag: timedelta, window: timedelta) -> tuple[datetime, int]:
        state, since = self.state, self.state.watched_until
        dealt, until = self._list_decisions(since, self.now - lag, lag)
        rewards, until = self._list_rewards(since, until)
        dealt = [one for one in dealt if one.decision.decided_at <= until]
        for served in served_that_day(self.events, dealt, lag=lag):
            person = person_of(served.dealt, served.around, lag=lag)
            if not state.watched.hear(person, served.dealt.decision.decided_at):
                continue
            self._count_harms(served)
            if served.new:
                self._enter(served.dealt, served.around, until)
        interaction_ids = dict.fromkeys(stored.interaction_id for stored in rewards if stored.interaction_id is not None)
        earlier = [
            one
            for interaction_id in interaction_ids
            for one in self._find_decisions(interaction_id)
            if one.decision.decided_at <= since and one.stored.event_type == "output"
        ]
        for one, around in first_of_units(self.events, earlier, lag=lag):
            if not state.watched.was_heard(person_of(one, around, lag=lag), one.decision.decided_at):
                continue
            closes = one.decision.decided_at + window
            before, after = (sent_by(one, around, min(moment, closes)) for moment in (since, until))
            if before is None and after is not None:
                self._record_action(one, sent=after)
        return until, len(dealt) + len(rewards)

    def _settle(self, watched: datetime, lag: timedelta, window: timedelta) -> tuple[datetime, int]:
        state = self.state
        dealt, until = self._list_decisions(state.settled_until, min(watched, self.now - lag - window), window + lag)
        for one, around in first_of_units(self.events, dealt, lag=window + lag):
            at = one.decision.decided_at
            if state.counted.hear(person_of(one, around, lag=window + lag), at):
                state.test.add(self._settle_unit(one, around, at + window))
            entered = one.stored.event_type == "output" and one.stored.received_at <= at + lag
            entered = entered and state.watched.was_heard(person_of(one, around, lag=lag), at)
            if entered and sent_by(one, around, at + window) is None:
                self._record_action(one, sent=(self.rollout.reward_spec.missing.sent or 0.0) >= 0.5)
        state.watched.forget(until)
        state.counted.forget(until)
        return until, len(dealt)

    def _settle_unit(self, one: Dealt, around: Sequence[StoredEvent], closes: datetime) -> SettledUnit:
        settled = settle(one, around, self.rollout.reward_spec, until=closes)
        stratum = stratum_of(one, around, self.rollout.settings.stratify_by)
        return SettledUnit(
            reward=settled.reward,
            candidate=one.policy_id == self.rollout.candidate,
            propensity=one.probability(self.rollout.candidate),
            missing=bool(settled.missing),
            unknown=settled.unknown,
            answered=not one.failed,
            stratum=text_sha256(stratum)[:12] if stratum is not None else None,
        )

    def _count_harms(self, served: Served) -> None:
        """Count the harm of a unit's first request of the day."""
        one = served.dealt
        candidate, p = one.policy_id == self.rollout.candidate, one.probability(self.rollout.candidate)
        harms, bounds = harms_of(one, served.around), self.rollout.settings.harm
        kinds: dict[Kind, tuple[bool, float]] = {
            "failed": (harms.failed, bounds.failed),
            "empty": (harms.empty, bounds.empty),
            "unsafe": (harms.unsafe, bounds.unsafe),
            "slow": (harms.latency_ms is not None and harms.latency_ms > bounds.slow_ms, bounds.slow),
        }
        _count(self.state.served, candidate)
        day = one.decision.decided_at.date()
        for kind, (harmed, margin) in kinds.items():
            profit = profit_over_control(harmed, candidate=candidate, propensity=p, centre=_HARM_CENTRE, margin=margin)
            logs = log_wealth(profit)
            self.state.harm.add_daily(kind, day, logs)
            if served.new:
                self.state.harm.add(kind, day, logs)
            if harmed:
                _count(self.state.harmed.setdefault(kind, HarmCounts()), candidate)

    def _enter(self, one: Dealt, around: Sequence[StoredEvent], until: datetime) -> None:
        """Bet on a unit that is new in the trial: by the assumed outcome, or by the real one if the draft was already
        sent or discarded."""
        candidate = one.policy_id == self.rollout.candidate
        if self._watches_actions:
            self._bet_on_unsent(one, unsent=not candidate)
            closes = one.decision.decided_at + timedelta(hours=self.rollout.settings.window_hours)
            sent = sent_by(one, around, min(until, closes))
            if sent is not None:
                self._record_action(one, sent=sent)

    def _record_action(self, one: Dealt, *, sent: bool) -> None:
        """Record whether the draft was sent; until now it counted as sent for the candidate and as not sent for the
        control."""
        candidate = one.policy_id == self.rollout.candidate
        if self._watches_actions and sent != candidate:
            self._bet_on_unsent(one, unsent=not candidate, times=-1)
            self._bet_on_unsent(one, unsent=not sent)
        if not sent:
            _count(self.state.harmed.setdefault("unsent", HarmCounts()), candidate)

    def _bet_on_unsent(self, one: Dealt, *, unsent: bool, times: int = 1) -> None:
        profit = profit_over_control(
            unsent,
            candidate=one.policy_id == self.rollout.candidate,
            propensity=one.probability(self.rollout.candidate),
            centre=self.rollout.prior_unsent,
            margin=0.0,
        )
        self.state.harm.add("unsent", one.decision.decided_at.date(), log_wealth(profit), times=times)

    @property
    def _watches_actions(self) -> bool:
        return "sent" in self.rollout.reward_spec.weights

    def _list_decisions(self, after: datetime, until: datetime, lag: timedelta) -> tuple[list[Dealt], datetime]:
        """The decisions between candidate and control, and the time up to which the list is complete."""
        dealt, until = list_decisions(
            self.events, self.state.tenant_id, self.state.skill, self.rollout.rollout_id, after=after, until=until, lag=lag, most=self.most
        )
        return [one for one in dealt if self._by_chance(one)], until

    def _find_decisions(self, interaction_id: str) -> list[Dealt]:
        around = self.events.by_interaction(self.state.tenant_id, interaction_id)
        dealt = [Dealt.of(stored) for stored in around if stored.trial is not None and stored.trial.name == self.rollout.rollout_id]
        lag = timedelta(seconds=self.rollout.settings.lag_seconds)
        return [one for one in dealt if one.stored.received_at <= one.decision.decided_at + lag and self._by_chance(one)]

    def _by_chance(self, one: Dealt) -> bool:
        """Whether chance chose between candidate and control."""
        p = one.probability(self.rollout.candidate)
        return one.policy_id in (self.rollout.candidate, self.rollout.control) and _LEAST_LEFT < p < 1 - _LEAST_LEFT

    def _list_rewards(self, after: datetime, until: datetime) -> tuple[list[StoredEvent], datetime]:
        """The skill's rewards after `after`, by time, and the time up to which the list is complete: `until`, or
        earlier."""
        rewards: list[StoredEvent] = []
        day = after.date()
        while self._watches_actions and after < until and day <= until.date():
            for stored in self.events.by_day(self.state.tenant_id, self.state.skill, "reward", day, since=after):
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
