"""The simulated office's events as requests of 25, and the ingest use case that takes them, in process."""

import itertools
import time
from collections.abc import Iterator

from local.office.templates import iterate_cases
from rlaas.api.http import parse_batch
from rlaas.errors import RlaasError
from rlaas.privacy.scrub import Scrubber
from rlaas.telemetry.events import REPORTED
from rlaas.telemetry.ingest import record_events
from rlaas.telemetry.store import EventStore
from tests.fakes.gateway import make_proxy_event
from tests.fakes.worlds import SKILL, TENANT, clock, furnish_registry

BATCH = 25
EVENTS_PER_INTERACTION = 4


def office_events(interactions: int) -> Iterator[dict[str, object]]:
    """Events as an SDK sends them, with ids that name their interaction."""
    for number, case in enumerate(itertools.islice(iterate_cases("train", 1), interactions)):
        ulid = f"01{number:024d}"
        about: dict[str, object] = {"skill": SKILL, "interaction_id": f"int_{ulid}", "thread_id": f"thread-{number // 3}"}
        draft = f"Dear {case.full_name},\n\nThank you for reaching out to us. {case.answer}\n\nKind regards,\nSupport"
        final = f"Hi {case.first_name},\n\n{case.answer}\n\nBest,\nThe Northwind Support Team"
        about_output = {**about, "output_id": f"out_{ulid}"}
        yield {"type": "interaction", **about, "inputs": case.inputs}
        yield {"type": "output", **about_output, "text": draft, "usage": {"input_tokens": 90, "output_tokens": 60}, "latency_ms": 812.5}
        yield {"type": "feedback", **about_output, "feedback_id": f"fbk_{ulid}_edit", "kind": "edit", "final_text": final}
        yield {"type": "feedback", **about_output, "feedback_id": f"fbk_{ulid}_sent", "kind": "action", "action": "sent"}


def batches(number: int) -> list[list[dict[str, object]]]:
    """`number` batches of 25 events."""
    events = list(office_events(-(-number * BATCH // EVENTS_PER_INTERACTION)))
    return [events[first * BATCH : (first + 1) * BATCH] for first in range(number)]


def requests(number: int) -> list[dict[str, object]]:
    """`number` batches as events of API Gateway."""
    return [make_proxy_event("/v1/events:batch", {"events": batch}) for batch in batches(number)]


def ingest(api_events: list[dict[str, object]], store: EventStore, scrubber: Scrubber) -> float:
    """CPU seconds for every request, from the body to each event's answer."""
    skills = furnish_registry()
    start = time.process_time()
    for event in api_events:
        parsed = parse_batch(REPORTED, event, limit=500)
        valid = [one for one in parsed if not isinstance(one, RlaasError)]
        outcomes = record_events(valid, TENANT, store, clock, skills=skills, scrubber=scrubber)
        assert not any(isinstance(outcome, RlaasError) for outcome in outcomes)
        assert len(outcomes) == BATCH
    return time.process_time() - start
