"""Feedback and task results that came before what they refer to: joined when it lands, orphaned when it does not come in time."""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from itertools import islice

from rlaas.telemetry.events import FeedbackSubmitted, TaskResultReported
from rlaas.telemetry.ingest import landed, targets
from rlaas.telemetry.store import EventStore, InteractionStore, StoredEvent
from rlaas.tenancy.tenant import ATTRIBUTION_WINDOW_HOURS, Metric

_LOOKED_AT_TOGETHER = 50


def join_waiting(event: StoredEvent, *, store: InteractionStore) -> int:
    """Settle the pending events of `event`'s interaction whose interaction and output have landed; how many.

    Called for every new event, so whichever of the two is followed up last sees both.
    """
    if event.interaction_id is None or (event.event_type not in ("interaction", "output") and not event.pending):
        return 0
    around = store.by_interaction(event.tenant_id, event.interaction_id)
    ids = {stored.event_id for stored in around}
    waiting = [stored for stored in around if stored.pending and landed(stored, ids)]
    for stored in waiting:
        store.settle(stored)
    return len(waiting)


def still_pending(store: EventStore, tenant_id: str, skill: str, *, since: datetime | None = None) -> Iterator[StoredEvent]:
    """The skill's events that wait for their interaction or output, by the time they were received, from `since` on.

    Each is looked at again, and settled where what it waited for is there after all.
    """
    listed = store.pending(tenant_id, skill, since=since)
    while some := list(islice(listed, _LOOKED_AT_TOGETHER)):
        found = store.get_many(tenant_id, {target for stored in some for target in targets(stored).values()})
        for stored in some:
            if landed(stored, found):
                store.settle(stored)
            else:
                yield stored


def orphaned_at(stored: StoredEvent, metrics: Mapping[str, Metric]) -> datetime:
    """When the attribution window of a pending event ends: its metric's, else seven days, from its arrival on."""
    event = stored.event()
    name = event.metric if isinstance(event, FeedbackSubmitted) else event.name if isinstance(event, TaskResultReported) else None
    metric = metrics.get(name) if name is not None else None
    return stored.received_at + timedelta(hours=metric.attribution_window_hours if metric else ATTRIBUTION_WINDOW_HOURS)
