"""A rollout from its request to each of its ends, on registries and events in memory."""

import random
from datetime import datetime, timedelta

import pytest

from rlaas.errors import Conflict, InvalidInput, NotFound
from rlaas.rollout.conduct import Conductor, request_rollout, take_back
from rlaas.rollout.sequential import Outcome
from rlaas.rollout.steps import Rollout, RolloutSettings, RolloutStep
from rlaas.routing.assign import assign
from rlaas.telemetry.events import RewardComputed
from rlaas.telemetry.ingest import prepare
from rlaas.tenancy.registry import Change
from tests.fakes.events import MemoryEventStore
from tests.fakes.guards import MemoryGuards
from tests.fakes.registry import MemoryRegistry
from tests.fakes.worlds import NOW, SKILL, TENANT, canary, furnished

OLD, NEW = f"{SKILL}@v1", f"{SKILL}@v2"
SETTINGS = RolloutSettings(
    steps=(RolloutStep(weight=0.1, margin=0.1, min_samples=5), RolloutStep(weight=0.5, min_samples=10)),
    poll_seconds=60,
    max_wait_seconds=3600,
    settle_seconds=0,
)


class World:
    """A skill whose control earns 0.5 on average, and a clock that traffic moves."""

    def __init__(self) -> None:
        self.now = NOW
        self.registry = furnished()
        self.events = MemoryEventStore()
        self.guards = MemoryGuards()
        self.rng = random.Random(11)
        self.count = 0
        for _ in range(50):
            self.reward(0.5)

    def clock(self) -> datetime:
        return self.now

    def conductor(self, rollout_id: str = "rol_1") -> Conductor:
        return Conductor(self.registry, self.events, self.guards, self.clock, TENANT, SKILL, rollout_id)

    def request(self, rollout_id: str = "rol_1", settings: RolloutSettings = SETTINGS, candidate: str = NEW) -> Rollout:
        return request_rollout(
            self.registry,
            tenant_id=TENANT,
            skill=SKILL,
            rollout_id=rollout_id,
            candidate=candidate,
            settings=settings,
            actor="key:1",
            reason="try it",
            now=self.now,
        )

    def reward(self, candidate: float, control: float = 0.5) -> None:
        """One new thread answered as the route says, and rewarded with the mean of whichever policy answered, give or take 0.2."""
        self.count += 1
        self.now += timedelta(seconds=1)
        route = self.registry.get_route(TENANT, SKILL)
        decision = assign(route, f"t{self.count}", decision_id="dec", decided_at=self.now)
        mean = candidate if decision.policy_id == NEW else control
        value = min(1.0, max(0.0, mean + self.rng.uniform(-0.2, 0.2)))
        reward = RewardComputed(
            skill=SKILL,
            thread_id=f"t{self.count}",
            reward_id=f"rew_{self.count}",
            interaction_id=f"int_{self.count}",
            output_id=f"out_{self.count}",
            reward=value,
            components={"sent": 1.0},
            n=1,
            event_ids=("fbk_1",),
            policy_id=decision.policy_id,
            arm=decision.arm,
            propensity=decision.propensity,
            route_version=decision.route_version,
            rollout_id=decision.rollout_id,
        )
        self.events.put_new(prepare(reward, TENANT, received_at=self.now))

    def traffic(self, units: int, candidate: float) -> None:
        for _ in range(units):
            self.reward(candidate)

    def begun(self) -> Conductor:
        self.request()
        conductor = self.conductor()
        conductor.begin()
        assert conductor.set_weight(0) == "running"
        return conductor


@pytest.fixture
def world() -> World:
    return World()


def test_a_better_candidate_passes_both_steps_and_is_the_control(world: World) -> None:
    conductor = world.begun()
    for index in (0, 1):
        assert conductor.set_weight(index) == "running"
        world.traffic(150, candidate=0.85)
        assert conductor.analyse(index) is Outcome.ADVANCE
    assert conductor.promote() == "shipped"
    ended = conductor.finish()
    assert (ended.status, [(step.weight, step.outcome) for step in ended.steps]) == (
        "shipped",
        [(0.1, "advance"), (0.5, "advance"), (1.0, "promoted")],
    )
    assert all(step.n_candidate > 0 and step.n_control > 0 and step.ended_at for step in ended.steps[:2])
    route = world.registry.get_route(TENANT, SKILL)
    assert (route.control, route.arms, route.last_good and route.last_good.control) == (NEW, (), OLD)
    assert world.guards.guards == {}


def test_a_worse_candidate_goes_back_to_the_control(world: World) -> None:
    conductor = world.begun()
    world.traffic(200, candidate=0.1)
    assert conductor.analyse(0) is Outcome.ROLLBACK
    assert conductor.roll_back() == "rolled_back"
    ended = conductor.finish()
    assert (ended.status, ended.rolled_back_at) == ("rolled_back", world.now)
    assert ended.reason.startswith("candidate is worse: evidence ")
    route = world.registry.get_route(TENANT, SKILL)
    assert (route.control, route.arms, route.mode) == (OLD, (), "rolled_back")


def test_an_undecided_candidate_goes_back_when_its_time_is_up(world: World) -> None:
    conductor = world.begun()
    world.traffic(100, candidate=0.45)
    assert conductor.analyse(0) is Outcome.CONTINUE
    world.now += timedelta(hours=1)
    assert conductor.analyse(0) is Outcome.INCONCLUSIVE
    assert conductor.roll_back() == "inconclusive"
    assert conductor.finish().status == "inconclusive"
    assert world.registry.get_route(TENANT, SKILL).arms == ()


def test_the_guards_floor_follows_the_controls_recent_mean(world: World) -> None:
    world.begun()
    guard = world.guards.guards[TENANT, SKILL]
    assert (guard.rollout_id, guard.arm) == ("rol_1", NEW)
    assert guard.floor == pytest.approx(0.5 - SETTINGS.guard_drop, abs=0.05)


def test_without_recent_rewards_a_floor_must_be_named() -> None:
    world = World()
    world.events.events.clear()
    world.request()
    with pytest.raises(Conflict, match="set guard_floor"):
        world.conductor().begin()
    floored = World()
    floored.events.events.clear()
    floored.request(settings=SETTINGS.model_copy(update={"guard_floor": 0.3}))
    assert floored.conductor().begin().floor == 0.3


@pytest.mark.parametrize("moment", ["before its first weight", "between its steps", "before the promotion"])
def test_another_change_of_the_route_supersedes_the_rollout_and_stands(world: World, moment: str) -> None:
    world.request()
    conductor = world.conductor()
    conductor.begin()
    if moment != "before its first weight":
        conductor.set_weight(0)
    if moment == "before the promotion":
        conductor.set_weight(1)
    route = world.registry.get_route(TENANT, SKILL)
    manual = route.succeed(
        control=OLD, arms=(canary(2, 0.3),), last_good=None, rollout_id=None, changed_by="key:9", reason="by hand", changed_at=world.now
    )
    world.registry.write_route(manual, expected_version=route.version)
    answers: dict[str, object] = {
        "before its first weight": conductor.set_weight(0),
        "between its steps": conductor.analyse(0) if conductor.rollout().steps else "superseded",
        "before the promotion": conductor.promote(),
    }
    assert answers[moment] == "superseded"
    ended = conductor.finish()
    assert (ended.status, ended.reason) == ("superseded", f"route version {manual.version} by key:9: by hand")
    assert world.registry.get_route(TENANT, SKILL) == manual


def test_the_guard_takes_the_route_back_in_one_write_and_the_rollout_says_so(world: World) -> None:
    conductor = world.begun()
    raised = world.now + timedelta(seconds=3)
    change = Change(actor="alarm:guard", reason="guard alarm: too low", at=raised + timedelta(seconds=1))
    route = take_back(world.registry, tenant_id=TENANT, skill=SKILL, change=change, rollout_id="rol_1", alarm_at=raised)
    assert (route.control, route.arms, route.mode) == (OLD, (), "rolled_back")
    assert conductor.analyse(0) == "superseded"
    ended = conductor.finish()
    assert (ended.status, ended.alarm_at, ended.rolled_back_at) == ("rolled_back", raised, change.at)
    assert ended.reason == "guard alarm: too low"


def test_the_guards_record_may_come_after_the_rollout_was_closed(world: World) -> None:
    conductor = world.begun()
    change = Change(actor="alarm:guard", reason="guard alarm: too low", at=world.now)
    world.registry.rollback(TENANT, SKILL, change, rollout_id="rol_1")
    assert conductor.finish().status == "rolled_back"
    take_back(world.registry, tenant_id=TENANT, skill=SKILL, change=change, rollout_id="rol_1", alarm_at=world.now)
    assert conductor.rollout().alarm_at == world.now


def test_an_alarm_that_comes_twice_changes_nothing_the_second_time(world: World) -> None:
    world.begun()
    first, second = (
        take_back(
            world.registry,
            tenant_id=TENANT,
            skill=SKILL,
            change=Change(actor="alarm:guard", reason="low", at=world.now + timedelta(seconds=later)),
            rollout_id="rol_1",
        )
        for later in (0, 9)
    )
    assert first == second


def test_an_alarm_of_an_older_rollout_does_not_touch_the_next_ones_route(world: World) -> None:
    conductor = world.begun()
    conductor.abort("stopped")
    world.request("rol_2")
    later = world.conductor("rol_2")
    later.begin()
    later.set_weight(0)
    with pytest.raises(Conflict):
        take_back(
            world.registry,
            tenant_id=TENANT,
            skill=SKILL,
            change=Change(actor="alarm:guard", reason="late", at=world.now),
            rollout_id="rol_1",
        )
    conductor.abort("stopped again")
    assert world.guards.guards[TENANT, SKILL].rollout_id == "rol_2"
    assert later.analyse(0) is Outcome.CONTINUE


def test_an_operators_rollback_works_after_the_promotion_too(world: World) -> None:
    conductor = world.begun()
    conductor.promote()
    change = Change(actor="key:9", reason="customers complain", at=world.now)
    assert take_back(world.registry, tenant_id=TENANT, skill=SKILL, change=change).control == OLD


def test_an_abort_puts_the_route_back_and_says_why(world: World) -> None:
    conductor = world.begun()
    ended = conductor.abort("States.Timeout: the analysis took too long")
    assert ended is not None
    assert (ended.status, ended.reason) == ("failed", "States.Timeout: the analysis took too long")
    assert world.registry.get_route(TENANT, SKILL).arms == ()
    assert world.guards.guards == {}
    assert conductor.abort("once more") == ended


def test_an_abort_leaves_a_promoted_candidate_in_place(world: World) -> None:
    conductor = world.begun()
    conductor.promote()
    ended = conductor.abort("the record could not be closed")
    assert ended is not None
    assert ended.status == "shipped"
    assert world.registry.get_route(TENANT, SKILL).control == NEW


def test_an_abort_of_what_was_never_recorded_does_nothing(world: World) -> None:
    assert world.conductor("rol_unknown").abort("no such policy") is None


def test_every_step_may_be_repeated(world: World) -> None:
    world.request()
    assert world.request() == world.conductor().rollout()
    conductor = world.conductor()
    assert conductor.begin() == conductor.begin()
    for index in (0, 1):
        assert conductor.set_weight(index) == "running"
        version = world.registry.get_route(TENANT, SKILL).version
        assert conductor.set_weight(index) == "running"
        assert world.registry.get_route(TENANT, SKILL).version == version
        world.traffic(150, candidate=0.85)
        assert conductor.analyse(index) == conductor.analyse(index)
    assert [conductor.promote(), conductor.promote()] == ["shipped", "shipped"]
    assert conductor.finish() == conductor.finish()
    assert len(conductor.rollout().steps) == 3


def test_a_lost_race_for_the_route_is_looked_at_again_and_lost_for_good(world: World) -> None:
    """Between the read and the write somebody takes the route: the write fails and the rollout is superseded."""
    world.request()
    conductor = world.conductor()
    conductor.begin()
    racing = RacingRegistry(world.registry)
    raced = Conductor(racing, world.events, world.guards, world.clock, TENANT, SKILL, "rol_1")
    assert raced.set_weight(0) == "superseded"
    assert world.registry.get_route(TENANT, SKILL).changed_by == "key:racer"


class RacingRegistry(MemoryRegistry):
    """The same documents, and somebody who writes the route just before the first write."""

    def __init__(self, registry: MemoryRegistry) -> None:
        super().__init__(registry.documents, registry.numbers)
        self.raced = False

    def write_route(self, route, *, expected_version):  # type: ignore[no-untyped-def]
        if not self.raced:
            self.raced = True
            mine = self.get_route(TENANT, SKILL)
            taken = mine.succeed(
                control=OLD, arms=(canary(2, 0.2),), last_good=None, rollout_id=None, changed_by="key:racer", reason="", changed_at=NOW
            )
            super().write_route(taken, expected_version=mine.version)
        super().write_route(route, expected_version=expected_version)


def test_what_cannot_be_rolled_out_is_refused_before_anything_is_recorded(world: World) -> None:
    with pytest.raises(NotFound, match="no policy"):
        world.request(candidate=f"{SKILL}@v9")
    with pytest.raises(InvalidInput, match="the control already"):
        world.request(candidate=OLD)
    with pytest.raises(NotFound):
        world.conductor().rollout()


def test_a_skill_has_one_rollout_at_a_time(world: World) -> None:
    world.request()
    with pytest.raises(Conflict, match=r"rol_1 of .* has not ended"):
        world.request("rol_2")
    world.now += timedelta(minutes=16)  # rol_1 was requested and never began
    world.request("rol_2")


def test_one_id_stands_for_one_rollout(world: World) -> None:
    world.request()
    with pytest.raises(Conflict, match="another rollout already"):
        world.request(settings=SETTINGS.model_copy(update={"alpha": 0.01}))
