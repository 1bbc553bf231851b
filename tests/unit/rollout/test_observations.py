import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from rlaas.rollout.observations import ReceivedReward, settled, step_observations
from rlaas.routing.assign import CONTROL, assign
from rlaas.routing.route import Arm, Route
from rlaas.telemetry.events import RewardComputed

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)
CANDIDATE = "reply@v2"


def reward(
    output: str,
    value: float = 0.5,
    *,
    arm: str = CONTROL,
    propensity: float = 0.9,
    version: int = 1,
    n: int = 1,
    sent: bool = True,
    fallback: bool = False,
) -> RewardComputed:
    return RewardComputed(
        skill="reply",
        thread_id=f"thread-{output}",
        reward_id=f"rew_{output}_{n}",
        interaction_id=f"int-{output}",
        output_id=output,
        reward=value,
        components={"edit_similarity": value, **({"sent": 1.0} if sent else {})},
        n=n,
        event_ids=(f"fbk-{output}",),
        arm=arm,
        propensity=propensity,
        route_version=version,
        rollout_id="rol_1",
        fallback=fallback,
    )


def received(reward: RewardComputed, seconds_ago: float) -> ReceivedReward:
    return ReceivedReward(reward=reward, received_at=NOW - timedelta(seconds=seconds_ago))


def test_the_fullest_reward_within_the_settling_time_counts() -> None:
    versions = [received(reward("a", 0.9), 100), received(reward("a", 0.4, n=2), 95), received(reward("a", 0.1, n=3), 50)]
    assert [seen.reward for seen in settled(versions, settle=timedelta(seconds=10), now=NOW)] == [0.4]


def test_a_reward_waits_until_it_is_complete_and_settled() -> None:
    versions = [received(reward("draft", sent=False), 100), received(reward("fresh"), 5), received(reward("old"), 50)]
    assert [seen.output_id for seen in settled(versions, settle=timedelta(seconds=10), now=NOW)] == ["old"]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 3), st.integers(0, 60)), max_size=30), st.integers(0, 60))
def test_the_list_of_one_look_begins_the_list_of_the_next(events: list[tuple[int, int, int]], earlier: int) -> None:
    all_of_them = [received(reward(f"out-{output}", n=n), ago) for output, n, ago in events]
    first_look = NOW - timedelta(seconds=earlier)
    known_then = [seen for seen in all_of_them if seen.received_at <= first_look]
    settle = timedelta(seconds=7)
    before = settled(known_then, settle=settle, now=first_look)
    assert settled(all_of_them, settle=settle, now=NOW)[: len(before)] == before


def test_only_the_steps_own_rewards_from_its_two_arms_count() -> None:
    rewards = [
        reward("earlier", version=1),
        reward("fallback", version=2, fallback=True),
        reward("other-arm", arm="reply@v9", version=2),
        reward("kept", arm=CANDIDATE, propensity=0.5, version=2),
    ]
    seen = step_observations(rewards, candidate=CANDIDATE, unit="thread", route_version=2)
    assert [(o.candidate, o.propensity) for o in seen] == [(True, 0.5)]


def test_a_unit_counts_once_in_a_step() -> None:
    twice = [reward("a", propensity=0.9), reward("a", propensity=0.9)]
    assert len(step_observations(twice, candidate=CANDIDATE, unit="thread", route_version=1)) == 1


def test_a_unit_without_a_thread_is_its_own_unit() -> None:
    lone = [reward(output).model_copy(update={"thread_id": None}) for output in ("a", "b")]
    assert len(step_observations(lone, candidate=CANDIDATE, unit="thread", route_version=1)) == 2


def test_propensities_of_units_that_return_after_a_ramp_are_those_given_where_they_were_seen() -> None:
    """Every thread comes back in both steps; among those on control at 10%, the share on the candidate at 50% is 4/9 as logged."""
    routes = _ramp(0.1, 0.5)
    rng = random.Random(7)
    rewards = []
    for route in routes:
        for thread in range(4000):
            decision = assign(route, f"t{thread}", decision_id="dec", decided_at=NOW)
            logged = reward(f"{thread}", rng.random(), arm=decision.arm, propensity=decision.propensity, version=route.version)
            rewards.append(logged)
    second = step_observations(rewards, candidate=CANDIDATE, unit="thread", route_version=routes[1].version)
    assert {round(o.propensity, 9) for o in second} == {round(4 / 9, 9)}
    share = sum(o.candidate for o in second) / len(second)
    assert abs(share - 4 / 9) < 3 * (4 / 9 * 5 / 9 / len(second)) ** 0.5


def _ramp(*weights: float) -> Sequence[Route]:
    route = Route(tenant_id="acme", skill="reply", version=1, control="reply@v1", salt="s", changed_by="test", reason="", changed_at=NOW)
    routes = []
    for weight in weights:
        arms = (Arm(policy_id=CANDIDATE, mode="canary", weight=weight),)
        route = route.succeed(
            control="reply@v1", arms=arms, last_good=None, rollout_id="rol_1", changed_by="test", reason="", changed_at=NOW
        )
        routes.append(route)
    return routes
