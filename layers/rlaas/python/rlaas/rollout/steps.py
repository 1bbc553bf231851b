"""A rollout as a record: its settings, its steps with the result of each, and how it moves from one to the next."""

from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from rlaas.clock import Timestamp
from rlaas.experiments.harm import HarmBounds
from rlaas.experiments.sequential import Analysis, Gate, SequentialTest, StepOutcome
from rlaas.ids import PolicyId, SkillName, TenantId
from rlaas.rollout.plan import Plan
from rlaas.routing.route import Arm, Route
from rlaas.skills.skill import RewardSpec
from rlaas.wire import WireModel

MAX_LOOKS = 2000
"""The most looks of one execution: a look adds about ten of the 25,000 events that its history may hold."""

_Probability = Annotated[float, Field(gt=0, lt=1)]
_Seconds = Annotated[int, Field(ge=0)]
Status = Literal["starting", "running", "shipped", "rolled_back", "inconclusive", "superseded", "failed"]


class RolloutStep(WireModel):
    """One canary step: the candidate's share, and how much worse than control (in reward) it must be shown not to be.

    A margin of 0 demands proof that it is better. `min_samples` and `max_wait_seconds` default to those of the
    settings.
    """

    weight: _Probability
    margin: float = Field(default=0.0, ge=0, lt=1)
    min_samples: int | None = Field(default=None, ge=1)
    max_wait_seconds: _Seconds | None = None


class RolloutSettings(WireModel):
    """How a rollout is run. Promotion to 100% follows the last step's success.

    Without `steps` they are planned from the skill's own traffic: the first step checks safety, the last one the
    `objective`, that the candidate is better, or not worse than control by `margin`. A plan has to find a gain of
    `gain` (in reward) in at least half of all cases, within `max_wait_seconds` of the rollout's beginning.

    `alpha` bounds the probability of promoting a candidate that is no better (by the last step's margin), and of
    rolling back one that does no harm. `min_samples` are settled units per arm. A unit is settled `window_hours` after
    its decision, with the reward it has by then. Decisions are read after `lag_seconds`, the time that a request and
    the store's indexes may take. Units are compared within their stratum: their user, or a field of the interaction's
    metadata (`metadata.<name>`). `units_a_day` is planned with in place of the skill's own traffic.
    """

    steps: tuple[RolloutStep, ...] | None = Field(default=None, min_length=1, max_length=10)
    objective: Literal["benefit", "non_inferiority"] = "benefit"
    margin: float = Field(default=0.05, gt=0, lt=1)
    gain: float = Field(default=0.2, gt=0, le=1)
    alpha: _Probability = 0.05
    ratio_alpha: _Probability = 0.001
    min_samples: int = Field(default=20, ge=1)
    max_wait_seconds: _Seconds = 14 * 24 * 3600
    poll_seconds: int = Field(default=900, ge=1)
    window_hours: float = Field(default=24.0, gt=0, le=24 * 30)
    lag_seconds: int = Field(default=120, ge=1, le=3600)
    history_days: int = Field(default=7, ge=1, le=30)
    units_a_day: float | None = Field(default=None, gt=0)
    stratify_by: str | None = Field(default="user", pattern=r"^(user|metadata\.[^.]{1,64})$")
    harm: HarmBounds = HarmBounds()
    alarm_period_seconds: int = 60

    @model_validator(mode="after")
    def _can_be_run(self) -> Self:
        if any(later.weight <= earlier.weight for earlier, later in pairwise(self.steps or ())):
            raise ValueError("the weights of the steps must rise")
        looks = self.max_wait_seconds / self.poll_seconds
        if looks > MAX_LOOKS:
            raise ValueError(f"{looks:.0f} looks are too many, at most {MAX_LOOKS}: raise poll_seconds or wait less")
        if self.window_hours * 3600 + self.lag_seconds >= self.max_wait_seconds:
            raise ValueError("no decision would be settled in time: max_wait_seconds has to be longer than window_hours and lag_seconds")
        period = self.alarm_period_seconds
        if period not in (10, 20, 30) and (period < 60 or period % 60):
            raise ValueError("alarm_period_seconds is 10, 20, 30 or a multiple of 60")
        return self

    @property
    def planned(self) -> tuple[RolloutStep, ...]:
        """The steps. Raises: ValueError before they are planned."""
        if self.steps is None:
            raise ValueError("the steps are not planned yet")
        return self.steps

    def gate(self, index: int) -> Gate:
        """The gate of step `index` (from 0). All steps have to pass, so each may use the whole of alpha."""
        step = self.planned[index]
        return Gate(
            alpha=self.alpha,
            ratio_alpha=self.ratio_alpha,
            margin=step.margin,
            min_samples=step.min_samples if step.min_samples is not None else self.min_samples,
            max_wait_seconds=step.max_wait_seconds if step.max_wait_seconds is not None else self.max_wait_seconds,
        )


class StepRecord(WireModel):
    """The result of a step's last look at all units of the rollout so far, by the arm they were dealt.

    Counts are units; `low` and `high` bound the difference in mean reward at 1 - alpha at all looks. `missing_*` are
    the shares of units for which something never came; `answered_mean_*` are for only those units that the arm itself
    answered, and no basis for a decision. `evidence` is the evidence for the step's claim, `harm` that
    for rolling back: both are compared with 1/alpha. `harm_since` is when a look first found enough harm.
    """

    step: int = Field(ge=1)
    weight: float = Field(gt=0, le=1)
    route_version: int
    outcome: Literal["advance", "rollback", "continue", "inconclusive", "promoted"] = "continue"
    reason: str
    n_control: int = 0
    n_candidate: int = 0
    mean_control: float | None = None
    mean_candidate: float | None = None
    answered_mean_control: float | None = None
    answered_mean_candidate: float | None = None
    missing_control: float | None = None
    missing_candidate: float | None = None
    low: float = -1.0
    high: float = 1.0
    evidence: float = 1.0
    harm: float = 0.0
    harm_since: Timestamp | None = None
    started_at: Timestamp
    ended_at: Timestamp | None = None


class Rollout(WireModel):
    """A rollout of `candidate` over `control`, from its request to its end.

    `requested` are the settings of the request, `settings` the same with the steps planned; `plan` says what the plan
    was expected to take. The rollout is judged by `reward_spec`, the skill's at the time of the request, even if the
    skill's changes later. `prior_mean` and `prior_unsent` are the control's mean reward and share of drafts not sent
    before it began. `alarm_at` and `rolled_back_at` say when the guard's alarm was raised and the route rolled back.
    """

    rollout_id: str
    tenant_id: TenantId
    skill: SkillName
    control: PolicyId
    candidate: PolicyId
    requested: RolloutSettings | None = None
    settings: RolloutSettings
    plan: Plan | None = None
    reward_spec: RewardSpec = Field(default_factory=RewardSpec)
    status: Status = "starting"
    reason: str
    steps: tuple[StepRecord, ...] = ()
    prior_mean: float = Field(default=0.5, ge=0, le=1)
    prior_unsent: float = Field(default=0.5, gt=0, lt=1)
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

    def start(self) -> Self:
        """The rollout as running."""
        return self._with(status="running") if self.status == "starting" else self

    def begin_step(self, index: int, *, route_version: int, at: datetime) -> Self:
        """The rollout with step `index` (from 0) begun at `route_version`; a step that has begun stays as it is."""
        if len(self.steps) > index:
            return self
        weight = self.settings.planned[index].weight
        record = StepRecord(step=index + 1, weight=weight, route_version=route_version, reason="no look yet", started_at=at)
        return self._with(steps=(*self.steps, record))

    def record_look(self, index: int, analysis: Analysis, test: SequentialTest, *, harm: float, at: datetime) -> Self:
        """The rollout with the result of a look in step `index` (from 0), which ends the step when it decides
        something. A look that saw nothing new changes nothing."""
        seen, candidate, control = self.steps[index], test.candidate, test.control
        if analysis.outcome is StepOutcome.CONTINUE and (seen.n_control, seen.n_candidate, seen.harm) == (control.n, candidate.n, harm):
            return self
        gate = self.settings.gate(index)
        low, high = test.interval(gate.alpha)
        harmful = harm >= 1 / gate.alpha
        record = seen.model_copy(
            update={
                "outcome": analysis.outcome.value,
                "reason": analysis.reason,
                "n_control": control.n,
                "n_candidate": candidate.n,
                "mean_control": control.mean,
                "mean_candidate": candidate.mean,
                "answered_mean_control": control.answered_mean,
                "answered_mean_candidate": candidate.answered_mean,
                "missing_control": control.missing_share,
                "missing_candidate": candidate.missing_share,
                "low": low,
                "high": high,
                "evidence": test.evidence_better(-gate.margin * test.known_share),
                "harm": harm,
                "harm_since": (seen.harm_since or at) if harmful else None,
                "ended_at": None if analysis.outcome is StepOutcome.CONTINUE else at,
            }
        )
        return self._with(steps=(*self.steps[:index], record, *self.steps[index + 1 :]))

    def ship(self, *, route_version: int, reason: str, at: datetime) -> Self:
        """The rollout as shipped: the candidate is the control, and the promotion is the last step."""
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

    def take_back(self, status: Literal["rolled_back", "inconclusive"], route: Route, *, alarm_at: datetime | None = None) -> Self:
        """The rollout with `status`, since its route went back to the last good one, `route`. If the rollout has
        already ended, only `alarm_at` is recorded."""
        if self.status not in ("starting", "running"):
            return self._with(alarm_at=alarm_at or self.alarm_at)
        return self._with(status=status, reason=route.reason, rolled_back_at=route.changed_at, alarm_at=alarm_at or self.alarm_at)

    def end(self, status: Status, reason: str, *, at: datetime) -> Self:
        """The rollout as ended, with `status` and `reason` unless it already has its own."""
        if self.status in ("starting", "running"):
            return self._with(status=status, reason=reason, ended_at=at)
        return self._with(ended_at=self.ended_at or at)

    def _with(self, **changes: object) -> Self:
        return self.model_copy(update=changes)


def add_candidate(route: Route, rollout: Rollout, index: int, *, at: datetime) -> Route:
    """The next route: the candidate as a canary with the weight of step `index` (from 0), beside the shadow arms;
    `last_good` stays the route from before the rollout.

    The first step draws new buckets (salt = rollout id). Until then only the control answers, so no unit changes arm,
    and the assignment does not depend on earlier rollouts.
    """
    step = rollout.settings.planned[index]
    successor = route.succeed(
        control=route.control,
        arms=(*_list_shadows(route, rollout.candidate), Arm(policy_id=rollout.candidate, mode="canary", weight=step.weight)),
        last_good=route.target if index == 0 else route.last_good,
        rollout_id=rollout.rollout_id,
        changed_by=rollout.actor,
        reason=f"step {index + 1} of {len(rollout.settings.planned)}: {rollout.candidate} at {step.weight:.1%}",
        changed_at=at,
    )
    return successor.model_copy(update={"salt": rollout.rollout_id}) if index == 0 else successor


def promote_candidate(route: Route, rollout: Rollout, *, at: datetime) -> Route:
    """The next route: the candidate is the control, and a rollback restores the old control."""
    return route.succeed(
        control=rollout.candidate,
        arms=_list_shadows(route, rollout.candidate),
        last_good=route.last_good,
        rollout_id=None,
        changed_by=rollout.actor,
        reason=f"{rollout.candidate} passed every step and is the control now",
        changed_at=at,
    )


def list_live_arms(route: Route) -> tuple[Arm, ...]:
    """The arms beside the control that answer users."""
    return tuple(arm for arm in route.arms if arm.live)


def _list_shadows(route: Route, candidate: str) -> Sequence[Arm]:
    return [arm for arm in route.arms if not arm.live and arm.policy_id != candidate]
