"""Worlds in which a candidate meets its control, and rollouts in them: what `benchmarks.decisions` measures.

Units come as a Poisson process. A unit has a decision time, an arm by the weight of that time, and a fate in each arm:
whether its draft is sent, when somebody acts on it (or never), whether the candidate failed and left the answer to the
control, whether nobody answered. Both fates are drawn before the arm, from common random numbers.

Evidence is the service's own (`rlaas.rollout`): `Trial` gives its classes each unit as `rlaas.rollout.trial` does, and
none of their mathematics is repeated here. Times are days since the rollout began. The service sees decisions, actions
and closed windows `LAG` later; that is added where a time is reported or a weight changes. All is drawn from `SEED` and
the run's number.
"""

import heapq
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from functools import cache, cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rlaas.experiments.allocation import HarmRecord, count_harms, explain_breach
from rlaas.experiments.harm import ROLLOUT_WEIGHTS, WORSE, HarmBounds, HarmKind, HarmLedger, log_wealth, profit_over_control, weigh_evidence
from rlaas.experiments.sequential import Gate, SequentialTest, SettledUnit, StepOutcome, analyse
from rlaas.experiments.settlement import Harms
from rlaas.rollout.plan import StepSpec
from rlaas.routing.bandit_settings import BanditSettings, RateGuard

SEED = 20261126
ALPHA, RATIO_ALPHA, MIN_SAMPLES = 0.05, 0.001, 20
WINDOW = 1.0
LAG = 120 / 86_400
LOOKS_A_DAY = 96
"""A rollout's own look every 900 seconds."""
AT_MOST_DAYS = 14.0
MINUTES_A_DAY = 1440
FIRST = date(2026, 3, 2)
_FAILED_CENTRE, _NANO = 0.01, 1_000_000_000  # as in `trial` and `harm`

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Arm:
    """How an arm's drafts fare. Delays are exponential, their means in windows; `within`: none is longer than the
    window (drawn again).

    `never`: the share on which nobody acts, which looks like an action that is still to come. `fails`: the share of
    requests that the control answers in its place. `nobody`: the share that nobody answers.
    """

    sent: float = 0.6
    sent_delay: float = 1 / 6
    discard_delay: float = 1 / 6
    within: bool = False
    never: float = 0.0
    fails: float = 0.0
    nobody: float = 0.0


@dataclass(frozen=True, slots=True)
class World:
    """Two arms and their traffic: `units` at `a_day`, dealt by `weight`, from the middle on by `later_weight` (and then
    `later_sent` of both arms' drafts are sent). `hard` is the share of requests whose drafts nobody sends; `Arm.fails`
    affects these first. A draft that is sent has the reward `worth`."""

    candidate: Arm = Arm()
    control: Arm = Arm()
    units: int = 2_000
    a_day: float = 500.0
    weight: float = 0.5
    later_weight: float | None = None
    later_sent: float | None = None
    hard: float = 0.0
    worth: float = 1.0

    def weight_at(self, at: float) -> float:
        """The candidate's share of the units that are decided `at`."""
        return self.later_weight if self.later_weight is not None and at > self.middle else self.weight

    @property
    def middle(self) -> float:
        """The day in the middle."""
        return self.units / self.a_day / 2

    @property
    def prior_mean(self) -> float:
        """The control's mean reward before the rollout."""
        return self.control.sent * self.worth * (1 - self.hard)


@dataclass(frozen=True, slots=True)
class Fates:
    """What becomes of each unit in one arm; `acted_at` is infinite where nobody acts."""

    sent: Flags
    acted_at: Floats
    failed: Flags
    nobody: Flags


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit with its arm, candidate or control, and its fate there."""

    at: float
    candidate: bool
    propensity: float
    sent: bool
    acted_at: float
    failed: bool
    nobody: bool

    @property
    def closes(self) -> float:
        """When its window closes."""
        return self.at + WINDOW

    @property
    def has_action(self) -> bool:
        """Whether somebody acts on it before its window closes."""
        return self.acted_at <= self.closes and not self.nobody

    def reward(self, worth: float) -> float:
        """Its reward when the window closes; silence counts as 0."""
        return worth if self.sent and self.has_action else 0.0


@dataclass
class Stream:
    """The units of one run of a world, in the order of their decisions."""

    world: World
    run: int
    at: Floats = field(init=False)
    chance: Floats = field(init=False)
    fates: dict[bool, Fates] = field(init=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng([SEED, self.run])
        world, units = self.world, self.world.units
        self.at = np.cumsum(rng.exponential(1 / world.a_day, units))
        self.chance, sent, wait, never, kind, nobody = rng.random((6, units))
        hard = kind < world.hard
        control = self._fates(world.control, sent, wait, never, hard, nobody)
        alone = self._fates(world.candidate, sent, wait, never, hard, nobody)
        has_failed = kind < world.candidate.fails
        candidate = Fates(
            sent=np.where(has_failed, control.sent, alone.sent),
            acted_at=np.where(has_failed, control.acted_at, alone.acted_at),
            failed=has_failed | alone.nobody,
            nobody=alone.nobody,
        )
        self.fates = {True: candidate, False: control}

    def _fates(self, arm: Arm, sent: Floats, wait: Floats, never: Floats, hard: Flags, nobody: Floats) -> Fates:
        level = np.full(len(sent), arm.sent)
        if self.world.later_sent is not None:
            level[self.at > self.world.middle] = self.world.later_sent
        is_sent = (sent < level) & ~hard
        mean = np.where(is_sent, arm.sent_delay, arm.discard_delay)
        reachable = 1 - np.exp(-1 / mean) if arm.within else 1.0
        delay = -np.log1p(-wait * reachable) * mean * WINDOW
        is_unanswered = nobody < arm.nobody
        acted_at = np.where((never < arm.never) | is_unanswered, np.inf, self.at + delay)
        return Fates(sent=is_sent, acted_at=acted_at, failed=is_unanswered, nobody=is_unanswered)

    @cached_property
    def _lists(self) -> tuple[list[float], list[float], dict[bool, tuple[list[bool], list[float], list[bool], list[bool]]]]:
        fates = {arm: (of.sent.tolist(), of.acted_at.tolist(), of.failed.tolist(), of.nobody.tolist()) for arm, of in self.fates.items()}
        return self.at.tolist(), self.chance.tolist(), fates

    def unit(self, place: int, weight: float) -> Unit:
        """The unit at `place`, dealt with `weight`."""
        at, chance, fates = self._lists
        candidate = chance[place] < weight
        sent, acted_at, failed, nobody = fates[candidate]
        return Unit(at[place], candidate, weight, sent[place], acted_at[place], failed[place], nobody[place])

    def deal_all(self) -> list[Unit]:
        """All units, dealt by the world's weights."""
        return [self.unit(place, self.world.weight_at(at)) for place, at in enumerate(self._lists[0])]


@cache
def _logs(harmed: bool, candidate: bool, propensity: float, centre: float, margin: float) -> tuple[int, ...]:
    return log_wealth(profit_over_control(harmed, candidate=candidate, propensity=propensity, centre=centre, margin=margin))


@cache
def _day(number: int) -> date:
    return FIRST + timedelta(days=number)


class Trial:
    """A rollout's evidence, unit by unit, as `rlaas.rollout.trial` keeps it.

    `harmful` says whether the guard's alarm was ever due, as a look after every single event would find. To save time
    the ledger is evaluated only when the bets since its last evaluation, all of them won, could have reached the
    alarm's threshold. Units here are never empty, unsafe or slow, which only lowers that wealth, so those kinds are
    left out.
    """

    def __init__(self, world: World, margins: tuple[float, ...] = (0.0,), *, eager: bool = True) -> None:
        self.world = world
        self.test = SequentialTest.against([-margin for margin in margins], world.prior_mean, grid=())
        self.ledger = HarmLedger(first=FIRST.toordinal())
        self.centre = min(0.95, max(0.05, 1 - world.control.sent * (1 - world.hard)))
        self.fails = world.candidate.fails > 0 or world.candidate.nobody > 0
        self.served, self.harmful = 0, False
        self._eager = eager
        self._most = {"unsent": 1.0, "failed": 1.0}

    def enter(self, unit: Unit) -> None:
        """Count a unit that was just served."""
        self.served += unit.candidate
        if self.fails:
            self._bet("failed", unit, _logs(unit.failed, unit.candidate, unit.propensity, _FAILED_CENTRE, HarmBounds().failed))
        self._bet("unsent", unit, self._unsent(unit, not unit.candidate))

    def act(self, unit: Unit, *, sent: bool) -> None:
        """Record whether a unit was sent; until now it counted as sent for the candidate and as not sent for the
        control."""
        if sent != unit.candidate:
            before, after = (self._unsent(unit, unsent) for unsent in (not unit.candidate, not sent))
            self.ledger.add("unsent", _day(int(unit.at)), before, times=-1)
            self._bet("unsent", unit, after, instead_of=before)

    def settle(self, unit: Unit) -> None:
        """Add the reward of a unit whose window has closed."""
        has_action = unit.has_action
        self.test.add(
            SettledUnit(
                reward=unit.reward(self.world.worth),
                candidate=unit.candidate,
                propensity=unit.propensity,
                missing=not has_action and not unit.nobody,
                answered=not unit.failed,
            )
        )
        if not has_action and not unit.nobody:
            self.act(unit, sent=False)
        if self._eager and ROLLOUT_WEIGHTS[WORSE] * self.test.evidence_worse >= 1 / ALPHA:
            self.harmful = True

    def harm(self) -> float:
        """The evidence of harm that the guard's alarm compares with 1/alpha."""
        wealth = {kind: self.ledger.compute_evidence(kind) for kind in ("unsent", "failed")}
        return weigh_evidence({**wealth, WORSE: self.test.evidence_worse}, ROLLOUT_WEIGHTS).value

    def better(self) -> bool:
        """Whether the evidence passes a step that requires benefit."""
        enough = min(self.test.candidate.n, self.test.control.n) >= MIN_SAMPLES
        return enough and self.test.evidence_better(0.0) >= 1 / ALPHA

    def mismatched(self) -> bool:
        """Whether a test ever rejected the split of the units, or of those without an outcome."""
        return max(self.test.ratio_peak, self.test.evidence_unknown) >= 1 / RATIO_ALPHA

    def _unsent(self, unit: Unit, unsent: bool) -> tuple[int, ...]:
        return _logs(unsent, unit.candidate, unit.propensity, self.centre, margin=0.0)

    def _bet(self, kind: HarmKind, unit: Unit, logs: tuple[int, ...], *, instead_of: tuple[int, ...] = (0,) * 6) -> None:
        self.ledger.add(kind, _day(int(unit.at)), logs)
        if kind == "failed":
            self.ledger.add_daily(kind, _day(int(unit.at)), logs)
        if not self._eager or self.harmful:
            return
        rise = max(after - before for after, before in zip(logs, instead_of, strict=True))
        if rise > 0:
            needed = 1 / ALPHA / ROLLOUT_WEIGHTS[kind]
            self._most[kind] *= math.exp(rise / _NANO)
            if self._most[kind] >= needed:
                self._most[kind] = self.ledger.compute_evidence(kind)
                self.harmful = self._most[kind] >= needed


@dataclass
class Clockwork:
    """Actions and closed windows in the order of their times; a trial gets each when it is due."""

    trial: Trial
    _due: list[tuple[float, int, bool, Unit]] = field(default_factory=list)
    _count: int = 0

    def serve(self, unit: Unit) -> None:
        """Enter a unit that was answered, and queue its action and the end of its window."""
        self.trial.enter(unit)
        if unit.has_action:
            heapq.heappush(self._due, (unit.acted_at, self._count, False, unit))
        heapq.heappush(self._due, (unit.closes, self._count + 1, True, unit))
        self._count += 2

    def until(self, now: float) -> Iterator[float]:
        """Give the trial all that was due by `now`, one by one; yields the time of each."""
        while self._due and self._due[0][0] <= now:
            at, _, is_closed, unit = heapq.heappop(self._due)
            if is_closed:
                self.trial.settle(unit)
            else:
                self.trial.act(unit, sent=unit.sent)
            yield at


def _play(trial: Trial, world: World, run: int) -> Iterator[float]:
    """One run of a world at its own weights to the end of its last window: the time, after each event."""
    clockwork = Clockwork(trial)
    for unit in Stream(world, run).deal_all():
        yield from clockwork.until(unit.at)
        clockwork.serve(unit)
        yield unit.at
    yield from clockwork.until(math.inf)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a trial ever found its candidate better, harmful, or its units split wrongly."""

    advanced: bool
    rolled_back: bool
    mismatched: bool


def watched(run: int, world: World) -> Verdict:
    """One run of a world, looked at after every event. Nothing stops it, so that one error cannot hide the other."""
    trial = Trial(world)
    for _ in _play(trial, world, run):
        pass
    return Verdict(trial.better(), trial.harmful, trial.mismatched())


def looked(run: int, world: World, every: int) -> Verdict:
    """One run with the step's gate, looked at after each `every` events and at the end; the first decision ends it."""
    trial = Trial(world, eager=False)
    for seen, _ in enumerate(_play(trial, world, run), 1):
        if seen % every == 0 and (verdict := _decide(trial)):
            return verdict
    return _decide(trial) or Verdict(False, False, False)


def _decide(trial: Trial) -> Verdict | None:
    gate = Gate(ALPHA, RATIO_ALPHA, 0.0, MIN_SAMPLES, math.inf)
    outcome = analyse(trial.test, gate, harm=trial.harm(), harm_reason="harm", waited_seconds=0.0, needed="").outcome
    verdict = Verdict(outcome is StepOutcome.ADVANCE, outcome is StepOutcome.ROLLBACK, outcome is StepOutcome.INCONCLUSIVE)
    return None if outcome is StepOutcome.CONTINUE else verdict


def detected(run: int, world: World) -> tuple[float, float]:
    """Hours until the guard, reading every event, sees harm, and units dealt to the candidate by then; infinite when it
    never does."""
    trial = Trial(world)
    for at in _play(trial, world, run):
        if trial.harmful:
            return (at + LAG) * 24, trial.served
    return math.inf, math.inf


Ending = Literal["shipped", "rolled_back", "inconclusive"]


@dataclass(frozen=True, slots=True)
class Ended:
    """How a rollout ended and how many units had been dealt by then."""

    ending: Ending
    units: int


def rolled_out(run: int, world: World, asks: tuple[StepSpec, ...]) -> Ended:
    """One rollout by `asks` with a look every 900 seconds. The weight changes at the look that passes a step; units
    decided before keep the weight they were dealt with."""
    stream, trial = Stream(world, run), Trial(world, tuple(ask.margin for ask in asks), eager=False)
    clockwork, at = Clockwork(trial), stream.at.tolist()
    place = step = 0
    for look in range(1, round(AT_MOST_DAYS * LOOKS_A_DAY) + 1):
        now = look / LOOKS_A_DAY
        while place < len(at) and at[place] <= now:
            clockwork.serve(stream.unit(place, asks[step].weight))
            place += 1
        for _ in clockwork.until(now - LAG):
            pass
        gate = Gate(ALPHA, RATIO_ALPHA, asks[step].margin, asks[step].min_samples, AT_MOST_DAYS * 86_400)
        analysis = analyse(trial.test, gate, harm=trial.harm(), harm_reason="", waited_seconds=now * 86_400, needed="")
        if analysis.outcome is StepOutcome.ADVANCE:
            step += 1
            if step == len(asks):
                return Ended("shipped", place)
        elif analysis.outcome is not StepOutcome.CONTINUE:
            return Ended("rolled_back" if analysis.outcome is StepOutcome.ROLLBACK else "inconclusive", place)
    return Ended("inconclusive", place)


def drops_at_bound(run: int, bound: float, units: int = 5_000, days: int = 30) -> bool:
    """Whether a bandit's guard ever drops an arm whose error rate is its bound, looked at after every unit."""
    rng = np.random.default_rng([SEED, 1, run])
    settings = BanditSettings(error_rate=RateGuard(above=bound), alpha=ALPHA)
    record = HarmRecord(HarmLedger(first=FIRST.toordinal()))
    for place, has_failed in enumerate((rng.random(units) < bound).tolist()):
        at = datetime.combine(_day(days * place // units), time(12), UTC)
        count_harms(record, Harms(has_failed, empty=False, unsafe=False, latency_ms=None, cost_usd=None), settings, at=at)
        if has_failed and explain_breach(record, settings) is not None:  # only a failure raises the evidence
            return True
    return False
