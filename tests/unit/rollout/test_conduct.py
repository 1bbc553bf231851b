"""A rollout from its request to each of its ends, on registries and events in memory."""

import random
from datetime import timedelta

import pytest

from rlaas.errors import Conflict, InvalidInput, NotFound
from rlaas.experiments.sequential import StepOutcome
from rlaas.rollout.conduct import Conductor, take_back
from rlaas.rollout.steps import RolloutSettings, RolloutStep
from rlaas.routing.route import Route
from rlaas.skills.skill import RewardSpec, Skill
from rlaas.tenancy.registry import Change, skill_key
from tests.fakes.registry import MemoryRegistry
from tests.fakes.trials import NEW, OLD, SETTINGS, World, dump_evidence
from tests.fakes.worlds import CHANGE, NOW, SKILL, TENANT, make_canary_route

RNG = random.Random(11)


def traffic(world: World, units: int, candidate: float, control: float = 0.5) -> None:
    """`units` new threads answered as the route says; people send that share of what each policy drafts. Then the
    windows close."""
    for _ in range(units):
        world.advance(1)
        output = world.serve()
        good = RNG.random() < (candidate if output.policy_id == NEW else control)
        world.act(output, "sent" if good else "discarded")
    world.advance(75)


@pytest.fixture
def world() -> World:
    return World()


def test_a_better_candidate_passes_both_steps_and_is_the_control(world: World) -> None:
    conductor = world.begin_rollout()
    for index in (0, 1):
        assert conductor.set_weight(index) == "running"
        traffic(world, 200, candidate=0.95)
        assert conductor.analyse(index)[0] is StepOutcome.ADVANCE
    assert conductor.promote() == "shipped"
    rollout = conductor.finish()
    assert (rollout.status, [(step.weight, step.outcome) for step in rollout.steps]) == (
        "shipped",
        [(0.2, "advance"), (0.5, "advance"), (1.0, "promoted")],
    )
    assert all(step.n_candidate > 0 and step.n_control > 0 and step.ended_at for step in rollout.steps[:2])
    route = world.registry.get_route(TENANT, SKILL)
    assert (route.control, route.arms, route.last_good and route.last_good.control) == (NEW, (), OLD)
    assert world.guards.guards == {}


def test_a_worse_candidate_goes_back_by_the_look_when_its_alarm_is_lost(world: World) -> None:
    conductor = world.begin_rollout()
    traffic(world, 200, candidate=0.05)
    assert conductor.analyse(0)[0] is StepOutcome.CONTINUE  # the alarm has the first word
    assert conductor.read_rollout().steps[0].harm >= 20
    world.advance(61)
    assert conductor.analyse(0)[0] is StepOutcome.ROLLBACK
    assert conductor.roll_back() == "rolled_back"
    rollout = conductor.finish()
    assert (rollout.status, rollout.rolled_back_at) == ("rolled_back", world.now)
    assert rollout.reason.startswith("candidate does harm, ")
    route = world.registry.get_route(TENANT, SKILL)
    assert (route.control, route.arms, route.mode) == (OLD, (), "rolled_back")


def test_an_undecided_candidate_goes_back_when_its_time_is_up(world: World) -> None:
    conductor = world.begin_rollout(SETTINGS.model_copy(update={"max_wait_seconds": 3_600}))
    traffic(world, 100, candidate=0.45)
    assert conductor.analyse(0)[0] is StepOutcome.CONTINUE
    world.advance(3_600)
    assert conductor.analyse(0)[0] is StepOutcome.INCONCLUSIVE
    assert conductor.roll_back() == "inconclusive"
    rollout = conductor.finish()
    assert rollout.status == "inconclusive"
    assert "At the difference that was seen" in rollout.reason
    assert world.registry.get_route(TENANT, SKILL).arms == ()


def test_the_guard_is_put_before_any_unit_reaches_the_candidate(world: World) -> None:
    world.make_history()
    world.request()
    world.make_conductor().begin()
    guard = world.guards.guards[TENANT, SKILL]
    assert (guard.rollout_id, guard.arm, guard.threshold) == ("rol_1", NEW, pytest.approx(20))
    assert world.registry.get_route(TENANT, SKILL).arms == ()


def test_a_plan_is_made_from_the_skills_own_traffic() -> None:
    world = World()
    world.make_history(120)
    rollout = world.request(settings=SETTINGS.model_copy(update={"steps": None, "units_a_day": None}))
    assert rollout.requested is not None
    assert rollout.requested.steps is None
    assert rollout.plan is not None
    assert rollout.settings.planned[-1] == RolloutStep(weight=0.5)
    assert rollout.plan.traffic.units_a_day == pytest.approx(120 * 24)
    assert (rollout.prior_mean, rollout.prior_unsent) == (0.5, 0.5)
    assert rollout.plan.can_conclude


def test_a_plan_that_cannot_conclude_is_refused_with_what_would() -> None:
    world = World()
    world.make_history()
    few = RolloutSettings(units_a_day=3, steps=(RolloutStep(weight=0.1), RolloutStep(weight=0.5)))
    with pytest.raises(InvalidInput, match=r"this plan cannot conclude: at 3 units a day .* it would take one of: "):
        world.request(settings=few)
    dry = world.request(settings=few, dryrun=True)
    assert dry.plan is not None
    assert not dry.plan.can_conclude
    with pytest.raises(NotFound):
        world.make_conductor().read_rollout()


def test_without_traffic_nothing_is_begun_unless_somebody_says_how_much_is_to_come() -> None:
    world = World()
    with pytest.raises(InvalidInput, match="no rewarded traffic to plan from"):
        world.request(settings=SETTINGS.model_copy(update={"units_a_day": None}))
    plan = world.request(settings=SETTINGS.model_copy(update={"units_a_day": 5_000.0})).plan
    assert plan is not None
    assert plan.can_conclude


def test_one_agent_alone_is_too_few_for_a_route_by_user(world: World) -> None:
    route = world.registry.get_route(TENANT, SKILL)
    world.registry.write_route(route.model_copy(update={"unit": "user", "version": 2}), expected_version=1)
    for number in range(50):
        world.advance(3_600)
        world.act(world.serve(user="ada"), "sent" if number % 2 else "discarded")
    with pytest.raises(InvalidInput, match="this plan cannot conclude: at 0 units a day"):
        world.request(settings=SETTINGS.model_copy(update={"max_wait_seconds": 14 * 86_400, "poll_seconds": 900, "units_a_day": None}))


def test_an_arm_that_always_fails_is_taken_back_and_the_reason_says_so(world: World) -> None:
    conductor = world.begin_rollout(SETTINGS.model_copy(update={"window_hours": 1.0}))
    for _ in range(60):
        world.advance(1)
        name, decision = world.ask()
        if decision.policy_id == NEW:
            world.store_failure(name, decision)
        else:
            world.act(world.answer(name, decision), "sent")
    world.advance(30)
    assert conductor.analyse(0)[0] is StepOutcome.CONTINUE
    world.advance(61)
    assert conductor.analyse(0)[0] is StepOutcome.ROLLBACK
    conductor.roll_back()
    rollout = conductor.finish()
    assert rollout.status == "rolled_back"
    assert rollout.reason.startswith("candidate does harm, it fails more often than it may: evidence ")


def test_outcomes_that_stop_coming_end_inconclusive_and_the_reason_says_so(world: World) -> None:
    conductor = world.begin_rollout(SETTINGS.model_copy(update={"max_wait_seconds": 3_600}))
    for _ in range(100):
        world.advance(1)
        world.serve()
    world.advance(3_600)
    assert conductor.analyse(0)[0] is StepOutcome.INCONCLUSIVE
    conductor.roll_back()
    rollout = conductor.finish()
    assert (rollout.status, rollout.steps[0].missing_candidate, rollout.steps[0].missing_control) == ("inconclusive", 1.0, 1.0)
    assert rollout.reason.endswith("Nothing came back for any unit: outcomes have stopped coming")


def test_without_traffic_a_rollout_ends_inconclusive_and_the_reason_says_so(world: World) -> None:
    conductor = world.begin_rollout(SETTINGS.model_copy(update={"max_wait_seconds": 3_600}))
    world.advance(3_600)
    assert conductor.analyse(0)[0] is StepOutcome.INCONCLUSIVE
    conductor.roll_back()
    assert "No decision of this rollout was settled: no traffic came" in conductor.finish().reason


def test_rewards_that_are_all_equal_end_inconclusive(world: World) -> None:
    conductor = world.begin_rollout(SETTINGS.model_copy(update={"max_wait_seconds": 3_600, "steps": (RolloutStep(weight=0.5),)}))
    traffic(world, 100, candidate=1.0, control=1.0)
    world.advance(3_600)
    assert conductor.analyse(0)[0] is StepOutcome.INCONCLUSIVE
    conductor.roll_back()
    assert conductor.finish().reason.endswith("At the difference that was seen no amount of traffic would be enough")


def test_a_thousandth_of_the_traffic_harms_nothing_and_ends_inconclusive(world: World) -> None:
    tiny = SETTINGS.model_copy(update={"max_wait_seconds": 3_600, "steps": (RolloutStep(weight=0.001),), "units_a_day": 1e9})
    conductor = world.begin_rollout(tiny)
    traffic(world, 300, candidate=0.5)
    assert conductor.analyse(0)[0] is StepOutcome.CONTINUE
    world.advance(3_600)
    assert conductor.analyse(0)[0] is StepOutcome.INCONCLUSIVE


def test_a_reward_spec_that_changes_meanwhile_changes_nothing_for_the_rollout(world: World) -> None:
    conductor = world.begin_rollout()
    skill = world.registry.get(Skill, TENANT, skill_key(SKILL))
    changed = skill.record.model_copy(update={"reward": RewardSpec(edit_similarity=1.0, sent=0.0)})
    world.registry.replace(TENANT, skill_key(SKILL), changed, expected_version=skill.version, change=CHANGE)
    traffic(world, 200, candidate=0.95)
    assert conductor.analyse(0)[0] is StepOutcome.ADVANCE
    assert conductor.read_rollout().reward_spec == RewardSpec()


def test_what_a_trial_has_seen_can_be_made_again_from_the_events(world: World) -> None:
    conductor = world.begin_rollout()
    traffic(world, 100, candidate=0.7)
    before = conductor.watch()
    assert conductor.watch_anew().test.n == 0
    assert dump_evidence(conductor.watch()) == dump_evidence(before)


@pytest.mark.parametrize("moment", ["before its first weight", "between its steps", "before the promotion"])
def test_another_change_of_the_route_supersedes_the_rollout_and_stands(world: World, moment: str) -> None:
    world.make_history()
    world.request()
    conductor = world.make_conductor()
    conductor.begin()
    if moment != "before its first weight":
        conductor.set_weight(0)
    if moment == "before the promotion":
        conductor.set_weight(1)
    route = world.registry.get_route(TENANT, SKILL)
    manual = route.succeed(
        control=OLD,
        arms=(make_canary_route(2, 0.3),),
        last_good=None,
        rollout_id=None,
        changed_by="key:9",
        reason="by hand",
        changed_at=world.now,
    )
    world.registry.write_route(manual, expected_version=route.version)
    answers: dict[str, object] = {
        "before its first weight": conductor.set_weight(0),
        "between its steps": conductor.analyse(0)[0] if conductor.read_rollout().steps else "superseded",
        "before the promotion": conductor.promote(),
    }
    assert answers[moment] == "superseded"
    rollout = conductor.finish()
    assert (rollout.status, rollout.reason) == ("superseded", f"route version {manual.version} by key:9: by hand")
    assert world.registry.get_route(TENANT, SKILL) == manual


def test_the_guard_takes_the_route_back_in_one_write_and_the_rollout_says_so(world: World) -> None:
    conductor = world.begin_rollout()
    raised = world.now + timedelta(seconds=3)
    change = Change(actor="alarm:guard", reason="guard alarm: too low", at=raised + timedelta(seconds=1))
    route = take_back(world.registry, tenant_id=TENANT, skill=SKILL, change=change, rollout_id="rol_1", alarm_at=raised)
    assert (route.control, route.arms, route.mode) == (OLD, (), "rolled_back")
    assert conductor.analyse(0)[0] == "superseded"
    rollout = conductor.finish()
    assert (rollout.status, rollout.alarm_at, rollout.rolled_back_at) == ("rolled_back", raised, change.at)
    assert rollout.reason == "guard alarm: too low"


def test_the_guards_record_may_come_after_the_rollout_was_closed(world: World) -> None:
    conductor = world.begin_rollout()
    change = Change(actor="alarm:guard", reason="guard alarm: too low", at=world.now)
    world.registry.roll_back(TENANT, SKILL, change, rollout_id="rol_1")
    assert conductor.finish().status == "rolled_back"
    take_back(world.registry, tenant_id=TENANT, skill=SKILL, change=change, rollout_id="rol_1", alarm_at=world.now)
    assert conductor.read_rollout().alarm_at == world.now


def test_an_alarm_that_comes_twice_changes_nothing_the_second_time(world: World) -> None:
    world.begin_rollout()
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
    conductor = world.begin_rollout()
    conductor.abort("stopped")
    world.request("rol_2")
    later = world.make_conductor("rol_2")
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
    assert later.analyse(0)[0] is StepOutcome.CONTINUE


def test_an_operators_rollback_works_after_the_promotion_too(world: World) -> None:
    conductor = world.begin_rollout()
    conductor.promote()
    change = Change(actor="key:9", reason="customers complain", at=world.now)
    assert take_back(world.registry, tenant_id=TENANT, skill=SKILL, change=change).control == OLD


def test_an_abort_puts_the_route_back_and_says_why(world: World) -> None:
    conductor = world.begin_rollout()
    rollout = conductor.abort("States.Timeout: the analysis took too long")
    assert rollout is not None
    assert (rollout.status, rollout.reason) == ("failed", "States.Timeout: the analysis took too long")
    assert world.registry.get_route(TENANT, SKILL).arms == ()
    assert world.guards.guards == {}
    assert conductor.abort("once more") == rollout


def test_an_abort_leaves_a_promoted_candidate_in_place(world: World) -> None:
    conductor = world.begin_rollout()
    conductor.promote()
    rollout = conductor.abort("the record could not be closed")
    assert rollout is not None
    assert rollout.status == "shipped"
    assert world.registry.get_route(TENANT, SKILL).control == NEW


def test_an_abort_of_what_was_never_recorded_does_nothing(world: World) -> None:
    assert world.make_conductor("rol_unknown").abort("no such policy") is None


def test_every_step_may_be_repeated(world: World) -> None:
    world.make_history()
    world.request()
    assert world.request() == world.make_conductor().read_rollout()
    conductor = world.make_conductor()
    assert conductor.begin() == conductor.begin()
    for index in (0, 1):
        assert conductor.set_weight(index) == "running"
        version = world.registry.get_route(TENANT, SKILL).version
        assert conductor.set_weight(index) == "running"
        assert world.registry.get_route(TENANT, SKILL).version == version
        traffic(world, 200, candidate=0.95)
        assert conductor.analyse(index)[0] == conductor.analyse(index)[0]
    assert [conductor.promote(), conductor.promote()] == ["shipped", "shipped"]
    assert conductor.finish() == conductor.finish()
    assert len(conductor.read_rollout().steps) == 3


def test_a_lost_race_for_the_route_is_looked_at_again_and_lost_for_good(world: World) -> None:
    """Between the read and the write somebody takes the route: the write fails and the rollout is superseded."""
    world.make_history()
    world.request()
    conductor = world.make_conductor()
    conductor.begin()
    racing = RacingRegistry(world.registry)
    raced = Conductor(racing, world.events, world.trials, world.guards, world.clock, TENANT, SKILL, "rol_1")
    assert raced.set_weight(0) == "superseded"
    assert world.registry.get_route(TENANT, SKILL).changed_by == "key:racer"


class RacingRegistry(MemoryRegistry):
    """The same records, and somebody who writes the route just before the first write."""

    def __init__(self, registry: MemoryRegistry) -> None:
        super().__init__(registry.records, registry.numbers)
        self.raced = False

    def write_route(self, route: Route, *, expected_version: int) -> None:
        if not self.raced:
            self.raced = True
            mine = self.get_route(TENANT, SKILL)
            theirs = mine.succeed(
                control=OLD,
                arms=(make_canary_route(2, 0.2),),
                last_good=None,
                rollout_id=None,
                changed_by="key:racer",
                reason="",
                changed_at=NOW,
            )
            super().write_route(theirs, expected_version=mine.version)
        super().write_route(route, expected_version=expected_version)


def test_what_cannot_be_rolled_out_is_refused_before_anything_is_recorded(world: World) -> None:
    world.make_history()
    with pytest.raises(NotFound, match="no policy"):
        world.request(candidate=f"{SKILL}@v9")
    with pytest.raises(InvalidInput, match="the control already"):
        world.request(candidate=OLD)
    with pytest.raises(NotFound):
        world.make_conductor().read_rollout()


def test_a_skill_has_one_rollout_at_a_time(world: World) -> None:
    world.make_history()
    world.request()
    with pytest.raises(Conflict, match=r"rol_1 of .* has not ended"):
        world.request("rol_2")
    world.advance(16 * 60)  # rol_1 was requested and never began
    world.request("rol_2")


def test_one_id_stands_for_one_rollout(world: World) -> None:
    world.make_history()
    world.request()
    with pytest.raises(Conflict, match="another rollout already"):
        world.request(settings=SETTINGS.model_copy(update={"alpha": 0.01}))
