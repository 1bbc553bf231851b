"""Feedback and task results that came before what they refer to: joined when it lands, orphaned when it does not come
in time."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import islice

from rlaas.skills.skill import ATTRIBUTION_WINDOW_HOURS, Metric
from rlaas.telemetry.events import FeedbackSubmitted, TaskResultReported
from rlaas.telemetry.ingest import has_landed, list_targets
from rlaas.telemetry.store import EventStore, StoredEvent

_LOOKED_AT_TOGETHER = 50


def join_waiting(tenant_id: str, interaction_id: str, *, landed_ids: Sequence[str], pending_ids: Sequence[str], store: EventStore) -> int:
    """Settle those events of the interaction whose interaction and output have landed; how many.

    `landed_ids` have just landed, `pending_ids` were pending when they were stored. Called for every new event, so
    whichever of the two is followed up last sees both. Where very many wait for one thing, some are left to
    `iterate_pending`.
    """
    waiting = dict(store.read_heads(tenant_id, pending_ids)) if pending_ids else {}
    if landed_ids:
        around = [stored for stored in store.read_outline(tenant_id, interaction_id) if stored.pending]
        waiting |= {stored.event_id: stored for stored in around[:_LOOKED_AT_TOGETHER]}
    missing = {target for stored in waiting.values() for target in list_targets(stored).values()}.difference(landed_ids)
    existing_ids = {*landed_ids, *(store.read_heads(tenant_id, missing) if missing else ())}
    settled_events = [stored for stored in waiting.values() if stored.pending and has_landed(stored, existing_ids)]
    for stored in settled_events:
        store.mark_landed(stored)
    return len(settled_events)


def iterate_pending(store: EventStore, tenant_id: str, skill: str, *, since: datetime | None = None) -> Iterator[StoredEvent]:
    """The skill's events that wait for their interaction or output, by the time they were received, from `since` on.

    Each is checked again, and settled where what it waited for has landed after all.
    Raises: DependencyUnavailable.
    """
    events = store.iterate_pending(tenant_id, skill, since=since)
    while page := list(islice(events, _LOOKED_AT_TOGETHER)):
        existing = store.read_heads(tenant_id, {target for stored in page for target in list_targets(stored).values()})
        for stored in page:
            if has_landed(stored, existing):
                store.mark_landed(stored)
            else:
                yield stored


def find_orphan_time(stored: StoredEvent, metrics: Mapping[str, Metric]) -> datetime:
    """When the attribution window of a pending event ends: its metric's, else seven days, from its arrival on."""
    event = stored.event()
    name = event.metric if isinstance(event, FeedbackSubmitted) else event.name if isinstance(event, TaskResultReported) else None
    metric = metrics.get(name) if name is not None else None
    return stored.received_at + timedelta(hours=metric.attribution_window_hours if metric else ATTRIBUTION_WINDOW_HOURS)
