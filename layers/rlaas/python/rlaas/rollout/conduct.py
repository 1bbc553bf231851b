"""Conducting a rollout: one method per state of the `rollout` state machine, each safe to repeat.

The route is the truth. A rollout goes on while the route is as its own last step left it; any other change (the guard, an operator, another
rollout) supersedes it, and what became of it is read from that route.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Literal, Protocol

from rlaas.clock import Clock
from rlaas.errors import Conflict, InvalidInput, NotFound
from rlaas.rewards.reward import complete, latest_rewards
from rlaas.rollout.observations import ReceivedReward, settled, step_observations
from rlaas.rollout.sequential import Outcome, analyse
from rlaas.rollout.steps import Rollout, RolloutSettings, live_arms, with_candidate, with_promotion
from rlaas.routing.registry import Policies, Routes
from rlaas.routing.route import Route
from rlaas.telemetry.events import RewardComputed
from rlaas.telemetry.store import EventStore
from rlaas.tenancy.registry import Change, Registry, Stored, rollout_key

_ENOUGH_HISTORY = 2000
_ATTEMPTS = 5
_STARTS_WITHIN = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class Guard:
    """The alarm to raise when an arm of a rollout falls under `floor` (mean reward)."""

    tenant_id: str
    skill: str
    rollout_id: str
    arm: str
    floor: float
    period_seconds: int
    evaluation_periods: int
    datapoints: int


class Guards(Protocol):
    """Alarms on the mean reward of a rollout's candidate, one per skill."""

    def put(self, guard: Guard) -> None:
        """Watch from now on; replaces the skill's guard."""
        ...

    def delete(self, tenant_id: str, skill: str, rollout_id: str) -> None:
        """Watch this rollout no longer; nothing happens when the skill's guard is another rollout's or there is none."""
        ...


class Documents(Registry, Routes, Policies, Protocol):
    """The registry with its routes and policies."""


def request_rollout(
    documents: Documents,
    *,
    tenant_id: str,
    skill: str,
    rollout_id: str,
    candidate: str,
    settings: RolloutSettings,
    actor: str,
    reason: str,
    now: datetime,
) -> Rollout:
    """Record a rollout that may begin. The same request again finds the one recorded.

    Raises: NotFound without that policy or route, InvalidInput when the candidate is another skill's or the control already, Conflict when
    the route has live arms, another rollout of the skill has not ended or the id holds another rollout.
    """
    key = rollout_key(skill, rollout_id)
    recorded = _find(documents, tenant_id, key)
    if recorded is not None:
        if (recorded.candidate, recorded.settings) != (candidate, settings):
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
    rollout = Rollout(
        rollout_id=rollout_id,
        tenant_id=tenant_id,
        skill=skill,
        control=route.control,
        candidate=candidate,
        settings=settings,
        reason=reason,
        created_at=now,
    )
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
    guards: Guards
    clock: Clock
    tenant_id: str
    skill: str
    rollout_id: str

    def begin(self) -> Rollout:
        """Measure the control's recent mean and put the guard, before any unit reaches the candidate.

        Raises: Conflict when the control has no recent rewards and the settings name no floor.
        """
        rollout = self.rollout()
        settings = rollout.settings
        mean = self._control_mean(rollout)
        if mean is None and settings.guard_floor is None:
            raise Conflict(f"{rollout.control} has no rewards in the last {settings.history_days} days to guard against; set guard_floor")
        floor = settings.guard_floor if settings.guard_floor is not None else max(0.0, (mean or 0.0) - settings.guard_drop)
        self.guards.put(
            Guard(
                tenant_id=self.tenant_id,
                skill=self.skill,
                rollout_id=self.rollout_id,
                arm=rollout.candidate,
                floor=floor,
                period_seconds=settings.guard_period_seconds,
                evaluation_periods=settings.guard_evaluation_periods,
                datapoints=settings.guard_datapoints,
            )
        )
        return self._amend(lambda current: current.begun(control_mean=mean, floor=floor))

    def set_weight(self, index: int) -> Literal["running", "superseded"]:
        """Give the candidate the share of step `index` (from 0) in one conditional write of the route."""
        rollout = self.rollout()
        for _ in range(_ATTEMPTS):
            route = self.documents.get_route(self.tenant_id, self.skill)
            if rollout.owns(route) and _weight(route, rollout) == rollout.settings.steps[index].weight:
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

    def analyse(self, index: int) -> Outcome | Literal["superseded"]:
        """Look once more at the rewards of step `index` and record what was seen."""
        rollout = self.rollout()
        route = self.documents.get_route(self.tenant_id, self.skill)
        if not rollout.owns(route):
            return "superseded"
        now, record = self.clock(), rollout.steps[index]
        rewards = settled(self._rewards(rollout), settle=timedelta(seconds=rollout.settings.settle_seconds), now=now)
        analysis = analyse(
            step_observations(rewards, candidate=rollout.candidate, unit=route.unit, route_version=record.route_version),
            rollout.settings.gate(index),
            waited_seconds=(now - record.started_at).total_seconds(),
            prior_mean=rollout.control_mean if rollout.control_mean is not None else 0.5,
        )
        self._amend(lambda current: current.looked(index, analysis, at=now))
        return analysis.outcome

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

    def _rewards(self, rollout: Rollout) -> Iterator[ReceivedReward]:
        day, last = rollout.created_at.date(), self.clock().date()
        while day <= last:
            for stored in self.events.by_day(self.tenant_id, self.skill, "reward", day, since=rollout.created_at):
                event = stored.event()
                if isinstance(event, RewardComputed) and event.rollout_id == self.rollout_id:
                    yield ReceivedReward(reward=event, received_at=stored.received_at)
            day += timedelta(days=1)

    def _control_mean(self, rollout: Rollout) -> float | None:
        rewards: list[RewardComputed] = []
        for ago in range(rollout.settings.history_days):
            day = rollout.created_at.date() - timedelta(days=ago)
            rewards += (
                event
                for stored in self.events.by_day(self.tenant_id, self.skill, "reward", day)
                if stored.policy_id == rollout.control and stored.received_at <= rollout.created_at
                if isinstance(event := stored.event(), RewardComputed) and complete(event) and not event.fallback
            )
            if len(rewards) >= _ENOUGH_HISTORY:
                break
        latest = latest_rewards(rewards).values()
        return sum(reward.reward for reward in latest) / len(latest) if latest else None


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
