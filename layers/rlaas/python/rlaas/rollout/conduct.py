"""Conducting a rollout: one method per state of the `rollout` state machine, each safe to repeat.

The route is the truth. A rollout goes on while the route is as its own last step left it; any other change (the guard, an operator, another
rollout) supersedes it, and what became of it is read from that route.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Literal, Protocol

from rlaas.clock import Clock
from rlaas.errors import Conflict, InvalidInput, NotFound
from rlaas.rollout.plan import Ask, Plan, Terms, Traffic, expected_units, plan, planned_steps, traffic_of
from rlaas.rollout.sequential import Gate, Outcome, SequentialTest, analyse
from rlaas.rollout.steps import Rollout, RolloutSettings, RolloutStep, live_arms, with_candidate, with_promotion
from rlaas.rollout.trial import TrialState, TrialStore, look
from rlaas.routing.registry import Policies, Routes
from rlaas.routing.route import Route
from rlaas.telemetry.events import RewardComputed
from rlaas.telemetry.store import EventStore
from rlaas.tenancy.registry import Change, Registry, Stored, rollout_key, skill_key
from rlaas.tenancy.tenant import Skill

_ENOUGH_HISTORY = 5000
"""Rewards that are read to plan from."""
_DAY_SECONDS = 86_400
_ATTEMPTS = 5
_STARTS_WITHIN = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class Guard:
    """The alarm to raise when the evidence that `arm` does harm reaches `threshold` (1/alpha) in a period."""

    tenant_id: str
    skill: str
    rollout_id: str
    arm: str
    threshold: float
    period_seconds: int


class Guards(Protocol):
    """Alarms on the evidence that a rollout's candidate does harm, one per skill."""

    def put(self, guard: Guard) -> None:
        """Watch from now on; replaces the skill's guard."""
        ...

    def delete(self, tenant_id: str, skill: str, rollout_id: str) -> None:
        """Watch this rollout no longer; nothing happens when the skill's guard is another rollout's or there is none."""
        ...


class Documents(Registry, Routes, Policies, Protocol):
    """The registry with its routes and policies."""


def plan_rollout(
    documents: Documents, events: EventStore, *, tenant_id: str, skill: str, settings: RolloutSettings, now: datetime
) -> tuple[RolloutSettings, Plan]:
    """`settings` with their steps planned where they name none, and what the plan is expected to take on the skill's own traffic.

    Raises: NotFound without a skill or route.
    """
    documents.get(Skill, tenant_id, skill_key(skill))
    route = documents.get_route(tenant_id, skill)
    traffic = _traffic(events, route, settings, now)
    if settings.units_a_day is not None:
        traffic = traffic.model_copy(update={"units_a_day": settings.units_a_day})
    terms = Terms(
        alpha=settings.alpha,
        at_most_days=settings.max_wait_seconds / _DAY_SECONDS,
        window_days=(settings.window_hours * 3600 + settings.lag_seconds) / _DAY_SECONDS,
        gain=settings.gain,
    )
    if settings.steps is None:
        last_margin = settings.margin if settings.objective == "non_inferiority" else 0.0
        asks = planned_steps(traffic, terms, last_margin=last_margin, min_samples=settings.min_samples)
        steps = tuple(RolloutStep(weight=ask.weight, margin=ask.margin) for ask in asks)
        settings = settings.model_copy(update={"steps": steps})
    gates = [(step.weight, settings.gate(index)) for index, step in enumerate(settings.planned)]
    return settings, plan([Ask(weight, gate.margin, gate.min_samples) for weight, gate in gates], traffic, terms)


def request_rollout(
    documents: Documents,
    events: EventStore,
    *,
    tenant_id: str,
    skill: str,
    rollout_id: str,
    candidate: str,
    settings: RolloutSettings,
    actor: str,
    reason: str,
    now: datetime,
    dryrun: bool = False,
) -> Rollout:
    """Record a rollout that may begin (a dry run only says what it would be). The same request again finds the one recorded.

    Raises: NotFound without that policy or route, InvalidInput when the candidate is another skill's or the control already, or the plan
    cannot conclude, Conflict when the route has live arms, another rollout of the skill has not ended or the id holds another rollout.
    """
    key = rollout_key(skill, rollout_id)
    recorded = _find(documents, tenant_id, key)
    if recorded is not None:
        if recorded.candidate != candidate or settings not in (recorded.requested, recorded.settings):
            raise Conflict(f"{rollout_id} is another rollout already")
        return recorded
    if documents.get_policy(tenant_id, candidate).skill != skill:
        raise InvalidInput(f"{candidate} is not a policy of {skill!r}", param="policy_id")
    route = documents.get_route(tenant_id, skill)
    if route.control == candidate:
        raise InvalidInput(f"{candidate} is the control already", param="policy_id")
    if live_arms(route):
        raise Conflict(f"the route of {skill!r} has live arms beside its control; end them first")
    running = _running(documents, tenant_id, skill, now)
    if running is not None:
        raise Conflict(f"the rollout {running} of {skill!r} has not ended")
    planned, expected = plan_rollout(documents, events, tenant_id=tenant_id, skill=skill, settings=settings, now=now)
    if not expected.can_conclude and not dryrun:
        raise InvalidInput(f"this plan cannot conclude: {expected.advice}", param="settings")
    rollout = Rollout(
        rollout_id=rollout_id,
        tenant_id=tenant_id,
        skill=skill,
        control=route.control,
        candidate=candidate,
        requested=settings,
        settings=planned,
        plan=expected,
        reward_spec=documents.get(Skill, tenant_id, skill_key(skill)).document.reward,
        prior_mean=expected.traffic.reward_mean,
        prior_unsent=min(0.95, max(0.05, expected.traffic.unsent if expected.traffic.unsent is not None else 0.5)),
        reason=reason,
        created_at=now,
    )
    if not dryrun:
        documents.put(tenant_id, key, rollout, Change(actor=actor, reason=reason, at=now))
    return rollout


def take_back(
    documents: Documents, *, tenant_id: str, skill: str, change: Change, rollout_id: str | None = None, alarm_at: datetime | None = None
) -> Route:
    """The way back for the guard and for operators: one conditional write of the route, then the rollout's record of it.

    With `rollout_id` only while the route belongs to that rollout. Repeating it changes nothing.

    Raises: NotFound without a route, Conflict when there is no way back or the route belongs to something else.
    """
    route = documents.rollback(tenant_id, skill, change, rollout_id=rollout_id)
    if route.rollout_id is not None:
        key = rollout_key(skill, route.rollout_id)
        if _find(documents, tenant_id, key) is not None:
            _amend(
                documents,
                tenant_id,
                key,
                lambda rollout: rollout.taken_back("rolled_back", route, alarm_at=alarm_at),
                Change(actor=route.changed_by, reason=route.reason, at=change.at),
            )
    return route


@dataclass(frozen=True, slots=True)
class Conductor:
    """The steps of one rollout."""

    documents: Documents
    events: EventStore
    trials: TrialStore
    guards: Guards
    clock: Clock
    tenant_id: str
    skill: str
    rollout_id: str

    def begin(self) -> Rollout:
        """Put the guard's alarm, before any unit reaches the candidate."""
        rollout = self.rollout()
        self.guards.put(
            Guard(
                tenant_id=self.tenant_id,
                skill=self.skill,
                rollout_id=self.rollout_id,
                arm=rollout.candidate,
                threshold=1 / rollout.settings.alpha,
                period_seconds=rollout.settings.alarm_period_seconds,
            )
        )
        return self._amend(Rollout.begun)

    def set_weight(self, index: int) -> Literal["running", "superseded"]:
        """Give the candidate the share of step `index` (from 0) in one conditional write of the route."""
        rollout = self.rollout()
        for _ in range(_ATTEMPTS):
            route = self.documents.get_route(self.tenant_id, self.skill)
            if rollout.owns(route) and _weight(route, rollout) == rollout.settings.planned[index].weight:
                self._amend(partial(Rollout.weighted, index=index, route_version=route.version, at=self.clock()))
                return "running"
            untouched = index == 0 and route.control == rollout.control and not live_arms(route) and not rollout.steps
            if not (untouched or rollout.owns(route)):
                break
            try:
                self.documents.write_route(with_candidate(route, rollout, index, at=self.clock()), expected_version=route.version)
            except Conflict:
                continue  # somebody wrote in between: look again whose the route is
        return "superseded"

    def watch(self) -> TrialState:
        """Bring the trial up to what has become known, and store it. Another look that was faster has done it.

        Raises: DependencyUnavailable.
        """
        rollout = self.rollout()
        for _ in range(_ATTEMPTS):
            known = self.trials.load(self.tenant_id, self.skill, self.rollout_id) or TrialState.begin(rollout)
            state = look(known, rollout, events=self.events, now=self.clock())
            if state is known:
                break
            try:
                self.trials.save(state)
            except Conflict:
                continue
            break
        return state

    def watch_anew(self) -> TrialState:
        """Forget what the trial has seen; the next looks see all of it again, in the same order, and come to the same.

        Raises: Conflict when another look was faster.
        """
        known = self.trials.load(self.tenant_id, self.skill, self.rollout_id)
        anew = TrialState.begin(self.rollout()).model_copy(update={"version": (known.version if known else 0) + 1})
        self.trials.save(anew)
        return anew

    def analyse(self, index: int) -> tuple[Outcome | Literal["superseded"], TrialState | None]:
        """Look once more at what is known in step `index`, and record what was seen; what was seen, unless the rollout is superseded."""
        rollout = self.rollout()
        route = self.documents.get_route(self.tenant_id, self.skill)
        if not rollout.owns(route):
            return "superseded", None
        state, now = self.watch(), self.clock()
        step, gate, harm = rollout.steps[index], rollout.settings.gate(index), state.evidence_of_harm()
        began = rollout.steps[0].started_at
        waited = (now - began).total_seconds()
        if rollout.settings.planned[index].max_wait_seconds is not None:
            waited = (now - step.started_at).total_seconds()
        analysis = analyse(
            state.test,
            gate,
            harm=harm.value,
            harm_reason=f"candidate does harm, {harm.reason} >= {1 / gate.alpha:.3g}",
            waited_seconds=waited,
            needed=would_have_taken(state.test, gate, weight=step.weight, waited_seconds=waited),
        )
        alarm = timedelta(seconds=rollout.settings.alarm_period_seconds)
        if analysis.outcome is Outcome.ROLLBACK and (step.harm_since is None or now - step.harm_since < alarm):
            # The guard's alarm is faster than the next look; this look is for when the alarm is lost.
            analysis = replace(analysis, outcome=Outcome.CONTINUE)
        self._amend(lambda current: current.looked(index, analysis, state.test, harm=harm.value, at=now))
        return analysis.outcome, state

    def promote(self) -> Literal["shipped", "superseded"]:
        """Make the candidate the control in one conditional write; the old control stays the way back."""
        rollout = self.rollout()
        for _ in range(_ATTEMPTS):
            route = self.documents.get_route(self.tenant_id, self.skill)
            if rollout.promoted(route):
                self._amend(partial(Rollout.shipped, route_version=route.version, reason=route.reason, at=route.changed_at))
                return "shipped"
            if not rollout.owns(route):
                break
            try:
                self.documents.write_route(with_promotion(route, rollout, at=self.clock()), expected_version=route.version)
            except Conflict:
                continue  # somebody wrote in between: look again whose the route is
        return "superseded"

    def roll_back(self) -> Literal["rolled_back", "inconclusive", "superseded"]:
        """Put the last good route back because the last look asked for it."""
        last = self.rollout().steps[-1]
        status: Literal["rolled_back", "inconclusive"] = "inconclusive" if last.outcome == "inconclusive" else "rolled_back"
        route = self._back(last.reason)
        if route is None or route.changed_by != f"rollout:{self.rollout_id}":
            return "superseded"
        self._amend(lambda current: current.taken_back(status, route))
        return status

    def finish(self) -> Rollout:
        """Delete the guard and close the record; a rollout that was superseded says by whom and why."""
        self.guards.delete(self.tenant_id, self.skill, self.rollout_id)
        route = self.documents.get_route(self.tenant_id, self.skill)

        def close(rollout: Rollout) -> Rollout:
            if rollout.status == "running" and route.rollout_id == rollout.rollout_id and route.mode == "rolled_back":
                rollout = rollout.taken_back("rolled_back", route)
            reason = f"route version {route.version} by {route.changed_by}: {route.reason}"
            return rollout.ended("superseded", reason, at=self.clock())

        return self._amend(close)

    def abort(self, error: str) -> Rollout | None:
        """Put the last good route back if it is still this rollout's, delete the guard and write why.

        `None` when nothing was recorded. A rollout that has ended stays as it is.
        """
        rollout = _find(self.documents, self.tenant_id, self._key)
        if rollout is None or rollout.ended_at is not None:
            return rollout
        self._back(f"rollout failed: {error}")
        self.guards.delete(self.tenant_id, self.skill, self.rollout_id)
        return self._amend(lambda current: current.ended("failed", error, at=self.clock()))

    def rollout(self) -> Rollout:
        """The rollout as recorded. Raises: NotFound."""
        return self.documents.get(Rollout, self.tenant_id, self._key).document

    @property
    def _key(self) -> str:
        return rollout_key(self.skill, self.rollout_id)

    def _back(self, reason: str) -> Route | None:
        change = Change(actor=f"rollout:{self.rollout_id}", reason=reason, at=self.clock())
        try:
            return self.documents.rollback(self.tenant_id, self.skill, change, rollout_id=self.rollout_id)
        except Conflict:
            return None  # the route is no longer this rollout's: nothing of it is left to take back

    def _amend(self, transition: Callable[[Rollout], Rollout]) -> Rollout:
        change = Change(actor=f"rollout:{self.rollout_id}", reason="rollout progress", at=self.clock())
        return _amend(self.documents, self.tenant_id, self._key, transition, change)


def would_have_taken(test: SequentialTest, gate: Gate, *, weight: float, waited_seconds: float) -> str:
    """In words, why a step came to no decision and what one would have taken."""
    candidate, control = test.candidate, test.control
    if not test.n:
        return "No decision of this rollout was settled: no traffic came, or its window has not closed"
    if candidate.missing == candidate.n and control.missing == control.n:
        return "Nothing came back for any unit: outcomes have stopped coming"
    known = min(candidate.n - candidate.unknown, control.n - control.unknown)
    if known < gate.min_samples:
        return f"Too few units with an outcome came: {known} in the smaller arm; a route by `user` has as many units as users"
    difference = test.difference()
    if difference is None or difference[0] <= -gate.margin:
        return "At the difference that was seen no amount of traffic would show it"
    seen = Traffic(
        units_a_day=1.0,
        reward_mean=min(1.0, max(0.0, (candidate.total + control.total) / test.n)),
        reward_sd=math.sqrt(test.residuals / test.n),
    )
    units = expected_units(seen, weight, difference[0] + gate.margin, gate.alpha)
    if not math.isfinite(units):
        return "At the difference that was seen no amount of traffic would show it"
    days = units / test.n * waited_seconds / _DAY_SECONDS
    told = f"it would take about {units:,.0f} units at this share, {days:.3g} days of them"
    return f"At the difference that was seen ({difference[0]:+.3f}) {told}"


def _traffic(events: EventStore, route: Route, settings: RolloutSettings, now: datetime) -> Traffic:
    """What the control's rewards of the last days show: whole days, the newest first, as far as `_ENOUGH_HISTORY` rewards reach."""
    rewards: list[RewardComputed] = []
    since, read = now, 0
    for ago in range(settings.history_days + 1):
        start = now.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=ago)
        of_day: list[RewardComputed] = []
        for stored in events.by_day(route.tenant_id, route.skill, "reward", start.date()):
            event, read = stored.event(), read + 1
            if isinstance(event, RewardComputed) and event.policy_id == route.control and not event.fallback:
                of_day.append(event)
            if read >= _ENOUGH_HISTORY:
                if rewards:  # this day was cut short; those after it tell enough
                    return traffic_of(rewards, unit=route.unit, since=since, until=now)
                return traffic_of(of_day, unit=route.unit, since=start, until=stored.occurred_at)
        rewards += of_day
        since = start
    return traffic_of(rewards, unit=route.unit, since=since, until=now)


def _weight(route: Route, rollout: Rollout) -> float | None:
    return next((arm.weight for arm in live_arms(route) if arm.policy_id == rollout.candidate), None)


def _running(documents: Documents, tenant_id: str, skill: str, now: datetime) -> str | None:
    cursor, more = None, True
    while more:
        page = documents.list(Rollout, tenant_id, rollout_key(skill, ""), cursor=cursor)
        for stored in page.items:
            rollout = stored.document
            if rollout.status == "running" or (rollout.status == "starting" and now - rollout.created_at < _STARTS_WITHIN):
                return rollout.rollout_id
        cursor, more = page.cursor, page.cursor is not None
    return None


def _find(documents: Documents, tenant_id: str, key: str) -> Rollout | None:
    try:
        return documents.get(Rollout, tenant_id, key).document
    except NotFound:
        return None


def _amend(
    documents: Documents,
    tenant_id: str,
    key: str,
    transition: Callable[[Rollout], Rollout],
    change: Change,
    attempts: int = _ATTEMPTS,
) -> Rollout:
    """Replace the record by its successor; look again when another writer (the guard, the state machine) was faster."""
    stored: Stored[Rollout] = documents.get(Rollout, tenant_id, key)
    successor = transition(stored.document)
    if successor == stored.document:
        return successor
    try:
        documents.replace(tenant_id, key, successor, expected_version=stored.version, change=change)
    except Conflict:
        if attempts == 1:
            raise
        return _amend(documents, tenant_id, key, transition, change, attempts - 1)
    return successor
