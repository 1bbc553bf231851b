"""Conducting a rollout: one method per state of the `rollout` state machine, each safe to repeat.

The route is the truth. A rollout goes on while the route is as its own last step left it; any other change (the guard,
an operator, another rollout) supersedes the rollout, and its end is read from that route.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Literal, Protocol

from rlaas.clock import Clock
from rlaas.errors import Conflict
from rlaas.experiments.sequential import StepOutcome, analyse
from rlaas.rollout.plan import explain_indecision
from rlaas.rollout.request import find_rollout
from rlaas.rollout.steps import Rollout, add_candidate, list_live_arms, promote_candidate
from rlaas.rollout.trial import TrialState, TrialStore, look
from rlaas.routing.route import Route
from rlaas.routing.route_store import RouteRecords
from rlaas.telemetry.store import EventStore
from rlaas.tenancy.registry import Change, Stored, rollout_key

_ATTEMPTS = 5


HARM_METRIC = "HarmEvidence"
"""The metric of the evidence that a candidate does harm, which its guard watches."""


@dataclass(frozen=True, slots=True)
class RollbackAlarm:
    """The alarm to raise when the evidence that `arm` does harm reaches `threshold` (1/alpha) within a period of
    `period_seconds`."""

    tenant_id: str
    skill: str
    rollout_id: str
    arm: str
    threshold: float
    period_seconds: int


class RollbackAlarms(Protocol):
    """Alarms on the evidence that a rollout's candidate does harm, one per skill."""

    def put(self, guard: RollbackAlarm) -> None:
        """Start to watch; replaces the skill's guard."""
        ...

    def delete(self, tenant_id: str, skill: str, rollout_id: str) -> None:
        """Stop watching this rollout. Does nothing when the skill's guard belongs to another rollout or there is
        none."""
        ...


def take_back(
    records: RouteRecords, *, tenant_id: str, skill: str, change: Change, rollout_id: str | None = None, alarm_at: datetime | None = None
) -> Route:
    """Restore the last good route, for the guard and for operators: one conditional write of the route, then the
    rollout's record says so. `alarm_at` is when the guard's alarm was raised.

    With `rollout_id` it acts only while the route belongs to that rollout. Repeating it changes nothing.

    Raises: NotFound without a route, Conflict when there is no way back or the route belongs to something else.
    """
    route = records.roll_back(tenant_id, skill, change, rollout_id=rollout_id)
    if route.rollout_id is not None:
        key = rollout_key(skill, route.rollout_id)
        if find_rollout(records, tenant_id, key) is not None:
            _amend(
                records,
                tenant_id,
                key,
                lambda rollout: rollout.take_back("rolled_back", route, alarm_at=alarm_at),
                Change(actor=route.changed_by, reason=route.reason, at=change.at),
            )
    return route


@dataclass(frozen=True, slots=True)
class Conductor:
    """The steps of one rollout."""

    records: RouteRecords
    events: EventStore
    trials: TrialStore
    guards: RollbackAlarms
    clock: Clock
    tenant_id: str
    skill: str
    rollout_id: str

    def begin(self) -> Rollout:
        """Put the guard's alarm, before any unit reaches the candidate."""
        rollout = self.read_rollout()
        self.guards.put(
            RollbackAlarm(
                tenant_id=self.tenant_id,
                skill=self.skill,
                rollout_id=self.rollout_id,
                arm=rollout.candidate,
                threshold=1 / rollout.settings.alpha,
                period_seconds=rollout.settings.alarm_period_seconds,
            )
        )
        return self._amend(Rollout.start)

    def set_weight(self, index: int) -> Literal["running", "superseded"]:
        """Give the candidate the share of step `index` (from 0) in one conditional write of the route."""
        rollout = self.read_rollout()
        for _ in range(_ATTEMPTS):
            route = self.records.get_route(self.tenant_id, self.skill)
            if rollout.owns(route) and _find_weight(route, rollout) == rollout.settings.planned[index].weight:
                self._amend(partial(Rollout.begin_step, index=index, route_version=route.version, at=self.clock()))
                return "running"
            is_untouched = index == 0 and route.control == rollout.control and not list_live_arms(route) and not rollout.steps
            if not (is_untouched or rollout.owns(route)):
                break
            try:
                self.records.write_route(add_candidate(route, rollout, index, at=self.clock()), expected_version=route.version)
            except Conflict:
                continue  # another writer was faster: look again who owns the route
        return "superseded"

    def watch(self) -> TrialState:
        """Bring the trial up to date and store it; after another look that was faster, start again from its state.

        Raises: DependencyUnavailable.
        """
        rollout = self.read_rollout()
        for _ in range(_ATTEMPTS):
            stored = self.trials.load(self.tenant_id, self.skill, self.rollout_id) or TrialState.begin(rollout)
            state = look(stored, rollout, events=self.events, now=self.clock())
            if state is stored:
                break
            try:
                self.trials.save(state)
            except Conflict:
                continue
            break
        return state

    def watch_anew(self) -> TrialState:
        """Reset the trial; the next looks read all of its events again, in the same order, and reach the same state.

        Raises: Conflict when another look was faster.
        """
        stored = self.trials.load(self.tenant_id, self.skill, self.rollout_id)
        state = TrialState.begin(self.read_rollout()).model_copy(update={"version": (stored.version if stored else 0) + 1})
        self.trials.save(state)
        return state

    def analyse(self, index: int) -> tuple[StepOutcome | Literal["superseded"], TrialState | None]:
        """Look at the trial in step `index` (from 0) and record the result. Returns the outcome and the trial's state,
        no state when the rollout is superseded."""
        rollout = self.read_rollout()
        route = self.records.get_route(self.tenant_id, self.skill)
        if not rollout.owns(route):
            return "superseded", None
        state, now = self.watch(), self.clock()
        step, gate, harm = rollout.steps[index], rollout.settings.gate(index), state.evidence_of_harm()
        start = rollout.steps[0].started_at
        waited_seconds = (now - start).total_seconds()
        if rollout.settings.planned[index].max_wait_seconds is not None:
            waited_seconds = (now - step.started_at).total_seconds()
        analysis = analyse(
            state.test,
            gate,
            harm=harm.value,
            harm_reason=f"candidate does harm, {harm.reason} >= {1 / gate.alpha:.3g}",
            waited_seconds=waited_seconds,
            needed=explain_indecision(state.test, gate, weight=step.weight, waited_seconds=waited_seconds),
        )
        alarm = timedelta(seconds=rollout.settings.alarm_period_seconds)
        if analysis.outcome is StepOutcome.ROLLBACK and (step.harm_since is None or now - step.harm_since < alarm):
            # The guard's alarm is faster than the next look; this look is for when the alarm is lost.
            analysis = replace(analysis, outcome=StepOutcome.CONTINUE)
        self._amend(lambda current: current.record_look(index, analysis, state.test, harm=harm.value, at=now))
        return analysis.outcome, state

    def promote(self) -> Literal["shipped", "superseded"]:
        """Make the candidate the control in one conditional write; a rollback restores the old control."""
        rollout = self.read_rollout()
        for _ in range(_ATTEMPTS):
            route = self.records.get_route(self.tenant_id, self.skill)
            if rollout.promoted(route):
                self._amend(partial(Rollout.ship, route_version=route.version, reason=route.reason, at=route.changed_at))
                return "shipped"
            if not rollout.owns(route):
                break
            try:
                self.records.write_route(promote_candidate(route, rollout, at=self.clock()), expected_version=route.version)
            except Conflict:
                continue  # another writer was faster: look again who owns the route
        return "superseded"

    def roll_back(self) -> Literal["rolled_back", "inconclusive", "superseded"]:
        """Restore the last good route because the last look asked for it."""
        last = self.read_rollout().steps[-1]
        status: Literal["rolled_back", "inconclusive"] = "inconclusive" if last.outcome == "inconclusive" else "rolled_back"
        route = self._restore_route(last.reason)
        if route is None or route.changed_by != f"rollout:{self.rollout_id}":
            return "superseded"
        self._amend(lambda current: current.take_back(status, route))
        return status

    def finish(self) -> Rollout:
        """Delete the guard and close the record; that of a superseded rollout says by whom and why."""
        self.guards.delete(self.tenant_id, self.skill, self.rollout_id)
        route = self.records.get_route(self.tenant_id, self.skill)

        def close(rollout: Rollout) -> Rollout:
            if rollout.status == "running" and route.rollout_id == rollout.rollout_id and route.mode == "rolled_back":
                rollout = rollout.take_back("rolled_back", route)
            reason = f"route version {route.version} by {route.changed_by}: {route.reason}"
            return rollout.end("superseded", reason, at=self.clock())

        return self._amend(close)

    def abort(self, error: str) -> Rollout | None:
        """Restore the last good route if the present one is still this rollout's, delete the guard and record `error`.

        Returns `None` when the rollout was never recorded. A rollout that has ended stays as it is.
        """
        rollout = find_rollout(self.records, self.tenant_id, self._key)
        if rollout is None or rollout.ended_at is not None:
            return rollout
        self._restore_route(f"rollout failed: {error}")
        self.guards.delete(self.tenant_id, self.skill, self.rollout_id)
        return self._amend(lambda current: current.end("failed", error, at=self.clock()))

    def read_rollout(self) -> Rollout:
        """The rollout as recorded. Raises: NotFound."""
        return self.records.get(Rollout, self.tenant_id, self._key).record

    @property
    def _key(self) -> str:
        return rollout_key(self.skill, self.rollout_id)

    def _restore_route(self, reason: str) -> Route | None:
        change = Change(actor=f"rollout:{self.rollout_id}", reason=reason, at=self.clock())
        try:
            return self.records.roll_back(self.tenant_id, self.skill, change, rollout_id=self.rollout_id)
        except Conflict:
            return None  # the route no longer belongs to this rollout: there is nothing to restore

    def _amend(self, transition: Callable[[Rollout], Rollout]) -> Rollout:
        change = Change(actor=f"rollout:{self.rollout_id}", reason="rollout progress", at=self.clock())
        return _amend(self.records, self.tenant_id, self._key, transition, change)


def _find_weight(route: Route, rollout: Rollout) -> float | None:
    return next((arm.weight for arm in list_live_arms(route) if arm.policy_id == rollout.candidate), None)


def _amend(
    records: RouteRecords,
    tenant_id: str,
    key: str,
    transition: Callable[[Rollout], Rollout],
    change: Change,
    attempts: int = _ATTEMPTS,
) -> Rollout:
    """Replace the record by its successor; look again when another writer (the guard, the state machine) was faster."""
    stored: Stored[Rollout] = records.get(Rollout, tenant_id, key)
    successor = transition(stored.record)
    if successor == stored.record:
        return successor
    try:
        records.replace(tenant_id, key, successor, expected_version=stored.version, change=change)
    except Conflict:
        if attempts == 1:
            raise
        return _amend(records, tenant_id, key, transition, change, attempts - 1)
    return successor
