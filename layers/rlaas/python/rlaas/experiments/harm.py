"""Evidence of harm: the number that raises the guard's alarm, and its reason in words.

Harm is counted in units, by the arm dealt. For each kind of harm a wealth bets, with the stakes of `sequential`,
against "the arm does no more of this than it may". A rollout's candidate may do what its control does and a margin
more, a bandit's arm as much as a bound allows. If the arm keeps to that, the wealth passes 1/alpha with probability at
most alpha, however often it is looked at and whether there is one request a day or a thousand a second.

With fixed stakes and a fixed centre the wealth is a product, in which the order of the units does not matter. So it is
stored as one sum of logarithms per stake, in whole billionths: sums of whole numbers are the same in whatever order and
batches the stream delivers the events.

An arm may begin to do harm after a long time without any, and by then the wealth on large stakes is gone. So every day
(UTC) a new share of the first wealth begins to bet: 1/((k+1)(k+2)) of it on day k. That is a mixture again, and the
shares sum to 1.

A unit that comes back is dealt the same arm, so its next request is no new draw: one user whose requests always fail
would count as often as they ask. Yet a route by user soon has no new units, and an arm that breaks in its second week
must not go unnoticed. So each day also has a wealth of its own, which bets on the first request of each unit that day.
Half of alpha goes to these daily wealths, divided by the same shares: within a day every unit is one draw, and across
days the union bound holds however alike the units are.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Literal

from pydantic import Field

from rlaas.experiments.sequential import SHARES, STAKES
from rlaas.wire import WireModel

HarmKind = Literal["failed", "empty", "unsafe", "slow", "unsent", "dear"]
"""In this order: the arm's backend did not answer; its answer was empty; a guardrail acted on the answer; the answer
took too long; the draft was not sent; the request cost too much."""
WORSE = "worse"
"""The settled rewards themselves, from `sequential`."""
ROLLOUT_WEIGHTS: Mapping[str, float] = {WORSE: 0.4, "unsent": 0.2, "failed": 0.1, "empty": 0.1, "unsafe": 0.1, "slow": 0.1}
"""How a rollout's alpha is divided between the kinds of harm (union bound)."""
_NANO = 1_000_000_000
_MOST_DAYS = 60
"""Days of bets that are stored; an older day is deleted, and its share of the wealth is lost."""
_LARGEST_LOG = 180.0
"""Wealth is cut at e^180 (1e78), because a CloudWatch metric holds less than 2^360."""

_REASONS = {
    WORSE: "its rewards are worse",
    "failed": "it fails more often than it may",
    "empty": "it answers nothing more often than it may",
    "unsafe": "guardrails act on its answers more often than they may",
    "slow": "it is slow more often than it may",
    "unsent": "its drafts are sent less often",
    "dear": "it costs more than it may",
}


class HarmBounds(WireModel):
    """How much more often than its control a candidate may do harm, as shares of its units, and from how many
    milliseconds on an answer is slow."""

    failed: float = Field(default=0.02, ge=0, lt=1)
    empty: float = Field(default=0.02, ge=0, lt=1)
    unsafe: float = Field(default=0.02, ge=0, lt=1)
    slow: float = Field(default=0.05, ge=0, lt=1)
    slow_ms: float = Field(default=15_000, gt=0)


def log_wealth(profit: float) -> tuple[int, ...]:
    """What one bet at `profit` (gain / fair price - 1; below -1 counts as -1) adds to the logarithm of each stake's
    wealth: whole billionths, one for each of `STAKES`."""
    return tuple(round(_NANO * math.log1p(stake * max(-1.0, profit))) for stake in STAKES)


def profit_over_bound(value: float, bound: float) -> float:
    """The profit of a bet that the mean of a value >= 0 is over `bound` (both in the value's unit); at least -1."""
    return value / max(bound, 1e-6) - 1


def profit_over_control(harmed: bool, *, candidate: bool, propensity: float, centre: float, margin: float) -> float:
    """The profit of a bet that the candidate does harm more often than the control by over `margin` (a probability); at
    least -1.

    It is computed from the unbiased x of `sequential`. `centre` is any guess, fixed before the trial, of the share of
    its units that the control harms; `propensity` in (0, 1) is the probability that the unit is dealt the candidate.
    """
    left = (1.0 if harmed else 0.0) - centre
    x = left / propensity if candidate else -left / (1 - propensity)
    least = max(centre / propensity, (1 - centre) / (1 - propensity))
    return max(0.0, x + least) / (least + margin) - 1


Logs = dict[str, dict[int, list[int]]]
"""Logarithms of wealth, in billionths: by kind of harm, then day (ordinal) of the decision, then one for each stake."""


@dataclass(slots=True)
class HarmLedger:
    """The bets on each kind of harm: `logs` by the first request of each unit, `daily` by its first request of each
    day.

    `first` is the day (ordinal) the ledger began. Days before `kept_from` are deleted, and with them the wealth that
    began on them.
    """

    first: int
    kept_from: int = 0
    logs: Logs = field(default_factory=dict)
    daily: Logs = field(default_factory=dict)

    def add(self, kind: HarmKind, day: date, logs: tuple[int, ...], *, times: int = 1) -> None:
        """Add `times` bets (a negative number takes them back) on a unit that is new to the trial and was decided on
        `day`."""
        forgotten = _add(self.logs, kind, day, logs, times)
        if forgotten is not None:  # wealth that began later has no bets of that day
            self.kept_from = max(self.kept_from, forgotten + 1)

    def add_daily(self, kind: HarmKind, day: date, logs: tuple[int, ...]) -> None:
        """Add one bet on a unit's first request of `day`."""
        _add(self.daily, kind, day, logs, 1)

    def compute_evidence(self, kind: str) -> float:
        """The wealth of `kind`: reject "the arm does no more of it than it may" at level alpha once it is >=
        1/alpha."""
        days = self.daily.get(kind)
        if not days:
            return self._since_each_day(kind)
        daily = max(self._share(day, day) * _mix(logs) for day, logs in days.items())
        return max(self._since_each_day(kind), daily) / 2

    def _since_each_day(self, kind: str) -> float:
        days = self.logs.get(kind, {})
        if not days:
            return 1.0
        ordinals = sorted(days)
        starts = [max(self.first, self.kept_from), *(day + 1 for day in ordinals)]
        since = [0] * len(STAKES)
        wealth = 1 / (starts[-1] - self.first + 1)  # the shares that start after the last bet
        for day, start in zip(reversed(ordinals), reversed(starts[:-1]), strict=True):
            since = [total + log for total, log in zip(since, days[day], strict=True)]
            wealth += self._share(start, day) * _mix(since)  # a share that starts on a day without bets first bets on the next one
        return wealth

    def _share(self, first_day: int, last_day: int) -> float:
        """The share of the first wealth that starts on the days from `first_day` to `last_day`."""
        return 1 / (first_day - self.first + 1) - 1 / (last_day - self.first + 2)


def _add(totals: Logs, kind: str, day: date, logs: tuple[int, ...], times: int) -> int | None:
    """Add to the sums of a day. Returns the oldest day if it had to be deleted to make room."""
    days = totals.setdefault(kind, {})
    sums = days.setdefault(day.toordinal(), [0] * len(STAKES))
    for at, log in enumerate(logs):
        sums[at] += times * log
    if len(days) <= _MOST_DAYS:
        return None
    oldest = min(days)
    del days[oldest]
    return oldest


def _mix(logs: Sequence[int]) -> float:
    return sum(share * math.exp(min(_LARGEST_LOG, log / _NANO)) for share, log in zip(SHARES, logs, strict=True))


@dataclass(frozen=True, slots=True)
class Evidence:
    """The evidence of harm, to compare with 1/alpha, and in words the kind of harm with that number."""

    value: float
    reason: str


def weigh_evidence(wealth: Mapping[str, float], weights: Mapping[str, float]) -> Evidence:
    """The largest wealth among the kinds, each multiplied by its weight, its share of alpha: a union bound, which holds
    whatever the kinds have in common. A kind without wealth counts as 1."""
    kind = max(weights, key=lambda name: weights[name] * wealth.get(name, 1.0))
    value = weights[kind] * wealth.get(kind, 1.0)
    return Evidence(value, f"{_REASONS[kind]}: evidence {value:.3g}")
