"""Evidence of harm: the number that the guard's alarm goes by, and why it is what it is.

Harm is counted in units, by the arm dealt. Each kind of it bets, with the stakes of `sequential`, against "the arm does
no more of this than it may": than its control by a margin (rollouts), or than a bound of its own (bandits). Wealth
under that hypothesis passes 1/alpha with probability at most alpha however often it is looked at, at one request a day
or a thousand a second.

Fixed stakes and a fixed centre make the wealth a product in which the order of the units is of no account. So it is
kept as one sum of logarithms a stake, in whole billionths: sums of whole numbers are the same in whatever order and
batches the stream came.

An arm may begin to do harm when it has long done none, and by then wealth on large stakes is gone. So every day (UTC) a
share of the first wealth starts afresh: share 1/((k+1)(k+2)) on day k, which is a mixture again and sums to 1.

A unit that comes again is dealt the same arm, so its next request is no new draw: one user whose requests always fail
would weigh as many as he sends. Yet on a route by user there soon are no other units, and an arm that dies in its
second week must not go unseen. So each day has a wealth of its own besides, on the first request of each unit that day,
and half of alpha is shared between these by the same shares: within a day every unit is one draw, and over the days the
union bound holds however alike they are.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Literal

from pydantic import Field

from rlaas.experiments.sequential import SHARES, STAKES
from rlaas.wire import WireModel

Kind = Literal["failed", "empty", "unsafe", "slow", "unsent", "dear"]
"""Nobody of the arm answered; it answered nothing; a guardrail acted on the answer; it took too long; its draft was not
sent; it costs too much."""
WORSE = "worse"
"""The settled rewards themselves, from `sequential`."""
ROLLOUT_WEIGHTS: Mapping[str, float] = {WORSE: 0.4, "unsent": 0.2, "failed": 0.1, "empty": 0.1, "unsafe": 0.1, "slow": 0.1}
"""How a rollout's alpha is shared between its kinds of harm (union bound)."""
_NANO = 1_000_000_000
_MOST_DAYS = 60
"""Days that are kept; an older one's share of the wealth is given up."""
_LARGEST_LOG = 180.0
"""Wealth beyond e^180 (1e78) is worth no more; a metric of CloudWatch holds less than 2^360."""

_SAID = {
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
    """What one bet at `profit` (gain over fair price, less 1) adds to the logarithm of each stake's wealth, in
    billionths."""
    return tuple(round(_NANO * math.log1p(stake * max(-1.0, profit))) for stake in STAKES)


def profit_over_bound(value: float, bound: float) -> float:
    """The profit of a bet that the mean of a value >= 0 is over `bound`."""
    return value / max(bound, 1e-6) - 1


def profit_over_control(harmed: bool, *, candidate: bool, propensity: float, centre: float, margin: float) -> float:
    """The profit of a bet that harm is more likely under the candidate than under the control by over `margin`.

    By the unbiased x of `sequential`, with `centre` fixed before the trial: any guess of how often the control does it.
    """
    left = (1.0 if harmed else 0.0) - centre
    x = left / propensity if candidate else -left / (1 - propensity)
    least = max(centre / propensity, (1 - centre) / (1 - propensity))
    return max(0.0, x + least) / (least + margin) - 1


Logs = dict[str, dict[int, list[int]]]
"""Logarithms of wealth, in billionths, by kind of harm, day (ordinal) of the decision, and stake."""


@dataclass(slots=True)
class HarmLedger:
    """The bets on each kind of harm: `logs` of units that are new to the trial, `daily` of those that are new on their
    day.

    `first` is the day it began. Days before `kept_from` are forgotten, and with them the wealth that began on them.
    """

    first: int
    kept_from: int = 0
    logs: Logs = field(default_factory=dict)
    daily: Logs = field(default_factory=dict)

    def add(self, kind: Kind, day: date, logs: tuple[int, ...], *, times: int = 1) -> None:
        """`times` bets more (negative: taken back) on a unit that is new to the trial and was decided on `day`."""
        forgotten = _add(self.logs, kind, day, logs, times)
        if forgotten is not None:  # wealth that began later has no bets of that day
            self.kept_from = max(self.kept_from, forgotten + 1)

    def add_daily(self, kind: Kind, day: date, logs: tuple[int, ...]) -> None:
        """One bet more on a unit that comes for the first time on `day`."""
        _add(self.daily, kind, day, logs, 1)

    def evidence(self, kind: str) -> float:
        """The wealth of `kind`: reject "no more of it than it may" at level alpha once it is >= 1/alpha."""
        days = self.daily.get(kind)
        if not days:
            return self._since_each_day(kind)
        own = max(self._share(day, day) * _mixed(logs) for day, logs in days.items())
        return max(self._since_each_day(kind), own) / 2

    def _since_each_day(self, kind: str) -> float:
        days = self.logs.get(kind, {})
        if not days:
            return 1.0
        ordered = sorted(days)
        begins = [max(self.first, self.kept_from), *(day + 1 for day in ordered)]
        since = [0] * len(STAKES)
        wealth = 1 / (begins[-1] - self.first + 1)  # what begins after the last bet
        for day, begin in zip(reversed(ordered), reversed(begins[:-1]), strict=True):
            since = [before + log for before, log in zip(since, days[day], strict=True)]
            wealth += self._share(begin, day) * _mixed(since)  # what begins on a day without bets is that of the next day with some
        return wealth

    def _share(self, begin: int, end: int) -> float:
        """The share of the first wealth that starts on the days from `begin` to `end`."""
        return 1 / (begin - self.first + 1) - 1 / (end - self.first + 2)


def _add(held: Logs, kind: str, day: date, logs: tuple[int, ...], times: int) -> int | None:
    """Add to the sums of a day; the oldest day where it had to be forgotten for that."""
    days = held.setdefault(kind, {})
    sums = days.setdefault(day.toordinal(), [0] * len(STAKES))
    for at, log in enumerate(logs):
        sums[at] += times * log
    if len(days) <= _MOST_DAYS:
        return None
    oldest = min(days)
    del days[oldest]
    return oldest


def _mixed(logs: Sequence[int]) -> float:
    return sum(share * math.exp(min(_LARGEST_LOG, log / _NANO)) for share, log in zip(SHARES, logs, strict=True))


@dataclass(frozen=True, slots=True)
class Evidence:
    """The evidence of harm, to be held against 1/alpha, and the kind it comes from in words with the number."""

    value: float
    reason: str


def weigh(wealth: Mapping[str, float], weights: Mapping[str, float]) -> Evidence:
    """The largest of the kinds' wealth, each times its share of alpha: a union bound, which holds whatever the kinds
    have in common."""
    kind = max(weights, key=lambda name: weights[name] * wealth.get(name, 1.0))
    value = weights[kind] * wealth.get(kind, 1.0)
    return Evidence(value, f"{_SAID[kind]}: evidence {value:.3g}")
