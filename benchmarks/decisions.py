"""Whether rollouts and guards decide rightly, and how soon: the service's own evidence in simulated worlds, beside its
former rules.

False decisions. The candidate is as good as its control while outcomes come late or never, requests fail, or levels
drift. Each world's figures are the shares of its runs in which the candidate was ever found better (`advance_*`) and
ever found harmful (`rollback_*`), looked at after every event; only chance may lift a share over alpha = 0.05.
`*_canary` is at 10%, the others at 50%. Two worlds are in no maximum: `fallback`, whose candidate fails on hard
requests that the control then answers, so that taking it back is right and advancing it is not; and `beyond_window`,
where 37% of the control's good outcomes come after the window and so do not count. A share that is over alpha after the
first runs is measured again on twice as many new ones (in the table of power too), so that a maximum over worlds is no
maximum of noise.

Former rules: units in the order of their outcomes, without answers of a fallback, and an alarm on the mean reward
(below the control's less 0.15 in 2 of 3 one-minute periods; `old_rollback_RATE_a_minute` is within a day at that many
of the candidate's outcomes).

Detection. Hours until the guard's alarm at a 10% canary, medians; 336 stands for "not within 14 days".

Power. Default plans from traffic, alpha 0.05, 14 days, windows of a day, drafts sent at 60% before: the share that is
shipped, beside the power that the plan states, the former plan (two days a step, without its alarm) and a z-test at the
end of 14 days at 50:50.

A look. State of a million settled units, and a look at 1,000 new ones with their windows closed: CPU and memory of a
process of its own. The store is in memory, so the time of DynamoDB is not included."""

import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from scipy import stats

from benchmarks import decision_worlds as worlds
from benchmarks.decision_worlds import ALPHA, AT_MOST_DAYS, LAG, SEED, WINDOW, Arm, Ended, Stream, Verdict, World
from benchmarks.result import report
from rlaas.experiments.harm import HarmKind, log_wealth, profit_over_control
from rlaas.experiments.sequential import SequentialTest, SettledUnit
from rlaas.rollout.plan import Plan, PlanLimits, StepSpec, Traffic, make_plan, plan_steps
from rlaas.rollout.steps import Rollout, RolloutSettings, RolloutStep
from rlaas.rollout.trial import TrialState, look
from rlaas.telemetry.store import StoredEvent
from rlaas.tenancy.registry import rollout_key
from tests.fakes.events import MemoryEventStore
from tests.fakes.trials import World as Office
from tests.fakes.worlds import SKILL, TENANT

RUNS, DETECTION_RUNS, POWER_RUNS = 300, 100, 200
LOOK_UNITS, LOOK_NEW = 1_000_000, 1_000
RATES = (50, 200, 1_000, 5_000)
GAINS = (-0.10, -0.05, 0.0, 0.02, 0.05, 0.10, 0.20)
MORE_RUNS = {(50, 0.0): 5.0, (200, 0.0): 5.0, (1_000, 0.0): 5.0, (5_000, 0.02): 0.5, (5_000, 0.05): 0.5}
"""By units a day and gain, the factor on the number of runs: a share near alpha needs many, and some rollouts are
long."""
TRAFFIC = {0.1: 1_500, 1.0: 1_500, 5.0: 3_000, 20.0: 5_000, 100.0: 10_000, 1_000.0: 20_000}
"""Units a minute, and how many there are in all."""
LOOKS = {"each": 1, "50": 50, "once": 10**9}
EFFECTS = {
    **{f"send_minus_{drop}": (-drop / 100, 0.0) for drop in (50, 30, 10)},
    **{f"fails_{share}": (0.0, share / 100) for share in (100, 30, 10)},
}
KINDS_OF_HARM: tuple[HarmKind, ...] = ("failed", "empty", "unsafe", "slow", "unsent")
KINDS = ("advance", "rollback", "mismatch")
OLD_DROP, OLD_STEPS, OLD_DAYS, OLD_SAMPLES = 0.15, ((0.1, 0.1), (0.5, 0.0)), 2.0, 50
NEVER_HOURS = AT_MOST_DAYS * 24

T = TypeVar("T")
Figures = dict[str, float]


@dataclass(frozen=True, slots=True)
class Runner:
    """Runs numbered simulations, on `processes` where there are any."""

    processes: ProcessPoolExecutor | None = None

    def of(self, one: Callable[[int], T], runs: int, *, first: int = 0) -> list[T]:
        """The results of `runs` runs from `first` on, in order: the same however many processes there are."""
        numbers = range(first, first + runs)
        if self.processes is None:
            return [one(run) for run in numbers]
        return list(self.processes.map(one, numbers, chunksize=max(1, runs // 20)))

    def share(self, one: Callable[[int], bool], runs: int) -> float:
        """The share of `runs` runs whose result is true, in [0, 1]."""
        return sum(self.of(one, runs)) / runs


# False decisions


def equal_worlds() -> dict[str, World]:
    """Worlds in which the candidate is neither better nor worse; those by the minute have a reward of 0.9 in three of
    four cases, else 0."""
    late_good = Arm(sent_delay=1.0, within=True)
    silent, failing, often = Arm(never=0.3), Arm(nobody=0.1), Arm(sent=0.75, sent_delay=1 / 24, discard_delay=1 / 24)
    worlds_by_name = {
        "plain": World(),
        "late_candidate_bad": World(candidate=Arm(discard_delay=1.0)),
        "late_control_good": World(candidate=Arm(within=True), control=late_good),
        "late_both": World(candidate=Arm(discard_delay=1.0, within=True), control=late_good),
        "missing": World(candidate=silent, control=silent),
        "failing": World(candidate=failing, control=failing),
    }
    worlds_by_name |= {f"{name}_canary": replace(world, weight=0.1) for name, world in worlds_by_name.items()}
    worlds_by_name["drift"] = World(candidate=Arm(sent=0.3), control=Arm(sent=0.3), weight=0.1, later_weight=0.5, later_sent=0.8)
    for rate, units in TRAFFIC.items():
        worlds_by_name[f"{_rate(rate)}_a_minute"] = World(often, often, units=units, a_day=rate * worlds.MINUTES_A_DAY, worth=0.9)
    return worlds_by_name


def _rate(a_minute: float) -> str:
    return f"{a_minute:g}".replace(".", "_")


def fallback_world(share: float) -> World:
    """The candidate fails on the hard `share` of requests, of whose drafts none is sent; otherwise it is equal."""
    return World(candidate=Arm(fails=share), hard=share, units=4_000)


def false_decisions(runner: Runner, runs: int) -> Figures:
    """The shares of wrong decisions in each world, and their maxima."""
    ones: dict[str, Callable[[int], Verdict]] = {name: partial(worlds.watched, world=world) for name, world in equal_worlds().items()}
    ones |= {f"look_{name}": partial(worlds.looked, world=World(), every=every) for name, every in LOOKS.items()}
    figures: Figures = {}
    for name, one in ones.items():
        shares = _average_shares(name, runner.of(one, runs))
        if max(shares.values()) > ALPHA:
            shares = _average_shares(name, runner.of(one, 2 * runs, first=runs))
        figures |= shares
    maxima = {f"false_{kind}_max": max(value for name, value in figures.items() if name.startswith(kind)) for kind in KINDS}
    drop_ratios = {f"drop_{bound}_ratio": runner.share(partial(worlds.drops_at_bound, bound=bound / 100), runs) for bound in (10, 5)}
    maxima["false_drop_max"] = max(drop_ratios.values())
    tolerance = ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / runs)
    for name, value in maxima.items():
        print(f"{name}: {value:.3f}; by chance at most {tolerance:.3f} (alpha and 3 standard errors of {runs} runs)")
    apart = {"fallback": fallback_world(0.1), "fallback_5": fallback_world(0.05), "beyond_window": World(control=Arm(sent_delay=1.0))}
    for name, world in apart.items():
        shares = _average_shares(name, runner.of(partial(worlds.watched, world=world), runs))
        figures |= {f"{name}_{kind}_share": shares[f"{kind}_{name}_ratio"] for kind in ("advance", "rollback")}
    return {**maxima, "runs_a_world": float(runs), "tolerance": tolerance, **figures, **drop_ratios, **old_false_decisions(runner, runs)}


def old_false_decisions(runner: Runner, runs: int) -> Figures:
    """The shares of wrong decisions by the former rules."""
    late = {name: equal_worlds()[name] for name in ("late_candidate_bad", "late_control_good", "late_both")}
    worlds_by_figure = {f"old_advance_{name}_ratio": world for name, world in late.items()}
    worlds_by_figure |= {"old_fallback_advance_ratio": fallback_world(0.1), "old_fallback_5_advance_ratio": fallback_world(0.05)}
    figures = {name: runner.share(partial(old_advances, world=world), runs) for name, world in worlds_by_figure.items()}
    for rate in TRAFFIC:
        figures[f"old_rollback_{_rate(rate)}_a_minute_ratio"] = runner.share(partial(old_alarm_rings, a_minute=rate), runs)
    return figures


def _average_shares(name: str, verdicts: list[Verdict]) -> Figures:
    means = np.mean([(verdict.advanced, verdict.rolled_back, verdict.mismatched) for verdict in verdicts], axis=0)
    return {f"{kind}_{name}_ratio": float(share) for kind, share in zip(KINDS, means, strict=True)}


# The former rules


def old_advances(run: int, world: World) -> bool:
    """Whether the candidate ever looks better among the units with an outcome, in the order of outcomes, without
    answers of a fallback."""
    units = Stream(world, run).deal_all()
    units_by_action = sorted((unit for unit in units if unit.acted_at <= units[-1].at and not unit.failed), key=lambda unit: unit.acted_at)
    test = SequentialTest.against((0.0,), world.prior_mean, grid=())
    for unit in units_by_action:
        test.add(SettledUnit(world.worth * unit.sent, unit.candidate, unit.propensity))
    return min(test.candidate.n, test.control.n) >= worlds.MIN_SAMPLES and test.evidence_better(0.0) >= 1 / ALPHA


def old_alarm_rings(run: int, a_minute: float) -> bool:
    """Whether the old alarm rings within a day for a candidate equal to its control: a reward of 0.9 in three of four
    cases, else 0."""
    rng = np.random.default_rng([SEED, 2, run])
    counts = rng.poisson(a_minute, worlds.MINUTES_A_DAY)
    return math.isfinite(_old_alarm(counts.astype(float), 0.9 * rng.binomial(counts, 0.75).astype(float), 0.9 * 0.75))


def old_detected(run: int, world: World) -> float:
    """The hours until the old alarm rings; infinite when it does not."""
    stream = Stream(world, run)
    fates = stream.fates[True]
    seen = (stream.chance < world.weight) & np.isfinite(fates.acted_at) & ~fates.failed
    minutes = (fates.acted_at[seen] * worlds.MINUTES_A_DAY).astype(np.int64)
    counts, sent = (np.bincount(minutes, weights, minlength=1).astype(float) for weights in (None, fates.sent[seen]))
    return _old_alarm(counts, sent, world.prior_mean)


def _old_alarm(counts: worlds.Floats, totals: worlds.Floats, control_mean: float) -> float:
    below = (counts > 0) & (totals < (control_mean - OLD_DROP) * counts)
    of_three = np.convolve(below.astype(int), np.ones(3, dtype=int))[: len(below)]
    rung = np.flatnonzero(of_three >= 2)
    return float(rung[0] + 1) / 60 if len(rung) else math.inf


def old_rolled_out(run: int, world: World) -> Ended:
    """A rollout by the former default plan: each step starts a new test, with outcomes as they come."""
    stream = Stream(world, run)
    step_start = 0.0
    for weight, margin in OLD_STEPS:
        first, last = np.searchsorted(stream.at, [step_start, step_start + OLD_DAYS])
        units = [stream.unit(place, weight) for place in range(int(first), int(last))]
        units_by_action = sorted((unit for unit in units if unit.acted_at <= step_start + OLD_DAYS), key=lambda unit: unit.acted_at)
        test = SequentialTest.against((-margin,), world.prior_mean, grid=())
        for unit in units_by_action:
            test.add(SettledUnit(float(unit.sent), unit.candidate, unit.propensity))
            if test.evidence_worse >= len(OLD_STEPS) / ALPHA:
                return Ended("rolled_back", int(np.searchsorted(stream.at, unit.acted_at)))
            if test.evidence_better(-margin) >= 1 / ALPHA and min(test.candidate.n, test.control.n) >= OLD_SAMPLES:
                step_start = unit.acted_at
                break
        else:
            return Ended("inconclusive", int(last))
    return Ended("shipped", int(np.searchsorted(stream.at, step_start)))


def once_shipped(run: int, world: World) -> bool:
    """Whether a one-sided z-test of all units that are settled after 14 days at 50:50 finds the candidate better."""
    stream = Stream(world, run)
    is_settled = stream.at <= AT_MOST_DAYS - WINDOW - LAG
    arms = []
    for candidate, fates in stream.fates.items():
        mine = is_settled & ((stream.chance < 0.5) == candidate)
        arms.append((fates.sent & (fates.acted_at <= stream.at + WINDOW))[mine].astype(float))
    error = math.sqrt(sum(arm.var() / len(arm) for arm in arms))
    return bool(arms[0].mean() - arms[1].mean() > stats.norm.isf(ALPHA) * error)


# Detection


def bad_world(effect: float, fails: float, a_day: float) -> World:
    """A canary of 10% that is sent less often by `effect`, or fails on a share `fails`; a fifth of the drafts is never
    answered."""
    arm = Arm(sent_delay=1 / 24, discard_delay=1 / 24, never=0.2)
    units = int(min(a_day * AT_MOST_DAYS, 150_000))
    return World(replace(arm, sent=arm.sent + effect, fails=fails), arm, units=units, a_day=a_day, weight=0.1)


def detection(runner: Runner, runs: int) -> Figures:
    """Median hours until harm is seen, beside the old alarm's."""
    figures: Figures = {}
    for a_day in (*RATES, 100_000):
        count = runs if a_day <= 1_000 else max(1, runs * 2 // 5)
        quiet = runner.of(partial(old_detected, world=bad_world(0.0, 0.0, a_day)), count)
        figures[f"old_detection_false_at_{a_day}_ratio"] = float(np.mean(np.isfinite(quiet)))
        print(f"{a_day} a day: the old alarm rings for {figures[f'old_detection_false_at_{a_day}_ratio']:.0%} of equal candidates")
        for name, (effect, fails) in EFFECTS.items():
            world = bad_world(effect, fails, a_day)
            hours, units = np.median(runner.of(partial(worlds.detected, world=world), count), axis=0)
            old = float(np.median(runner.of(partial(old_detected, world=world), count)))
            figures[f"detection_hours_{name}_at_{a_day}_p50"] = min(NEVER_HOURS, float(hours))
            figures[f"old_detection_hours_{name}_at_{a_day}_p50"] = min(NEVER_HOURS, old)
            print(f"{name:>17}: {hours:>8.1f} hours, {units:>6.0f} units; old {old:>8.1f} hours")
            if (name, a_day) == ("send_minus_50", 1_000):
                figures["bad_adapter_detection_units_p50"] = float(units)
    return figures


# Power


def default_plan(a_day: float, gain: float = 0.2) -> tuple[tuple[StepSpec, ...], Plan]:
    """The steps for traffic of `a_day` units a day, and their plan, which states the power for `gain`."""
    traffic = Traffic(units_a_day=a_day, reward_mean=0.6, reward_sd=0.49, unsent=0.4)
    terms = PlanLimits(alpha=ALPHA, at_most_days=AT_MOST_DAYS, window_days=WINDOW + LAG, gain=0.2)
    asks = plan_steps(traffic, terms, last_margin=0.0, min_samples=worlds.MIN_SAMPLES)
    return asks, make_plan(asks, traffic, replace(terms, gain=gain))


def power(runner: Runner, runs: int) -> Figures:
    """How rollouts by the default plan end, beside the power that the plan states and other ways to decide."""
    figures: Figures = {}
    print("  a day   gain  shipped rolled_back inconclusive  units   plan    old   once")
    for a_day in RATES:
        asks, expected = default_plan(a_day)
        steps = ", then ".join(f"{ask.weight:.0%} with margin {ask.margin:g}" for ask in asks)
        print(f"{a_day:>7} {steps}{'' if expected.can_conclude else '; refused'}")
        for gain in GAINS:
            count = max(1, round(runs * MORE_RUNS.get((a_day, gain), 1.0)))
            row = measure_power(runner, a_day, gain, count)
            cell = f"{a_day}_a_day_gain_{'minus_' if gain < 0 else ''}{abs(gain) * 100:.0f}"
            figures |= {f"{name}_{cell}": value for name, value in row.items() if not math.isnan(value)}
            print(f"{gain:>+14.2f} " + "".join(f"{value:>8.3f}" if value <= 1 else f"{value:>8.0f}" for value in row.values()))
    return {"shipped_gain_0_max": max(figures[f"shipped_{a_day}_a_day_gain_0"] for a_day in RATES), **figures}


def measure_power(runner: Runner, a_day: float, gain: float, runs: int) -> Figures:
    """One line of the table; the plan states no power for gains of 0 or less."""
    arm = Arm(sent_delay=1 / 12, discard_delay=1 / 12)
    world = World(replace(arm, sent=arm.sent + gain), arm, units=int(a_day * AT_MOST_DAYS * 1.1), a_day=a_day)
    one = partial(worlds.rolled_out, world=world, asks=default_plan(a_day)[0])
    endings = runner.of(one, runs)
    if gain <= 0 and sum(each.ending == "shipped" for each in endings) > ALPHA * runs:
        endings = runner.of(one, 2 * len(endings), first=len(endings))
    old = runner.of(partial(old_rolled_out, world=world), runs)
    promises = [one.probability for one in default_plan(a_day, gain)[1].power if one.gain == gain] if gain > 0 else [math.nan]
    return {
        **{name: sum(each.ending == name for each in endings) / len(endings) for name in ("shipped", "rolled_back", "inconclusive")},
        "units_p50": float(np.median([each.units for each in endings])),
        "planned_power": promises[0],
        "old_shipped": sum(each.ending == "shipped" for each in old) / runs,
        "once_shipped": runner.share(partial(once_shipped, world=world), runs),
    }


# A look


@dataclass
class _IndexedEvents(MemoryEventStore):
    """The store in memory, with an index for a look's queries, so that the look is measured and not the fake."""

    around: dict[str, list[StoredEvent]] = field(default_factory=dict)
    units: dict[str, list[StoredEvent]] = field(default_factory=dict)

    def put_new(self, event: StoredEvent) -> StoredEvent | None:
        if (existing := super().put_new(event)) is None:
            self.around.setdefault(event.interaction_id or "", []).append(event)
            if event.trial is not None:
                self.units.setdefault(event.trial.unit_id, []).append(event)
        return existing

    def read_interaction(self, tenant_id: str, interaction_id: str) -> list[StoredEvent]:
        return self.around.get(interaction_id, [])

    def iterate_unit(self, tenant_id: str, skill: str, trial: str, unit: str, *, since: datetime | None = None) -> Iterator[StoredEvent]:
        return iter(self.units.get(unit, []))


def begin_rollout() -> tuple[Office, Rollout]:
    """A new rollout in its first step, with its office."""
    office = Office(events=_IndexedEvents())
    office.begin_rollout(RolloutSettings(steps=(RolloutStep(weight=0.1, margin=0.1), RolloutStep(weight=0.5))))
    return office, office.registry.get(Rollout, TENANT, rollout_key(SKILL, "rol_1")).record


def state_after(units: int) -> TrialState:
    """The state of a rollout after so many units in 13 days, on the default grid, of a thousand users."""
    _, rollout = begin_rollout()
    state, rng = TrialState.begin(rollout), np.random.default_rng([SEED, 3])
    users, is_candidate, sent = rng.integers(0, 1_000, units).tolist(), rng.random(units) < 0.1, rng.random(units) < 0.6
    bets = [log_wealth(profit_over_control(False, candidate=arm, propensity=0.1, centre=0.01, margin=0.02)) for arm in (False, True)]
    for place, (user, candidate, good) in enumerate(zip(users, is_candidate.tolist(), sent.tolist(), strict=True)):
        state.test.add(SettledUnit(float(good), candidate, 0.1, stratum=f"user-{user:07}"))
        for kind in KINDS_OF_HARM:
            state.harm.add(kind, rollout.created_at.date() + timedelta(days=13 * place // units), bets[candidate])
    until = rollout.created_at + timedelta(days=13)
    return state.model_copy(update={"watched_until": until, "settled_until": until, "version": 1})


def measured_look(path: Path, new: int) -> Figures:
    """CPU seconds to load the state at `path`, look at `new` decisions and dump it, and this process's most memory in
    MiB."""
    (office, rollout), text = begin_rollout(), path.read_text()
    office.now = rollout.created_at + timedelta(days=13)
    for place in range(new):
        office.advance(1)
        office.act(office.serve(), "sent" if place % 5 < 3 else "discarded")
    office.advance(rollout.settings.window_hours * 3600 + rollout.settings.lag_seconds + 60)
    before = resource.getrusage(resource.RUSAGE_SELF)
    state = TrialState.model_validate_json(text, extra="ignore")
    after_look = look(state, rollout, events=office.events, now=office.now, most=new)
    text = after_look.model_dump_json()
    after = resource.getrusage(resource.RUSAGE_SELF)
    assert (after_look.test.n - state.test.n, after_look.served.candidate + after_look.served.control) == (new, new)
    return {
        "look_1m_cpu_s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "look_1m_mib": after.ru_maxrss / 1024,
        "look_1m_state_kib": len(text) / 1024,
    }


def one_look(units: int, new: int = LOOK_NEW) -> Figures:
    """`measured_look` in a fresh process."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.json"
        path.write_text(state_after(units).model_dump_json())
        command = [sys.executable, "-m", "benchmarks.decisions", str(path), str(new)]
        figures: Figures = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return figures


def main(runs: int = RUNS, detection_runs: int = DETECTION_RUNS, power_runs: int = POWER_RUNS, look_units: int = LOOK_UNITS) -> None:
    """Measure with a process for each core, and keep the figures."""
    start = time.perf_counter()
    figures = one_look(look_units)
    with ProcessPoolExecutor(max(1, min(2, os.cpu_count() or 1))) as processes:
        runner = Runner(processes)
        for part, count in ((false_decisions, runs), (detection, detection_runs), (power, power_runs)):
            figures |= part(runner, count)
            print(f"{part.__name__} after {time.perf_counter() - start:.0f} s", file=sys.stderr)
    report("decisions", "make bench-decisions", {**figures, "seconds_s": time.perf_counter() - start})


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(json.dumps(measured_look(Path(sys.argv[1]), int(sys.argv[2]))))
    else:
        main()
