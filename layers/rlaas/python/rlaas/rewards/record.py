"""Rewards follow events: each feedback or output that lands brings the rewards of its interaction up to date."""

from typing import Protocol

from rlaas.clock import Clock
from rlaas.rewards.reward import reward_of
from rlaas.telemetry.events import RewardComputed
from rlaas.telemetry.ingest import prepare
from rlaas.telemetry.store import InteractionStore, StoredEvent
from rlaas.tenancy.tenant import RewardSpec


class RewardSpecs(Protocol):
    """Knows how each skill is rewarded."""

    def reward_spec(self, tenant_id: str, skill: str) -> RewardSpec:
        """The skill's reward spec. Raises: NotFound."""
        ...


def record_reward(event: StoredEvent, *, store: InteractionStore, specs: RewardSpecs, clock: Clock) -> RewardComputed | None:
    """The reward that `event` newly makes, stored; `None` when it makes none or was followed up before.

    Feedback without an output id is about the interaction's last output. Of events that land together, the first that is followed up makes
    the reward of all. Shadows' outputs have no reward: nobody saw them. Reads are strongly consistent, so of two writers one saw all that
    the other saw: the count of events in the reward's id tells their rewards apart, and the higher one is the later.
    """
    if event.event_type not in ("feedback", "output") or event.interaction_id is None or "shadow" in event.marks:
        return None
    around = store.by_interaction(event.tenant_id, event.interaction_id)
    reward = _reward(event, around, specs.reward_spec(event.tenant_id, event.skill))
    if reward is None or any(stored.event_id == reward.reward_id for stored in around):
        return None
    now = clock()
    reward = reward.model_copy(update={"occurred_at": now})  # lists go by this time, and whoever follows one may not miss a late reward
    if store.put_new(prepare(reward, event.tenant_id, received_at=now)) is not None:
        return None
    return reward


def _reward(event: StoredEvent, around: list[StoredEvent], spec: RewardSpec) -> RewardComputed | None:
    """The reward of the output that `event` is, or is about, from all feedback among the events `around` it."""
    outputs = {stored.event_id: stored for stored in around if stored.event_type == "output" and "shadow" not in stored.marks}
    if not outputs:
        return None
    last = next(reversed(outputs.values()))
    output = outputs.get(event.output_id) if event.output_id else last
    if output is None:
        return None
    about_it = [stored for stored in around if stored.event_type == "feedback" and (stored.output_id or last.event_id) == output.event_id]
    return reward_of(output, about_it, spec)
