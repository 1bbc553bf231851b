"""A skill's mean reward by policy: counted in units, with an interval that allows for units of one person being
alike."""

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
from rlaas.rewards.reward import select_latest_rewards
from rlaas.routing.route import UnitKind
from rlaas.telemetry.events import RewardComputed
from rlaas.telemetry.store import EventStore
from rlaas.voices import MANY, bound_units, identify_person
from rlaas.wire import WireModel

MOST_REWARDS = 20_000
"""The most rewards that one report reads, which takes a small function seconds. It refuses more: the first of them
alone would not stand for all."""


@dataclass(frozen=True, slots=True)
class RewardedUnit:
    """A unit with the last reward of each of its drafts, the first draft first. `weight` in (0, 1] is below 1 for the
    units of a person who has more of them than their share."""

    person: str
    drafts: tuple[RewardComputed, ...]
    weight: float

    @property
    def mean(self) -> float:
        """The mean reward of its drafts, in [0, 1]."""
        return fmean(draft.reward for draft in self.drafts)


class RewardFigures(WireModel):
    """The mean reward in [0, 1] of `units`, each counted once by the mean of its `drafts`; no person's units count for
    more than their share.

    `low` and `high` are the ends of its 95% interval: for the mean of all people to come where `people` are `sampled`
    (from 20 people on), else for the mean of more `units` of the same people. `counted` is the number of units after
    those of `capped_people` were weighted down, `largest_share` the share in [0, 1] that the person with most of them
    has in it.
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
    """A skill's rewards on some days, by policy; `others` are those of drafts that no policy wrote. Answers of a
    fallback are left out. `unit` is what keeps its arm."""

    unit: UnitKind
    policies: dict[PolicyId, RewardFigures]
    others: RewardFigures | None = None


def report_rewards(events: EventStore, tenant_id: str, skill: str, *, first: date, last: date, unit: UnitKind) -> RewardReport:
    """The rewards of the days (UTC) `first` to `last`, both included, by policy. Raises: InvalidInput for more than
    `MOST_REWARDS`, DependencyUnavailable."""
    by_policy: dict[str | None, list[RewardComputed]] = {}
    days = (first + timedelta(days=ahead) for ahead in range((last - first).days + 1))
    stored_events = chain.from_iterable(events.iterate_day(tenant_id, skill, "reward", day) for day in days)
    for read, stored in enumerate(stored_events):
        if read == MOST_REWARDS:
            raise InvalidInput(f"there are more than {MOST_REWARDS:,} rewards: ask for fewer days, or the lake", param="to")
        event = stored.event()
        if isinstance(event, RewardComputed) and not event.fallback:
            by_policy.setdefault(event.policy_id, []).append(event)
    figures = {
        policy: figure for policy, rewards in by_policy.items() if (figure := compute_reward_figures(rewards, unit=unit)) is not None
    }
    others = figures.pop(None, None)
    return RewardReport(unit=unit, policies={policy: figure for policy, figure in figures.items() if policy is not None}, others=others)


def group_rewards(rewards: Iterable[RewardComputed], *, unit: UnitKind) -> list[RewardedUnit]:
    """The units of `rewards`, their drafts ordered by the time of their first reward. O(rewards * log(rewards))."""
    rewards = sorted(rewards, key=lambda reward: rfc3339(reward.occurred_at) if reward.occurred_at else "")
    latest = select_latest_rewards(rewards)
    drafts: dict[str, list[RewardComputed]] = {}
    for output_id in dict.fromkeys(reward.output_id for reward in rewards):
        draft = latest[output_id]
        unit_id = {"thread": draft.thread_id, "user": draft.user_id, "interaction": None}[unit]
        drafts.setdefault(unit_id or draft.interaction_id, []).append(draft)
    people = {name: identify_person(unit_drafts[0].user_id, unit_drafts[0].thread_id, name) for name, unit_drafts in drafts.items()}
    counts = Counter(people.values())
    most = bound_units(counts.values())
    return [RewardedUnit(people[name], tuple(unit_drafts), min(1.0, most / counts[people[name]])) for name, unit_drafts in drafts.items()]


def compute_reward_figures(rewards: Iterable[RewardComputed], *, unit: UnitKind) -> RewardFigures | None:
    """The figures of one policy's rewards; `None` without any."""
    entries = group_rewards(rewards, unit=unit)
    if not entries:
        return None
    units = Counter(entry.person for entry in entries)
    weights = {entry.person: units[entry.person] * entry.weight for entry in entries}
    total = math.fsum(weights.values())
    mean = math.fsum(entry.weight * entry.mean for entry in entries) / total
    sampled: Literal["people", "units"] = "people" if len(units) >= MANY else "units"
    parts: dict[str, float] = {}
    for place, entry in enumerate(entries):
        name = entry.person if sampled == "people" else str(place)
        parts[name] = parts.get(name, 0.0) + entry.weight * (entry.mean - mean)
    half = _half_width(list(parts.values())) / total
    return RewardFigures(
        mean=mean,
        low=max(0.0, mean - half),
        high=min(1.0, mean + half),
        sampled=sampled,
        drafts=sum(len(entry.drafts) for entry in entries),
        units=len(entries),
        people=len(units),
        counted=total,
        capped_people=sum(weights[name] < count for name, count in units.items()),
        largest_share=max(weights.values()) / total,
    )


def _half_width(parts: Sequence[float]) -> float:
    """Half the width of the 95% interval of a sum of independent `parts` that add up to 0: Student's t with one degree
    of freedom less than there are parts (Cameron & Miller 2015, section VI; its quantile by Abramowitz & Stegun 1964,
    eq. 26.7.5). Infinite with fewer than two parts."""
    free = len(parts) - 1
    if free < 1:
        return math.inf
    z = NormalDist().inv_cdf(0.975)
    quantile = z + (z**3 + z) / (4 * free) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * free**2)
    quantile += (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * free**3)
    return quantile * math.sqrt((free + 1) / free * math.fsum(part * part for part in parts))
