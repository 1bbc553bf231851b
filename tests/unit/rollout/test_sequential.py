"""The guarantees are probabilities, so they are tested by simulation: seed 20260101, tolerances stated beside each figure."""

import random
from collections.abc import Callable
from dataclasses import replace
from statistics import median

import pytest

from rlaas.rollout.sequential import (
    Gate,
    Observation,
    Outcome,
    analyse,
    confidence_sequence,
    evidence_above,
    evidence_below,
    evidence_of_ratio_mismatch,
)

SEED = 20260101
GATE = Gate(alpha=0.05, rollback_alpha=0.05, ratio_alpha=0.001, margin=0.0, min_samples=5, max_wait_seconds=3600)
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


def sample(rng: random.Random, draw: Draw, propensity: float, units: int) -> list[Observation]:
    arms = [rng.random() < propensity for _ in range(units)]
    return [Observation(draw(rng, arm), arm, propensity) for arm in arms]


def units_to_decide(stream: list[Observation], evidence: Callable[[list[Observation]], float], threshold: float) -> int:
    """The first unit after which `evidence` (which never falls) is enough; one past the end when it never is."""
    low, high = 0, len(stream) + 1
    while high - low > 1:
        middle = (low + high) // 2
        if evidence(stream[:middle]) >= threshold:
            high = middle
        else:
            low = middle
    return high


@pytest.mark.parametrize("propensity", [0.1, 0.5])
@pytest.mark.parametrize(
    "draw", [bernoulli(0.5, 0.5), bernoulli(0.9, 0.9), beta(0.6, 0.6, 0.25), points(0.7, 0.7), points(1.0, 1.0)],
    ids=["coins", "skewed coins", "beta", "one point", "all perfect"],
)  # fmt: skip
def test_continuous_looking_rejects_a_true_null_no_more_often_than_alpha(propensity: float, draw: Draw) -> None:
    rng = random.Random(SEED)
    streams = [sample(rng, draw, propensity, 200) for _ in range(300)]
    promoted = sum(evidence_above(stream, 0.0) >= 1 / 0.05 for stream in streams) / len(streams)
    taken_back = sum(evidence_below(stream, 0.0) >= 1 / 0.05 for stream in streams) / len(streams)
    # Evidence is the largest at any of the 200 looks. Three standard errors of a rate of 0.05 over 300 streams: 0.038.
    assert promoted <= 0.05 + 0.038
    assert taken_back <= 0.05 + 0.038


@pytest.mark.parametrize(("propensity", "at_most"), [(0.1, 125), (0.5, 38)])
def test_a_gain_of_three_tenths_is_found_within_a_demo_step(propensity: float, at_most: int) -> None:
    """Median units until the candidate is shown better, difference 0.3, sd 0.3: 108 at 10% and 30 at 50% over 300 streams."""
    rng = random.Random(SEED)
    decided = [
        units_to_decide(sample(rng, beta(0.5, 0.8, 0.3), propensity, 600), lambda seen: evidence_above(seen, 0.0), 20) for _ in range(100)
    ]
    assert median(decided) <= at_most


@pytest.mark.parametrize(("propensity", "at_most"), [(0.1, 100), (0.5, 50)])
def test_a_loss_of_three_tenths_is_found_within_a_demo_step(propensity: float, at_most: int) -> None:
    rng = random.Random(SEED)
    decided = [
        units_to_decide(sample(rng, beta(0.8, 0.5, 0.3), propensity, 600), lambda seen: evidence_below(seen, 0.0), 20) for _ in range(100)
    ]
    assert median(decided) <= at_most


def test_a_margin_makes_the_canary_step_cheaper_and_its_null_still_holds() -> None:
    rng = random.Random(SEED)
    better = [sample(rng, beta(0.5, 0.7, 0.25), 0.1, 120) for _ in range(100)]
    assert sum(evidence_above(stream, -0.1) >= 20 for stream in better) >= 70
    worse = [sample(rng, beta(0.6, 0.5, 0.25), 0.1, 300) for _ in range(300)]
    assert sum(evidence_above(stream, -0.1) >= 20 for stream in worse) / 300 <= 0.05 + 0.038


@pytest.mark.parametrize("propensity", [0.1, 0.5])
def test_the_confidence_sequence_covers_the_difference_at_all_looks_together(propensity: float) -> None:
    rng = random.Random(SEED)
    missed = 0
    for _ in range(100):
        low, high = confidence_sequence(sample(rng, beta(0.5, 0.65, 0.25), propensity, 100), 0.05)
        assert -1.0 <= low < high <= 1.0
        missed += not low <= 0.15 <= high
    assert missed / 100 <= 0.05 + 0.065  # three standard errors


def test_the_confidence_sequence_agrees_with_the_tests_it_inverts() -> None:
    stream = sample(random.Random(SEED), beta(0.5, 0.8, 0.25), 0.5, 80)
    low, high = confidence_sequence(stream, 0.1)
    assert evidence_above(stream, low - 0.001) >= 20 > evidence_above(stream, low + 0.002)
    assert evidence_below(stream, high + 0.001) >= 20 > evidence_below(stream, high - 0.002)


def test_the_guarantee_holds_while_the_share_and_the_rewards_drift() -> None:
    rng = random.Random(SEED)
    wrong = 0
    for _ in range(300):
        stream = []
        for unit in range(200):
            propensity = 0.1 if unit < 100 else 0.5
            level = 0.3 if unit < 100 else 0.8  # both arms get better at once: no difference between them
            arm = rng.random() < propensity
            stream.append(Observation(float(rng.random() < level), arm, propensity))
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
    assert sum(evidence_of_ratio_mismatch(stream) >= 20 for stream in streams) / 300 <= 0.05 + 0.038


def test_losing_a_third_of_the_candidates_units_is_called_a_wrong_split() -> None:
    rng = random.Random(SEED)
    stream = [seen for seen in sample(rng, points(0.5, 0.5), 0.5, 1500) if not seen.candidate or rng.random() > 1 / 3]
    look = analyse(stream, GATE, waited_seconds=0)
    assert look.outcome is Outcome.INCONCLUSIVE
    assert look.reason.startswith("sample ratio mismatch")


def test_a_better_candidate_advances_with_a_reason_that_carries_the_numbers() -> None:
    look = analyse(sample(random.Random(SEED), beta(0.5, 0.8, 0.25), 0.5, 100), GATE, waited_seconds=10)
    assert look.outcome is Outcome.ADVANCE
    assert look.reason.startswith("candidate is better: evidence ")
    assert f"{look.n_candidate} candidate and {look.n_control} control units" in look.reason
    assert look.low > 0


def test_a_better_candidate_waits_for_the_minimum_sample() -> None:
    gate = replace(GATE, min_samples=60)
    look = analyse(sample(random.Random(SEED), beta(0.5, 0.8, 0.25), 0.5, 100), gate, waited_seconds=10)
    assert look.outcome is Outcome.CONTINUE
    assert "of 60 needed in each" in look.reason


def test_a_worse_candidate_goes_back_without_waiting_for_the_minimum_sample() -> None:
    gate = replace(GATE, min_samples=10_000)
    look = analyse(sample(random.Random(SEED), beta(0.8, 0.4, 0.25), 0.5, 100), gate, waited_seconds=10)
    assert look.outcome is Outcome.ROLLBACK
    assert look.high < 0


def test_policies_that_answer_alike_are_undecided_and_in_the_end_inconclusive() -> None:
    stream = sample(random.Random(SEED), points(0.6, 0.6), 0.5, 100)
    assert analyse(stream, GATE, waited_seconds=3599).outcome is Outcome.CONTINUE
    assert analyse(stream, GATE, waited_seconds=3600).outcome is Outcome.INCONCLUSIVE


def test_without_units_there_is_no_evidence_and_nothing_is_known_of_the_difference() -> None:
    look = analyse([], GATE, waited_seconds=0)
    assert (look.outcome, look.low, look.high, look.evidence_better, look.mean_control) == (Outcome.CONTINUE, -1.0, 1.0, 1.0, None)
