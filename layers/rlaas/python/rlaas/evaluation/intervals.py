"""Confidence intervals for shares and means, in plain Python: the samples here are some hundred threads."""

from collections.abc import Sequence
from math import isnan, nan, sqrt
from random import Random
from statistics import NormalDist, fmean
from typing import NamedTuple

_NORMAL = NormalDist()


class Interval(NamedTuple):
    """A two-sided confidence interval."""

    low: float
    high: float


def bound_proportion(successes: float, n: float, confidence: float = 0.95) -> Interval:
    """Wilson's score interval for a share (Wilson 1927; Brown, Cai & DasGupta 2001, eq. 4).

    `successes` in [0, n] out of `n` trials may count halves, for ties. A tie's half varies less than a coin, so with
    ties the interval is wider than it need be: it covers the share at least as often as `confidence`, in (0, 1), says.
    Without trials it is (0, 1).
    """
    if n == 0:
        return Interval(0.0, 1.0)
    z = _NORMAL.inv_cdf(0.5 + confidence / 2)
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Interval(max(0.0, centre - half), min(1.0, centre + half))


def bootstrap_mean(values: Sequence[float], confidence: float = 0.95, *, resamples: int = 2000, seed: int = 0) -> Interval:
    """Bias-corrected and accelerated bootstrap interval for the mean (Efron 1987, section 4; Efron & Tibshirani 1993,
    eq. 14.10).

    For paired data pass the differences. O(resamples * n); same seed, same interval. With fewer than two values it is
    (nan, nan).
    """
    n = len(values)
    if n < 2:
        return Interval(nan, nan)
    random, mean = Random(seed), fmean(values)
    means = sorted(fmean(random.choices(values, k=n)) for _ in range(resamples))
    if means[0] == means[-1]:
        return Interval(mean, mean)
    below = sum(m < mean for m in means) + 0.5 * sum(m == mean for m in means)
    bias = _NORMAL.inv_cdf(min(max(below / resamples, 0.5 / resamples), 1 - 0.5 / resamples))
    deviations = [mean - value for value in values]  # the jackknife's, times n - 1
    squares = sum(d * d for d in deviations)
    acceleration = sum(d**3 for d in deviations) / (6 * squares**1.5)

    def end(tail: float) -> float:
        z = bias + _NORMAL.inv_cdf(tail)
        share = _NORMAL.cdf(bias + z / (1 - acceleration * z))
        return _quantile(means, share)

    return Interval(end((1 - confidence) / 2), end((1 + confidence) / 2))


def linearize_by_cluster(values: Sequence[float], clusters: Sequence[str]) -> list[float]:
    """One number for each cluster, in order of first appearance. Their mean is the mean of all `values`, and they vary
    as much as the clusters' contributions to it: a mean of values that are alike within clusters is as uncertain as the
    mean of these numbers (linearization, Cameron & Miller 2015, eq. 10). `clusters` names each value's cluster."""
    mean, contributions = fmean(values), dict.fromkeys(clusters, 0.0)
    for value, cluster in zip(values, clusters, strict=True):
        contributions[cluster] += value - mean
    return [mean + part * len(contributions) / len(values) for part in contributions.values()]


def count_effective_trials(scores: Sequence[float], clusters: Sequence[str]) -> float:
    """The number of independent trials that say as much about the share of wins as `scores` (each 0, 1/2 or 1), which
    are alike within clusters. At most the number of scores; where all scores are equal, the number of clusters."""
    means = linearize_by_cluster(scores, clusters)
    share, n = fmean(scores), len(means)
    variance = sum((mean - share) ** 2 for mean in means) / (n * max(1, n - 1))
    if len(scores) == n or not variance:
        return float(n)
    return min(float(len(scores)), share * (1 - share) / variance)


def is_above(interval: Interval, value: float) -> bool:
    """Whether the whole interval lies above `value`; an interval of nan does not."""
    return not isnan(interval.low) and interval.low > value


def _quantile(sorted_values: Sequence[float], share: float) -> float:
    at = share * (len(sorted_values) - 1)
    low = int(at)
    high = min(low + 1, len(sorted_values) - 1)
    return sorted_values[low] + (at - low) * (sorted_values[high] - sorted_values[low])
