"""Telemetry's own work and price: events taken per second and core, and what a million of them cost, from the calls counted x list prices.

us-east-1 list prices, on demand, without free tiers. The events are those of the simulated support office: an interaction, its output, the
edit and what was done with it, 25 events a request.
"""

import itertools
import math
import statistics
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

from benchmarks.lake import lake_usd_per_million
from benchmarks.result import report
from functions.telemetry.handler import MODELS
from local.office.templates import cases
from rlaas.aws.events import item_of
from rlaas.errors import DependencyUnavailable, RlaasError
from rlaas.privacy.scrub import Scrubber
from rlaas.privacy.settings import PrivacySettings
from rlaas.rewards.record import record_reward
from rlaas.runtime.http import batched
from rlaas.telemetry.ingest import record_all
from rlaas.telemetry.pending import join_waiting
from rlaas.telemetry.store import StoredEvent
from tests.fakes.events import MemoryEventStore
from tests.fakes.gateway import proxy_event
from tests.fakes.privacy import AS_IT_IS
from tests.fakes.worlds import NOW, SKILL, TENANT, clock, furnished

INTERACTIONS = 5_000
BATCH = 25
RUNS = 5
MILLION = 1_000_000
PRICES_OF = "2026-11"
WRITE_UNIT_USD, READ_UNIT_USD = 0.625 / MILLION, 0.125 / MILLION
API_REQUEST_USD = 3.50 / MILLION
INVOCATION_USD, GB_SECOND_USD = 0.20 / MILLION, 0.0000133334  # Lambda on arm64
FUNCTION_GIB, FUNCTION_CORES = 0.5, 512 / 1769  # AWS gives a function of 1,769 MiB one core
DYNAMODB_MS = 5.0
"""Assumed for one round trip to DynamoDB, in milliseconds; a batch waits for four, one after another."""
STREAM_BATCH = 100
STREAM_S = 0.1
"""Assumed for one batch in the lake writer and in the reward writer, in seconds."""


def office_events(interactions: int) -> Iterator[dict[str, object]]:
    """Events as an SDK sends them, with ids that name their interaction."""
    for number, case in enumerate(itertools.islice(cases("train", 1), interactions)):
        ulid = f"01{number:024d}"
        about: dict[str, object] = {"skill": SKILL, "interaction_id": f"int_{ulid}", "thread_id": f"thread-{number // 3}"}
        draft = f"Dear {case.full_name},\n\nThank you for reaching out to us. {case.answer}\n\nKind regards,\nSupport"
        final = f"Hi {case.first_name},\n\n{case.answer}\n\nBest,\nThe Northwind Support Team"
        told = {**about, "output_id": f"out_{ulid}"}
        yield {"type": "interaction", **about, "inputs": case.inputs}
        yield {"type": "output", **told, "text": draft, "usage": {"input_tokens": 90, "output_tokens": 60}, "latency_ms": 812.5}
        yield {"type": "feedback", **told, "feedback_id": f"fbk_{ulid}_edit", "kind": "edit", "final_text": final}
        yield {"type": "feedback", **told, "feedback_id": f"fbk_{ulid}_sent", "kind": "action", "action": "sent"}


@dataclass
class MeteredStore(MemoryEventStore):
    """Events in memory, with the DynamoDB units that the same calls cost: writes per KB, consistent reads per 4 KB."""

    write_units: float = 0
    read_units: float = 0

    def put_new(self, event: StoredEvent) -> StoredEvent | None:
        """One write, and one more for what is in the index by day."""
        indexed = 2 if event.event_type == "reward" or event.pending else 1
        self.write_units += indexed * math.ceil(_size(event) / 1024)
        return super().put_new(event)

    def put_each(self, events: Sequence[StoredEvent]) -> list[StoredEvent | DependencyUnavailable | None]:
        """One write each."""
        return [self.put_new(event) for event in events]

    def get_many(self, tenant_id: str, event_ids: Iterable[str]) -> dict[str, StoredEvent]:
        """One read each, found or not."""
        wanted = list(event_ids)
        found = super().get_many(tenant_id, wanted)
        self.read_units += sum(math.ceil(_size(found[name]) / 4096) if name in found else 1 for name in wanted)
        return found

    def by_interaction(self, tenant_id: str, interaction_id: str) -> list[StoredEvent]:
        """One query."""
        found = super().by_interaction(tenant_id, interaction_id)
        self.read_units += max(1, math.ceil(sum(map(_size, found)) / 4096))
        return found


def _size(event: StoredEvent) -> int:
    """Bytes as DynamoDB counts them: names and values."""
    item = item_of(event, expires_at=event.received_at + timedelta(days=365))
    return sum(len(name) + sum(len(str(value).encode()) for value in attribute.values()) for name, attribute in item.items())


def requests() -> list[dict[str, object]]:
    """The office's events as API Gateway hands them over, 25 a request."""
    events = list(office_events(INTERACTIONS))
    return [proxy_event("/v1/events:batch", {"events": events[first : first + BATCH]}) for first in range(0, len(events), BATCH)]


def ingest(asked: list[dict[str, object]], store: MemoryEventStore, scrubber: Scrubber) -> float:
    """CPU seconds for every request, from the body to each event's answer."""
    skills = furnished()
    started = time.process_time()
    for event in asked:
        given = batched(MODELS, event, limit=500)
        taken = [one for one in given if not isinstance(one, RlaasError)]
        outcomes = record_all(taken, TENANT, store, clock, skills=skills, scrubber=scrubber)
        assert not any(isinstance(outcome, RlaasError) for outcome in outcomes)
        assert len(outcomes) == BATCH
    return time.process_time() - started


def rewards_usd_per_million() -> float:
    """What following a million events up costs the hot store: joins and rewards."""
    store, skills = MeteredStore(), furnished()
    asked = requests()[:100]
    ingest(asked, store, AS_IT_IS)
    store.write_units = store.read_units = 0
    landed = list(store.events.values())
    for event in landed:
        join_waiting(event, store=store)
        record_reward(event, store=store, specs=skills, clock=lambda: NOW)
    scale = MILLION / len(landed)
    return scale * (store.write_units * WRITE_UNIT_USD + store.read_units * READ_UNIT_USD)


def figures() -> dict[str, float]:
    """Rates per second of one core, and USD per million events."""
    asked = requests()
    events = len(asked) * BATCH
    scrubs = Scrubber(PrivacySettings(), salt=b"bench")
    ingest(asked[:20], MemoryEventStore(), scrubs)  # warm
    runs = [(ingest(asked, MemoryEventStore(), AS_IT_IS), ingest(asked, MemoryEventStore(), scrubs)) for _ in range(RUNS)]
    plain_s, scrubbed_s = (statistics.median(times) for times in zip(*runs, strict=True))
    metered = MeteredStore()
    ingest(asked, metered, AS_IT_IS)
    store_usd = MILLION / events * (metered.write_units * WRITE_UNIT_USD + metered.read_units * READ_UNIT_USD)
    billed_s = scrubbed_s / len(asked) / FUNCTION_CORES + 4 * DYNAMODB_MS / 1000
    per_request = API_REQUEST_USD + INVOCATION_USD + billed_s * FUNCTION_GIB * GB_SECOND_USD
    stream_usd = (
        2 * MILLION / STREAM_BATCH * (INVOCATION_USD + 0.1 * FUNCTION_GIB * GB_SECOND_USD)
    )  # lake writer, reward writer: 0.1 s each
    payload = sum(len(event.payload.encode()) for event in metered.events.values()) // events
    lake = lake_usd_per_million(payload)
    usd = store_usd + MILLION / BATCH * per_request + stream_usd + lake["lake_usd"]
    return {
        "ingest_events_per_s": events / plain_s,
        "ingest_scrubbed_events_per_s": events / scrubbed_s,
        "event_payload_bytes": float(payload),
        "write_units_per_event": metered.write_units / events,
        "million_events_store_usd": store_usd,
        "million_events_api_usd": MILLION / BATCH * per_request,
        "million_events_stream_usd": stream_usd,
        "million_events_lake_usd": lake["lake_usd"],
        "million_events_usd": usd,
        "million_events_rewards_usd": rewards_usd_per_million(),
    }


def main() -> None:
    """Print the table and keep it."""
    report("telemetry", "make bench-telemetry", figures())


if __name__ == "__main__":
    main()
