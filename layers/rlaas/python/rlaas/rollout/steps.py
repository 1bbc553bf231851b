"""A rollout as a document: its settings, its steps with what each one saw, and how it moves from one to the next."""

from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from rlaas.clock import Timestamp
from rlaas.ids import PolicyId, SkillName, TenantId
from rlaas.rollout.sequential import Analysis, Gate, Outcome
from rlaas.routing.route import Arm, Route
from rlaas.wire import WireModel

MAX_LOOKS = 2000
"""Looks one execution can take: a look is some ten of the 25,000 events that Step Functions keeps of an execution."""

_Probability = Annotated[float, Field(gt=0, lt=1)]
_Seconds = Annotated[int, Field(ge=0)]
Status = Literal["starting", "running", "shipped", "rolled_back", "inconclusive", "superseded", "failed"]


class RolloutStep(WireModel):
    """One canary step: the candidate's share, and how much worse than control (in reward) it must be shown not to be.

    A margin of 0 asks for proof that it is better. What is left out comes from the settings.
    """

    weight: _Probability
    margin: float = Field(default=0.0, ge=0, lt=1)
    min_samples: int | None = Field(default=None, ge=1)
    max_wait_seconds: _Seconds | None = None


class RolloutSettings(WireModel):
    """How a rollout is run. Promotion to 100% follows the last step's success.

    `alpha` bounds the probability of promoting a candidate that is no better (by each step's margin), and of rolling back one that is no
    worse. `min_samples` are units per arm. A reward counts once `settle_seconds` have passed since it first came, with the value that it
    had by then. The guard alarm fires when the candidate's mean reward is under its floor in `guard_datapoints` of
    `guard_evaluation_periods` periods; the floor is `guard_floor`, else the control's mean over `history_days` less `guard_drop`.
    """

    steps: tuple[RolloutStep, ...] = Field(
        default=(RolloutStep(weight=0.1, margin=0.1), RolloutStep(weight=0.5)), min_length=1, max_length=10
    )
    alpha: _Probability = 0.05
    ratio_alpha: _Probability = 0.001
    min_samples: int = Field(default=50, ge=1)
    max_wait_seconds: _Seconds = 2 * 24 * 3600
    poll_seconds: int = Field(default=300, ge=1)
    settle_seconds: _Seconds = 3600
    history_days: int = Field(default=7, ge=1, le=30)
    guard_floor: float | None = Field(default=None, ge=0, le=1)
    guard_drop: float = Field(default=0.15, gt=0, le=1)
    guard_period_seconds: int = 60
    guard_evaluation_periods: int = Field(default=3, ge=1)
    guard_datapoints: int = Field(default=2, ge=1)

    @model_validator(mode="after")
    def _can_be_run(self) -> Self:
        if any(later.weight <= earlier.weight for earlier, later in pairwise(self.steps)):
            raise ValueError("the weights of the steps must rise")
        looks = sum(self.gate(index).max_wait_seconds for index in range(len(self.steps))) / self.poll_seconds
        if looks > MAX_LOOKS:
            raise ValueError(f"{looks:.0f} looks are too many, at most {MAX_LOOKS}: raise poll_seconds or wait less")
        period = self.guard_period_seconds
        if period not in (10, 20, 30) and (period < 60 or period % 60):
            raise ValueError("guard_period_seconds is 10, 20, 30 or a multiple of 60")
        if self.guard_datapoints > self.guard_evaluation_periods:
            raise ValueError("guard_datapoints is at most guard_evaluation_periods")
        return self

    def gate(self, index: int) -> Gate:
        """What step `index` (from 0) asks. The rollback's alpha is shared out over the steps; promotion needs all of them to pass."""
        step = self.steps[index]
        return Gate(
            alpha=self.alpha,
            rollback_alpha=self.alpha / len(self.steps),
            ratio_alpha=self.ratio_alpha / len(self.steps),
            margin=step.margin,
            min_samples=step.min_samples if step.min_samples is not None else self.min_samples,
            max_wait_seconds=step.max_wait_seconds if step.max_wait_seconds is not None else self.max_wait_seconds,
        )


class StepRecord(WireModel):
    """What a step saw, as of its last look. Counts are units; `low` and `high` bound the difference in mean reward at 1 - alpha."""

    step: int = Field(ge=1)
    weight: float = Field(gt=0, le=1)
    route_version: int
    outcome: Literal["advance", "rollback", "continue", "inconclusive", "promoted"] = "continue"
    reason: str
    n_control: int = 0
    n_candidate: int = 0
    mean_control: float | None = None
    mean_candidate: float | None = None
    low: float = -1.0
    high: float = 1.0
    started_at: Timestamp
    ended_at: Timestamp | None = None


class Rollout(WireModel):
    """A rollout of `candidate` over `control`, from its request to its end.

    `control_mean` is the control's mean reward before it began, `floor` the guard's. `alarm_at` and `rolled_back_at` say when a guard alarm
    was raised and when the route was taken back.
    """

    rollout_id: str
    tenant_id: TenantId
    skill: SkillName
    control: PolicyId
    candidate: PolicyId
    settings: RolloutSettings
    status: Status = "starting"
    reason: str
    steps: tuple[StepRecord, ...] = ()
    control_mean: float | None = None
    floor: float | None = None
    created_at: Timestamp
    ended_at: Timestamp | None = None
    alarm_at: Timestamp | None = None
    rolled_back_at: Timestamp | None = None

    @property
    def actor(self) -> str:
        """Who changes the route for this rollout."""
        return f"rollout:{self.rollout_id}"

    def owns(self, route: Route) -> bool:
        """Whether `route` is as this rollout's last step left it."""
        return route.rollout_id == self.rollout_id and route.changed_by == self.actor and route.mode == "normal"

    def promoted(self, route: Route) -> bool:
        """Whether `route` is as this rollout's promotion left it."""
        return route.control == self.candidate and route.changed_by == self.actor and route.rollout_id is None

    def begun(self, *, control_mean: float | None, floor: float) -> Self:
        """Running, with its guard's floor."""
        return self._with(status="running", control_mean=control_mean, floor=floor)

    def weighted(self, index: int, *, route_version: int, at: datetime) -> Self:
        """Step `index` has begun with `route_version`; once begun it stays as it is."""
        if len(self.steps) > index:
            return self
        weight = self.settings.steps[index].weight
        record = StepRecord(step=index + 1, weight=weight, route_version=route_version, reason="no look yet", started_at=at)
        return self._with(steps=(*self.steps, record))

    def looked(self, index: int, analysis: Analysis, *, at: datetime) -> Self:
        """Step `index` with what the last look saw; ended when the look decided something. A look that saw nothing new leaves no trace."""
        seen = self.steps[index]
        if analysis.outcome is Outcome.CONTINUE and (seen.n_control, seen.n_candidate) == (analysis.n_control, analysis.n_candidate):
            return self
        record = seen.model_copy(
            update={
                "outcome": analysis.outcome.value,
                "reason": analysis.reason,
                "n_control": analysis.n_control,
                "n_candidate": analysis.n_candidate,
                "mean_control": analysis.mean_control,
                "mean_candidate": analysis.mean_candidate,
                "low": analysis.low,
                "high": analysis.high,
                "ended_at": None if analysis.outcome is Outcome.CONTINUE else at,
            }
        )
        return self._with(steps=(*self.steps[:index], record, *self.steps[index + 1 :]))

    def shipped(self, *, route_version: int, reason: str, at: datetime) -> Self:
        """The candidate is the control; the promotion is the last step."""
        if self.status == "shipped":
            return self
        record = StepRecord(
            step=len(self.steps) + 1,
            weight=1.0,
            route_version=route_version,
            outcome="promoted",
            reason=reason,
            started_at=at,
            ended_at=at,
        )
        return self._with(status="shipped", reason=reason, steps=(*self.steps, record))

    def taken_back(self, status: Literal["rolled_back", "inconclusive"], route: Route, *, alarm_at: datetime | None = None) -> Self:
        """The route is back on its last good version, as `route` tells."""
        return self._with(status=status, reason=route.reason, rolled_back_at=route.changed_at, alarm_at=alarm_at or self.alarm_at)

    def ended(self, status: Status, reason: str, *, at: datetime) -> Self:
        """Over, with `status` and `reason` unless it came to its own end before."""
        if self.status in ("starting", "running"):
            return self._with(status=status, reason=reason, ended_at=at)
        return self._with(ended_at=self.ended_at or at)

    def _with(self, **changes: object) -> Self:
        return self.model_copy(update=changes)


def with_candidate(route: Route, rollout: Rollout, index: int, *, at: datetime) -> Route:
    """The next route: the candidate as a canary with the weight of step `index`, shadow arms kept, the way back remembered.

    The first step draws new buckets (salt = rollout id): only control answers then, so no unit changes arm, and the assignment owes nothing
    to earlier rollouts.
    """
    step = rollout.settings.steps[index]
    successor = route.succeed(
        control=route.control,
        arms=(*_shadows(route, rollout.candidate), Arm(policy_id=rollout.candidate, mode="canary", weight=step.weight)),
        last_good=route.target if index == 0 else route.last_good,
        rollout_id=rollout.rollout_id,
        changed_by=rollout.actor,
        reason=f"step {index + 1} of {len(rollout.settings.steps)}: {rollout.candidate} at {step.weight:.1%}",
        changed_at=at,
    )
    return successor.model_copy(update={"salt": rollout.rollout_id}) if index == 0 else successor


def with_promotion(route: Route, rollout: Rollout, *, at: datetime) -> Route:
    """The next route: the candidate is the control, the old control the way back."""
    return route.succeed(
        control=rollout.candidate,
        arms=_shadows(route, rollout.candidate),
        last_good=route.last_good,
        rollout_id=None,
        changed_by=rollout.actor,
        reason=f"{rollout.candidate} passed every step and is the control now",
        changed_at=at,
    )


def live_arms(route: Route) -> tuple[Arm, ...]:
    """The arms beside the control that answer users."""
    return tuple(arm for arm in route.arms if arm.live)


def _shadows(route: Route, candidate: str) -> Sequence[Arm]:
    return [arm for arm in route.arms if not arm.live and arm.policy_id != candidate]
