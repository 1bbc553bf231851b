"""Before a rollout begins: how long its plan takes, which gain it can find, and a plan for a rollout without one.

At a stake s the logarithm of a step's wealth grows, to second order, by s*mu - s^2*(sigma^2 + mu^2)/2 a unit, where mu
and sigma are the mean and standard deviation of a bet's profit; it reaches log(1/alpha) like a Brownian motion with
that drift (first passage: Siegmund 1985, eq. 3.15). The numbers here follow from that; `make bench-decisions` prints
them beside simulated rollouts.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import NormalDist

from pydantic import Field

from rlaas.evaluation.reward_report import group_rewards
from rlaas.experiments.sequential import SHARES, STAKES, Gate, SequentialTest
from rlaas.routing.route import UnitKind
from rlaas.telemetry.events import RewardComputed
from rlaas.wire import WireModel

GAINS = (0.02, 0.05, 0.1, 0.2)
"""Gains in mean reward for which a plan states its power."""
_CAUTIOUS = ((0.05, 0.1), (0.1, 0.1), (0.1, 0.2), (0.25, 0.2), (0.25, 0.3))
"""Weight and margin that a first step may have, the most cautious first."""
_LAST_WEIGHT = 0.5
_FIRST_STEP_SHARE = 0.2
"""The share of the time that a first step may take when the candidate is neither better nor worse."""
_LEAST_VARIANCE = 0.01
_CAN_CONCLUDE = 0.5
_GOOD_POWER = 0.8
_DAY = 86_400.0
_LEAST_HISTORY = timedelta(hours=1)
_NORMAL = NormalDist()


class Traffic(WireModel):
    """A skill's recent past: units a day, the mean and standard deviation of the control's reward, and the share of its
    drafts not sent.

    The figures come from `sampled` units of `people`; without any, mean and deviation are those of a reward about which
    nothing is known. The units of one person count for at most the share that one person may have.
    """

    units_a_day: float = Field(ge=0)
    reward_mean: float = Field(default=0.5, ge=0, le=1)
    reward_sd: float = Field(default=0.5, ge=0)
    unsent: float | None = Field(default=None, ge=0, le=1)
    sampled: int = Field(default=0, ge=0)
    people: int = Field(default=0, ge=0)


class PlannedStep(WireModel):
    """One step of a plan: the candidate's share and the margin, and the units and days it is expected to take for a
    candidate that gains `Plan.gain`; `None` where it would never end."""

    weight: float
    margin: float
    units: float | None
    days: float | None


class Power(WireModel):
    """The probability that a candidate which gains `gain` in mean reward is shipped within the plan's time."""

    gain: float
    probability: float


class Plan(WireModel):
    """What a plan is expected to take on this traffic; `None` where it would never end.

    `units` and `days` are those until a candidate that gains `gain` in mean reward is shipped, the last attribution
    window included; `least_gain` is the smallest gain that is found in four of five cases, `None` if no gain is.
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
class StepSpec:
    """A step to plan for."""

    weight: float
    margin: float
    min_samples: int


@dataclass(frozen=True, slots=True)
class PlanLimits:
    """The limits of a plan: the probability of error, the days in all, the days of one attribution window, and the gain
    in mean reward that it has to find."""

    alpha: float
    at_most_days: float
    window_days: float
    gain: float


def estimate_traffic(rewards: Sequence[RewardComputed], *, unit: UnitKind, since: datetime, until: datetime) -> Traffic:
    """The traffic that the control's `rewards`, all of those between `since` and `until`, show.

    A unit counts once, by its first draft, as in the rollout to come. A few rewards within a minute do not mean
    thousands a day, so the rate is taken over at least an hour. Three equal rewards do not mean that rewards never
    differ, so one of 0 and one of 1 are added for what a small sample has not shown.
    """
    entries = [(one, one.drafts[0]) for one in group_rewards(rewards, unit=unit)]
    if not entries:
        return Traffic(units_a_day=0.0)
    times = [draft.occurred_at for _, draft in entries if draft.occurred_at is not None]
    first = max(since, min(times, default=since))
    values = [(0.0, 1.0), (1.0, 1.0), *((draft.reward, one.weight) for one, draft in entries)]
    sent = [(float(draft.components["sent"] > 0), one.weight) for one, draft in entries if "sent" in draft.components]
    mean = _mean(values)
    return Traffic(
        units_a_day=sum(one.weight for one, _ in entries) / (max(until - first, _LEAST_HISTORY) / timedelta(days=1)),
        reward_mean=mean,
        reward_sd=math.sqrt(_mean([((value - mean) ** 2, weight) for value, weight in values])),
        unsent=1 - _mean([(0.0, 1.0), (1.0, 1.0), *sent]) if sent else None,
        sampled=len(entries),
        people=len({one.person for one, _ in entries}),
    )


def _mean(pairs: Sequence[tuple[float, float]]) -> float:
    return sum(value * weight for value, weight in pairs) / sum(weight for _, weight in pairs)


def plan_steps(traffic: Traffic, terms: PlanLimits, *, last_margin: float, min_samples: int) -> tuple[StepSpec, ...]:
    """The steps for this traffic: a first one that checks safety, as cautiously as the time allows, and one at 50% that
    decides. Without time for the first, only the second."""
    last = StepSpec(_LAST_WEIGHT, last_margin, min_samples)
    time = traffic.units_a_day * terms.at_most_days * _FIRST_STEP_SHARE
    for weight, margin in _CAUTIOUS:
        if estimate_units(traffic, weight, margin, terms.alpha) <= time and min_samples / weight <= time:
            return StepSpec(weight, margin, min_samples), last
    return (last,)


def make_plan(asks: Sequence[StepSpec], traffic: Traffic, terms: PlanLimits) -> Plan:
    """The plan of the steps `asks`: what they are expected to take, and whether they can find the gain `terms.gain`."""
    steps = []
    units = days = 0.0
    for ask in asks:
        least = ask.min_samples / min(ask.weight, 1 - ask.weight)
        # Units of earlier steps count as well, with less weight each; leaving that out is on the safe side.
        needed = max(least, estimate_units(traffic, ask.weight, terms.gain + ask.margin, terms.alpha))
        units += needed
        time = needed / traffic.units_a_day + terms.window_days if traffic.units_a_day else math.inf
        days += time
        steps.append(PlannedStep(weight=ask.weight, margin=ask.margin, units=_drop_infinity(needed), days=_drop_infinity(time)))
    power = tuple(
        Power(gain=gain, probability=round(_compute_power(asks, traffic, terms, gain), 3)) for gain in sorted({*GAINS, terms.gain})
    )
    probability = next(one.probability for one in power if one.gain == terms.gain)
    can_conclude = probability >= _CAN_CONCLUDE
    least_gain = next(
        (gain / 100 for gain in range(1, 101) if _compute_power(asks, traffic, terms, gain / 100) >= _GOOD_POWER),
        None,
    )
    return Plan(
        traffic=traffic,
        gain=terms.gain,
        steps=tuple(steps),
        units=_drop_infinity(units),
        days=_drop_infinity(days),
        at_most_days=terms.at_most_days,
        power=power,
        least_gain=least_gain,
        can_conclude=can_conclude,
        advice=_write_advice(asks, traffic, terms, probability, days, least_gain, can_conclude),
    )


def estimate_units(traffic: Traffic, weight: float, gap: float, alpha: float) -> float:
    """The expected units until the evidence passes 1/alpha, by the best of the stakes, when the true difference is
    `gap` > 0 (in mean reward) above the null; infinite when no stake gains. `weight` in (0, 1) is the candidate's
    share."""
    units = [
        (math.log(1 / alpha) - math.log(share)) / drift
        for share, (drift, _) in zip(SHARES, _compute_growths(traffic, weight, gap), strict=True)
        if drift > 0
    ]
    return min(units, default=math.inf)


def explain_indecision(test: SequentialTest, gate: Gate, *, weight: float, waited_seconds: float) -> str:
    """In words, why a step has come to no decision, and how many more units and how much time one would need."""
    candidate, control = test.candidate, test.control
    if not test.n:
        return "No decision of this rollout was settled: no traffic came, or its window has not closed"
    if candidate.missing == candidate.n and control.missing == control.n:
        return "Nothing came back for any unit: outcomes have stopped coming"
    with_outcome = min(candidate.n - candidate.unknown, control.n - control.unknown)
    if with_outcome < gate.min_samples:
        return f"Too few units with an outcome came: {with_outcome} in the smaller arm; a route by `user` has as many units as users"
    difference = test.difference()
    if difference is None or difference[0] <= -gate.margin:
        return "At the difference that was seen no amount of traffic would be enough"
    seen = Traffic(
        units_a_day=1.0,
        reward_mean=min(1.0, max(0.0, (candidate.total + control.total) / test.n)),
        reward_sd=math.sqrt(test.residuals / test.n),
    )
    units = estimate_units(seen, weight, difference[0] + gate.margin, gate.alpha)
    if not math.isfinite(units):
        return "At the difference that was seen no amount of traffic would be enough"
    days = units / test.n * waited_seconds / _DAY
    estimate = f"it would take about {units:,.0f} units at this share, which come in {_format_time(days)}"
    return f"At the difference that was seen ({difference[0]:+.3f}) {estimate}"


def _compute_growths(traffic: Traffic, weight: float, gap: float) -> Iterable[tuple[float, float]]:
    """For each of `STAKES`, how the logarithm of its wealth moves per unit: (drift, variance), when the true difference
    is `gap` above the null."""
    p, centre = weight, min(0.95, max(0.05, traffic.reward_mean))
    price = max(centre / p, (1 - centre) / (1 - p))
    spread = max(_LEAST_VARIANCE, traffic.reward_sd**2) * (1 / p + 1 / (1 - p)) / price**2
    mean = gap / price
    for stake in STAKES:
        yield stake * mean - stake * stake * (spread + mean * mean) / 2, stake * stake * spread


def _compute_power(asks: Sequence[StepSpec], traffic: Traffic, terms: PlanLimits, gain: float) -> float:
    """The probability in [0, 1] that all steps pass in time: the earlier ones take what they are expected to take, the
    last one has the rest of the time."""
    left = traffic.units_a_day * (terms.at_most_days - terms.window_days * len(asks))
    for ask in asks[:-1]:
        left -= max(ask.min_samples / min(ask.weight, 1 - ask.weight), estimate_units(traffic, ask.weight, gain + ask.margin, terms.alpha))
    last = asks[-1]
    if left < last.min_samples / min(last.weight, 1 - last.weight):
        return 0.0
    return max(
        _compute_passage(left, drift, variance, math.log(1 / terms.alpha) - math.log(share))
        for share, (drift, variance) in zip(SHARES, _compute_growths(traffic, last.weight, gain + last.margin), strict=True)
    )


def _compute_passage(units: float, drift: float, variance: float, height: float) -> float:
    """The probability that a Brownian motion with this drift and variance a unit passes `height` within `units`."""
    if units <= 0 or not math.isfinite(units):
        return 0.0
    spread = math.sqrt(variance * units)
    reflection = _NORMAL.cdf((-drift * units - height) / spread)
    factor = 2 * drift * height / variance
    correction = math.exp(factor + math.log(reflection)) if reflection > 0 else 0.0
    return min(1.0, _NORMAL.cdf((drift * units - height) / spread) + correction)


def _write_advice(
    asks: Sequence[StepSpec],
    traffic: Traffic,
    terms: PlanLimits,
    probability: float,
    days: float,
    least_gain: float | None,
    can_conclude: bool,
) -> str:
    if not traffic.units_a_day:
        return "the control has no rewarded traffic to plan from: send some, or say how many units a day to expect (units_a_day)"
    summary = f"at {traffic.units_a_day:,.0f} units a day a gain of {terms.gain:g} is found with a probability of {probability:.0%}"
    if can_conclude:
        return f"{summary} within {_format_time(terms.at_most_days)}; expected after {_format_time(days)}"
    ways = []
    if math.isfinite(days):
        ways.append(f"about {_format_time(days + terms.window_days)} (max_wait_seconds)")
    needed = sum(estimate_units(traffic, ask.weight, terms.gain + ask.margin, terms.alpha) for ask in asks)
    time = terms.at_most_days - terms.window_days * len(asks)
    if math.isfinite(needed) and time > 0:
        ways.append(f"{1.5 * needed / time:,.0f} units a day")
    if least_gain is not None:
        ways.append(f"a gain of {least_gain:g} or more to look for (gain)")
    if asks[-1].weight < _LAST_WEIGHT:
        ways.append(f"a last step at {_LAST_WEIGHT:.0%}, where each unit gives most evidence")
    if asks[-1].margin == 0:
        ways.append("objective non_inferiority, which asks for less")
    return f"{summary} within {_format_time(terms.at_most_days)}, too seldom; it would take one of: {'; '.join(ways)}"


def _drop_infinity(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _format_time(days: float) -> str:
    """`days` in the unit that a person would use."""
    for unit, length in (("days", 1.0), ("hours", 1 / 24), ("minutes", 1 / 1440)):
        if days >= 2 * length:
            return f"{days / length:.3g} {unit}"
    return f"{days * _DAY:.3g} seconds"
