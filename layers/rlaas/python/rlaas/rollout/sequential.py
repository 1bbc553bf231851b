"""Whether a candidate beats its control, decided at any time and never wrong more often than promised.

Everything here rests on one unbiased number per unit. With R the reward in [0, 1], p the logged probability that the unit gets the
candidate and c a centre fixed before the unit is seen,

    x = (R - c) / p          when the candidate answered,
    x = -(R - c) / (1 - p)   when the control did,

has expectation Delta = E[R | candidate] - E[R | control] whatever c is and however p changed along the way. A gambler who may not know
Delta > m stakes a fixed fraction of the wealth on it, unit after unit; under Delta <= m the wealth is a supermartingale, so it passes
1/alpha with probability at most alpha however often it is looked at (Ville's inequality; Waudby-Smith & Ramdas 2024, section 4).
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

# Fractions of the wealth staked, and how the first unit of wealth is shared between the gamblers. A mixture of supermartingales is one, so
# no fraction has to be guessed: the best one's growth is reached within log(1/share). Small canaries live on the large stakes (with few
# candidates the best stake is near everything), long A/B tests with a small difference on the small ones.
_STAKES = (0.02, 0.08, 0.25, 0.6, 0.95)
_SHARES = (0.1, 0.1, 0.15, 0.25, 0.4)
# The centre starts at the control's mean before the step with the weight of this many units, then follows the pooled mean.
_CENTRE_WEIGHT = 5.0
# Odds ratios, as logarithms, at which the sample ratio test bets that the split is not the logged one.
_RATIO_TILTS = (-1.6, -0.8, -0.4, -0.2, -0.1, 0.1, 0.2, 0.4, 0.8, 1.6)


class Outcome(StrEnum):
    """What an analysis asks of the rollout; the names are the state machine's branches."""

    ADVANCE = "advance"
    ROLLBACK = "rollback"
    CONTINUE = "continue"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True)
class Observation:
    """One unit's reward in [0, 1], which arm answered, and the probability in (0, 1) that it would be the candidate."""

    reward: float
    candidate: bool
    propensity: float


@dataclass(frozen=True, slots=True)
class Gate:
    """What a step asks before it lets the candidate advance.

    `alpha` bounds the probability of advancing a candidate whose true difference is <= -`margin`; `rollback_alpha` that of rolling back one
    whose true difference is >= 0; `ratio_alpha` that of calling a right split wrong. `min_samples` units are needed in each arm to advance,
    none to roll back. After `max_wait_seconds` without an answer the step is inconclusive.
    """

    alpha: float
    rollback_alpha: float
    ratio_alpha: float
    margin: float
    min_samples: int
    max_wait_seconds: float


@dataclass(frozen=True, slots=True)
class Analysis:
    """A look at the data: the outcome, its reason in words with the numbers, and the numbers.

    `low` and `high` bound Delta with probability 1 - alpha at all looks together. The three evidences are the largest wealth so far
    against "Delta <= -margin", against "Delta >= 0" and against the logged split.
    """

    outcome: Outcome
    reason: str
    n_control: int
    n_candidate: int
    mean_control: float | None
    mean_candidate: float | None
    low: float
    high: float
    evidence_better: float
    evidence_worse: float
    evidence_ratio: float


@dataclass(frozen=True, slots=True)
class _Bet:
    """x shifted to be >= 0, and the shift: -`shift` is the least value that x could have taken."""

    gain: float
    shift: float


def _bets(observations: Iterable[Observation], prior_mean: float) -> list[_Bet]:
    total, weight = prior_mean * _CENTRE_WEIGHT, _CENTRE_WEIGHT
    bets = []
    for seen in observations:
        centre, p = total / weight, seen.propensity
        shift = max(centre / p, (1 - centre) / (1 - p))
        x = (seen.reward - centre) / p if seen.candidate else (centre - seen.reward) / (1 - p)
        bets.append(_Bet(gain=max(0.0, x + shift), shift=shift))
        total, weight = total + seen.reward, weight + 1
    return bets


def _mirrored(observations: Iterable[Observation]) -> list[Observation]:
    """The same units with rewards turned round, so that a test for better becomes the test for worse."""
    return [Observation(1 - seen.reward, seen.candidate, seen.propensity) for seen in observations]


def _wealth(bets: Iterable[_Bet], null: float) -> float:
    """The largest wealth reached betting against Delta <= `null`, from 1. Falls as `null` rises, for every data set. O(units)."""
    purses = list(_SHARES)
    peak = 1.0
    for bet in bets:
        profit = bet.gain / (bet.shift + null) - 1
        purses = [purse * (1 + stake * profit) for purse, stake in zip(purses, _STAKES, strict=True)]
        peak = max(peak, sum(purses))
    return peak


def evidence_above(observations: Sequence[Observation], null: float, prior_mean: float = 0.5) -> float:
    """Largest wealth so far against Delta <= `null`; reject at level alpha once it is >= 1/alpha.

    `null` is in (-1, 1); `prior_mean` any guess of the control's mean made before the first observation (it moves power, never validity).
    """
    return _wealth(_bets(observations, prior_mean), null)


def evidence_below(observations: Sequence[Observation], null: float, prior_mean: float = 0.5) -> float:
    """Largest wealth so far against Delta >= `null`; reject at level alpha once it is >= 1/alpha."""
    return _wealth(_bets(_mirrored(observations), 1 - prior_mean), -null)


def confidence_sequence(observations: Sequence[Observation], alpha: float, prior_mean: float = 0.5) -> tuple[float, float]:
    """Bounds that hold Delta at every look together with probability >= 1 - `alpha`, to within 0.001.

    All the values that neither one-sided test rejects at alpha/2. Wealth falls as the null rises, so bisection finds each end.
    """

    def lower_bound(bets: list[_Bet]) -> float:
        low, high = -0.999, 0.999
        if _wealth(bets, low) < 2 / alpha:
            return -1.0
        while high - low > 0.001:
            middle = (low + high) / 2
            if _wealth(bets, middle) >= 2 / alpha:
                low = middle
            else:
                high = middle
        return low

    return lower_bound(_bets(observations, prior_mean)), -lower_bound(_bets(_mirrored(observations), 1 - prior_mean))


def evidence_of_ratio_mismatch(observations: Iterable[Observation]) -> float:
    """Largest wealth so far against "units reach the candidate with the logged probability".

    A mixture over odds ratios of the likelihood ratio of the arms seen, so it can be read at any time (Lindon & Malek 2022, with
    tilted odds in place of their Dirichlet prior, because the logged probability may change from unit to unit). A mismatch means that
    units are lost or logged differently by arm, and then no difference of means says anything.
    """
    purses = [1 / len(_RATIO_TILTS)] * len(_RATIO_TILTS)
    odds_ratios = [math.exp(tilt) for tilt in _RATIO_TILTS]
    peak = 1.0
    for seen in observations:
        p = seen.propensity
        purses = [purse * (odds if seen.candidate else 1.0) / (1 - p + p * odds) for purse, odds in zip(purses, odds_ratios, strict=True)]
        peak = max(peak, sum(purses))
    return peak


def analyse(observations: Sequence[Observation], gate: Gate, *, waited_seconds: float, prior_mean: float = 0.5) -> Analysis:
    """Look once more at a step's units, in the order in which their rewards arrived. O(units).

    A wrong split is named before anything else, harm before benefit, and benefit counts only with `gate.min_samples` in each arm.
    """
    candidate = [seen.reward for seen in observations if seen.candidate]
    control = [seen.reward for seen in observations if not seen.candidate]
    better = evidence_above(observations, -gate.margin, prior_mean)
    worse = evidence_below(observations, 0.0, prior_mean)
    ratio = evidence_of_ratio_mismatch(observations)
    low, high = confidence_sequence(observations, gate.alpha, prior_mean)
    enough = min(len(candidate), len(control)) >= gate.min_samples

    counts = f"{len(candidate)} candidate and {len(control)} control units"
    interval = f"difference in [{low:+.3f}, {high:+.3f}] at {1 - gate.alpha:.0%}"
    if ratio >= 1 / gate.ratio_alpha:
        outcome = Outcome.INCONCLUSIVE
        expected = sum(seen.propensity for seen in observations)
        reason = (
            f"sample ratio mismatch: {counts}, {expected:.1f} candidate units expected; evidence {ratio:.3g} >= {1 / gate.ratio_alpha:.3g}"
        )
    elif worse >= 1 / gate.rollback_alpha:
        outcome = Outcome.ROLLBACK
        reason = f"candidate is worse: evidence {worse:.3g} >= {1 / gate.rollback_alpha:.3g} after {counts}; {interval}"
    elif better >= 1 / gate.alpha and enough:
        outcome = Outcome.ADVANCE
        claim = "better" if gate.margin == 0 else f"better than control minus {gate.margin:g}"
        reason = f"candidate is {claim}: evidence {better:.3g} >= {1 / gate.alpha:.3g} after {counts}; {interval}"
    else:
        waiting = waited_seconds < gate.max_wait_seconds
        outcome = Outcome.CONTINUE if waiting else Outcome.INCONCLUSIVE
        time = f"after {waited_seconds:.0f} s of at most {gate.max_wait_seconds:.0f} s"
        lacking = f"of {gate.min_samples} needed in each" if not enough else f"evidence {better:.3g} of {1 / gate.alpha:.3g}"
        reason = f"undecided {time}: {counts}, {lacking}; {interval}"
    return Analysis(
        outcome=outcome,
        reason=reason,
        n_control=len(control),
        n_candidate=len(candidate),
        mean_control=sum(control) / len(control) if control else None,
        mean_candidate=sum(candidate) / len(candidate) if candidate else None,
        low=low,
        high=high,
        evidence_better=better,
        evidence_worse=worse,
        evidence_ratio=ratio,
    )
