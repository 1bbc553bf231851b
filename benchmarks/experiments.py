"""Whether experiments are honest: 10 tenants' decisions, checked; and what the bandit's learning costs beside other
ways to learn.

Decisions. Each tenant's route has its own salt, weights and history of ramps. The figures count sample ratio tests that
fail at 1e-3, units whose arm changed without a new version, and units that a change of weights moved needlessly; a
chi-square test compares the logged propensities with the arms taken, and the share of units that moved stands beside
the least possible.

Bandit. Bernoulli arms, 2 to 10 of them, whose means are drawn anew for each seed; rewards come after a delay, and
allocations are made at intervals, so that every policy decides from the rewards known by then, as the service does. All
policies see the same rewards (common random numbers). Cumulative regret is what the best arm would have earned more, in
rewards, averaged over the seeds. Thompson is the service's own code (`rlaas.experiments.bandit`). The last figures
count the samples of an arm with errors above its guard's bound before the guard drops it.
"""

import math
import os
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from benchmarks.result import report
from rlaas.experiments.allocation import HarmRecord, count_harms, explain_breach
from rlaas.experiments.bandit import ArmState, ArmStatistics, allocate
from rlaas.experiments.harm import HarmLedger
from rlaas.experiments.settlement import Harms
from rlaas.routing.assign import CONTROL, assign, find_bucket
from rlaas.routing.bandit_settings import BanditSettings, RateGuard
from rlaas.routing.route import MILLION, Arm, Route
from tests.fakes.worlds import NOW, SKILL, TENANT

TENANTS, DECISIONS = 10, 1_000_000
LOOKED_AT = 100
"""Of this many units one goes through `assign` itself."""
RATIO_ALPHA = 1e-3
SEED = 20261125
SEEDS = 1_000
ROUNDS, PER_ROUND, DELAY_ROUNDS = 40, 250, 2
"""Allocations of one simulation, decisions between two of them, and how many allocations later their rewards are
known."""
EPSILON = 0.1
ERROR_RATE, ERROR_BOUND, LOOK_EVERY = 0.3, 0.1, 100

Floats = NDArray[np.float64]


# Decisions


@dataclass(frozen=True)
class Checked:
    """The checks of one tenant's decisions: the p-value of each version's sample ratio test; for calibration (logged
    probability, candidates with it, how many of them were taken); the rest are counts of units."""

    ratio_p: tuple[float, ...]
    logged: tuple[tuple[float, int, int], ...]
    asked_again: int
    sticky_violations: int
    compared: int
    moved: int
    moved_units: int
    least_moved_ratio: float


def tenant(number: int, decisions: int) -> Checked:
    """One tenant's decisions over the versions of its route: a ramp of one arm, and a change of all arms at once.

    Every version decides units of its own, so that its tests are independent of the others', and for each of these the
    arm before the change is compared. All units are looked up on the arms' spans together; each hundredth is also
    decided by `assign`, twice, and both decisions have to equal the look-up. Calibration uses one candidate of each
    decision, in turn.
    """
    rng = np.random.default_rng([SEED, number])
    arms = 2 + number % 5
    first = _route(number, rng, arms)
    ramp = _ramp(first, {0: first.arms[0].weight + 0.5 * _left(first)})
    versions = [first, ramp, _ramp(ramp, dict(enumerate(float(share) for share in rng.dirichlet(np.ones(arms + 1))[:-1])))]
    ratio_p, log = [], []
    repetitions, violations, comparisons, moves, needless = 0, 0, 0, 0, 0
    units = decisions // len(versions)
    for version, route in enumerate(versions):
        names = [f"unit-{number}-{version}-{place}" for place in range(units)]
        points = np.array([int(find_bucket(route.salt, name) * MILLION) for name in names])
        owners = _owners(route)[points]
        for place in range(0, units, LOOKED_AT):
            decision, repetition = (assign(route, names[place], decision_id=name, decided_at=NOW) for name in ("dec", "dec-again"))
            same = (decision.arm, decision.propensity) == (repetition.arm, repetition.propensity)
            violations += not (same and decision.candidates[owners[place]].arm == decision.arm)
            repetitions += 1
        probabilities = np.array([candidate.probability for candidate in decision.candidates])
        counts = np.bincount(owners, minlength=arms + 1)
        live = probabilities > 0
        assert counts[~live].sum() == 0
        ratio_p.append(float(stats.chisquare(counts[live], probabilities[live] * units).pvalue))
        turn = np.arange(units) % (arms + 1)
        hit = np.bincount(turn[turn == owners], minlength=arms + 1)
        log += [(float(p), int(n), int(k)) for p, n, k in zip(probabilities, np.bincount(turn, minlength=arms + 1), hit, strict=True)]
        if version:
            before = _owners(versions[version - 1])[points]
            shares_before, shares_after = (np.array(list(_shares(of).values())) for of in (versions[version - 1], route))
            change = before != owners
            comparisons += units
            moves += int(change.sum())
            # A unit may leave an arm whose share fell for one whose share rose, and make no other move.
            is_needed = (shares_after < shares_before)[before] & (shares_after > shares_before)[owners]
            needless += int((change & ~is_needed).sum())
    least = [_share_that_fell(before, after) for before, after in pairwise(versions)]
    return Checked(
        ratio_p=tuple(ratio_p),
        logged=tuple(log),
        asked_again=repetitions,
        sticky_violations=violations,
        compared=comparisons,
        moved=moves,
        moved_units=needless,
        least_moved_ratio=sum(least) / len(least),
    )


def _owners(route: Route) -> NDArray[np.int64]:
    """For each millionth of the line the place of its candidate: 0 the control's, then the arms in their order."""
    owners = np.zeros(MILLION, dtype=np.int64)
    for place, arm in enumerate(route.arms, 1):
        for start, end in arm.spans:
            owners[start:end] = place
    return owners


def calibration_p(logged: Iterable[tuple[float, int, int]]) -> float:
    """The p-value of a chi-square test that candidates logged with probability p were taken with probability p, in
    twenty bins of p."""
    due, variance, taken_counts = np.zeros(20), np.zeros(20), np.zeros(20)
    for p, n, k in logged:
        at = min(19, int(p * 20))
        due[at] += p * n
        variance[at] += p * (1 - p) * n
        taken_counts[at] += k
    is_tested = variance > 0
    return float(stats.chi2.sf(((taken_counts - due)[is_tested] ** 2 / variance[is_tested]).sum(), int(is_tested.sum())))


def _route(number: int, rng: np.random.Generator, arms: int) -> Route:
    shares = rng.dirichlet(np.ones(arms + 1))
    arms_of_route = tuple(Arm(policy_id=f"{SKILL}@v{place + 2}", mode="ab", weight=float(share)) for place, share in enumerate(shares[:-1]))
    return Route(
        tenant_id=TENANT,
        skill=SKILL,
        version=1,
        control=f"{SKILL}@v1",
        arms=arms_of_route,
        salt=f"salt-{number}",
        changed_by="bench",
        reason="begin",
        changed_at=NOW,
    )


def _ramp(before: Route, weights: dict[int, float]) -> Route:
    arms = [arm.model_copy(update={"weight": weights.get(place, arm.weight)}) for place, arm in enumerate(before.arms)]
    return before.succeed(
        control=before.control, arms=arms, last_good=None, rollout_id=None, changed_by="bench", reason="ramp", changed_at=NOW
    )


def _left(route: Route) -> float:
    return max(0.0, 1 - sum(arm.weight for arm in route.arms))


def _shares(route: Route) -> dict[str, int]:
    lengths = {arm.policy_id: sum(end - start for start, end in arm.spans) for arm in route.arms}
    return {CONTROL: MILLION - sum(lengths.values()), **lengths}


def _share_that_fell(before: Route, after: Route) -> float:
    shares_before, shares_after = _shares(before), _shares(after)
    return sum(max(0, shares_before[arm] - shares_after[arm]) for arm in shares_before) / MILLION


# Bandit


def simulate(seed: int) -> dict[str, float]:
    """The cumulative regret of each policy on one draw of arms and rewards."""
    rng = np.random.default_rng([SEED, seed])
    means = rng.uniform(0.2, 0.8, 2 + seed % 9)
    uniforms = rng.random((ROUNDS, PER_ROUND))
    rewards = (rng.random((ROUNDS, PER_ROUND, len(means))) < means).astype(float)
    dealers: dict[str, Callable[[Floats, Floats, int], Floats]] = {
        "thompson": _thompson,
        "epsilon_greedy": _epsilon_greedy,
        "ucb1": _ucb1,
        "ab": lambda counts, *_: np.full(len(counts), 1 / len(counts)),
    }
    return {name: _regret(dealer, means, uniforms, rewards) for name, dealer in dealers.items()}


def _regret(dealer: Callable[[Floats, Floats, int], Floats], means: Floats, uniforms: Floats, rewards: Floats) -> float:
    """The regret of dealing round by round, with rewards known `DELAY_ROUNDS` later; a round's shares are fixed, as a
    route's are."""
    arms = len(means)
    counts, successes = np.zeros((ROUNDS + DELAY_ROUNDS, arms)), np.zeros((ROUNDS + DELAY_ROUNDS, arms))
    regret = 0.0
    for number in range(ROUNDS):
        shares = dealer(counts[: number + 1].sum(0), successes[: number + 1].sum(0), number)
        chosen_arms = np.minimum(np.searchsorted(np.cumsum(shares), uniforms[number], side="right"), arms - 1)
        due = number + DELAY_ROUNDS
        counts[due] += np.bincount(chosen_arms, minlength=arms)
        successes[due] += np.bincount(chosen_arms, weights=rewards[number, np.arange(PER_ROUND), chosen_arms], minlength=arms)
        regret += float((means.max() - means[chosen_arms]).sum())
    return regret


_SETTINGS = BanditSettings(reward="binary", min_probability=0.005, min_samples_per_arm=10)


def _thompson(counts: Floats, successes: Floats, _: int) -> Floats:
    states = {
        str(arm): ArmState(ArmStatistics(n=float(n), total=float(won), successes=float(won), settled=int(n)), keep=True)
        for arm, (n, won) in enumerate(zip(counts, successes, strict=True))
    }
    allocation = allocate(states, _SETTINGS, parts=MILLION)
    return np.array([allocation[str(arm)].parts / MILLION for arm in range(len(counts))])


def _epsilon_greedy(counts: Floats, successes: Floats, _: int) -> Floats:
    shares = np.full(len(counts), EPSILON / len(counts))
    shares[int(np.argmax(np.divide(successes, counts, out=np.ones_like(counts), where=counts > 0)))] += 1 - EPSILON
    return shares


def _ucb1(counts: Floats, successes: Floats, number: int) -> Floats:
    """Auer et al. 2002, UCB1, playing one arm between two allocations, since it has no shares."""
    if (counts == 0).any():
        shares = (counts == 0).astype(float)
        return np.asarray(shares / shares.sum(), dtype=np.float64)
    bound = successes / counts + np.sqrt(2 * math.log((number + 1) * PER_ROUND) / counts)
    shares = np.zeros(len(counts))
    shares[int(np.argmax(bound))] = 1.0
    return shares


def stopped_after(seed: int) -> int:
    """How many requests an arm answers, of which 30% fail, before a guard of 10% drops it: a look comes every
    `LOOK_EVERY` requests of the route, of which the arm has about half."""
    rng = np.random.default_rng([SEED, 7, seed])
    settings = BanditSettings(error_rate=RateGuard(above=ERROR_BOUND))
    record = HarmRecord(HarmLedger(first=NOW.toordinal()))
    while explain_breach(record, settings) is None:
        for _ in range(int(rng.binomial(LOOK_EVERY, 0.5))):
            failed = bool(rng.random() < ERROR_RATE)
            count_harms(record, Harms(failed, empty=False, unsafe=False, latency_ms=None, cost_usd=None), settings, at=NOW)
    return record.served


def main(decisions: int = DECISIONS, seeds: int = SEEDS) -> None:
    """Measure with a process for each core, and keep the figures."""
    start = time.perf_counter()
    with ProcessPoolExecutor(max(1, min(2, os.cpu_count() or 1))) as processes:
        results = list(processes.map(partial(tenant, decisions=decisions), range(TENANTS)))
        print(f"decisions checked after {time.perf_counter() - start:.0f} s", file=sys.stderr)
        regrets = list(processes.map(simulate, range(seeds), chunksize=10))
        stops = list(processes.map(stopped_after, range(seeds), chunksize=50))
    mean = {name: float(np.mean([regret[name] for regret in regrets])) for name in regrets[0]}
    better = [regret["ab"] - regret["thompson"] for regret in regrets]
    report(
        "experiments",
        "make bench-experiments",
        {
            "tenants": float(TENANTS),
            "decisions": float(TENANTS * decisions),
            "srm_tests": float(sum(len(one.ratio_p) for one in results)),
            "srm_failures": float(sum(p < RATIO_ALPHA for one in results for p in one.ratio_p)),
            "srm_p_min": min(p for one in results for p in one.ratio_p),
            "asked_again": float(sum(one.asked_again for one in results)),
            "sticky_violations": float(sum(one.sticky_violations for one in results)),
            "calibration_p_min": min(calibration_p(one.logged) for one in results),
            "calibration_p_all": calibration_p(line for one in results for line in one.logged),
            "moved_units": float(sum(one.moved_units for one in results)),
            "moved_ratio": sum(one.moved for one in results) / sum(one.compared for one in results),
            "least_moved_ratio": sum(one.least_moved_ratio for one in results) / len(results),
            "seeds": float(seeds),
            "decisions_per_seed": float(ROUNDS * PER_ROUND),
            **{f"regret_{name}": value for name, value in mean.items()},
            "thompson_beats_ab_ratio": float(np.mean(np.array(better) > 0)),
            "bad_arm_stopped_after_samples": float(np.mean(stops)),
            "bad_arm_stopped_after_samples_max": float(max(stops)),
            "seconds_s": time.perf_counter() - start,
        },
    )


if __name__ == "__main__":
    main()
