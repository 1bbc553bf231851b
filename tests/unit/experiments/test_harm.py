"""The guard's evidence: its guarantee by simulation (seed 20260101), its sums, and the shares that start each day."""

import random
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaas.experiments.harm import HarmLedger, log_wealth, profit_over_bound, profit_over_control, weigh_evidence
from rlaas.experiments.sequential import SHARES, STAKES

SEED = 20260101
DAY = date(2026, 1, 5)


def ledger() -> HarmLedger:
    return HarmLedger(first=DAY.toordinal())


def test_nothing_seen_is_no_evidence() -> None:
    assert ledger().compute_evidence("failed") == 1.0


def test_evidence_is_the_mixture_of_the_stakes_wealth() -> None:
    evidence = ledger()
    evidence.add("failed", DAY, log_wealth(1.5))
    evidence.add("failed", DAY, log_wealth(-0.5))
    by_hand = sum(share * (1 + 1.5 * stake) * (1 - 0.5 * stake) for share, stake in zip(SHARES, STAKES, strict=True))
    assert evidence.compute_evidence("failed") == pytest.approx(0.5 * by_hand + 0.5, rel=1e-6)  # half of the wealth starts on a later day


@given(st.lists(st.tuples(st.floats(-1, 20), st.integers(0, 9)), max_size=30), st.randoms(use_true_random=False))
def test_the_order_of_the_units_and_bets_taken_back_leave_no_trace(bets: list[tuple[float, int]], rng: random.Random) -> None:
    one, other = ledger(), ledger()
    for profit, day in bets:
        one.add("failed", DAY + timedelta(days=day), log_wealth(profit))
    other.add("failed", DAY, log_wealth(3.0))
    shuffled = rng.sample(bets, len(bets))
    for profit, day in shuffled:
        other.add("failed", DAY + timedelta(days=day), log_wealth(profit))
    other.add("failed", DAY, log_wealth(3.0), times=-1)
    assert one.compute_evidence("failed") == pytest.approx(other.compute_evidence("failed"), rel=1e-12)


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5])
def test_an_arm_at_its_bound_is_dropped_no_more_often_than_alpha(rate: float) -> None:
    """400 arms of 400 units over eight days, looked at after every unit. Three standard errors of 0.05 over 400:
    0.033."""
    rng = random.Random(SEED)
    dropped = 0
    logs = {bad: log_wealth(profit_over_bound(float(bad), rate)) for bad in (False, True)}
    for _ in range(400):
        evidence, peak = ledger(), 0.0
        for unit in range(400):
            evidence.add("failed", DAY + timedelta(days=unit // 50), logs[rng.random() < rate])
            peak = max(peak, evidence.compute_evidence("failed")) if unit % 5 == 0 else peak
        dropped += peak >= 20
    assert dropped / 400 <= 0.05 + 0.033


@pytest.mark.parametrize("propensity", [0.02, 0.1, 0.5])
def test_a_candidate_that_fails_as_often_as_its_control_is_taken_back_no_more_often_than_alpha(propensity: float) -> None:
    rng = random.Random(SEED)
    taken_back = 0
    for _ in range(300):
        evidence, peak = ledger(), 0.0
        for unit in range(300):
            candidate, harmed = rng.random() < propensity, rng.random() < 0.1
            profit = profit_over_control(harmed, candidate=candidate, propensity=propensity, centre=0.01, margin=0.0)
            evidence.add("failed", DAY, log_wealth(profit))
            peak = max(peak, evidence.compute_evidence("failed")) if unit % 5 == 0 else peak
        taken_back += peak >= 20
    assert taken_back / 300 <= 0.05 + 0.038


def test_an_arm_that_always_fails_is_known_after_a_handful_of_its_units() -> None:
    evidence = ledger()
    units = 0
    while evidence.compute_evidence("failed") < 20 / 0.1:
        units += 1
        for candidate in (True, *(False,) * 9):
            profit = profit_over_control(candidate, candidate=candidate, propensity=0.1, centre=0.01, margin=0.02)
            evidence.add("failed", DAY, log_wealth(profit))
    assert units <= 5


def test_an_arm_that_begins_to_fail_after_a_month_of_good_work_is_known_soon() -> None:
    evidence = ledger()
    good, bad = (log_wealth(profit_over_bound(value, 0.05)) for value in (0.0, 1.0))
    for day in range(30):
        evidence.add("failed", DAY + timedelta(days=day), good, times=1_000)
    assert evidence.compute_evidence("failed") < 1
    fails = 0
    while evidence.compute_evidence("failed") < 20:
        evidence.add("failed", DAY + timedelta(days=30), bad)
        fails += 1
    assert fails <= 6


@pytest.mark.parametrize("propensity", [0.1, 0.5])
def test_users_who_come_each_day_and_always_fail_take_nobody_back_however_many_days(propensity: float) -> None:
    """40 users, a tenth of whom fail every day of 20 on whichever arm they are dealt; 400 worlds. Three standard
    errors: 0.033."""
    rng, taken_back = random.Random(SEED), 0
    for _ in range(400):
        users = [(rng.random() < propensity, rng.random() < 0.1) for _ in range(40)]
        evidence, peak = ledger(), 0.0
        for day in range(20):
            for candidate, fails in users:
                profit = profit_over_control(fails, candidate=candidate, propensity=propensity, centre=0.01, margin=0.0)
                evidence.add_daily("failed", DAY + timedelta(days=day), log_wealth(profit))
                if day == 0:
                    evidence.add("failed", DAY, log_wealth(profit))
            peak = max(peak, evidence.compute_evidence("failed"))
        taken_back += peak >= 20
    assert taken_back / 400 <= 0.05 + 0.033


def test_an_arm_that_dies_in_its_second_week_is_known_though_no_user_is_new() -> None:
    evidence, rng = ledger(), random.Random(SEED)
    users = [rng.random() < 0.5 for _ in range(100)]
    for day in range(9):
        for candidate in users:
            logs = log_wealth(profit_over_control(candidate and day == 8, candidate=candidate, propensity=0.5, centre=0.01, margin=0.02))
            evidence.add_daily("failed", DAY + timedelta(days=day), logs)
            if day == 0:
                evidence.add("failed", DAY, logs)
        assert (evidence.compute_evidence("failed") >= 20 / 0.1) == (day == 8)


def test_only_so_many_days_are_kept() -> None:
    evidence = ledger()
    for day in range(200):
        evidence.add("failed", DAY + timedelta(days=day), log_wealth(0.1))
    assert len(evidence.logs["failed"]) == 60
    assert evidence.compute_evidence("failed") > 0


def test_the_heaviest_kind_is_named() -> None:
    heaviest = weigh_evidence({"failed": 300.0, "worse": 60.0}, {"failed": 0.1, "worse": 0.4})
    assert (heaviest.value, heaviest.reason) == (pytest.approx(30.0), "it fails more often than it may: evidence 30")
