"""What a million events cost on their way into the lake: calls of the real lake writer, counted, times list prices.

us-east-1, direct PUT, the first 500 TB a month. Firehose's page says what is billed (GB ingested with each record
rounded up to 5 KB, conversion of those GB, GB and objects delivered to dynamic partitions); left out are JQ hours,
which only AWS can count.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, cast, get_args

from benchmarks.prices import usd
from benchmarks.result import report
from rlaas.adapters.aws.lake import FirehoseLake
from rlaas.telemetry.events import EventType
from rlaas.telemetry.store import StoredEvent

USD_PER_GB = usd("firehose_gb") + usd("firehose_converted_gb") + usd("firehose_partitioned_gb")
USD_PER_OBJECT = usd("firehose_object") + usd("s3_put")
STEP_BYTES = 5 * 1024
GB = 1024**3
MILLION = 1_000_000


class CountingFirehose:
    """Takes everything and counts what Firehose would bill."""

    def __init__(self) -> None:
        self.calls = self.records = self.sent_bytes = self.billed_bytes = 0

    def put_record_batch(self, *, DeliveryStreamName: str, Records: Sequence[dict[str, bytes]]) -> dict[str, Any]:
        """Count the records; answers as Firehose does when it refuses none."""
        sizes = [len(record["Data"]) for record in Records]
        self.calls += 1
        self.records += len(sizes)
        self.sent_bytes += sum(sizes)
        self.billed_bytes += sum(math.ceil(size / STEP_BYTES) * STEP_BYTES for size in sizes)
        return {"FailedPutCount": 0, "RequestResponses": [{"RecordId": "taken"} for _ in Records]}


def lake_usd_per_million(
    event_bytes: int, *, batch: int = 100, events_per_second: float = 100.0, buffer_seconds: int = 300, sample: int = 10_000
) -> dict[str, float]:
    """Firehose calls, records, GB as billed, objects and USD of a million events with payloads of `event_bytes` bytes.

    `batch` is the number of events in one batch of the lake writer's stream (fewer when traffic is low). The number of
    objects follows from the rate and Firehose's buffer: one for each event type and buffer, for two event dates at
    once.
    """
    firehose = CountingFirehose()
    lake = FirehoseLake("bench", cast(Any, firehose))
    now = datetime(2026, 3, 1, 12, tzinfo=UTC)
    payload = '{"text":"' + "x" * max(0, event_bytes - 11) + '"}'
    for first in range(0, sample, batch):
        refusals = lake.deliver([_event(number, payload, now) for number in range(first, min(first + batch, sample))])
        assert not refusals
    scale = MILLION / sample
    billed_gb = firehose.billed_bytes * scale / GB
    objects = math.ceil(MILLION / events_per_second / buffer_seconds) * len(get_args(EventType)) * 2
    return {
        "lake_calls": firehose.calls * scale,
        "lake_records": firehose.records * scale,
        "lake_sent_gb": firehose.sent_bytes * scale / GB,
        "lake_billed_gb": billed_gb,
        "lake_objects": float(objects),
        "lake_usd": billed_gb * USD_PER_GB + objects * USD_PER_OBJECT,
    }


def _event(number: int, payload: str, now: datetime) -> StoredEvent:
    ulid = f"{number:026d}"
    return StoredEvent(
        event_type="output",
        event_id=f"out_{ulid}",
        tenant_id="acme",
        skill="support-email-draft",
        interaction_id=f"int_{ulid}",
        output_id=f"out_{ulid}",
        thread_id=f"thread_{ulid}",
        policy_id="support-email-draft@v1",
        occurred_at=now,
        received_at=now,
        payload_sha256="0" * 64,
        payload=payload,
    )


def main() -> None:
    """Print the table for payloads of 1,000 bytes, packed and one event a record."""
    packed_figures, alone = lake_usd_per_million(1_000), lake_usd_per_million(1_000, batch=1, sample=1_000)
    report("lake", "python -m benchmarks.lake", packed_figures | {"lake_unpacked_usd": alone["lake_usd"]})


if __name__ == "__main__":
    main()
