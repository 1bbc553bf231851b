"""Allocation against numerical integration, closed forms and what must always be true."""

import math
import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from rlaas.experiments.bandit import (
    ArmState,
    ArmStatistics,
    Beta,
    Posterior,
    StudentT,
    allocate,
    compute_best_probabilities,
    make_posterior,
    round_shares,
)
from rlaas.routing.bandit_settings import BanditSettings
from rlaas.routing.route import MILLION

SEED = 20261125
TOLERANCE = 1e-3


def statistics(n: float, mean: float, deviation: float = 0.3, *, settled: int | None = None) -> ArmStatistics:
    return ArmStatistics(
        n=n, total=n * mean, squares=n * (deviation**2 + mean**2), successes=n * mean, settled=int(n) if settled is None else settled
    )


def scipy_distribution(one: Posterior) -> stats.rv_continuous:
    return stats.beta(one.a, one.b) if isinstance(one, Beta) else stats.t(one.freedom, loc=one.mean, scale=one.spread)


def integrate_best(posteriors: Sequence[Posterior]) -> list[float]:
    """P(best) by scipy's adaptive quadrature over each arm's own quantiles."""
    frozen = [scipy_distribution(one) for one in posteriors]

    def best(place: int) -> float:
        def over(u: float) -> float:
            point = frozen[place].ppf(u)
            return float(math.prod(one.cdf(point) for other, one in enumerate(frozen) if other != place))

        return float(integrate.quad(over, 0, 1, limit=200, epsabs=1e-6)[0])

    return [best(place) for place in range(len(posteriors))]


def draw_posteriors(rng: random.Random, arms: int, kind: str) -> list[Posterior]:
    posteriors: list[Posterior] = []
    for _ in range(arms):
        n = rng.choice([0.0, 1.0, 10 ** rng.uniform(0, 6)])
        mean = min(0.999, max(0.001, 0.5 + rng.gauss(0, 1) * 0.5 / math.sqrt(n + 1)))
        posteriors.append(
            make_posterior(
                statistics(n, mean, rng.uniform(0.001, 0.4)), BanditSettings(reward="binary" if kind == "beta" else "continuous")
            )
        )
    return posteriors


@pytest.mark.parametrize("kind", ["beta", "t"])
@pytest.mark.parametrize("arms", [2, 3, 5, 10])
def test_probabilities_agree_with_numerical_integration(arms: int, kind: str) -> None:
    rng = random.Random(SEED + arms)
    for _ in range(2):
        posteriors = draw_posteriors(rng, arms, kind)
        assert compute_best_probabilities(posteriors) == pytest.approx(integrate_best(posteriors), abs=TOLERANCE)


@pytest.mark.parametrize(
    "posteriors",
    [
        [Beta(500_001, 500_001), Beta(500_701, 499_301), Beta(1, 1)],  # a million rewards each, beside none
        [Beta(1, 1_000_001), Beta(1.5, 2_000_000), Beta(3, 1_000_000)],  # rare successes
        [Beta(1_000_001, 1), Beta(1, 1), Beta(1.2, 1.1)],
        [StudentT(0.5, 1e-4, 1e6), StudentT(0.5001, 1e-4, 1e6), StudentT(0.5, 0.29, 2)],
        [StudentT(0.5, 0.29, 2), StudentT(0.5, 0.29, 2), StudentT(0.9, 1e-6, 1e6)],
    ],
)
def test_tight_beside_wide_posteriors_are_integrated_as_well(posteriors: list[Posterior]) -> None:
    assert compute_best_probabilities(posteriors) == pytest.approx(integrate_best(posteriors), abs=TOLERANCE)


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 60), st.integers(1, 60))
@settings(max_examples=30)
def test_two_betas_agree_with_the_closed_form(a: int, b: int, c: int, d: int) -> None:
    """P(B > A) for A ~ Beta(a, b), B ~ Beta(c, d) with a whole c: a sum of ratios of Beta functions (Evan Miller 2015,
    eq. 6)."""

    def log_beta(x: float, y: float) -> float:
        return math.lgamma(x) + math.lgamma(y) - math.lgamma(x + y)

    better = sum(math.exp(log_beta(a + i, b + d) - math.log(d + i) - log_beta(1 + i, d) - log_beta(a, b)) for i in range(c))
    assert compute_best_probabilities([Beta(a, b), Beta(c, d)])[1] == pytest.approx(better, abs=1e-6)


@pytest.mark.parametrize("arms", range(1, 11))
def test_equal_arms_are_equally_likely_to_be_best(arms: int) -> None:
    for one in (Beta(1, 1), Beta(7, 3), StudentT(0.5, 0.29, 2), StudentT(0.2, 1e-3, 1e4)):
        assert compute_best_probabilities([one] * arms) == pytest.approx([1 / arms] * arms, abs=1e-9)


def test_a_gaussian_of_many_rewards_is_decided_by_the_difference_in_standard_errors() -> None:
    first, second = statistics(1e6, 0.5, 0.3), statistics(1e6, 0.5005, 0.3)
    better = compute_best_probabilities([make_posterior(first, BanditSettings()), make_posterior(second, BanditSettings())])[1]
    assert better == pytest.approx(stats.norm.cdf(0.0005 / (0.3 * math.sqrt(2 / 1e6))), abs=1e-4)


def test_equal_rewards_do_not_make_an_arm_certain_of_itself() -> None:
    sure, untried = make_posterior(statistics(3, 0.6, 0.0), BanditSettings()), make_posterior(ArmStatistics(), BanditSettings())
    assert 0.1 < compute_best_probabilities([sure, untried])[1] < 0.5


STATES = st.dictionaries(
    st.sampled_from([f"a{number}" for number in range(9)]),
    st.builds(
        lambda n, mean, dropped: ArmState(statistics(n, mean), dropped="too slow" if dropped else None),
        st.integers(0, 400),
        st.floats(0.05, 0.95),
        st.booleans(),
    ),
    max_size=9,
)


@settings(max_examples=40)
@given(STATES, st.floats(0, 0.5), st.integers(0, 200), st.integers(1, MILLION))
def test_shares_add_up_exactly_respect_the_floor_and_stop_dropped_arms(
    states: dict[str, ArmState], floor: float, enough: int, parts: int
) -> None:
    arms = {"control": ArmState(statistics(100, 0.5), keep=True), **states}
    shares = allocate(arms, BanditSettings(min_probability=floor, min_samples_per_arm=enough), parts=parts)
    live = [name for name, arm in arms.items() if arm.dropped is None]
    assert sum(share.parts for share in shares.values()) == parts
    for name, share in shares.items():
        if arms[name].dropped is not None:
            assert (share.parts, share.dropped) == (0, arms[name].dropped)
        else:
            assert share.parts >= min(floor, 1 / len(live)) * parts - 1
            if arms[name].statistics.settled < enough:
                assert share.parts == pytest.approx(parts / len(live), abs=1)


def test_what_the_tried_arms_share_is_dealt_by_their_probability_to_be_best() -> None:
    arms = {
        "control": ArmState(statistics(500, 0.5), keep=True),
        "a": ArmState(statistics(500, 0.52)),
        "new": ArmState(statistics(10, 0.9)),
    }
    rules = BanditSettings(min_probability=0.0, min_samples_per_arm=50)
    shares = allocate(arms, rules, parts=MILLION)
    better = compute_best_probabilities([make_posterior(arms["control"].statistics, rules), make_posterior(arms["a"].statistics, rules)])[1]
    assert shares["new"].parts == pytest.approx(MILLION / 3, abs=1)
    assert shares["a"].parts == pytest.approx(better * MILLION * 2 / 3, abs=1)
    assert shares["new"].best is None
    assert shares["a"].best == pytest.approx(better)


@given(st.dictionaries(st.text(max_size=3), st.floats(1e-6, 1), min_size=1, max_size=12), st.integers(0, MILLION))
def test_whole_parts_add_up_and_are_within_one_of_their_share(shares: dict[str, float], parts: int) -> None:
    whole_parts = round_shares(shares, parts)
    assert sum(whole_parts.values()) == parts
    for name, share in shares.items():
        assert abs(whole_parts[name] - share / sum(shares.values()) * parts) < 1 + 1e-6


def test_a_dropped_arm_gets_nothing_and_the_control_is_kept() -> None:
    share = allocate(
        {"control": ArmState(ArmStatistics(), dropped="it is slow", keep=True), "a": ArmState(ArmStatistics(), dropped="it fails")},
        BanditSettings(),
        parts=MILLION,
    )
    assert (share["a"].parts, share["a"].dropped) == (0, "it fails")
    assert share["control"].parts == MILLION


def test_half_a_life_later_rewards_count_half_and_settled_decisions_still_one_each() -> None:
    rules = BanditSettings(half_life_days=2.0)
    later = statistics(100, 0.4).discount(2.0, rules)
    assert later.n == pytest.approx(50)
    assert later.mean == pytest.approx(0.4)
    assert later.settled == 100
    assert statistics(100, 0.4).discount(2.0, BanditSettings()) == statistics(100, 0.4)
