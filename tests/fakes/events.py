"""Events in memory."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime

from rlaas.errors import DependencyUnavailable
from rlaas.rewards.standing import Standing
from rlaas.telemetry.events import EventType
from rlaas.telemetry.store import StoredEvent


@dataclass
class MemoryEventStore:
    events: dict[tuple[str, str], StoredEvent] = field(default_factory=dict)
    standings: dict[tuple[str, str, str], Standing] = field(default_factory=dict)

    def put_new(self, event: StoredEvent) -> StoredEvent | None:
        existing = self.events.setdefault((event.tenant_id, event.event_id), event)
        return None if existing is event else existing

    def put_each(self, events: Sequence[StoredEvent]) -> list[StoredEvent | DependencyUnavailable | None]:
        return [self.put_new(event) for event in events]

    def get_many(self, tenant_id: str, event_ids: Iterable[str]) -> dict[str, StoredEvent]:
        return {name: self.events[tenant_id, name] for name in event_ids if (tenant_id, name) in self.events}

    def read_interaction(self, tenant_id: str, interaction_id: str) -> list[StoredEvent]:
        events = [event for event in self.events.values() if (event.tenant_id, event.interaction_id) == (tenant_id, interaction_id)]
        return sorted(events, key=lambda event: (event.received_at, event.event_id))

    def read_heads(self, tenant_id: str, event_ids: Iterable[str]) -> dict[str, StoredEvent]:
        return {name: replace(event, payload="") for name, event in self.get_many(tenant_id, event_ids).items()}

    def read_outline(self, tenant_id: str, interaction_id: str) -> list[StoredEvent]:
        return [replace(event, payload="") for event in self.read_interaction(tenant_id, interaction_id)]

    def read_standing(self, tenant_id: str, interaction_id: str, output_id: str) -> Standing:
        return self.standings.get((tenant_id, interaction_id, output_id), Standing())

    def put_standing(self, tenant_id: str, interaction_id: str, output_id: str, standing: Standing, *, before: int) -> bool:
        if self.read_standing(tenant_id, interaction_id, output_id).n != before:
            return False
        self.standings[tenant_id, interaction_id, output_id] = standing
        return True

    def iterate_day(
        self, tenant_id: str, skill: str, event_type: EventType, day: date, *, since: datetime | None = None
    ) -> Iterator[StoredEvent]:
        if event_type not in ("reward", "guardrail"):
            raise ValueError(f"{event_type} events are not listed by day")
        events = [
            event
            for event in self.events.values()
            if (event.tenant_id, event.skill, event.event_type, event.received_at.date()) == (tenant_id, skill, event_type, day)
            and (since is None or event.received_at >= since)
        ]
        return iter(sorted(events, key=lambda event: event.received_at))

    def iterate_trial(self, tenant_id: str, skill: str, trial: str, *, after: datetime, until: datetime) -> Iterator[StoredEvent]:
        return (event for decided_at, event in self._of_trial(tenant_id, skill, trial) if after < decided_at <= until)

    def iterate_unit(self, tenant_id: str, skill: str, trial: str, unit_id: str, *, since: datetime | None = None) -> Iterator[StoredEvent]:
        return (
            event
            for decided_at, event in self._of_trial(tenant_id, skill, trial)
            if event.trial is not None and event.trial.unit_id == unit_id and (since is None or decided_at >= since)
        )

    def _of_trial(self, tenant_id: str, skill: str, trial: str) -> list[tuple[datetime, StoredEvent]]:
        pairs = [
            (event.trial.decided_at, event)
            for event in self.events.values()
            if (event.tenant_id, event.skill) == (tenant_id, skill) and event.trial is not None and event.trial.name == trial
        ]
        return sorted(pairs, key=lambda one: one[0])

    def iterate_pending(self, tenant_id: str, skill: str, *, since: datetime | None = None) -> Iterator[StoredEvent]:
        events = [event for event in self.events.values() if (event.tenant_id, event.skill) == (tenant_id, skill) and event.pending]
        return iter(sorted((event for event in events if since is None or event.received_at >= since), key=lambda event: event.received_at))

    def mark_landed(self, event: StoredEvent) -> None:
        if existing := self.events.get((event.tenant_id, event.event_id)):
            self.events[event.tenant_id, event.event_id] = replace(existing, pending=False)
