"""Before a rollout begins: what its plan will take, what it can find, and the plan to have when none was given.

A step's wealth at a stake s grows, to second order, by s*mu - s^2*(sigma^2 + mu^2)/2 a unit, where mu and sigma are
those of a bet's profit; it reaches log(1/alpha) like a Brownian motion with that drift (first passage: Siegmund 1985,
eq. 3.15). That is what the numbers here come from; `make bench-decisions` prints them beside simulated rollouts.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import NormalDist

from pydantic import Field

from rlaas.evaluation.reward_report import rewarded_units
from rlaas.experiments.sequential import SHARES, STAKES, Gate, SequentialTest
from rlaas.routing.route import Unit
from rlaas.telemetry.events import RewardComputed
from rlaas.wire import WireModel

GAINS = (0.02, 0.05, 0.1, 0.2)
"""Gains in mean reward that a plan's power is told for."""
_CAUTIOUS = ((0.05, 0.1), (0.1, 0.1), (0.1, 0.2), (0.25, 0.2), (0.25, 0.3))
"""Weight and margin of a first step, the most cautious first."""
_LAST_WEIGHT = 0.5
_FIRST_STEP_SHARE = 0.2
"""A first step may take this share of the time, for a candidate that is no better and no worse."""
_LEAST_VARIANCE = 0.01
_CAN_CONCLUDE = 0.5
_GOOD_POWER = 0.8
_DAY = 86_400.0
_LEAST_HISTORY = timedelta(hours=1)
_NORMAL = NormalDist()


class Traffic(WireModel):
    """A skill's recent past: units a day, the mean and standard deviation of the control's reward, and the share of its
    drafts not sent.

    `sampled` units of `people` are behind it; without any, mean and deviation are those of a reward that nobody knows
    anything about. Nobody makes more of it than his share (`rlaas.voices`).
    """

    units_a_day: float = Field(ge=0)
    reward_mean: float = Field(default=0.5, ge=0, le=1)
    reward_sd: float = Field(default=0.5, ge=0)
    unsent: float | None = Field(default=None, ge=0, le=1)
    sampled: int = Field(default=0, ge=0)
    people: int = Field(default=0, ge=0)


class PlannedStep(WireModel):
    """One step of a plan: its share and margin, and what it is expected to take for a candidate that gains
    `Plan.gain`."""

    weight: float
    margin: float
    units: float | None
    days: float | None


class Power(WireModel):
    """The probability that a candidate which gains `gain` in mean reward is shipped within the plan's time."""

    gain: float
    probability: float


class Plan(WireModel):
    """What a plan is expected to take on this traffic; `None` where that has no end.

    `days` until a candidate that gains `gain` is shipped, the last window included; `least_gain`: what is found in four
    of five cases, if anything is.
    """

    traffic: Traffic
    gain: float
    steps: tuple[PlannedStep, ...]
    units: float | None
    days: float | None
    at_most_days: float
    power: tuple[Power, ...]
    least_gain: float | None
    can_conclude: bool
    advice: str


@dataclass(frozen=True, slots=True)
class Ask:
    """A step to plan for."""

    weight: float
    margin: float
    min_samples: int


@dataclass(frozen=True, slots=True)
class Terms:
    """What a plan has to keep to: the probability of error, the days in all, the days of one attribution window, the
    gain to be found."""

    alpha: float
    at_most_days: float
    window_days: float
    gain: float


def traffic_of(rewards: Sequence[RewardComputed], *, unit: Unit, since: datetime, until: datetime) -> Traffic:
    """The traffic that the control's `rewards` between `since` and `until` show; they are all of that time, or of its
    beginning.

    A unit counts once, by its first draft, as in the rollout to come. A few rewards in a minute are no traffic of
    thousands a day, and three equal ones no reward without variance: the rate is over an hour at least, and one more
    reward of 0 and one of 1 stand for what a small sample has not shown.
    """
    found = [(one, one.drafts[0]) for one in rewarded_units(rewards, unit=unit)]
    if not found:
        return Traffic(units_a_day=0.0)
    times = [draft.occurred_at for _, draft in found if draft.occurred_at is not None]
    first = max(since, min(times, default=since))
    values = [(0.0, 1.0), (1.0, 1.0), *((draft.reward, one.weight) for one, draft in found)]
    sent = [(float(draft.components["sent"] > 0), one.weight) for one, draft in found if "sent" in draft.components]
    mean = _mean(values)
    return Traffic(
        units_a_day=sum(one.weight for one, _ in found) / (max(until - first, _LEAST_HISTORY) / timedelta(days=1)),
        reward_mean=mean,
        reward_sd=math.sqrt(_mean([((value - mean) ** 2, weight) for value, weight in values])),
        unsent=1 - _mean([(0.0, 1.0), (1.0, 1.0), *sent]) if sent else None,
        sampled=len(found),
        people=len({one.person for one, _ in found}),
    )


def _mean(weighted: Sequence[tuple[float, float]]) -> float:
    return sum(value * weight for value, weight in weighted) / sum(weight for _, weight in weighted)


def planned_steps(traffic: Traffic, terms: Terms, *, last_margin: float, min_samples: int) -> tuple[Ask, ...]:
    """The steps for this traffic: a first one that asks for safety, as cautious as the time allows, and one at 50% that
    decides."""
    last = Ask(_LAST_WEIGHT, last_margin, min_samples)
    time = traffic.units_a_day * terms.at_most_days * _FIRST_STEP_SHARE
    for weight, margin in _CAUTIOUS:
        if expected_units(traffic, weight, margin, terms.alpha) <= time and min_samples / weight <= time:
            return Ask(weight, margin, min_samples), last
    return (last,)


def plan(asks: Sequence[Ask], traffic: Traffic, terms: Terms) -> Plan:
    """What `asks` are expected to take, and whether they can find the gain that is asked for."""
    steps = []
    units = days = 0.0
    for ask in asks:
        least = ask.min_samples / min(ask.weight, 1 - ask.weight)
        # Units of earlier steps count as well, with less weight each; leaving that out is on the safe side.
        needed = max(least, expected_units(traffic, ask.weight, terms.gain + ask.margin, terms.alpha))
        units += needed
        time = needed / traffic.units_a_day + terms.window_days if traffic.units_a_day else math.inf
        days += time
        steps.append(PlannedStep(weight=ask.weight, margin=ask.margin, units=_finite(needed), days=_finite(time)))
    power = tuple(Power(gain=gain, probability=round(_power(asks, traffic, terms, gain), 3)) for gain in sorted({*GAINS, terms.gain}))
    reached = next(one.probability for one in power if one.gain == terms.gain)
    can_conclude = reached >= _CAN_CONCLUDE
    least_gain = next(
        (gain / 100 for gain in range(1, 101) if _power(asks, traffic, terms, gain / 100) >= _GOOD_POWER),
        None,
    )
    return Plan(
        traffic=traffic,
        gain=terms.gain,
        steps=tuple(steps),
        units=_finite(units),
        days=_finite(days),
        at_most_days=terms.at_most_days,
        power=power,
        least_gain=least_gain,
        can_conclude=can_conclude,
        advice=_advice(asks, traffic, terms, reached, days, least_gain, can_conclude),
    )


def expected_units(traffic: Traffic, weight: float, gap: float, alpha: float) -> float:
    """Units until the evidence that a difference lies `gap` (over 0) above what is tested passes 1/alpha, at the best
    of the stakes."""
    found = [
        (math.log(1 / alpha) - math.log(share)) / drift
        for share, (drift, _) in zip(SHARES, _growths(traffic, weight, gap), strict=True)
        if drift > 0
    ]
    return min(found, default=math.inf)


def would_have_taken(test: SequentialTest, gate: Gate, *, weight: float, waited_seconds: float) -> str:
    """In words, why a step came to no decision and what one would have taken."""
    candidate, control = test.candidate, test.control
    if not test.n:
        return "No decision of this rollout was settled: no traffic came, or its window has not closed"
    if candidate.missing == candidate.n and control.missing == control.n:
        return "Nothing came back for any unit: outcomes have stopped coming"
    known = min(candidate.n - candidate.unknown, control.n - control.unknown)
    if known < gate.min_samples:
        return f"Too few units with an outcome came: {known} in the smaller arm; a route by `user` has as many units as users"
    difference = test.difference()
    if difference is None or difference[0] <= -gate.margin:
        return "At the difference that was seen no amount of traffic would show it"
    seen = Traffic(
        units_a_day=1.0,
        reward_mean=min(1.0, max(0.0, (candidate.total + control.total) / test.n)),
        reward_sd=math.sqrt(test.residuals / test.n),
    )
    units = expected_units(seen, weight, difference[0] + gate.margin, gate.alpha)
    if not math.isfinite(units):
        return "At the difference that was seen no amount of traffic would show it"
    days = units / test.n * waited_seconds / _DAY
    told = f"it would take about {units:,.0f} units at this share, which come in {_time(days)}"
    return f"At the difference that was seen ({difference[0]:+.3f}) {told}"


def _growths(traffic: Traffic, weight: float, gap: float) -> Iterable[tuple[float, float]]:
    """Drift and variance of each stake's logarithm of wealth a unit, tested at `gap` under the true difference."""
    p, centre = weight, min(0.95, max(0.05, traffic.reward_mean))
    price = max(centre / p, (1 - centre) / (1 - p))
    spread = max(_LEAST_VARIANCE, traffic.reward_sd**2) * (1 / p + 1 / (1 - p)) / price**2
    mean = gap / price
    for stake in STAKES:
        yield stake * mean - stake * stake * (spread + mean * mean) / 2, stake * stake * spread


def _power(asks: Sequence[Ask], traffic: Traffic, terms: Terms, gain: float) -> float:
    """The probability that all steps pass in time: earlier ones take what they are expected to, the last one has what
    is left."""
    left = traffic.units_a_day * (terms.at_most_days - terms.window_days * len(asks))
    for ask in asks[:-1]:
        left -= max(ask.min_samples / min(ask.weight, 1 - ask.weight), expected_units(traffic, ask.weight, gain + ask.margin, terms.alpha))
    last = asks[-1]
    if left < last.min_samples / min(last.weight, 1 - last.weight):
        return 0.0
    return max(
        _passes(left, drift, variance, math.log(1 / terms.alpha) - math.log(share))
        for share, (drift, variance) in zip(SHARES, _growths(traffic, last.weight, gain + last.margin), strict=True)
    )


def _passes(units: float, drift: float, variance: float, height: float) -> float:
    """The probability that a Brownian motion passes `height` within `units`."""
    if units <= 0 or not math.isfinite(units):
        return 0.0
    spread = math.sqrt(variance * units)
    reflected = _NORMAL.cdf((-drift * units - height) / spread)
    factor = 2 * drift * height / variance
    back = math.exp(factor + math.log(reflected)) if reflected > 0 else 0.0
    return min(1.0, _NORMAL.cdf((drift * units - height) / spread) + back)


def _advice(
    asks: Sequence[Ask], traffic: Traffic, terms: Terms, reached: float, days: float, least_gain: float | None, can_conclude: bool
) -> str:
    if not traffic.units_a_day:
        return "the control has no rewarded traffic to plan from: send some, or say how many units a day are to come (units_a_day)"
    told = f"at {traffic.units_a_day:,.0f} units a day a gain of {terms.gain:g} is found with a probability of {reached:.0%}"
    if can_conclude:
        return f"{told} within {_time(terms.at_most_days)}; expected after {_time(days)}"
    ways = []
    if math.isfinite(days):
        ways.append(f"about {_time(days + terms.window_days)} (max_wait_seconds)")
    needed = sum(expected_units(traffic, ask.weight, terms.gain + ask.margin, terms.alpha) for ask in asks)
    time = terms.at_most_days - terms.window_days * len(asks)
    if math.isfinite(needed) and time > 0:
        ways.append(f"{1.5 * needed / time:,.0f} units a day")
    if least_gain is not None:
        ways.append(f"a gain of {least_gain:g} or more to look for (gain)")
    if asks[-1].weight < _LAST_WEIGHT:
        ways.append(f"a last step at {_LAST_WEIGHT:.0%}, where units tell most")
    if asks[-1].margin == 0:
        ways.append("objective non_inferiority, which asks for less")
    return f"{told} within {_time(terms.at_most_days)}, too seldom; it would take one of: {'; '.join(ways)}"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _time(days: float) -> str:
    """So many days in the unit that a person would use."""
    for unit, length in (("days", 1.0), ("hours", 1 / 24), ("minutes", 1 / 1440)):
        if days >= 2 * length:
            return f"{days / length:.3g} {unit}"
    return f"{days * _DAY:.3g} seconds"
