"""The benchmark's proofs in small: honest decisions, and a bandit that learns from late rewards."""

import numpy as np
import pytest

from benchmarks.experiments import calibration_p, simulate, stopped_after, tenant


@pytest.mark.parametrize("number", [0, 3])
def test_decisions_keep_their_ratios_their_arms_and_their_propensities(number: int) -> None:
    check = tenant(number, decisions=9_000)
    assert min(check.ratio_p) > 1e-3
    assert (check.sticky_violations, check.moved_units) == (0, 0)
    assert check.moved / check.compared == pytest.approx(check.least_moved_ratio, abs=0.03)
    assert calibration_p(check.logged) > 1e-3


def test_propensities_that_are_not_what_was_done_are_found_out() -> None:
    assert calibration_p([(0.5, 10_000, 5_000), (0.2, 10_000, 2_300)]) < 1e-6


def test_the_bandit_regrets_less_than_the_others_under_delay() -> None:
    regrets = [simulate(seed) for seed in (0, 1, 2, 9, 10, 11)]  # two to four arms
    mean = {name: np.mean([regret[name] for regret in regrets]) for name in regrets[0]}
    assert mean["thompson"] < min(mean["epsilon_greedy"], mean["ucb1"], mean["ab"])


def test_a_failing_arm_is_stopped_at_the_first_look_after_its_guard_has_seen_enough() -> None:
    """30% errors at a bound of 10%: about 40 units are evidence enough, and a look comes every 50."""
    stops = [stopped_after(seed) for seed in range(200)]
    assert sorted(stops)[100] <= 110
    assert max(stops) <= 300
