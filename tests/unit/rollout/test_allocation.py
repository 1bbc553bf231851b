"""What an allocation sees, counts once, and writes."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest

from rlaas.errors import Conflict
from rlaas.rollout.allocation import ACTOR, Allocated, allocate_route
from rlaas.routing.assign import Decision, assign, shadow_decision
from rlaas.routing.bandit import BanditSettings, LatencyGuard, RateGuard
from rlaas.routing.route import Arm, Route
from rlaas.telemetry.events import AnyEvent, GuardrailActed, OutputProduced, RewardComputed
from rlaas.telemetry.ingest import prepare
from tests.fakes.bandits import MemoryBandits
from tests.fakes.events import MemoryEventStore
from tests.fakes.registry import MemoryRegistry
from tests.fakes.worlds import NOW, SKILL, TENANT, furnished, route

V1, V2, V3 = (f"{SKILL}@v{version}" for version in (1, 2, 3))
WINDOW = timedelta(hours=1)
SETTINGS = BanditSettings(window_hours=1, lag_seconds=60, min_samples_per_arm=5, min_probability=0.05)


@dataclass
class World:
    """A route with a bandit over policies 1 (control), 2 and 3, and what happened on it."""

    settings: BanditSettings = SETTINGS
    registry: MemoryRegistry = field(default_factory=furnished)
    events: MemoryEventStore = field(default_factory=MemoryEventStore)
    bandits: MemoryBandits = field(default_factory=MemoryBandits)
    number: int = 0

    def __post_init__(self) -> None:
        arms = tuple(Arm(policy_id=policy, mode="bandit", weight=0.3) for policy in (V2, V3))
        current = self.route
        first = current.succeed(
            control=V1,
            arms=arms,
            last_good=None,
            rollout_id=None,
            changed_by="key:1",
            reason="begin",
            changed_at=later(-1),
            bandit=self.settings,
        )
        self.registry.write_route(first, expected_version=current.version)

    @property
    def route(self) -> Route:
        return self.registry.get_route(TENANT, SKILL)

    def put(self, event: AnyEvent, at: datetime) -> None:
        self.events.put_new(prepare(event, TENANT, received_at=at))

    def decide(self, policy: str) -> Decision:
        """A decision for `policy`, found by trying units."""
        while True:
            self.number += 1
            decision = assign(self.route, f"t{self.number}", decision_id="dec_1", decided_at=NOW)
            if decision.policy_id == policy:
                return decision

    def serve(
        self,
        policy: str,
        at: datetime,
        *,
        reward: float | None = None,
        after: timedelta = timedelta(0),
        decision: Decision | None = None,
        latency_ms: float | None = None,
    ) -> str:
        """An output of `policy` at `at`, rewarded `after` that."""
        decision = decision or self.decide(policy)
        name = f"o{self.number}"
        output = OutputProduced(
            output_id=name,
            interaction_id=f"i{self.number}",
            skill=SKILL,
            text="Hi",
            policy_id=policy,
            decision=decision,
            latency_ms=latency_ms,
        )
        self.put(output, at)
        if reward is not None:
            self.reward(name, reward, at + after)
        return name

    def reward(self, output_id: str, reward: float, at: datetime, *, n: int = 1) -> None:
        self.put(
            RewardComputed(
                reward_id=f"rew_{output_id}_{n}",
                interaction_id=f"i{output_id[1:]}",
                output_id=output_id,
                skill=SKILL,
                reward=reward,
                components={"sent": reward},
                n=n,
                event_ids=("f",),
            ),
            at,
        )

    def look(self, at: datetime, **options: int) -> Allocated:
        return allocate_route(TENANT, SKILL, routes=self.registry, events=self.events, statistics=self.bandits, now=at, **options)

    def known(self, policy: str) -> tuple[float, float | None]:
        held = self.bandits.load(TENANT, SKILL)
        assert held is not None
        return held.of(policy).n, held.of(policy).mean

    def weights(self) -> dict[str, float]:
        return {arm.policy_id: arm.weight for arm in self.route.arms}


def later(minutes: float) -> datetime:
    return NOW + timedelta(minutes=minutes)


def test_the_better_arm_gets_the_traffic_and_the_route_says_why() -> None:
    world = World()
    for number in range(40):
        for policy, reward in ((V1, 0.4), (V2, 0.9), (V3, 0.2)):
            world.serve(policy, later(number / 10), reward=reward + 0.001 * (number % 7))
    done = world.look(later(70))
    assert (done.seen, done.settled) == (120, 120)
    assert world.route == done.route
    assert world.route.changed_by == ACTOR
    assert world.weights()[V2] > 0.85
    assert world.weights()[V3] == pytest.approx(0.05, abs=1e-3)
    assert f"{V2} " in world.route.reason
    assert "mean 0.9029 of 40.0" in world.route.reason
    decision = world.decide(V2)
    assert decision.bandit
    assert sum(candidate.probability for candidate in decision.candidates) == pytest.approx(1, abs=1e-12)
    assert world.look(later(75)).route is None


def test_a_decision_counts_once_its_window_is_over_with_the_reward_it_had_by_then() -> None:
    world = World()
    first = world.serve(V2, later(1), reward=0.2, after=timedelta(minutes=5))
    world.reward(first, 0.6, later(50), n=2)
    world.reward(first, 1.0, later(62), n=3)
    world.serve(V2, later(1), reward=0.9, after=timedelta(minutes=61))  # too late
    world.serve(V2, later(1))  # nobody said anything
    assert world.look(later(30)).settled == 0
    assert world.look(later(63)).settled == 1
    assert world.known(V2) == (1, 0.6)
    assert world.look(later(200)).settled == 0
    assert world.known(V2) == (1, 0.6)


def test_where_silence_means_no_use_it_counts_as_nothing() -> None:
    world = World(settings=SETTINGS.model_copy(update={"no_reward": "zero"}))
    world.serve(V2, later(1), reward=1.0)
    world.serve(V2, later(1))
    world.look(later(70))
    assert world.known(V2) == (2, 0.5)


def test_an_arm_whose_rewards_come_late_is_judged_like_one_whose_rewards_come_at_once() -> None:
    """Good drafts of arm 2 are sent at once, its bad ones discarded 50 minutes later; arm 3 is as good, its feedback takes that long."""
    world = World()
    for number in range(60):
        good = float(number % 2)
        world.serve(V2, later(number), reward=good, after=timedelta(minutes=0 if good else 50))
        world.serve(V3, later(number), reward=good, after=timedelta(minutes=50))
        world.look(later(number + 0.5))
        held = world.bandits.load(TENANT, SKILL)
        assert held is not None
        assert held.of(V2).n == held.of(V3).n
        assert held.of(V2).mean == held.of(V3).mean


def test_fallbacks_pins_and_shadows_settle_nothing_and_a_fallback_is_its_arms_failure() -> None:
    world = World(settings=SETTINGS.model_copy(update={"error_rate": RateGuard(above=0.2, min_samples=10)}))
    fell = world.decide(V2).model_copy(update={"fallback": True, "drawn": V2, "arm": "control", "policy_id": V1})
    for number in range(9):
        world.number += 1
        world.serve(V1, later(number), reward=1.0, decision=fell)
    world.number += 1
    world.serve(V3, later(1), reward=1.0, decision=shadow_decision(world.decide(V1), V3))
    assert world.look(later(20)).seen == 9
    assert world.look(later(100)).settled == 0
    world.number += 1
    world.serve(V1, later(101), decision=fell)
    assert world.look(later(105)).route is not None
    stopped = next(arm for arm in world.route.arms if arm.policy_id == V2)
    assert (stopped.weight, stopped.dropped) == (0, "error rate 100.00% in 10 requests, over 20.00%")
    assert f"{V2} dropped: error rate 100.00%" in world.route.reason


def test_a_dropped_arm_stays_out_until_somebody_lets_it_back_in_and_then_begins_anew() -> None:
    guarded = SETTINGS.model_copy(update={"latency": LatencyGuard(p95_ms=100, min_samples=10)})
    world = World(settings=guarded)
    for number in range(10):
        world.serve(V2, later(number), latency_ms=500.0)
    world.look(later(20))
    for number in range(20):
        world.serve(V3, later(20 + number), latency_ms=50.0)
    world.look(later(60))
    assert world.weights()[V2] == 0
    arms = tuple(Arm(policy_id=policy, mode="bandit", weight=0.3) for policy in (V2, V3))
    now = world.route
    world.registry.write_route(
        now.succeed(control=V1, arms=arms, last_good=None, rollout_id=None, changed_by="key:1", reason="mended", changed_at=later(61)),
        expected_version=now.version,
    )
    world.look(later(65))
    assert world.weights()[V2] > 0.2


def test_an_answer_that_a_guardrail_acted_on_is_unsafe() -> None:
    world = World(settings=SETTINGS.model_copy(update={"safety_rate": RateGuard(above=0.3, min_samples=10)}))
    for number in range(10):
        name = world.serve(V2, later(number))
        if number < 4:
            acted = GuardrailActed(
                guardrail_id=f"g{number}",
                interaction_id=f"i{name[1:]}",
                skill=SKILL,
                stage="output",
                guardrail="pii",
                kind="personal_data",
                action="redact",
                reason="EMAIL_ADDRESS",
                position=0,
            )
            world.put(acted, later(number))
    world.look(later(20))
    assert world.weights()[V2] == 0


def test_a_run_that_is_cut_short_is_taken_up_where_it_got_to_and_nothing_counts_twice() -> None:
    world = World()
    for number in range(30):
        world.serve(V2, later(number // 3), reward=0.5)  # three at each moment: a moment is never cut in two
    counts = [world.look(later(120), most=7) for _ in range(8)]
    assert [done.settled for done in counts[:4]] == [9, 9, 9, 3]
    assert sum(done.settled for done in counts) == sum(done.seen for done in counts) == 30
    assert world.known(V2) == (30, 0.5)


def test_two_runs_at_once_count_once() -> None:
    world = World()
    world.serve(V2, later(1), reward=0.5)
    world.look(later(5))
    before = MemoryBandits(dict(world.bandits.held))
    world.look(later(70))
    world.bandits.load = before.load  # type: ignore[method-assign]
    with pytest.raises(Conflict):
        world.look(later(70))
    assert world.bandits.held[TENANT, SKILL].of(V2).n == 1


@pytest.mark.parametrize(("rollout_id", "back", "why"), [("rol_1", False, "belongs to rol_1"), (None, True, "was rolled back")])
def test_a_route_that_is_not_the_bandits_is_left_alone(rollout_id: str | None, back: bool, why: str) -> None:
    world = World()
    now = world.route
    theirs = now.succeed(
        control=V1, arms=now.arms, last_good=route().target, rollout_id=rollout_id, changed_by="x", reason="x", changed_at=NOW
    )
    if back:
        theirs = theirs.model_copy(update={"mode": "rolled_back"})
    world.registry.write_route(theirs, expected_version=now.version)
    world.serve(V2, later(1), reward=0.5)
    done = world.look(later(70))
    assert done.route is None
    assert why in done.reason
    assert world.route == theirs
    assert world.bandits.held == {}


def test_other_live_arms_and_shadows_keep_their_weights() -> None:
    world = World()
    now = world.route
    arms = (
        Arm(policy_id=V2, mode="bandit", weight=0.2),
        Arm(policy_id=V3, mode="canary", weight=0.25),
        Arm(policy_id=f"{SKILL}@v4", mode="shadow", weight=0.5),
    )
    world.registry.write_route(
        now.succeed(control=V1, arms=arms, last_good=None, rollout_id=None, changed_by="k", reason="mix", changed_at=NOW),
        expected_version=now.version,
    )
    for number in range(20):
        world.serve(V1, later(number), reward=0.1)
        world.serve(V2, later(number), reward=0.9)
    world.look(later(90))
    weights = world.weights()
    assert (weights[V3], weights[f"{SKILL}@v4"]) == (0.25, 0.5)
    assert 0.6 < weights[V2] <= 0.75 - 0.05 * 0.75 + 1e-6
