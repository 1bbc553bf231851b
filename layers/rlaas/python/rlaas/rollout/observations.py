"""From stored rewards to observations: which rewards count in a step, in which order, and with what probability."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from rlaas.rewards.reward import complete
from rlaas.rollout.sequential import Observation
from rlaas.routing.assign import CONTROL
from rlaas.routing.route import Unit
from rlaas.telemetry.events import RewardComputed


@dataclass(frozen=True, slots=True)
class ReceivedReward:
    """A stored reward and when the service received it."""

    reward: RewardComputed
    received_at: datetime


def settled(rewards: Iterable[ReceivedReward], *, settle: timedelta, now: datetime) -> list[RewardComputed]:
    """One complete reward per output in the order in which they were first complete: the fullest within `settle` of that.

    What comes later never changes a reward already counted, and what was completed less than `settle` ago waits for a later look, so that
    the list of one look is the beginning of the next one's.
    """
    by_output: dict[str, list[ReceivedReward]] = {}
    for received in sorted(rewards, key=lambda received: (received.received_at, received.reward.n)):
        if complete(received.reward):
            by_output.setdefault(received.reward.output_id, []).append(received)
    fullest = []
    for versions in by_output.values():
        until = versions[0].received_at + settle
        if until <= now:
            fullest.append(max((v.reward for v in versions if v.received_at <= until), key=lambda reward: reward.n))
    return fullest


def step_observations(rewards: Iterable[RewardComputed], *, candidate: str, unit: Unit, route_version: int) -> list[Observation]:
    """The observations of the step that `route_version` began, from all of the rollout's settled rewards.

    A unit counts once per step, by its first reward: its arm is drawn once, so later ones are no new evidence. Arms only grow: a unit
    seen on the candidate stays there and is no longer random, and one seen on control at probability q reaches the candidate at p
    with probability (p - q) / (1 - q). Fallback answers and other arms are left out.
    """
    seen: dict[str, float] = {}
    observations = []
    for reward in rewards:
        if reward.fallback or reward.propensity is None or reward.arm not in (CONTROL, candidate):
            continue
        on_candidate = reward.arm == candidate
        share = round(reward.propensity if on_candidate else 1 - reward.propensity, 6)  # weights are millionths
        name = _unit(reward, unit)
        before = seen.get(name, 0.0)
        seen[name] = 1.0 if on_candidate else max(before, share)
        if share <= before or before == 1.0 or reward.route_version != route_version:
            continue
        observations.append(Observation(reward=reward.reward, candidate=on_candidate, propensity=(share - before) / (1 - before)))
    return observations


def _unit(reward: RewardComputed, unit: Unit) -> str:
    chosen = {"thread": reward.thread_id, "user": reward.user_id, "interaction": reward.interaction_id}[unit]
    return chosen or reward.interaction_id
