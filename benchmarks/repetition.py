"""How far one person who repeats himself moves a reward report, a rollout, a bandit and a dataset, with `rlaas.voices`
and without.

This person opens k threads a day, spread over it, and knows which policy answered: he discards one's drafts and sends
the other's, though all are equally good. Worlds: a team of 3 (200 units a day, 7 days), 30 people (200 a day, 7 days)
and 300 (2,000 a day, 2 days); other people's drafts are sent at 60%. `plain_*` counts every unit, without voices.

Rollouts, at 50%: `ship_*` and `back_*` are the shares of runs in which the equal candidate was ever found better, or
harmful, looked at every few units. With k = 0 these are false decisions, at most alpha = 0.05 except by chance; `zipf`:
the n-th person works 1/n as much as the first. `kept_*`: the share of honest people's units that count. Bandits: the
share of one of two equal arms after 3 days, mean of runs. Reports: the mean of a day's rewards, honest ones 0.6.
Datasets: this person's share of the pairs to train on."""

import math
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from statistics import fmean

import numpy as np

from benchmarks.decision_worlds import ALPHA, MIN_SAMPLES, SEED
from benchmarks.decisions import Runner
from benchmarks.result import report
from rlaas.chat import Message
from rlaas.evaluation.reward_report import compute_reward_figures
from rlaas.experiments.bandit import ArmState, ArmStatistics, allocate
from rlaas.experiments.harm import ROLLOUT_WEIGHTS, WORSE, HarmLedger, log_wealth, profit_over_control
from rlaas.experiments.sequential import SequentialTest, SettledUnit
from rlaas.preferences.dataset import keep_within_shares
from rlaas.preferences.pairs import Pair
from rlaas.routing.bandit_settings import BanditSettings
from rlaas.telemetry.events import RewardComputed
from rlaas.voices import Voices

RUNS, ATTACKED_RUNS = 60, 8
LOOK_EVERY = 5
BEGAN = datetime(2026, 3, 2, tzinfo=UTC)
SENT, WEIGHT = 0.6, 0.5
REPEATED = (10, 100, 1_000)
ATTACKER = "attacker"

Figures = dict[str, float]


@dataclass(frozen=True, slots=True)
class Office:
    """`people` who make `a_day` units together, with `zipf` the n-th 1/n as many as the first; and an attacker with
    `repeated` more a day."""

    people: int
    a_day: float
    days: float
    zipf: bool = False
    repeated: int = 0

    def units(self, rng: np.random.Generator) -> list[tuple[datetime, str]]:
        """Each unit's time of decision and its person, in order of time."""
        work = 1 / np.arange(1, self.people + 1) ** self.zipf
        honest = int(rng.poisson(self.a_day * self.days))
        people = [f"person-{one}" for one in rng.choice(self.people, honest, p=work / work.sum())]
        people += [ATTACKER] * int(self.repeated * self.days)
        at = rng.uniform(0, self.days, len(people)).tolist()
        return sorted((BEGAN + timedelta(days=day), who) for day, who in zip(at, people, strict=True))


OFFICES = {"3": Office(3, 200, 7), "30": Office(30, 200, 7), "300": Office(300, 2_000, 2)}


@cache
def _unsent(unsent: bool, candidate: bool) -> tuple[int, ...]:
    return log_wealth(profit_over_control(unsent, candidate=candidate, propensity=WEIGHT, centre=1 - SENT, margin=0.0))


def _units_that_count(office: Office, rng: np.random.Generator, *, capped: bool) -> Iterator[tuple[datetime, str]]:
    voices = Voices(before=office.people)
    for at, who in office.units(rng):
        if not capped or voices.hear(who, at):
            yield at, who


def rolled_out(run: int, office: Office, ships: bool, capped: bool) -> tuple[bool, bool, float]:
    """Whether an equal candidate was ever found better, or harmful, and the share of honest units that count. With an
    attacker the run ends when the finding that he wants (`ships`: better, else harmful) is made."""
    rng = np.random.default_rng([SEED, 7, run])
    test, ledger = SequentialTest.against((0.0,), SENT, grid=()), HarmLedger(first=BEGAN.toordinal())
    better, harmful, honest = False, False, 0
    for at, who in _units_that_count(office, np.random.default_rng([SEED, 8, run]), capped=capped):
        candidate = bool(rng.random() < WEIGHT)
        sent = candidate == ships if who == ATTACKER else bool(rng.random() < SENT)
        honest += who != ATTACKER
        test.add(SettledUnit(float(sent), candidate, WEIGHT))
        ledger.add("unsent", at.date(), _unsent(not sent, candidate))
        if test.n % LOOK_EVERY:
            continue
        if not harmful:
            harm = max(ROLLOUT_WEIGHTS[WORSE] * test.evidence_worse, ROLLOUT_WEIGHTS["unsent"] * ledger.compute_evidence("unsent"))
            harmful = harm >= 1 / ALPHA
        enough = min(test.candidate.n, test.control.n) >= MIN_SAMPLES
        better = better or (enough and test.evidence_better(0.0) >= 1 / ALPHA)
        if office.repeated and (better if ships else harmful):
            break
    return better, harmful, honest / (office.a_day * office.days)


def rollouts(runner: Runner, runs: int, attacked_runs: int) -> Figures:
    """The shares of wrong decisions."""
    figures: Figures = {}
    for name, office in OFFICES.items():
        for world, each in ((name, office), (f"{name}_zipf", replace(office, zipf=True))):
            means = np.mean(runner.of(partial(rolled_out, office=each, ships=False, capped=True), runs), axis=0)
            figures |= dict(
                zip((f"ship_{world}_k0_ratio", f"back_{world}_k0_ratio", f"kept_{world}_ratio"), map(float, means), strict=True)
            )
            print(f"{world:>9} people: k 0 ships {means[0]:.3f}, takes back {means[1]:.3f}, keeps {means[2]:.2f}", flush=True)
        for k in REPEATED:
            for ships, kind in ((True, "ship"), (False, "back")):
                for capped, prefix in ((False, "plain_"), (True, "")):
                    one = partial(rolled_out, office=replace(office, repeated=k), ships=ships, capped=capped)
                    share = float(np.mean([result[not ships] for result in runner.of(one, attacked_runs)]))
                    figures[f"{prefix}{kind}_{name}_k{k}_ratio"] = share
                    print(f"{name:>9} people: k {k} {prefix}{kind} {share:.3f}", flush=True)
    return figures


def share_dealt(run: int, office: Office, capped: bool) -> float:
    """The share in [0, 1] of the arm whose drafts the attacker discards, of two equal arms, after 3 days."""
    rng, settings = np.random.default_rng([SEED, 9, run]), BanditSettings()
    arms, voices = [ArmStatistics(), ArmStatistics()], [Voices(), Voices()]
    for at, who in replace(office, days=3).units(np.random.default_rng([SEED, 10, run])):
        arm = int(rng.random() < 0.5)
        if not capped or voices[arm].hear(who, at):
            arms[arm] = arms[arm].add_reward(float(arm == 0 if who == ATTACKER else rng.random() < SENT), settings)
    return allocate({"kept": ArmState(arms[0], keep=True), "hit": ArmState(arms[1])}, settings, parts=1_000_000)["hit"].parts / 1e6


def bandits(runner: Runner, runs: int) -> Figures:
    """The mean share of an arm that is as good as the other."""
    figures: Figures = {}
    for name, office in OFFICES.items():
        for k in (0, *REPEATED):
            for capped, prefix in ((False, "plain_"), (True, "")):
                one = partial(share_dealt, office=replace(office, repeated=k), capped=capped)
                figures[f"{prefix}bandit_{name}_k{k}_ratio"] = fmean(runner.of(one, runs))
    return figures


def reports() -> Figures:
    """The mean of a day's rewards when the attacker gives a reward of 0 k times: on one thread, and on k threads."""
    figures: Figures = {}
    for name, office in OFFICES.items():
        for k in (0, *REPEATED):
            units = replace(office, days=1, repeated=k).units(np.random.default_rng([SEED, 11]))
            rng = np.random.default_rng([SEED, 12])
            values = [0.0 if who == ATTACKER else float(rng.random() < SENT) for _, who in units]
            for threads in ("threads", "one_thread"):
                rewards = [
                    _reward(n, who, at, value, one=threads != "threads")
                    for n, ((at, who), value) in enumerate(zip(units, values, strict=True))
                ]
                mean_report = compute_reward_figures(rewards, unit="thread")
                figures[f"report_{name}_k{k}_{threads}_mean"] = mean_report.mean if mean_report else math.nan
            figures[f"plain_report_{name}_k{k}_mean"] = fmean(values)
    return figures


def _reward(n: int, who: str, at: datetime, value: float, *, one: bool) -> RewardComputed:
    return RewardComputed(
        skill="reply",
        thread_id="again" if one and who == ATTACKER else f"t{n}",
        user_id=who,
        occurred_at=at,
        reward_id=f"rew_{n}",
        interaction_id=f"i{n}",
        output_id=f"o{n}",
        reward=value,
        components={"sent": value},
        n=1,
        event_ids=("f",),
    )


def datasets() -> Figures:
    """From the pairs of 3 days, with every fifth draft edited: the attacker's share, and the share of the others' pairs
    that are kept."""
    figures: Figures = {}
    for name, office in OFFICES.items():
        for k in (0, *REPEATED):
            world = replace(office, days=3, repeated=k)
            pairs = [
                _pair(n, who) for n, (_, who) in enumerate(world.units(np.random.default_rng([SEED, 13]))) if who == ATTACKER or n % 5 == 0
            ]
            selected, honest = keep_within_shares(pairs), sum(pair.person != ATTACKER for pair in pairs)
            his = sum(pair.person == ATTACKER for pair in selected)
            figures[f"plain_dataset_{name}_k{k}_ratio"] = 1 - honest / len(pairs)
            figures[f"dataset_{name}_k{k}_ratio"] = his / len(selected)
            figures[f"dataset_kept_{name}_k{k}_ratio"] = (len(selected) - his) / honest
    return figures


def _pair(n: int, who: str) -> Pair:
    return Pair(
        prompt=(Message(role="user", content="?"),),
        chosen=f"What was sent, {n}.",
        rejected="The draft.",
        interaction_id=f"i{n}",
        output_id=f"o{n}",
        feedback_ids=(),
        thread=f"t{n}",
        policy_id=None,
        occurred_at="2026-03-02T00:00:00Z",
        discarded=False,
        held_out=False,
        person=who,
    )


def main(runs: int = RUNS, attacked_runs: int = ATTACKED_RUNS) -> None:
    """Measure with a process for each core, and keep the figures."""
    start = time.perf_counter()
    with ProcessPoolExecutor(max(1, min(2, os.cpu_count() or 1))) as processes:
        runner = Runner(processes)
        figures = {**reports(), **datasets(), **bandits(runner, attacked_runs), **rollouts(runner, runs, attacked_runs)}
    false = max(value for name, value in figures.items() if "_k0_" in name and name.startswith(("ship_", "back_")))
    tolerance = ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / runs)
    report(
        "repetition",
        "make bench-repetition",
        {"false_max": false, "tolerance": tolerance, **figures, "seconds_s": time.perf_counter() - start},
    )


if __name__ == "__main__":
    main()
