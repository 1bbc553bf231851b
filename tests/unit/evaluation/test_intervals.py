"""Intervals against published values, closed forms and simulated coverage."""

from collections import Counter
from math import isnan, sqrt
from random import Random
from statistics import fmean

import pytest

from rlaas.evaluation.intervals import Interval, bootstrap_mean, bound_proportion, count_effective_trials, is_above, linearize_by_cluster


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),  # Newcombe 1998, Table I, method 3
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_the_published_limits(successes: int, n: int, low: float, high: float) -> None:
    assert bound_proportion(successes, n) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


def test_wilsons_ends_are_where_the_score_test_turns() -> None:
    """The closed form: |p - share| = z sqrt(p (1 - p) / n) at both ends, also for half successes."""
    for successes, n in ((20, 28), (20.5, 28), (3.5, 9)):
        for end in bound_proportion(successes, n, 0.9):
            assert abs(end - successes / n) == pytest.approx(1.6448536 * sqrt(end * (1 - end) / n), rel=1e-6)


def test_wilson_knows_nothing_without_trials() -> None:
    assert bound_proportion(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize("tie_share", [0.0, 0.3])
def test_a_win_rates_interval_covers_as_often_as_it_says_and_more_with_ties(tie_share: float) -> None:
    random, n, runs, covered = Random(1), 40, 4000, 0
    win = 0.65 - tie_share / 2
    for _ in range(runs):
        points = [random.random() for _ in range(n)]
        score = sum(1.0 if p < win else 0.5 if p < win + tie_share else 0.0 for p in points)
        low, high = bound_proportion(score, n)
        covered += low <= 0.65 <= high
    assert covered / runs >= 0.925  # coverage of a discrete share swings around 0.95 (Brown, Cai & DasGupta 2001, figure 5)
    assert covered / runs <= (0.965 if tie_share == 0 else 1.0)


def test_the_bootstrap_of_a_normal_sample_is_the_normal_interval() -> None:
    random = Random(3)
    values = [random.gauss(0.2, 1.0) for _ in range(400)]
    mean = fmean(values)
    error = sqrt(sum((value - mean) ** 2 for value in values)) / len(values)
    assert bootstrap_mean(values, resamples=6000) == pytest.approx((mean - 1.96 * error, mean + 1.96 * error), abs=0.12 * error)


def test_the_bootstrap_covers_a_skewed_mean_near_its_promise() -> None:
    """Exponential data, n = 40: the plain normal interval covers about 92%."""
    random, runs, covered = Random(5), 400, 0
    for run in range(runs):
        low, high = bootstrap_mean([random.expovariate(1.0) for _ in range(40)], resamples=400, seed=run)
        covered += low <= 1.0 <= high
    assert 0.91 <= covered / runs <= 0.98


def test_the_bootstrap_leans_to_the_long_tail() -> None:
    random = Random(7)
    values = [random.expovariate(1.0) for _ in range(40)]
    low, high = bootstrap_mean(values)
    assert high - fmean(values) > fmean(values) - low


def test_the_bootstrap_is_the_same_for_the_same_seed() -> None:
    values = [0.1, 0.5, 0.2, 0.9, 0.4]
    assert bootstrap_mean(values, seed=1) == bootstrap_mean(values, seed=1) != bootstrap_mean(values, seed=2)


def test_values_that_do_not_vary_have_no_width_and_one_value_has_no_interval() -> None:
    assert bootstrap_mean([0.25] * 8) == (0.25, 0.25)
    assert all(isnan(end) for end in bootstrap_mean([0.25]))


def test_an_interval_that_could_not_be_made_is_above_nothing() -> None:
    assert is_above(Interval(0.1, 0.2), 0.0)
    assert not is_above(Interval(0.0, 0.2), 0.0)
    assert not is_above(bootstrap_mean([1.0]), 0.0)


def draw_clusters(random: Random, clusters: int, alike: float) -> tuple[list[float], list[str]]:
    """Coins of clusters of 1 to 30; with the probability `alike` one is its cluster's own."""
    scores, names = [], []
    for cluster in range(clusters):
        own = float(random.random() < 0.6)
        for _ in range(random.randint(1, 30)):
            scores.append(own if random.random() < alike else float(random.random() < 0.6))
            names.append(f"c{cluster}")
    return scores, names


@pytest.mark.parametrize("alike", [0.0, 0.5, 1.0])
def test_intervals_of_clusters_cover_however_alike_their_members_are(alike: float) -> None:
    random = Random(20260302)
    covered = Counter[str]()
    for _ in range(300):
        scores, names = draw_clusters(random, 30, alike)
        trials = count_effective_trials(scores, names)
        low, high = bound_proportion(fmean(scores) * trials, trials)
        covered["win rate"] += low <= 0.6 <= high
        low, high = bootstrap_mean(linearize_by_cluster(scores, names), resamples=300)
        covered["mean"] += low <= 0.6 <= high
        low, high = bound_proportion(sum(scores), len(scores))
        covered["plain"] += low <= 0.6 <= high
    assert covered["win rate"] / 300 >= 0.91
    assert covered["mean"] / 300 >= 0.88
    assert covered["plain"] / 300 < 0.6 or alike < 1


def test_clusters_of_one_are_trials() -> None:
    scores = [1.0, 0.0, 1.0, 0.5]
    assert count_effective_trials(scores, list("abcd")) == 4
    assert linearize_by_cluster(scores, list("abcd")) == pytest.approx(scores)


def test_where_all_win_there_are_as_many_trials_as_clusters() -> None:
    assert count_effective_trials([1.0] * 40, list("ab") * 20) == 2
