"""What a plan says before a rollout begins; `make bench-decisions` holds its numbers beside simulated rollouts."""

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from rlaas.experiments.sequential import SequentialTest, SettledUnit
from rlaas.rollout.plan import PlanLimits, StepSpec, Traffic, estimate_traffic, estimate_units, make_plan, plan_steps
from rlaas.telemetry.events import RewardComputed

TERMS = PlanLimits(alpha=0.05, at_most_days=14, window_days=1, gain=0.2)


def traffic(units_a_day: float, *, mean: float = 0.6, sd: float = 0.49) -> Traffic:
    return Traffic(units_a_day=units_a_day, reward_mean=mean, reward_sd=sd, unsent=0.4, sampled=100)


def steps(units_a_day: float) -> tuple[StepSpec, ...]:
    return plan_steps(traffic(units_a_day), TERMS, last_margin=0.0, min_samples=20)


@pytest.mark.parametrize(("units_a_day", "first"), [(5_000, 0.05), (1_000, 0.1), (200, 0.25)])
def test_the_first_step_is_as_cautious_as_the_traffic_bears_and_the_last_decides(units_a_day: float, first: float) -> None:
    planned = steps(units_a_day)
    assert (planned[0].weight, planned[-1].weight, planned[-1].margin) == (first, 0.5, 0.0)
    assert planned[0].margin > 0


def test_a_plan_tells_how_long_it_takes_and_what_it_can_find() -> None:
    result = make_plan(steps(1_000), traffic(1_000), TERMS)
    assert result.can_conclude
    assert result.days is not None
    assert 2 < result.days < 5
    assert " within 14 days; expected after " in result.advice
    power = {one.gain: one.probability for one in result.power}
    assert power[0.02] < power[0.05] < power[0.1] <= power[0.2]
    assert power[0.05] > 0.8
    assert result.least_gain is not None
    assert result.least_gain <= 0.05


def test_a_plan_that_cannot_conclude_says_what_would() -> None:
    result = make_plan(steps(5), traffic(5), TERMS)
    assert not result.can_conclude
    assert "too seldom; it would take one of: " in result.advice
    assert "days (max_wait_seconds)" in result.advice
    assert "units a day" in result.advice


def test_without_traffic_there_is_nothing_to_plan_from() -> None:
    result = make_plan(steps(0), traffic(0), TERMS)
    assert not result.can_conclude
    assert result.advice.startswith("the control has no rewarded traffic to plan from")
    assert (result.days, result.steps[0].days) == (None, None)
    assert result.units is not None


def test_a_gain_that_no_traffic_would_show_has_no_end_and_is_refused_in_words() -> None:
    result = make_plan([StepSpec(0.5, 0.0, 20)], traffic(1_000), replace(TERMS, gain=0.001))
    assert (result.units, result.days, result.can_conclude) == (None, None, False)
    assert "too seldom; it would take one of: " in result.advice


def test_times_are_told_in_the_unit_that_a_person_would_use() -> None:
    quick = PlanLimits(alpha=0.05, at_most_days=600 / 86_400, window_days=30 / 86_400, gain=0.2)
    assert "within 10 minutes; expected after " in make_plan([StepSpec(0.5, 0.0, 20)], traffic(200_000), quick).advice


def test_a_share_of_a_thousandth_cannot_conclude_and_the_advice_is_a_larger_one() -> None:
    result = make_plan([StepSpec(0.001, 0.0, 20)], traffic(1_000), TERMS)
    assert not result.can_conclude
    assert "a last step at 50%" in result.advice


@pytest.mark.parametrize("mean", [0.0, 0.5, 1.0])
def test_rewards_that_are_all_equal_can_be_planned_with(mean: float) -> None:
    assert make_plan(steps(1_000), traffic(1_000, mean=mean, sd=0.0), TERMS).can_conclude


NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def rewards(values: list[float], *, minutes: float, sent: bool = True) -> list[RewardComputed]:
    """Rewards of as many threads in the last `minutes`."""
    return [
        RewardComputed(
            skill="reply",
            thread_id=f"t{number}",
            occurred_at=NOW - timedelta(minutes=minutes * (1 - number / len(values))),
            reward_id=f"rew_{number}",
            interaction_id=f"i{number}",
            output_id=f"o{number}",
            reward=value,
            components={"sent": 1.0} if sent else {"edit_similarity": value},
            n=1,
            event_ids=("f",),
        )
        for number, value in enumerate(values)
    ]


def traffic_from(rewards: list[RewardComputed]) -> Traffic:
    return estimate_traffic(rewards, unit="thread", since=NOW - timedelta(days=7), until=NOW)


def test_a_few_rewards_in_a_minute_are_no_traffic_of_thousands_and_no_reward_without_variance() -> None:
    result = traffic_from(rewards([1.0, 1.0, 1.0], minutes=1))
    assert result.units_a_day == 72
    assert 0.3 < result.reward_sd < 0.5
    assert result.unsent is not None
    assert 0 < result.unsent < 0.5


def test_a_week_of_rewards_is_told_as_it_is() -> None:
    result = traffic_from(rewards([0.2, 0.8] * 700, minutes=7 * 1_440))
    assert result.units_a_day == pytest.approx(200)
    assert (result.reward_mean, result.reward_sd) == (pytest.approx(0.5, abs=0.01), pytest.approx(0.3, abs=0.01))


def test_a_skill_whose_people_only_edit_has_traffic_too() -> None:
    result = traffic_from(rewards([0.5] * 100, minutes=600, sent=False))
    assert (result.units_a_day, result.unsent) == (pytest.approx(240), None)


def test_a_unit_counts_once_by_its_first_draft() -> None:
    drafts = [one.model_copy(update={"thread_id": "t"}) for one in rewards([1.0, *[0.0] * 9], minutes=600)]
    assert (traffic_from(drafts).sampled, traffic_from(drafts).reward_mean) == (1, pytest.approx(2 / 3))


def test_one_person_moves_a_plan_no_further_than_his_share() -> None:
    honest = rewards([1.0] * 400, minutes=7 * 1_440)
    his = [one.model_copy(update={"user_id": "mallory"}) for one in rewards([0.0] * 4_000, minutes=7 * 1_440)]
    his = [one.model_copy(update={name: f"m{getattr(one, name)}" for name in ("thread_id", "output_id", "interaction_id")}) for one in his]
    result = traffic_from(honest + his)
    assert result.reward_mean > 0.97
    assert result.units_a_day == pytest.approx(400 / 0.98 / 7, rel=0.01)
    assert result.people == 401


@pytest.mark.parametrize(("weight", "gap"), [(0.5, 0.2), (0.5, 0.1), (0.1, 0.3)])
def test_the_units_expected_are_about_those_that_a_simulated_test_takes(weight: float, gap: float) -> None:
    rng, counts = random.Random(20260101), []
    for _ in range(40):
        test, n = SequentialTest.against([0.0], 0.6, grid=()), 0
        while test.evidence_better(0.0) < 20:
            candidate = rng.random() < weight
            test.add(SettledUnit(float(rng.random() < (0.6 + gap if candidate else 0.6)), candidate, weight))
            n += 1
        counts.append(n)
    expected = estimate_units(traffic(1), weight, gap, 0.05)
    assert 0.5 < sum(counts) / len(counts) / expected < 1.5
