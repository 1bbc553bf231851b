"""What an allocation reads, that it counts each unit once, and what it writes."""

import random
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest

from rlaas.errors import Conflict
from rlaas.experiments.allocation import ACTOR, Allocation, HarmRecord, allocate_route, count_harms, explain_breach
from rlaas.experiments.harm import HarmLedger
from rlaas.experiments.settlement import Harms
from rlaas.routing.assign import Decision, assign, make_shadow_decision
from rlaas.routing.bandit_settings import BanditSettings, CostGuard, LatencyGuard, RateGuard
from rlaas.routing.route import Arm, Route
from rlaas.skills.skill import MissingValues, RewardSpec, Skill
from rlaas.telemetry.events import AnyEvent, FeedbackSubmitted, GuardrailActed, OutputProduced
from rlaas.telemetry.ingest import prepare
from rlaas.tenancy.registry import skill_key
from tests.fakes.bandits import MemoryBandits
from tests.fakes.events import MemoryEventStore
from tests.fakes.registry import MemoryRegistry
from tests.fakes.worlds import CHANGE, NOW, SKILL, TENANT, furnish_registry, make_route

V1, V2, V3 = (f"{SKILL}@v{version}" for version in (1, 2, 3))
WINDOW = timedelta(hours=1)
SETTINGS = BanditSettings(window_hours=1, lag_seconds=60, min_samples_per_arm=5, min_probability=0.05)


@dataclass
class World:
    """A route with a bandit over policies 1 (control), 2 and 3, and what happened on it."""

    settings: BanditSettings = SETTINGS
    registry: MemoryRegistry = field(default_factory=furnish_registry)
    events: MemoryEventStore = field(default_factory=MemoryEventStore)
    bandits: MemoryBandits = field(default_factory=MemoryBandits)
    number: int = 0

    def __post_init__(self) -> None:
        self.declare(MissingValues())
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

    def declare(self, missing: MissingValues) -> None:
        """Set the skill's reward to the share of a draft that was kept, with what a missing one is worth."""
        stored = self.registry.get(Skill, TENANT, skill_key(SKILL))
        spec = RewardSpec(edit_similarity=1.0, sent=0.0, missing=missing)
        skill = stored.record.model_copy(update={"reward": spec})
        self.registry.replace(TENANT, skill_key(SKILL), skill, expected_version=stored.version, change=CHANGE)

    @property
    def route(self) -> Route:
        return self.registry.get_route(TENANT, SKILL)

    def put(self, event: AnyEvent, at: datetime) -> None:
        self.events.put_new(prepare(event, TENANT, received_at=at))

    def decide(self, policy: str, at: datetime = NOW) -> Decision:
        """A decision for `policy`, found by trying units."""
        while True:
            self.number += 1
            decision = assign(self.route, f"t{self.number}", decision_id="dec_1", decided_at=at)
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
        user: str | None = None,
    ) -> str:
        """An output of `policy` at `at`, rewarded `after` that."""
        decision = decision.model_copy(update={"decided_at": at}) if decision else self.decide(policy, at)
        name = f"o{self.number}"
        output = OutputProduced(
            output_id=name,
            interaction_id=f"i{self.number}",
            skill=SKILL,
            text="a" * 1_000,
            policy_id=policy,
            decision=decision,
            latency_ms=latency_ms,
            user_id=user,
        )
        self.put(output, at)
        if reward is not None:
            self.reward(name, reward, at + after)
        return name

    def reward(self, output_id: str, reward: float, at: datetime, *, n: int = 1) -> None:
        """An edit that keeps the share `reward` of the draft."""
        length = round(1_000 * reward)
        self.put(
            FeedbackSubmitted(
                feedback_id=f"fbk_{output_id}_{n}",
                interaction_id=f"i{output_id[1:]}",
                output_id=output_id,
                skill=SKILL,
                kind="edit",
                final_text="a" * length + "b" * (1_000 - length),
            ),
            at,
        )

    def look(self, at: datetime, **options: int) -> Allocation:
        return allocate_route(
            TENANT,
            SKILL,
            routes=self.registry,
            specs=self.registry,
            events=self.events,
            statistics=self.bandits,
            now=at,
            **options,
        )

    def rewards_of(self, policy: str) -> tuple[float, float | None]:
        statistics = self.bandits.load(TENANT, SKILL)
        assert statistics is not None
        return statistics.of(policy).n, statistics.of(policy).mean

    def weights(self) -> dict[str, float]:
        return {arm.policy_id: arm.weight for arm in self.route.arms}


def later(minutes: float) -> datetime:
    return NOW + timedelta(minutes=minutes)


def test_the_better_arm_gets_the_traffic_and_the_route_says_why() -> None:
    world = World()
    for number in range(40):
        for policy, reward in ((V1, 0.4), (V2, 0.9), (V3, 0.2)):
            world.serve(policy, later(number / 10), reward=reward + 0.001 * (number % 7))
    result = world.look(later(70))
    assert (result.seen, result.settled) == (120, 120)
    assert world.route == result.route
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
    assert world.look(later(30)).settled == 0
    assert world.look(later(63)).settled == 2
    assert world.rewards_of(V2) == (2, 0.3)
    assert world.look(later(200)).settled == 0
    assert world.rewards_of(V2) == (2, 0.3)


@pytest.mark.parametrize(("declared", "mean"), [(None, 0.5), (0.0, 0.5), (0.8, 0.9)])
def test_silence_is_worth_what_the_skill_declares(declared: float | None, mean: float) -> None:
    world = World()
    world.declare(MissingValues(edit_similarity=declared))
    world.serve(V2, later(1), reward=1.0)
    world.serve(V2, later(1))
    world.look(later(70))
    assert world.rewards_of(V2) == (2, pytest.approx(mean))


def test_an_arm_whose_rewards_come_late_is_judged_like_one_whose_rewards_come_at_once() -> None:
    """Good drafts of arm 2 are sent at once, its bad ones discarded 50 minutes later; arm 3 is as good, its feedback
    takes that long."""
    world = World()
    for number in range(60):
        good = float(number % 2)
        world.serve(V2, later(number), reward=good, after=timedelta(minutes=0 if good else 50))
        world.serve(V3, later(number), reward=good, after=timedelta(minutes=50))
        world.look(later(number + 0.5))
        statistics = world.bandits.load(TENANT, SKILL)
        assert statistics is not None
        assert statistics.of(V2).n == statistics.of(V3).n
        assert statistics.of(V2).mean == statistics.of(V3).mean


def test_a_fallback_counts_for_the_arm_that_was_dealt_and_is_its_failure_and_a_shadow_is_nobodys() -> None:
    world = World(settings=SETTINGS.model_copy(update={"error_rate": RateGuard(above=0.2)}))
    fallback = world.decide(V2).model_copy(update={"fallback": True, "drawn": V2, "arm": "control", "policy_id": V1})

    def serve_fallback(at: datetime) -> None:
        world.number += 1
        world.serve(V1, at, reward=1.0, decision=fallback.model_copy(update={"bucket": world.number / 1_000}))

    for number in range(2):
        serve_fallback(later(number))
    world.number += 1
    world.serve(V3, later(1), reward=1.0, decision=make_shadow_decision(world.decide(V1), V3))
    assert world.look(later(20)).seen == 2
    assert world.look(later(100)).settled == 2
    assert world.rewards_of(V2) == (2, 1.0)
    for number in range(3):
        serve_fallback(later(101 + number))
    assert world.look(later(106)).route is not None
    arm = next(arm for arm in world.route.arms if arm.policy_id == V2)
    assert arm.weight == 0
    assert arm.dropped is not None
    assert arm.dropped.startswith("it fails more often than it may: evidence ")
    assert arm.dropped.endswith("in 5 units (failed 1 a unit)")
    assert f"{V2} dropped: it fails more often" in world.route.reason


def test_a_person_who_comes_again_and_again_drops_no_arm() -> None:
    world = World(settings=SETTINGS.model_copy(update={"error_rate": RateGuard(above=0.2)}))
    fallback = world.decide(V2).model_copy(update={"fallback": True, "drawn": V2, "arm": "control", "policy_id": V1})
    for number in range(100):
        world.number += 1
        world.serve(V1, later(number / 10), decision=fallback)
    world.look(later(20))
    assert world.weights()[V2] > 0


def test_a_unit_counts_once_a_day_by_its_first_decision() -> None:
    world = World()
    decision = world.decide(V2)
    for minute, reward in ((0, 1.0), (1, 0.0), (2, 0.0), (24 * 60, 0.5)):
        world.number += 1
        world.serve(V2, later(minute), reward=reward, decision=decision)
    world.look(later(26 * 60))
    assert world.rewards_of(V2) == (2, 0.75)


@pytest.mark.parametrize(("user", "expected"), [("mallory", 43), (None, 80)])
def test_nobody_moves_shares_by_opening_threads(user: str | None, expected: int) -> None:
    """Without his name the same threads are as many people."""
    world = World()
    for number in range(40):
        world.serve(V2, later(number), reward=1.0, user=f"u{number}")
        world.serve(V2, later(number), reward=0.0, user=user)
    world.look(later(26 * 60))
    n, mean = world.rewards_of(V2)
    assert n == expected
    assert mean == pytest.approx(40 / expected)


def test_nobody_drops_an_arm_by_opening_threads() -> None:
    world = World(settings=SETTINGS.model_copy(update={"latency": LatencyGuard(p95_ms=100)}))
    for number in range(40):
        world.serve(V2, later(number), latency_ms=50.0, user=f"u{number}")
        world.serve(V2, later(number), latency_ms=500.0, user="mallory")
    world.look(later(26 * 60))
    assert world.weights()[V2] > 0


def test_a_dropped_arm_stays_out_until_somebody_lets_it_back_in_and_then_begins_anew() -> None:
    guarded = SETTINGS.model_copy(update={"latency": LatencyGuard(p95_ms=100)})
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


@pytest.mark.parametrize(
    ("harms", "guards", "why"),
    [
        (Harms(True, False, False, None, None), BanditSettings(error_rate=RateGuard(above=0.1)), "it fails more often"),
        (Harms(False, False, True, None, None), BanditSettings(safety_rate=RateGuard(above=0.0)), "guardrails act on its answers"),
        (Harms(False, False, False, 900, None), BanditSettings(latency=LatencyGuard(p95_ms=800)), "it is slow more often"),
        (Harms(False, False, False, None, 0.05), BanditSettings(cost=CostGuard(usd=0.01)), "it costs more than it may"),
    ],
)
def test_a_guard_drops_an_arm_that_is_plainly_bad_after_few_units_and_says_why(harms: Harms, guards: BanditSettings, why: str) -> None:
    record, units = HarmRecord(HarmLedger(first=NOW.toordinal())), 0
    while explain_breach(record, guards) is None:
        count_harms(record, harms, guards, at=NOW)
        units += 1
    assert units <= 6
    assert str(explain_breach(record, guards)).startswith(why)


@pytest.mark.parametrize(
    "guards",
    [
        BanditSettings(error_rate=RateGuard(above=0.1)),
        BanditSettings(latency=LatencyGuard(p95_ms=100)),
        BanditSettings(cost=CostGuard(usd=0.01)),
    ],
)
def test_an_arm_at_its_bound_is_dropped_no_more_often_than_alpha_however_often_it_is_looked_at(guards: BanditSettings) -> None:
    """200 arms of 300 units, seed 20260101; three standard errors of 0.05 over 200: 0.046."""
    rng, dropped = random.Random(20260101), 0
    for _ in range(200):
        record = HarmRecord(HarmLedger(first=NOW.toordinal()))
        for unit in range(300):
            slow = 200.0 if rng.random() < 0.05 else 50.0
            harms = Harms(rng.random() < 0.1, False, False, slow, rng.expovariate(100.0))
            count_harms(record, harms, guards, at=later(unit))
            if explain_breach(record, guards):
                dropped += 1
                break
    assert dropped / 200 <= 0.05 + 0.046


def test_an_answer_that_a_guardrail_acted_on_is_unsafe() -> None:
    world = World(settings=SETTINGS.model_copy(update={"safety_rate": RateGuard(above=0.1)}))
    for number in range(10):
        name = world.serve(V2, later(number))
        if number < 8:
            action = GuardrailActed(
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
            world.put(action, later(number))
    world.look(later(20))
    assert world.weights()[V2] == 0


def test_a_run_that_is_cut_short_is_taken_up_where_it_got_to_and_nothing_counts_twice() -> None:
    world = World()
    for number in range(30):
        world.serve(V2, later(number // 3), reward=0.5)  # three at each moment: a moment is never cut in two
    counts = [world.look(later(130), most=7) for _ in range(8)]
    assert [result.settled for result in counts[:4]] == [9, 9, 9, 3]
    assert sum(result.settled for result in counts) == sum(result.seen for result in counts) == 30
    assert world.rewards_of(V2) == (30, 0.5)


def test_two_runs_at_once_count_once(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.serve(V2, later(1), reward=0.5)
    world.look(later(5))
    before = MemoryBandits(dict(world.bandits.statistics))
    world.look(later(70))
    monkeypatch.setattr(world.bandits, "load", before.load)
    with pytest.raises(Conflict):
        world.look(later(70))
    assert world.bandits.statistics[TENANT, SKILL].of(V2).n == 1


@pytest.mark.parametrize(("rollout_id", "back", "why"), [("rol_1", False, "belongs to rol_1"), (None, True, "was rolled back")])
def test_a_route_that_is_not_the_bandits_is_left_alone(rollout_id: str | None, back: bool, why: str) -> None:
    world = World()
    now = world.route
    changed = now.succeed(
        control=V1, arms=now.arms, last_good=make_route().target, rollout_id=rollout_id, changed_by="x", reason="x", changed_at=NOW
    )
    if back:
        changed = changed.model_copy(update={"mode": "rolled_back"})
    world.registry.write_route(changed, expected_version=now.version)
    world.serve(V2, later(1), reward=0.5)
    result = world.look(later(70))
    assert result.route is None
    assert why in result.reason
    assert world.route == changed
    assert world.bandits.statistics == {}


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
