"""Delivers events to the lake: newline-delimited JSON through Firehose, many events in one record."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlaas.adapters.aws.clients import client, dependency
from rlaas.clock import rfc3339
from rlaas.telemetry.store import StoredEvent

if TYPE_CHECKING:
    from types_boto3_firehose import FirehoseClient

# Firehose bills each record in steps of 5 KB, so that an event sent alone costs up to five times its size. Its rules
# (Amazon Data Firehose developer guide, "Apply dynamic partitioning to aggregated data"; API reference, PutRecordBatch
# and Record): "Record deaggregation by JSON or by delimiter is capped at 500 per record"; "JSON objects must be on a
# single line with no delimiter or newline-delimited (JSONL) only. An array of JSON objects is not a valid input"; a
# record is at most 1,000 KiB, a call at most 500 records and 4 MiB.
PACKED_EVENTS = 500
"""Most events in one record: Firehose takes no more of them apart again."""
PACKED_BYTES = 500_000
"""A record grows to this size: the rounding of a full one costs at most 1%. A larger event is a record by itself."""
_MAX_RECORDS, _MAX_BYTES = 500, 4_000_000
_ATTEMPTS = 4


@dataclass(frozen=True, slots=True)
class _Record:
    """One Firehose record, and the positions of the events in it."""

    data: bytes
    positions: range


class FirehoseLake:
    """One stage's delivery stream."""

    def __init__(self, stream: str, firehose: "FirehoseClient | None" = None, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self._stream = stream
        self._firehose = firehose or client("firehose")
        self._sleep = sleep

    def deliver(self, events: Sequence[StoredEvent]) -> list[int]:
        """Deliver `events` in order, packed into records; the positions, ascending, of the events that Firehose still
        refused after four attempts.

        Firehose takes or refuses a whole record. Only refused records are sent again, so delivery is at least once:
        readers keep one row per tenant and `event_id`.

        Raises: DependencyUnavailable when Firehose does not answer.
        """
        left = list(_pack([build_lake_record(event) for event in events]))
        for attempt in range(_ATTEMPTS):
            if attempt:
                self._sleep(0.1 * 2**attempt)
            left = [record for batch in _split_by_call(left) for record in self._send(batch)]
            if not left:
                break
        return [position for record in left for position in record.positions]

    def _send(self, batch: list[_Record]) -> list[_Record]:
        """Send `batch`; the records that Firehose refused."""
        with dependency("Firehose"):
            answer = self._firehose.put_record_batch(DeliveryStreamName=self._stream, Records=[{"Data": record.data} for record in batch])
        return [record for record, result in zip(batch, answer["RequestResponses"], strict=True) if "ErrorCode" in result]


def build_lake_record(event: StoredEvent) -> bytes:
    """One line of JSON: the lake's columns and its two partition keys, `event_type` and `event_date` (UTC, of
    `received_at`, because clients choose `occurred_at` and could open any number of partitions by it)."""
    received_at = rfc3339(event.received_at)
    columns = {
        "tenant_id": event.tenant_id,
        "event_id": event.event_id,
        "schema_version": "1",
        "skill": event.skill,
        "interaction_id": event.interaction_id,
        "output_id": event.output_id,
        "thread_id": event.thread_id,
        "policy_id": event.policy_id,
        "occurred_at": rfc3339(event.occurred_at),
        "received_at": received_at,
        "payload": event.payload,
        "event_type": event.event_type,
        "event_date": received_at[:10],
    }
    return json.dumps(columns, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _pack(lines: Sequence[bytes]) -> Iterator[_Record]:
    """`lines` in order, in as few records as their limits allow."""
    start, size = 0, 0
    for position, line in enumerate(lines):
        if position > start and (position - start == PACKED_EVENTS or size + len(line) > PACKED_BYTES):
            yield _Record(b"".join(lines[start:position]), range(start, position))
            start, size = position, 0
        size += len(line)
    if lines:
        yield _Record(b"".join(lines[start:]), range(start, len(lines)))


def _split_by_call(records: Sequence[_Record]) -> Iterator[list[_Record]]:
    """`records` in order, in as few calls as Firehose's limits allow."""
    batch: list[_Record] = []
    size = 0
    for record in records:
        if batch and (len(batch) == _MAX_RECORDS or size + len(record.data) > _MAX_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(record)
        size += len(record.data)
    if batch:
        yield batch
