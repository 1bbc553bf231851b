"""Events, and how they are rewarded, as whoever follows up a batch of them sees them."""

from dataclasses import replace
from functools import cache

from rlaas.rewards.record import RewardSpecs
from rlaas.telemetry.store import InteractionStore, StoredEvent
from rlaas.tenancy.tenant import RewardSpec


class OneReading:
    """A store that reads each interaction and each skill's spec once, for as long as a batch takes, and knows what it has written since.

    All events of a batch landed before it was delivered. So each reading sees all of them, and of two followers of one interaction the one
    that reads later sees what the other saw, as if every event had a reading of its own.
    """

    def __init__(self, store: InteractionStore, specs: RewardSpecs) -> None:
        self._store = store
        self._read: dict[tuple[str, str | None], list[StoredEvent]] = {}
        self._spec = cache(specs.reward_spec)

    def reward_spec(self, tenant_id: str, skill: str) -> RewardSpec:
        """As `RewardSpecs.reward_spec`, as of the first time it was asked for."""
        return self._spec(tenant_id, skill)

    def by_interaction(self, tenant_id: str, interaction_id: str) -> list[StoredEvent]:
        """Every event of an interaction in the order received, as of the first time it was asked for."""
        if (tenant_id, interaction_id) not in self._read:
            self._read[tenant_id, interaction_id] = self._store.by_interaction(tenant_id, interaction_id)
        return list(self._read[tenant_id, interaction_id])

    def put_new(self, event: StoredEvent) -> StoredEvent | None:
        """As `EventStore.put_new`."""
        held = self._store.put_new(event)
        self._read.get((event.tenant_id, event.interaction_id), []).append(held or event)
        return held

    def settle(self, event: StoredEvent) -> None:
        """As `EventStore.settle`."""
        self._store.settle(event)
        around = self._read.get((event.tenant_id, event.interaction_id), [])
        around[:] = [replace(stored, pending=False) if stored.event_id == event.event_id else stored for stored in around]
