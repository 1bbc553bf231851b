"""Whether a candidate beats its control, decided at any time and never wrong more often than promised.

Everything here rests on one unbiased number per unit. With R the reward in [0, 1], p the logged probability that the
unit gets the candidate and c a centre fixed before the unit is seen,

    x = (R - c) / p          when the candidate was dealt,
    x = -(R - c) / (1 - p)   when the control was,

has expectation Delta = E[R | candidate] - E[R | control], whatever c is and however p changes along the way. To test
Delta <= m, a gambler stakes a fixed fraction of the wealth on Delta > m, unit after unit. If Delta <= m the wealth is a
supermartingale, so it passes 1/alpha with probability at most alpha however often it is looked at (Ville's inequality;
Waudby-Smith & Ramdas 2024, section 4).

A test takes units one by one and keeps only its wealth and its sums, so a look costs only the units since the last one.
Floating point makes the order matter in the last digit; units are added in the order of their decisions, so a test that
is rebuilt is the same to the bit.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

STAKES = (0.02, 0.06, 0.15, 0.35, 0.7, 0.95)
"""Fractions of the wealth to stake. A mixture of supermartingales is one too, so no fraction has to be guessed: the
logarithm of the mixture's wealth is at most log(1/share) below that of the best fraction. Small canaries gain by the
large stakes, long A/B tests with a small difference by the small ones."""
SHARES = (0.12, 0.14, 0.14, 0.15, 0.2, 0.25)
"""How the first wealth, 1, is divided between the stakes."""
_CENTRE_WEIGHT = 5.0
"""The centre starts at the control's mean from before the trial, which weighs as much as this many units, and then
follows the pooled mean; the centre of a stratum starts at the pooled mean with the same weight."""
_STRATA = 500
"""Most strata with a centre of their own; units of any further one use the pooled mean."""
_MOST_WEALTH = 1e80
"""Wealth is cut here: any decision falls long before, and metrics and JSON can hold the number."""
_RATIO_TILTS = (-1.6, -0.8, -0.4, -0.2, -0.1, 0.1, 0.2, 0.4, 0.8, 1.6)
"""Logarithms of the odds ratios with which the sample ratio test bets that the split is not the logged one."""
_ODDS = tuple(math.exp(tilt) for tilt in _RATIO_TILTS)
_AT = (0.01, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.125, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.8)
GRID = (*(-at for at in reversed(_AT)), *_AT)
"""Differences in mean reward at which the interval may end; an end between two of them is moved outwards."""


class StepOutcome(StrEnum):
    """What an analysis asks of the rollout; the names are the state machine's branches."""

    ADVANCE = "advance"
    ROLLBACK = "rollback"
    CONTINUE = "continue"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True)
class SettledUnit:
    """A unit whose attribution window has closed.

    `reward` in [0, 1] has the declared value for each component that never came; `candidate` says whether the unit was
    dealt the candidate, whoever answered; `propensity` in (0, 1) is the probability of that. `missing`: a component
    never came; `unknown`: one never came whose value nobody declared. `answered`: the arm that was dealt is the one
    that answered. `stratum` was known before the decision.
    """

    reward: float
    candidate: bool
    propensity: float
    missing: bool = False
    unknown: bool = False
    answered: bool = True
    stratum: str | None = None


def _purses() -> list[float]:
    return list(SHARES)


def _bet(purses: list[float], profit: float) -> float:
    """Stake each purse's fraction at `profit` (gain / price - 1; at least -1). Returns the wealth afterwards."""
    wealth = 0.0
    for at, stake in enumerate(STAKES):
        purse = purses[at] * (1 + stake * profit)
        purses[at] = purse
        wealth += purse
    if wealth > _MOST_WEALTH:
        purses[:] = [min(_MOST_WEALTH, purse) for purse in purses]
    return wealth


@dataclass(slots=True)
class Bettor:
    """Wealth that bets against one null hypothesis, and its largest value so far, `peak`: reject at level alpha once
    `peak` >= 1/alpha."""

    null: float
    purses: list[float] = field(default_factory=_purses)
    peak: float = 1.0

    def bet(self, x: float, least: float) -> None:
        """Bet on one unit's unbiased `x`, which cannot be below -`least`, against "the mean of x is <= null"."""
        wealth = _bet(self.purses, max(0.0, x + least) / (least + self.null) - 1)
        if wealth > self.peak:
            self.peak = wealth


@dataclass(slots=True)
class ArmSums:
    """Sums over the settled units of one arm: `n` units and the `total` of their rewards; how many have a component
    `missing` or of `unknown` value; how many the arm itself `answered`, and the total of their rewards."""

    n: int = 0
    total: float = 0.0
    missing: int = 0
    unknown: int = 0
    answered: int = 0
    answered_total: float = 0.0

    @property
    def mean(self) -> float | None:
        """The mean reward of the units dealt to the arm; `None` without one."""
        return self.total / self.n if self.n else None

    @property
    def missing_share(self) -> float | None:
        """The share in [0, 1] of its units with a component that never came; `None` without a unit."""
        return self.missing / self.n if self.n else None

    @property
    def answered_mean(self) -> float | None:
        """The mean reward of the units that the arm itself answered; `None` without one. No basis for a decision,
        because failures choose which units these are."""
        return self.answered_total / self.answered if self.answered else None


@dataclass(slots=True)
class SequentialTest:
    """A candidate against its control, unit by unit in the order of their decisions.

    `better` bets against "Delta <= null" for each null, `worse` against "Delta >= null"; `more_unknown` and
    `fewer_unknown` bet against "outcomes are missing as often for both arms". `ratio` bets that units do not reach the
    candidate with the logged probability: a mixture over odds ratios of the likelihood ratio of the arms seen (Lindon &
    Malek 2022, with tilted odds in place of their Dirichlet prior, because the logged probability may change from unit
    to unit). `expected` is the number of candidate units to expect, the sum of the propensities.
    """

    prior_mean: float
    better: list[Bettor]
    worse: list[Bettor]
    candidate: ArmSums = field(default_factory=ArmSums)
    control: ArmSums = field(default_factory=ArmSums)
    expected: float = 0.0
    more_unknown: Bettor = field(default_factory=lambda: Bettor(0.0))
    fewer_unknown: Bettor = field(default_factory=lambda: Bettor(0.0))
    ratio: list[float] = field(default_factory=lambda: [1 / len(_ODDS)] * len(_ODDS))
    ratio_peak: float = 1.0
    residuals: float = 0.0
    """Sum of (R - c)^2: what is left of the rewards' variance after the centre."""
    strata: dict[str, tuple[float, int]] = field(default_factory=dict)

    @classmethod
    def against(cls, nulls: Sequence[float], prior_mean: float, *, grid: Sequence[float] = GRID) -> "SequentialTest":
        """A new test of 0 and of each of `nulls`, differences in mean reward; the interval may end at these and at
        those of `grid`.

        `prior_mean` in [0, 1] is any guess of the control's mean made before the first unit: it moves power, never
        validity.
        """
        each = sorted({0.0, *nulls, *grid})
        return cls(prior_mean=prior_mean, better=[Bettor(null) for null in each], worse=[Bettor(-null) for null in each])

    @property
    def n(self) -> int:
        """Units settled."""
        return self.candidate.n + self.control.n

    def add(self, unit: SettledUnit) -> None:
        """Add one unit, in the order of decisions. O(nulls)."""
        p = unit.propensity
        pooled_mean = (self.prior_mean * _CENTRE_WEIGHT + self.candidate.total + self.control.total) / (_CENTRE_WEIGHT + self.n)
        centre = self._centre(unit.stratum, pooled_mean)
        left = unit.reward - centre
        x = left / p if unit.candidate else -left / (1 - p)
        least = max(centre / p, (1 - centre) / (1 - p))
        for bettor in self.better:
            bettor.bet(x, least)
        least = max((1 - centre) / p, centre / (1 - p))
        for bettor in self.worse:
            bettor.bet(-x, least)
        self._add_unknown(unit)
        likelihoods = [(odds if unit.candidate else 1.0) / (1 - p + p * odds) for odds in _ODDS]
        self.ratio = [min(_MOST_WEALTH, purse * likelihood) for purse, likelihood in zip(self.ratio, likelihoods, strict=True)]
        self.ratio_peak = max(self.ratio_peak, sum(self.ratio))
        self.expected += p
        self.residuals += left * left
        sums = self.candidate if unit.candidate else self.control
        sums.n += 1
        sums.total += unit.reward
        sums.missing += unit.missing
        sums.unknown += unit.unknown
        if unit.answered:
            sums.answered += 1
            sums.answered_total += unit.reward
        if unit.stratum is not None and (unit.stratum in self.strata or len(self.strata) < _STRATA):
            total, n = self.strata.get(unit.stratum, (0.0, 0))
            self.strata[unit.stratum] = (total + unit.reward, n + 1)

    def evidence_better(self, null: float) -> float:
        """The largest wealth so far against Delta <= `null`, by the smallest of the test's nulls that is >= `null`; 1
        where there is none."""
        return next((bettor.peak for bettor in self.better if bettor.null >= null), 1.0)

    @property
    def known_share(self) -> float:
        """The share in [0, 1] of both arms' units without an unknown component; 1 without any unit."""
        return 1 - (self.candidate.unknown + self.control.unknown) / self.n if self.n else 1.0

    @property
    def evidence_worse(self) -> float:
        """The largest wealth so far against Delta >= 0."""
        return next(bettor.peak for bettor in self.worse if bettor.null == 0.0)

    @property
    def evidence_unknown(self) -> float:
        """The largest wealth so far against "outcomes are missing as often for both arms". Half of the first wealth
        bets on more of them for the candidate, half on fewer."""
        return max(self.more_unknown.peak, self.fewer_unknown.peak) / 2

    def interval(self, alpha: float) -> tuple[float, float]:
        """Bounds (low, high) in [-1, 1] that contain Delta at all looks at once with probability >= 1 - `alpha`: the
        values that neither one-sided test rejects at alpha/2, rounded outwards to the grid."""
        low = max((bettor.null for bettor in self.better if bettor.peak >= 2 / alpha), default=-1.0)
        high = min((-bettor.null for bettor in self.worse if bettor.peak >= 2 / alpha), default=1.0)
        return low, high

    def difference(self) -> tuple[float, float] | None:
        """The difference of the arms' mean rewards and its plain standard error, which holds for one look only; `None`
        until both arms have a unit."""
        one, other = self.candidate, self.control
        if one.mean is None or other.mean is None:
            return None
        variance = self.residuals / self.n
        return one.mean - other.mean, math.sqrt(variance / one.n + variance / other.n)

    def _centre(self, stratum: str | None, pooled_mean: float) -> float:
        total, n = self.strata.get(stratum, (0.0, 0)) if stratum is not None else (0.0, 0)
        return (pooled_mean * _CENTRE_WEIGHT + total) / (_CENTRE_WEIGHT + n)

    def _add_unknown(self, unit: SettledUnit) -> None:
        p, share = unit.propensity, (self.candidate.unknown + self.control.unknown + 0.5) / (self.n + 1)
        left = unit.unknown - share
        x = left / p if unit.candidate else -left / (1 - p)
        self.more_unknown.bet(x, max(share / p, (1 - share) / (1 - p)))
        self.fewer_unknown.bet(-x, max((1 - share) / p, share / (1 - p)))


@dataclass(frozen=True, slots=True)
class Gate:
    """What a step demands before it lets the candidate advance.

    `alpha` bounds the probability of advancing a candidate whose true difference is <= -`margin`, and that of rolling
    back one that does no harm; `ratio_alpha` that of calling a correct split wrong, or equally missing outcomes
    unequal. To advance, each arm needs `min_samples` settled units whose outcome is known; to roll back needs none.
    After `max_wait_seconds` without a decision the step is inconclusive.

    `margin`, in mean reward, is for units whose outcome is known. An unknown outcome counts as 0 for both arms, so the
    margin shrinks by the share of such units; otherwise silence would pass for proof that the candidate is no worse.
    """

    alpha: float
    ratio_alpha: float
    margin: float
    min_samples: int
    max_wait_seconds: float


@dataclass(frozen=True, slots=True)
class Analysis:
    """The result of one look at the data: the outcome, and its reason in words with the numbers."""

    outcome: StepOutcome
    reason: str


def analyse(test: SequentialTest, gate: Gate, *, harm: float, harm_reason: str, waited_seconds: float, needed: str) -> Analysis:
    """Decide on a step by its gate, from the units settled so far and the evidence of harm.

    A wrong split and unequally missing outcomes are checked first, because then no difference means anything; then
    harm, then benefit, which counts only with `gate.min_samples` in each arm. `harm` is the evidence that the guard's
    alarm watches, compared with 1/alpha; `needed` says in words what a decision would have needed.
    """
    candidate, control = test.candidate, test.control
    counts = f"{candidate.n} candidate and {control.n} control units"
    low, high = test.interval(gate.alpha)
    interval = f"difference in [{low:+.3f}, {high:+.3f}] at {1 - gate.alpha:.0%}"
    better = test.evidence_better(-gate.margin * test.known_share)
    if test.ratio_peak >= 1 / gate.ratio_alpha:
        return Analysis(
            StepOutcome.INCONCLUSIVE,
            f"sample ratio mismatch: {counts}, {test.expected:.1f} candidate units expected; evidence {test.ratio_peak:.3g} >= "
            f"{1 / gate.ratio_alpha:.3g}: units are lost or logged differently by arm",
        )
    if test.evidence_unknown >= 1 / gate.ratio_alpha:
        return Analysis(
            StepOutcome.INCONCLUSIVE,
            f"outcomes are missing unequally: for {_share(candidate.unknown, candidate.n)} of the candidate's units and "
            f"{_share(control.unknown, control.n)} of the control's; evidence {test.evidence_unknown:.3g} >= {1 / gate.ratio_alpha:.3g}. "
            "Where silence is itself an outcome, declare what it is worth in the skill's reward.missing",
        )
    if harm >= 1 / gate.alpha:
        return Analysis(StepOutcome.ROLLBACK, f"{harm_reason}; {counts}; {interval}")
    complete = candidate.n - candidate.missing + control.n - control.missing
    with_outcome = min(candidate.n - candidate.unknown, control.n - control.unknown)
    enough = with_outcome >= gate.min_samples and complete >= gate.min_samples
    if better >= 1 / gate.alpha and enough:
        claim = "better" if gate.margin == 0 else f"better than control minus {gate.margin:g}"
        reason = f"candidate is {claim}: evidence {better:.3g} >= {1 / gate.alpha:.3g} after {counts}; {interval}"
        return Analysis(StepOutcome.ADVANCE, reason)
    time = f"after {waited_seconds:.0f} s of at most {gate.max_wait_seconds:.0f} s"
    lacking = f"evidence {better:.3g} of {1 / gate.alpha:.3g}" if enough else f"of {gate.min_samples} with an outcome needed in each"
    status = f"undecided {time}: {counts}, {lacking}; {interval}"
    if waited_seconds < gate.max_wait_seconds:
        return Analysis(StepOutcome.CONTINUE, status)
    return Analysis(StepOutcome.INCONCLUSIVE, f"{status}. {needed}")


def _share(part: int, of: int) -> str:
    return f"{part / of:.0%}" if of else "none"
