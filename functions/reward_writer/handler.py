"""Computes rewards from new events, of their table's stream, and counts usage from new outputs and broken answers.

All tenants share the stream. So the work for one event is bounded (`rlaas.rewards.standing`), the events of an
interaction in a batch are followed up together, and events beyond a tenant's share of a batch wait in a queue while the
stream continues.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache, partial
from time import monotonic

from aws_lambda_powertools.utilities.typing import LambdaContext

from rlaas.adapters.aws.events import read_stored_event
from rlaas.adapters.aws.follow_ups import read_arrivals
from rlaas.adapters.aws.stream_batches import (
    BatchResponse,
    StreamRecord,
    begin_again_at,
    do_in_order,
    is_redrive,
    list_records,
    read_each,
    read_new_image,
    report_failures,
    report_first_failure,
)
from rlaas.adapters.aws.usage import COUNTABLE
from rlaas.clock import utc_now
from rlaas.errors import DependencyUnavailable
from rlaas.rewards.follow_up import FollowUp
from rlaas.rewards.standing import Arrivals, collect_arrivals
from rlaas.runtime.log import logger
from rlaas.runtime.stage import current_stage
from rlaas.telemetry.store import StoredEvent

SHARE_S = 0.1
"""Seconds that one tenant may take of a batch, not counting its first interaction."""


def read(record: StreamRecord) -> StoredEvent:
    """The new event, checked to be well-formed. Raises: pydantic.ValidationError."""
    stored = read_stored_event(read_new_image(record))
    stored.event()
    return stored


class Turns:
    """Follows up one batch's events: each tenant has `share_s` seconds; its later events are put off into `late`."""

    def __init__(self, follow_up: FollowUp, *, share_s: float) -> None:
        self.late: list[tuple[list[StreamRecord], Arrivals]] = []
        self._follow_up = follow_up
        self._share_s = share_s
        self._seconds: defaultdict[str, float] = defaultdict(float)

    def take(self, records: list[StreamRecord], events: list[StoredEvent]) -> None:
        """Follow up the events of an interaction while its tenant has a share left."""
        arrivals = collect_arrivals(events)
        if self._seconds[arrivals.tenant_id] > self._share_s:
            self.late.append((records, arrivals))
            return
        started_s = monotonic()
        try:
            self._follow_up(arrivals, {event.event_id: event for event in events})
        finally:
            self._seconds[arrivals.tenant_id] += monotonic() - started_s


def handler(event: Mapping[str, object], context: LambdaContext, *, share_s: float = SHARE_S) -> BatchResponse:
    """Follow up a batch of the stream, or events that were put off.

    Each tenant has `share_s` seconds of a batch. Raises, for events that were put off: RlaasError.
    """
    stage = current_stage()
    follow_up = FollowUp(stage.events, cache(stage.registry.get_reward_spec), utc_now)
    if (arrivals := read_arrivals(event)) is not None:
        for arrival in arrivals:
            follow_up(arrival)
        return report_failures([])
    keeper = stage.keeper(context.invoked_function_arn)
    inserts = [record for record in list_records(event) if record["eventName"] == "INSERT"]
    new_events, failures = read_each(event, inserts, read, keeper=keeper)
    countable_from = utc_now() - COUNTABLE if is_redrive(event) else datetime.min.replace(tzinfo=UTC)
    try:
        if countable := [new for _, new in new_events if new.event_type in ("output", "failure") and new.received_at >= countable_from]:
            stage.usage.count(countable)
    except DependencyUnavailable as error:
        logger.error("usage not counted", detail=error.detail)
        return begin_again_at(list_records(event)[0])
    turns = Turns(follow_up, share_s=share_s)
    works = [(records, partial(turns.take, records, its_events)) for records, its_events in _group_by_interaction(new_events)]
    failures += do_in_order(event, works, keeper=keeper)
    try:
        if turns.late:
            stage.follow_ups(context.invoked_function_arn).send([arrivals for _, arrivals in turns.late])
    except DependencyUnavailable as error:
        logger.error("not put off", detail=error.detail)
        failures += [record for records, _ in turns.late for record in records]
    return report_first_failure(event, failures)


def _group_by_interaction(new_events: list[tuple[StreamRecord, StoredEvent]]) -> list[tuple[list[StreamRecord], list[StoredEvent]]]:
    """The records and events of each interaction; those of tenants with few records first."""
    groups: dict[tuple[str, str], tuple[list[StreamRecord], list[StoredEvent]]] = {}
    for record, stored in new_events:
        if stored.interaction_id is not None:
            records, events = groups.setdefault((stored.tenant_id, stored.interaction_id), ([], []))
            records.append(record)
            events.append(stored)
    of_tenant = Counter(stored.tenant_id for _, stored in new_events)
    return [group for _, group in sorted(groups.items(), key=lambda item: of_tenant[item[0][0]])]
