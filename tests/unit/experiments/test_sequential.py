"""The guarantees are probabilities, so they are tested by simulation: seed 20260101, tolerances stated beside each
figure."""

import math
import random
from collections.abc import Callable
from dataclasses import replace
from statistics import median

import pytest

from rlaas.experiments.sequential import GRID, Analysis, Gate, SequentialTest, SettledUnit, StepOutcome, analyse

SEED = 20260101
GATE = Gate(alpha=0.05, ratio_alpha=0.001, margin=0.0, min_samples=5, max_wait_seconds=3600)
Draw = Callable[[random.Random, bool], float]


def bernoulli(control: float, candidate: float) -> Draw:
    return lambda rng, arm: float(rng.random() < (candidate if arm else control))


def beta(control: float, candidate: float, sd: float) -> Draw:
    def draw(rng: random.Random, arm: bool) -> float:
        mean = candidate if arm else control
        size = mean * (1 - mean) / sd**2 - 1
        return rng.betavariate(mean * size, (1 - mean) * size)

    return draw


def points(control: float, candidate: float) -> Draw:
    return lambda rng, arm: candidate if arm else control


def sample(rng: random.Random, draw: Draw, propensity: float, units: int) -> list[SettledUnit]:
    arms = [rng.random() < propensity for _ in range(units)]
    return [SettledUnit(draw(rng, arm), arm, propensity) for arm in arms]


def build_test(units: list[SettledUnit], *nulls: float, grid: tuple[float, ...] = ()) -> SequentialTest:
    test = SequentialTest.against(nulls, 0.5, grid=grid)
    for unit in units:
        test.add(unit)
    return test


def evidence_above(units: list[SettledUnit], null: float) -> float:
    return build_test(units, null).evidence_better(null)


def evidence_below(units: list[SettledUnit]) -> float:
    return build_test(units).evidence_worse


def look(test: SequentialTest, gate: Gate = GATE, *, harm: float = 0.0, waited_seconds: float = 10) -> Analysis:
    return analyse(test, gate, harm=harm, harm_reason="candidate does harm", waited_seconds=waited_seconds, needed="More would.")


def units_to_decide(stream: list[SettledUnit], decided: Callable[[SequentialTest], bool]) -> int:
    """The first unit after which the test has decided; one past the end when it never has."""
    test = SequentialTest.against([0.0], 0.5, grid=())
    for count, unit in enumerate(stream, 1):
        test.add(unit)
        if decided(test):
            return count
    return len(stream) + 1


@pytest.mark.parametrize("propensity", [0.1, 0.5])
@pytest.mark.parametrize(
    "draw",
    [bernoulli(0.5, 0.5), bernoulli(0.9, 0.9), beta(0.6, 0.6, 0.25), points(0.7, 0.7), points(1.0, 1.0)],
    ids=["coins", "skewed coins", "beta", "one point", "all perfect"],
)
def test_continuous_looking_rejects_a_true_null_no_more_often_than_alpha(propensity: float, draw: Draw) -> None:
    rng = random.Random(SEED)
    streams = [sample(rng, draw, propensity, 200) for _ in range(300)]
    promoted = sum(evidence_above(stream, 0.0) >= 1 / 0.05 for stream in streams) / len(streams)
    taken_back = sum(evidence_below(stream) >= 1 / 0.05 for stream in streams) / len(streams)
    # Evidence is the largest at any of the 200 looks. Three standard errors of a rate of 0.05 over 300 streams: 0.038.
    assert promoted <= 0.05 + 0.038
    assert taken_back <= 0.05 + 0.038


@pytest.mark.parametrize(("propensity", "at_most"), [(0.1, 125), (0.5, 38)])
def test_a_gain_of_three_tenths_is_found_within_a_demo_step(propensity: float, at_most: int) -> None:
    """Median units until the candidate is shown better, difference 0.3, sd 0.3: 108 at 10% and 30 at 50% over 300
    streams."""
    rng = random.Random(SEED)
    decided = [
        units_to_decide(sample(rng, beta(0.5, 0.8, 0.3), propensity, 600), lambda test: test.evidence_better(0.0) >= 20) for _ in range(100)
    ]
    assert median(decided) <= at_most


@pytest.mark.parametrize(("propensity", "at_most"), [(0.1, 100), (0.5, 50)])
def test_a_loss_of_three_tenths_is_found_within_a_demo_step(propensity: float, at_most: int) -> None:
    rng = random.Random(SEED)
    decided = [
        units_to_decide(sample(rng, beta(0.8, 0.5, 0.3), propensity, 600), lambda test: test.evidence_worse >= 20) for _ in range(100)
    ]
    assert median(decided) <= at_most


def test_a_margin_makes_the_canary_step_cheaper_and_its_null_still_holds() -> None:
    rng = random.Random(SEED)
    better = [sample(rng, beta(0.5, 0.7, 0.25), 0.1, 120) for _ in range(100)]
    assert sum(evidence_above(stream, -0.1) >= 20 for stream in better) >= 70
    worse = [sample(rng, beta(0.6, 0.5, 0.25), 0.1, 300) for _ in range(300)]
    assert sum(evidence_above(stream, -0.1) >= 20 for stream in worse) / 300 <= 0.05 + 0.038


@pytest.mark.parametrize("propensity", [0.1, 0.5])
def test_the_interval_covers_the_difference_at_all_looks_together(propensity: float) -> None:
    rng = random.Random(SEED)
    missed = 0
    for _ in range(100):
        low, high = build_test(sample(rng, beta(0.5, 0.65, 0.25), propensity, 100), grid=GRID).interval(0.05)
        assert -1.0 <= low < high <= 1.0
        missed += not low <= 0.15 <= high
    assert missed / 100 <= 0.05 + 0.065  # three standard errors


def test_the_interval_holds_what_the_tests_it_inverts_do_not_reject() -> None:
    test = build_test(sample(random.Random(SEED), beta(0.5, 0.8, 0.25), 0.5, 200), grid=GRID)
    low, high = test.interval(0.1)
    assert test.evidence_better(low) >= 20 > test.evidence_better(min(null for null in GRID if null > low))
    assert -1 < low < 0.3 < high < 1


def test_units_are_compared_within_their_stratum() -> None:
    """Two kinds of issue, one easy and one hard: knowing which is which takes half of the units or less (median of
    40)."""
    rng = random.Random(SEED)
    units: dict[bool, list[int]] = {True: [], False: []}
    for _ in range(40):
        stream = []
        for _ in range(3_000):
            hard, candidate = rng.random() < 0.5, rng.random() < 0.5
            reward = (0.1 if hard else 0.8) + 0.1 * candidate + rng.uniform(-0.1, 0.1)
            stream.append(SettledUnit(reward, candidate, 0.5, stratum="hard" if hard else "easy"))
        for stratified in units:
            seen = stream if stratified else [replace(unit, stratum=None) for unit in stream]
            units[stratified].append(units_to_decide(seen, lambda test: test.evidence_better(0.0) >= 20))
    assert median(units[True]) <= 0.5 * median(units[False])


def test_strata_without_end_cost_no_memory() -> None:
    test = build_test([SettledUnit(0.5, number % 2 == 0, 0.5, stratum=str(number)) for number in range(2_000)])
    assert len(test.strata) == 500


@pytest.mark.parametrize(("candidate", "control", "stops"), [(0.2, 0.2, False), (0.3, 0.1, True), (0.1, 0.3, True)])
def test_outcomes_that_are_missing_unequally_are_named(candidate: float, control: float, stops: bool) -> None:
    rng = random.Random(SEED)
    units = [
        replace(unit, unknown=rng.random() < (candidate if unit.candidate else control))
        for unit in sample(rng, points(0.5, 0.5), 0.5, 1_000)
    ]
    analysis = look(build_test(units))
    assert (analysis.outcome is StepOutcome.INCONCLUSIVE) == stops
    assert analysis.reason.startswith("outcomes are missing unequally") == stops


def test_the_guarantee_holds_while_the_share_and_the_rewards_drift() -> None:
    rng = random.Random(SEED)
    wrong = 0
    for _ in range(300):
        stream = []
        for unit in range(200):
            propensity = 0.1 if unit < 100 else 0.5
            level = 0.3 if unit < 100 else 0.8  # both arms get better at once: no difference between them
            arm = rng.random() < propensity
            stream.append(SettledUnit(float(rng.random() < level), arm, propensity))
        wrong += evidence_above(stream, 0.0) >= 20
    assert wrong / 300 <= 0.05 + 0.038


def test_evidence_never_falls_as_units_arrive() -> None:
    stream = sample(random.Random(SEED), bernoulli(0.4, 0.6), 0.5, 120)
    path = [evidence_above(stream[:count], 0.0) for count in range(len(stream) + 1)]
    assert path == sorted(path)


@pytest.mark.parametrize("propensity", [0.1, 0.5])
def test_a_right_split_is_called_wrong_no_more_often_than_alpha(propensity: float) -> None:
    rng = random.Random(SEED)
    streams = [sample(rng, points(0.5, 0.5), propensity, 300) for _ in range(300)]
    assert sum(build_test(stream).ratio_peak >= 20 for stream in streams) / 300 <= 0.05 + 0.038


def test_losing_a_third_of_the_candidates_units_is_called_a_wrong_split() -> None:
    rng = random.Random(SEED)
    stream = [seen for seen in sample(rng, points(0.5, 0.5), 0.5, 1500) if not seen.candidate or rng.random() > 1 / 3]
    analysis = look(build_test(stream))
    assert analysis.outcome is StepOutcome.INCONCLUSIVE
    assert analysis.reason.startswith("sample ratio mismatch")


def test_a_better_candidate_advances_with_a_reason_that_carries_the_numbers() -> None:
    test = build_test(sample(random.Random(SEED), beta(0.5, 0.8, 0.25), 0.5, 100), grid=GRID)
    analysis = look(test)
    assert analysis.outcome is StepOutcome.ADVANCE
    assert analysis.reason.startswith("candidate is better: evidence ")
    assert f"{test.candidate.n} candidate and {test.control.n} control units" in analysis.reason
    assert test.interval(0.05)[0] > 0


def test_a_better_candidate_waits_for_the_minimum_sample() -> None:
    test = build_test(sample(random.Random(SEED), beta(0.5, 0.8, 0.25), 0.5, 100))
    analysis = look(test, replace(GATE, min_samples=60))
    assert analysis.outcome is StepOutcome.CONTINUE
    assert "of 60 with an outcome needed in each" in analysis.reason


@pytest.mark.parametrize(("unknown", "outcome"), [(0.0, StepOutcome.ADVANCE), (0.9, StepOutcome.CONTINUE), (1.0, StepOutcome.CONTINUE)])
def test_silence_is_no_proof_that_a_candidate_is_no_worse(unknown: float, outcome: StepOutcome) -> None:
    rng, units = random.Random(SEED), []
    for unit in sample(rng, bernoulli(0.6, 0.6), 0.5, 600):
        silent = rng.random() < unknown
        units.append(replace(unit, reward=0.0, missing=True, unknown=True) if silent else unit)
    assert look(build_test(units, -0.2, grid=GRID), replace(GATE, margin=0.2)).outcome is outcome


def test_where_silence_is_declared_and_nothing_at_all_comes_back_nothing_advances() -> None:
    silent = [replace(unit, missing=True) for unit in sample(random.Random(SEED), points(0.0, 0.0), 0.5, 600)]
    assert look(build_test(silent, -0.2), replace(GATE, margin=0.2)).outcome is StepOutcome.CONTINUE


def test_harm_takes_back_without_waiting_for_the_minimum_sample() -> None:
    test = build_test(sample(random.Random(SEED), beta(0.8, 0.4, 0.25), 0.5, 10))
    analysis = look(test, replace(GATE, min_samples=10_000), harm=20.0)
    assert analysis.outcome is StepOutcome.ROLLBACK
    assert analysis.reason.startswith("candidate does harm; ")


def test_policies_that_answer_alike_are_undecided_and_in_the_end_inconclusive() -> None:
    test = build_test(sample(random.Random(SEED), points(0.6, 0.6), 0.5, 100))
    assert look(test, waited_seconds=3599).outcome is StepOutcome.CONTINUE
    last = look(test, waited_seconds=3600)
    assert last.outcome is StepOutcome.INCONCLUSIVE
    assert last.reason.endswith(". More would.")


def test_without_units_there_is_no_evidence_and_nothing_is_known_of_the_difference() -> None:
    test = build_test([], grid=GRID)
    assert (look(test).outcome, test.interval(0.05)) == (StepOutcome.CONTINUE, (-1.0, 1.0))
    assert (test.evidence_better(0.0), test.control.mean, test.difference()) == (1.0, None, None)


def test_a_difference_that_nobody_can_miss_leaves_finite_numbers() -> None:
    test = build_test(sample(random.Random(SEED), bernoulli(0.0, 1.0), 0.5, 3_000))
    assert 1e70 < test.evidence_better(0.0) < 1e90
    assert test.evidence_worse == pytest.approx(1.0, abs=5)


NOTHING_TO_COMPARE = {
    "no unit": [],
    "one unit": [SettledUnit(1.0, candidate=True, propensity=0.5)],
    "one unit of a thin arm": [SettledUnit(1.0, candidate=True, propensity=1e-6)],
    "candidate units alone": [SettledUnit(1.0, candidate=True, propensity=0.99)] * 30,
    "all worth nothing": sample(random.Random(SEED), points(0.0, 0.0), 0.5, 400),
    "all perfect": sample(random.Random(SEED), points(1.0, 1.0), 0.5, 400),
    "all alike": sample(random.Random(SEED), points(0.5, 0.5), 0.5, 400),
}


@pytest.mark.parametrize("units", NOTHING_TO_COMPARE.values(), ids=NOTHING_TO_COMPARE)
def test_where_there_is_nothing_to_compare_nothing_advances_and_every_number_is_finite(units: list[SettledUnit]) -> None:
    test = build_test(units, grid=GRID)
    assert look(test).outcome is StepOutcome.CONTINUE
    assert look(test, waited_seconds=3600).outcome is StepOutcome.INCONCLUSIVE
    low, high = test.interval(0.05)
    assert -1 <= low <= 0 <= high <= 1
    assert all(map(math.isfinite, (test.evidence_better(0.0), test.evidence_worse, test.evidence_unknown, test.ratio_peak)))
