"""The bandit: turns each arm's statistics into fixed shares of the traffic, off the request path.

Thompson sampling draws a mean for every arm from its posterior and plays the best draw. Over many requests an arm thus
gets the share P(its mean is the best). Here that share is integrated once and written into the route: every decision's
propensity is then exact and known, the hot path draws nothing, and the same statistics always give the same shares.

Two posteriors:

- `binary`: rewards of at least `success_at` are successes, uniform prior, so Beta(1 + successes, 1 + failures).
- `continuous`: a Gaussian with unknown mean and variance under a normal-inverse-gamma prior that weighs as much as one
  reward of 0.5 with the spread of a uniform reward in [0, 1]. The mean is then Student-t. To take the variance as known
  would mean estimating it from the same few rewards: after three equal ones the bandit would be certain of the arm,
  while the t's heavy tails keep it in play until there is evidence.

A unit (a thread, a user) counts once a day, and no person's units count for more than their share. Rewards of one
person are still alike, so the bandit is surer than it should be. Its decisions' propensities are exact all the same,
and `min_probability` keeps every arm in play.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

from pydantic import Field

from rlaas.routing.bandit_settings import BanditSettings
from rlaas.wire import WireModel

_SPREADS = (*(step / 2 for step in range(17)), 12.0, 18.0, 27.0, 40.0)
"""Where a density is cut into panels, in standard deviations on either side of its mean; a Beta has practically no mass
beyond the last."""
_TAILS = (80.0, 200.0, 600.0, 2_000.0, 10_000.0)
"""The same for a Student-t, whose tails are longer."""
_EDGE = (1e-3, 1e-2, 0.05, 0.1, 0.25)
"""The same, counted from 0 and from 1, where a Beta's density rises like a fractional power."""
_PRIOR_MEAN, _PRIOR_WEIGHT, _PRIOR_SHAPE, _PRIOR_SCALE = 0.5, 1.0, 1.0, 1 / 12


class ArmStatistics(WireModel):
    """The rewards of an arm: `n` is their number, `total` their sum, `squares` the sum of their squares and `successes`
    the number of at least `success_at`, all discounted by age; `settled` is their number without discount."""

    n: float = Field(default=0.0, ge=0)
    total: float = 0.0
    squares: float = Field(default=0.0, ge=0)
    successes: float = Field(default=0.0, ge=0)
    settled: int = Field(default=0, ge=0)

    @property
    def mean(self) -> float | None:
        """The mean reward; `None` without one."""
        return self.total / self.n if self.n else None

    def add_reward(self, reward: float, settings: BanditSettings) -> Self:
        """The statistics with one more settled `reward` in [0, 1]."""
        return self.model_copy(
            update={
                "n": self.n + 1,
                "total": self.total + reward,
                "squares": self.squares + reward * reward,
                "successes": self.successes + (reward >= settings.success_at),
                "settled": self.settled + 1,
            }
        )

    def discount(self, days: float, settings: BanditSettings) -> Self:
        """The statistics discounted by `days`. All but `settled` lose weight, so that an arm that was once tried enough
        does not get an equal share again because its rewards are old."""
        if settings.half_life_days is None or days <= 0:
            return self
        factor = 0.5 ** (days / settings.half_life_days)
        return self.model_copy(update={name: getattr(self, name) * factor for name in type(self).model_fields if name != "settled"})


@dataclass(frozen=True, slots=True)
class Beta:
    """The posterior of a probability: a Beta(a, b) with `a` and `b` at least 1."""

    a: float
    b: float

    @property
    def mean(self) -> float:
        """Its mean."""
        return self.a / (self.a + self.b)

    @property
    def spread(self) -> float:
        """Its standard deviation."""
        n = self.a + self.b
        return math.sqrt(self.a * self.b / (n * n * (n + 1)))

    def cuts(self) -> list[float]:
        """Where its density is to be cut into panels, in ascending order."""
        points = {self.mean + side * at * self.spread for at in _SPREADS for side in (-1, 1)}
        edges = {edge for at in _EDGE for edge in (at * self.spread, 1 - at * self.spread)}
        return [0.0, *sorted(point for point in points | edges if 0 < point < 1), 1.0]

    def density(self) -> Callable[[float], float]:
        """Its density on (0, 1), and 0 elsewhere."""
        a, b = self.a - 1, self.b - 1
        constant = math.lgamma(self.a + self.b) - math.lgamma(self.a) - math.lgamma(self.b)
        log, log1p, exp = math.log, math.log1p, math.exp
        return lambda x: exp(constant + a * log(x) + b * log1p(-x)) if 0 < x < 1 else 0.0


@dataclass(frozen=True, slots=True)
class StudentT:
    """The posterior of a mean: a Student-t with location `mean`, scale `spread` and `freedom` degrees of freedom."""

    mean: float
    spread: float
    freedom: float

    def cuts(self) -> list[float]:
        """Where its density is to be cut into panels, in ascending order."""
        return sorted({self.mean + side * at * self.spread for at in (*_SPREADS, *_TAILS) for side in (-1, 1)})

    def density(self) -> Callable[[float], float]:
        """Its density."""
        power = (self.freedom + 1) / 2
        constant = math.lgamma(power) - math.lgamma(self.freedom / 2) - math.log(self.freedom * math.pi) / 2 - math.log(self.spread)
        mean, width = self.mean, self.spread * math.sqrt(self.freedom)
        log1p, exp = math.log1p, math.exp
        return lambda x: exp(constant - power * log1p(((x - mean) / width) ** 2))


Posterior = Beta | StudentT


def make_posterior(statistics: ArmStatistics, settings: BanditSettings) -> Posterior:
    """The posterior of the arm's mean reward: Beta for binary rewards, Student-t for continuous ones (Murphy 2007,
    "Conjugate Bayesian analysis of the Gaussian distribution", section 6)."""
    n = statistics.n
    if settings.reward == "binary":
        return Beta(1 + statistics.successes, 1 + max(0.0, n - statistics.successes))
    mean = statistics.total / n if n else _PRIOR_MEAN
    deviations = max(0.0, statistics.squares - n * mean * mean)
    weight, shape = _PRIOR_WEIGHT + n, _PRIOR_SHAPE + n / 2
    scale = _PRIOR_SCALE + deviations / 2 + _PRIOR_WEIGHT * n * (mean - _PRIOR_MEAN) ** 2 / (2 * weight)
    return StudentT(mean=(_PRIOR_WEIGHT * _PRIOR_MEAN + n * mean) / weight, spread=math.sqrt(scale / (shape * weight)), freedom=2 * shape)


def compute_best_probabilities(posteriors: Sequence[Posterior]) -> list[float]:
    """For each of the independent `posteriors` the probability that its draw is the largest; they sum to 1.

    P(i is best) is the integral of f_i times the product of the others' F_j. The line is cut where any of the densities
    bends, and each panel is integrated by Gauss-Legendre quadrature with five nodes, at which the F_j come from
    integrating the same densities. Measured against adaptive integration it is within 1e-5. O(arms^2) densities, about
    20 ms for ten arms.
    """
    if len(posteriors) == 1:
        return [1.0]
    cuts = _thin_cuts(sorted({cut for one in posteriors for cut in one.cuts()}), posteriors)
    densities = [one.density() for one in posteriors]
    reach = [(one.cuts()[0], one.cuts()[-1]) for one in posteriors]
    below = [0.0] * len(posteriors)
    wins = [0.0] * len(posteriors)
    for start, end in pairwise(cuts):
        width = end - start
        points = [start + width * node for node in _NODES]
        inside = [low < end and start < high for low, high in reach]
        heights = [[density(point) for point in points] if here else None for density, here in zip(densities, inside, strict=True)]
        cumulative = [
            [before + width * sum(part * height for part, height in zip(parts, line, strict=True)) for parts in _UP_TO]
            if line is not None
            else [before] * len(_NODES)
            for before, line in zip(below, heights, strict=True)
        ]
        for arm, line in enumerate(heights):
            if line is None:
                continue
            for node, weight in enumerate(_WEIGHTS):
                others = 1.0
                for other, values in enumerate(cumulative):
                    if other != arm:
                        others *= values[node]
                wins[arm] += width * weight * line[node] * others
            below[arm] += width * sum(weight * height for weight, height in zip(_WEIGHTS, line, strict=True))
    total = sum(wins)
    return [one / total for one in wins]


def _thin_cuts(cuts: Sequence[float], posteriors: Sequence[Posterior]) -> list[float]:
    """`cuts` without those that make a panel narrower than the standard deviation of the narrowest posterior near it;
    those close to an end stay."""
    remaining = [cuts[0]]
    for cut, following in pairwise(cuts[1:]):
        near = [one.spread for one in posteriors if abs(cut - one.mean) <= _SPREADS[16] * one.spread]
        beside_an_end = min(cut - cuts[0], cuts[-1] - cut) < max(_EDGE) * max(near, default=0.0)
        if beside_an_end or not near or following - remaining[-1] > min(near):
            remaining.append(cut)
    return [*remaining, cuts[-1]]


@dataclass(frozen=True, slots=True)
class ArmState:
    """An arm that may get a share: its statistics, and why its guards drop it, if they do. `keep` is for the control,
    which is never dropped because everything falls back to it."""

    statistics: ArmStatistics
    dropped: str | None = None
    keep: bool = False


@dataclass(frozen=True, slots=True)
class Allotment:
    """An arm's share in whole parts; the probability that the arm is the best of those tried enough, `None` while
    it is not one of them; why it was dropped."""

    parts: int
    best: float | None
    dropped: str | None


def allocate(arms: Mapping[str, ArmState], settings: BanditSettings, *, parts: int) -> dict[str, Allotment]:
    """Divide `parts` (such as a million less the parts of other arms) between `arms`; the shares add up to `parts`.

    Arms that the guards drop get nothing. Of the others, those with fewer than `min_samples_per_arm` settled decisions
    get an equal share each, and the rest is divided between the arms tried enough by their probability to be the best
    of them. Every share is then mixed with the equal one so that none is under `min_probability`: mixed rather than cut
    off, so that shares keep their order and change smoothly. Raises: ValueError when every arm is dropped and none has
    `keep`.
    """
    live = [name for name, arm in arms.items() if arm.dropped is None or arm.keep]
    if not live:
        raise ValueError("every arm is dropped")
    tried_arms = [name for name in live if arms[name].statistics.settled >= settings.min_samples_per_arm]
    best = (
        dict(
            zip(
                tried_arms,
                compute_best_probabilities([make_posterior(arms[name].statistics, settings) for name in tried_arms]),
                strict=True,
            )
        )
        if tried_arms
        else {}
    )
    equal = 1 / len(live)
    floor = min(settings.min_probability, equal)
    left = equal * len(tried_arms)
    shares = {name: floor + (1 - floor * len(live)) * (best[name] * left if name in best else equal) for name in live}
    whole_parts = round_shares(shares, parts)
    return {name: Allotment(parts=whole_parts.get(name, 0), best=best.get(name), dropped=arm.dropped) for name, arm in arms.items()}


def round_shares(shares: Mapping[str, float], parts: int) -> dict[str, int]:
    """`shares` as whole numbers that add up to `parts`, each less than one part from its exact share (largest
    remainders)."""
    total = sum(shares.values())
    exact = {name: share / total * parts for name, share in shares.items()}
    result = {name: math.floor(value) for name, value in exact.items()}
    by_remainder = sorted(exact, key=lambda name: (result[name] - exact[name], name))
    for name in by_remainder[: parts - sum(result.values())]:
        result[name] += 1
    return result


def _gauss_legendre() -> tuple[list[float], list[float], list[list[float]]]:
    """Five nodes and weights on [0, 1], and for each node the weights that integrate from 0 up to it (exact for
    polynomials of degree 4)."""
    inner, outer = math.sqrt(5 - 2 * math.sqrt(10 / 7)) / 3, math.sqrt(5 + 2 * math.sqrt(10 / 7)) / 3
    near, far = (322 + 13 * math.sqrt(70)) / 900, (322 - 13 * math.sqrt(70)) / 900
    nodes = [(1 + at) / 2 for at in (-outer, -inner, 0.0, inner, outer)]
    weights = [weight / 2 for weight in (far, near, 128 / 225, near, far)]
    up_to = []
    for end in nodes:
        # Integrals of the Lagrange polynomials over [0, end], by the same rule, which is exact for them.
        up_to.append(
            [
                end
                * sum(
                    weight * math.prod((end * at - other) / (node - other) for other in nodes if other != node)
                    for at, weight in zip(nodes, weights, strict=True)
                )
                for node in nodes
            ]
        )
    return nodes, weights, up_to


_NODES, _WEIGHTS, _UP_TO = _gauss_legendre()
