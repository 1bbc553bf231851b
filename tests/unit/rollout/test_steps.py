import pytest
from pydantic import ValidationError

from rlaas.experiments.sequential import SequentialTest, StepOutcome, analyse
from rlaas.rollout.plan import PlanLimits, StepSpec, Traffic, make_plan
from rlaas.rollout.steps import Rollout, RolloutSettings, RolloutStep, add_candidate, promote_candidate
from rlaas.routing.assign import CONTROL, assign
from rlaas.routing.route import Arm
from rlaas.skills.skill import RewardSpec
from tests.fakes.worlds import NOW, SKILL, TENANT, make_route

CANDIDATE = f"{SKILL}@v2"
SETTINGS = RolloutSettings(steps=(RolloutStep(weight=0.1, margin=0.1), RolloutStep(weight=0.5)))
PLAN = make_plan([StepSpec(0.5, 0.0, 20)], Traffic(units_a_day=1_000), PlanLimits(alpha=0.05, at_most_days=14, window_days=1, gain=0.2))


def rollout(settings: RolloutSettings | None = None) -> Rollout:
    return Rollout(
        rollout_id="rol_1",
        tenant_id=TENANT,
        skill=SKILL,
        control=f"{SKILL}@v1",
        candidate=CANDIDATE,
        requested=RolloutSettings(),
        settings=settings or SETTINGS,
        plan=PLAN,
        reward_spec=RewardSpec(),
        reason="try it",
        created_at=NOW,
    )


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"steps": [{"weight": 0.5}, {"weight": 0.1}]}, "must rise"),
        ({"steps": [{"weight": 1.0}]}, "less than 1"),
        ({"steps": []}, "at least 1 item"),
        ({"poll_seconds": 1}, "looks are too many"),
        ({"alarm_period_seconds": 45}, "10, 20, 30 or a multiple of 60"),
        ({"window_hours": 24.0, "max_wait_seconds": 86_400}, "no decision would be settled in time"),
        ({"stratify_by": "weather"}, "should match pattern"),
        ({"surprise": 1}, "Extra inputs"),
    ],
)
def test_settings_that_cannot_be_run_are_refused_with_the_reason(settings: dict[str, object], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        RolloutSettings.model_validate(settings, strict=False)


def test_a_steps_own_numbers_go_before_the_settings() -> None:
    settings = RolloutSettings(steps=(RolloutStep(weight=0.1, margin=0.1, min_samples=7), RolloutStep(weight=0.5)), alpha=0.04)
    first, second = settings.gate(0), settings.gate(1)
    assert (first.alpha, first.margin, first.min_samples) == (0.04, 0.1, 7)
    assert (second.margin, second.min_samples) == (0.0, settings.min_samples)


def test_the_first_step_draws_new_buckets_and_the_next_ones_keep_them() -> None:
    before = make_route()
    first = add_candidate(before, rollout(), 0, at=NOW)
    second = add_candidate(first, rollout(), 1, at=NOW)
    assert (first.salt, second.salt) == ("rol_1", "rol_1")
    assert first.last_good == second.last_good == before.target
    for unit in map(str, range(500)):
        one, two = (assign(version, unit, decision_id="d", decided_at=NOW).arm for version in (first, second))
        assert two == CANDIDATE or one == CONTROL  # nobody leaves the candidate on the way up


def test_shadow_arms_stay_and_the_candidates_own_becomes_its_canary() -> None:
    shadows = (Arm(policy_id=CANDIDATE, mode="shadow", weight=0.2), Arm(policy_id=f"{SKILL}@v3", mode="shadow", weight=0.1))
    first = add_candidate(make_route(arms=shadows), rollout(), 0, at=NOW)
    assert [(arm.policy_id, arm.mode) for arm in first.arms] == [(f"{SKILL}@v3", "shadow"), (CANDIDATE, "canary")]
    assert [arm.mode for arm in promote_candidate(first, rollout(), at=NOW).arms] == ["shadow"]


def test_a_promotion_leaves_the_rollout_and_keeps_the_old_control_as_the_way_back() -> None:
    promoted = promote_candidate(add_candidate(make_route(), rollout(), 0, at=NOW), rollout(), at=NOW)
    assert (promoted.control, promoted.arms, promoted.rollout_id) == (CANDIDATE, (), None)
    assert promoted.last_good is not None
    assert promoted.last_good.control == f"{SKILL}@v1"
    assert rollout().promoted(promoted)


def test_a_look_that_saw_nothing_new_leaves_no_trace() -> None:
    running = rollout().begin_step(0, route_version=2, at=NOW)
    test = SequentialTest.against([-0.1], 0.5)
    analysis = analyse(test, running.settings.gate(0), harm=0.0, harm_reason="", waited_seconds=5, needed="")
    assert analysis.outcome is StepOutcome.CONTINUE
    assert running.record_look(0, analysis, test, harm=0.0, at=NOW) is running
