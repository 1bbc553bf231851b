"""The simulated worlds of `make bench-decisions` at a few runs: that they run, and that they tell right rules from
wrong ones."""

from benchmarks.decision_worlds import Arm, World, detected, rolled_out, watched
from benchmarks.decisions import Runner as Runs
from benchmarks.decisions import bad_world, default_plan, measure_power, old_advances


def test_an_equal_candidate_whose_bad_outcomes_come_late_is_shipped_by_the_old_order_and_not_by_the_new() -> None:
    late = World(candidate=Arm(discard_delay=1.0), units=600)
    assert sum(old_advances(run, late) for run in range(20)) >= 10
    assert sum(watched(run, late).advanced for run in range(20)) <= 4


def test_a_run_with_the_same_number_is_the_same_run() -> None:
    world, asks = World(candidate=Arm(sent=0.8), units=3_000, a_day=200.0), default_plan(200)[0]
    assert rolled_out(3, world, asks) == rolled_out(3, world, asks)
    assert rolled_out(3, world, asks).ending == "shipped"


def test_a_candidate_that_always_fails_is_seen_after_a_handful_of_its_units() -> None:
    hours, units = detected(0, bad_world(0.0, 1.0, 1_000))
    assert units <= 8
    assert hours < 6


def test_the_table_of_power_holds_the_plan_beside_the_simulation() -> None:
    row = measure_power(Runs(), 200, 0.2, 10)
    assert row["shipped"] >= 0.8
    assert row["planned_power"] > 0.9
