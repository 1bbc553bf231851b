"""What a million events cost at AWS's list prices (us-east-1, on demand, no free tier), from the calls that were
counted.

Counted or measured on the simulated office (an interaction, its output, the edit and what was done with it; 25 events a
request): units of DynamoDB, bytes of answers, Firehose's records, CPU time of the deployed function. A test holds the
counted calls equal to those that the real adapter makes. Assumed, and named below: how long DynamoDB takes, what a log
line holds, how many events come together.

In `million_events_usd`: API Gateway, WAF, authorizer, the function, its log lines and the access log, the answers' way
out, DynamoDB's writes and reads, the stream (free to Lambda) and its reader, Firehose with conversion and partitioning,
S3's PUTs. Nothing is asked of KMS, SQS or X-Ray where nothing fails. Not in it: what is paid by the month whatever
comes (the web ACL and its rules, metrics, alarms, SnapStart's cache, the daily compaction); the call of another
function that tenants pay for who have names found in texts; keeping events (`million_events_kept_month_usd`: table and
backups; the lake's Parquet is a tenth of that); JQ processing, which only AWS can count (its own example has 70 hours,
5 USD, for 740 GB); and following events up. That is the learning loop's work, done for feedback and not for ingestion,
and a price of its own: `million_events_rewards_usd`, for the same million events.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from benchmarks.lake import lake_usd_per_million
from benchmarks.office_requests import BATCH, ingest, requests
from benchmarks.prices import usd
from rlaas.adapters.aws.events import build_item
from rlaas.errors import DependencyUnavailable
from rlaas.rewards.follow_up import FollowUp
from rlaas.rewards.standing import Standing, StandingStore, collect_arrivals
from rlaas.telemetry.store import StoredEvent
from tests.fakes.events import MemoryEventStore
from tests.fakes.privacy import AS_IT_IS
from tests.fakes.worlds import clock, furnish_registry

MILLION = 1_000_000
GB = 1024**3
FUNCTION_GIB, FUNCTION_CORES = 0.5, 512 / 1769  # AWS gives a function of 1,769 MiB one core
DYNAMODB_S = 0.005
"""Assumed for one round trip to DynamoDB; a request waits for five, one after another: its tenant's rate, what it
refers to, and three waves of writes."""
EVENTS_PER_S = 100.0
"""Assumed rate, which says how full the stream's batches and Firehose's files are, and how often the authorizer's
answer is remembered."""
REGISTRY_READS = 3
"""A request's: whether the skill is there, its metrics, the tenant's privacy."""
STREAM_BATCH = 100
LAKE_WRITER_S = 0.1
"""Assumed for one batch in the lake writer, most of it waiting for Firehose."""
AUTHORIZER_TTL_S = 60.0
ACCESS_LOG_BYTES = 500
"""API Gateway's line for a request, with CloudWatch's 26 bytes. Lambda itself logs nothing of a call that goes well."""


@dataclass
class MeteredStore(MemoryEventStore):
    """Events in memory, with the calls and units that DynamoDB would bill: writes per KB, consistent reads per 4 KB."""

    puts: int = 0
    keys_read: int = 0
    gets: int = 0
    queries: int = 0
    write_units: float = 0
    read_units: float = 0

    def put_new(self, event: StoredEvent) -> StoredEvent | None:
        """Count one write, of a new event or not, and another for a new event in the index by day."""
        self.puts += 1
        existing = super().put_new(event)
        is_indexed = existing is None and (event.event_type == "reward" or event.pending)
        self.write_units += (2 if is_indexed else 1) * math.ceil(item_bytes(event) / 1024)
        return existing

    def put_each(self, events: Sequence[StoredEvent]) -> list[StoredEvent | DependencyUnavailable | None]:
        """Count one write each."""
        return [self.put_new(event) for event in events]

    def get_many(self, tenant_id: str, event_ids: Iterable[str]) -> dict[str, StoredEvent]:
        """Count one read each, found or not."""
        ids = list(event_ids)
        self.keys_read += len(ids)
        events = super().get_many(tenant_id, ids)
        self.read_units += sum(math.ceil(item_bytes(events[name]) / 4096) if name in events else 1 for name in ids)
        return events

    def read_outline(self, tenant_id: str, interaction_id: str) -> list[StoredEvent]:
        """Count one query, up to 1 MB."""
        self.queries += 1
        outline = super().read_outline(tenant_id, interaction_id)
        self.read_units += min(256, max(1, math.ceil(sum(map(item_bytes, self.read_interaction(tenant_id, interaction_id))) / 4096)))
        return outline

    def read_standing(self, tenant_id: str, interaction_id: str, output_id: str) -> Standing:
        """Count one read."""
        self.gets += 1
        self.read_units += 1
        return super().read_standing(tenant_id, interaction_id, output_id)

    def put_standing(self, tenant_id: str, interaction_id: str, output_id: str, standing: Standing, *, before: int) -> bool:
        """Count one write of less than 1 KB."""
        self.puts += 1
        self.write_units += 1
        return super().put_standing(tenant_id, interaction_id, output_id, standing, before=before)

    def usd(self) -> float:
        """USD of the units so far."""
        return self.write_units * usd("dynamodb_write_unit") + self.read_units * usd("dynamodb_read_unit")


def item_bytes(event: StoredEvent) -> int:
    """Bytes as DynamoDB counts them: names and values."""
    item = build_item(event, expires_at=event.received_at + timedelta(days=365))
    return sum(len(name) + sum(len(str(value).encode()) for value in attribute.values()) for name, attribute in item.items())


def follow_up(stored_events: Sequence[StoredEvent], store: StandingStore) -> None:
    """Run the reward writer's use case on all stored events, a batch of the stream at a time."""
    follow = FollowUp(store, furnish_registry().get_reward_spec, clock)
    for first in range(0, len(stored_events), STREAM_BATCH):
        together: dict[str, list[StoredEvent]] = {}
        for event in stored_events[first : first + STREAM_BATCH]:
            together.setdefault(event.interaction_id or "", []).append(event)
        for events in together.values():
            follow(collect_arrivals(events), {event.event_id: event for event in events})


def figures(function_cpu_s: float) -> dict[str, float]:
    """USD per million events, where one request of 25 takes the telemetry function `function_cpu_s` seconds of a whole
    core."""
    api_events = requests(250)
    store = MeteredStore()
    ingest(api_events, store, AS_IT_IS)
    stored_events = list(store.events.values())
    per_event = MILLION / len(stored_events)
    request_count = MILLION / BATCH
    rate_usd = usd("dynamodb_write_unit")  # the tenant's rate
    store_usd = per_event * store.usd() + request_count * (rate_usd + REGISTRY_READS * usd("dynamodb_read_unit"))
    answer = {"status": 201, "id": stored_events[-1].event_id, "idempotent_replay": False, "pending": False}
    answers_gb = MILLION * len(json.dumps(answer)) / GB
    authorizer_calls = MILLION / EVENTS_PER_S / AUTHORIZER_TTL_S
    api_usd = (
        request_count * (usd("api_request") + usd("waf_request") + ACCESS_LOG_BYTES / GB * usd("log_gb"))
        + answers_gb * usd("transfer_out_gb")
        + authorizer_calls * (invocation_usd(0.05) + usd("dynamodb_read_unit"))
    )
    function_usd = request_count * invocation_usd(function_cpu_s / FUNCTION_CORES + 5 * DYNAMODB_S)
    payload = sum(len(event.payload.encode()) for event in stored_events) // len(stored_events)
    stream_usd = MILLION / STREAM_BATCH * invocation_usd(LAKE_WRITER_S)
    lake_usd = lake_usd_per_million(payload, batch=STREAM_BATCH, events_per_second=EVENTS_PER_S)["lake_usd"]
    return {
        "event_payload_bytes": float(payload),
        "write_units_per_event": store.write_units / len(stored_events),
        "read_units_per_event": store.read_units / len(stored_events),
        "function_cpu_ms_per_request": 1000 * function_cpu_s,
        "million_events_store_usd": store_usd,
        "million_events_api_usd": api_usd,
        "million_events_function_usd": function_usd,
        "million_events_stream_usd": stream_usd,
        "million_events_lake_usd": lake_usd,
        "million_events_usd": store_usd + api_usd + function_usd + stream_usd + lake_usd,
        "million_events_rewards_usd": rewards_usd(store, lake_usd),
        "million_events_kept_month_usd": per_event
        * sum(map(item_bytes, stored_events))
        / GB
        * (usd("dynamodb_gb_month") + usd("dynamodb_backup_gb_month")),
    }


def rewards_usd(store: MeteredStore, lake_usd: float) -> float:
    """USD to follow up a million events like those in `store`: joins, rewards with their way into the lake, and the
    function's time."""
    stored_events = list(store.events.values())
    store.puts = store.keys_read = store.gets = store.queries = 0
    store.write_units = store.read_units = 0
    follow_up(stored_events, store)
    waits_s = DYNAMODB_S * (store.puts + store.gets + store.queries + store.keys_read) / len(stored_events) * STREAM_BATCH
    function_usd = MILLION / STREAM_BATCH * invocation_usd(waits_s)
    rewards = len(store.events) / len(stored_events) - 1
    stream_usd = MILLION / STREAM_BATCH * invocation_usd(LAKE_WRITER_S)
    specs_usd = MILLION / STREAM_BATCH * usd("dynamodb_read_unit")  # a batch of one skill
    return MILLION / len(stored_events) * store.usd() + function_usd + specs_usd + rewards * (lake_usd + stream_usd)


def invocation_usd(seconds: float, gib: float = FUNCTION_GIB, log_bytes: float = 0.0) -> float:
    """USD of one invocation of `seconds` of a function with `gib` GiB of memory, with its log lines."""
    return usd("lambda_request") + seconds * gib * usd("lambda_arm_gb_second") + log_bytes / GB * usd("log_gb")
