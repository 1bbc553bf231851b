"""What a skill's rewards come to, by policy: counted in units, with an interval that knows whose they are."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import chain
from statistics import NormalDist, fmean
from typing import Literal

from rlaas.clock import rfc3339
from rlaas.errors import InvalidInput
from rlaas.ids import PolicyId
from rlaas.rewards.reward import latest_rewards
from rlaas.routing.route import Unit
from rlaas.telemetry.events import RewardComputed
from rlaas.telemetry.store import EventStore
from rlaas.voices import MANY, cap, person
from rlaas.wire import WireModel

MOST_REWARDS = 20_000
"""Rewards that one report reads: seconds of a small function. A part of them would be whoever was first."""


@dataclass(frozen=True, slots=True)
class RewardedUnit:
    """A unit with the last reward of each of its drafts, the first draft first. `weight` in (0, 1] is under 1 for units
    of somebody who has more of them than his share."""

    person: str
    drafts: tuple[RewardComputed, ...]
    weight: float

    @property
    def mean(self) -> float:
        """The mean reward of its drafts."""
        return fmean(draft.reward for draft in self.drafts)


class RewardFigures(WireModel):
    """The mean reward of `units`, each counted once by the mean of its `drafts`, where nobody makes more than his
    share.

    `low` and `high` hold the mean with 95%: that of all people to come where `people` are `sampled` (from 20 on), else
    that of more `units` of the same people. `counted` is what the units came to after `capped_people` had been capped,
    `largest_share` what the person with most of them makes of it.
    """

    mean: float
    low: float
    high: float
    sampled: Literal["people", "units"]
    drafts: int
    units: int
    people: int
    counted: float
    capped_people: int
    largest_share: float


class RewardReport(WireModel):
    """The rewards of a skill's days by policy; `others` are of drafts that no policy wrote. Answers of a fallback are
    left out. `unit` is what keeps its arm."""

    unit: Unit
    policies: dict[PolicyId, RewardFigures]
    others: RewardFigures | None = None


def report_rewards(events: EventStore, tenant_id: str, skill: str, *, first: date, last: date, unit: Unit) -> RewardReport:
    """What the rewards of the days (UTC) `first` to `last`, both included, come to. Raises: InvalidInput where there
    are too many."""
    of_policy: dict[str | None, list[RewardComputed]] = {}
    days = (first + timedelta(days=ahead) for ahead in range((last - first).days + 1))
    listed = chain.from_iterable(events.by_day(tenant_id, skill, "reward", day) for day in days)
    for read, stored in enumerate(listed):
        if read == MOST_REWARDS:
            raise InvalidInput(f"there are more than {MOST_REWARDS:,} rewards: ask for fewer days, or the lake", param="to")
        event = stored.event()
        if isinstance(event, RewardComputed) and not event.fallback:
            of_policy.setdefault(event.policy_id, []).append(event)
    figures = {policy: told for policy, of in of_policy.items() if (told := reward_figures(of, unit=unit)) is not None}
    others = figures.pop(None, None)
    return RewardReport(unit=unit, policies={policy: told for policy, told in figures.items() if policy is not None}, others=others)


def rewarded_units(rewards: Iterable[RewardComputed], *, unit: Unit) -> list[RewardedUnit]:
    """The units that `rewards` are of; their drafts by the time of their first reward. O(rewards * log(rewards))."""
    rewards = sorted(rewards, key=lambda reward: rfc3339(reward.occurred_at) if reward.occurred_at else "")
    latest = latest_rewards(rewards)
    drafts: dict[str, list[RewardComputed]] = {}
    for output_id in dict.fromkeys(reward.output_id for reward in rewards):
        draft = latest[output_id]
        named = {"thread": draft.thread_id, "user": draft.user_id, "interaction": None}[unit]
        drafts.setdefault(named or draft.interaction_id, []).append(draft)
    whose = {name: person(made[0].user_id, made[0].thread_id, name) for name, made in drafts.items()}
    counts = Counter(whose.values())
    most = cap(counts.values())
    return [RewardedUnit(whose[name], tuple(made), min(1.0, most / counts[whose[name]])) for name, made in drafts.items()]


def reward_figures(rewards: Iterable[RewardComputed], *, unit: Unit) -> RewardFigures | None:
    """What one policy's rewards come to; `None` without any."""
    found = rewarded_units(rewards, unit=unit)
    if not found:
        return None
    units = Counter(one.person for one in found)
    counted = {one.person: units[one.person] * one.weight for one in found}
    total = math.fsum(counted.values())
    mean = math.fsum(one.weight * one.mean for one in found) / total
    sampled: Literal["people", "units"] = "people" if len(units) >= MANY else "units"
    parts: dict[str, float] = {}
    for place, one in enumerate(found):
        name = one.person if sampled == "people" else str(place)
        parts[name] = parts.get(name, 0.0) + one.weight * (one.mean - mean)
    half = _half_width(list(parts.values())) / total
    return RewardFigures(
        mean=mean,
        low=max(0.0, mean - half),
        high=min(1.0, mean + half),
        sampled=sampled,
        drafts=sum(len(one.drafts) for one in found),
        units=len(found),
        people=len(units),
        counted=total,
        capped_people=sum(counted[name] < count for name, count in units.items()),
        largest_share=max(counted.values()) / total,
    )


def _half_width(parts: Sequence[float]) -> float:
    """Half of the 95% interval of a sum of independent `parts` that come to 0: Student's t with a degree of freedom
    less than there are (Cameron & Miller 2015, section VI; its quantile by Abramowitz & Stegun 1964, eq. 26.7.5). With
    fewer than two parts it has no end."""
    free = len(parts) - 1
    if free < 1:
        return math.inf
    z = NormalDist().inv_cdf(0.975)
    quantile = z + (z**3 + z) / (4 * free) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * free**2)
    quantile += (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * free**3)
    return quantile * math.sqrt((free + 1) / free * math.fsum(part * part for part in parts))
