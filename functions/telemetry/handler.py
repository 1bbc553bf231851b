"""What users do with each answer: `/v1/interaction.create`, `/v1/interaction.output`, `/v1/feedback.submit`, `/v1/task_result`, and many
of them at once: `/v1/events:batch`."""

from functools import cache, partial

from pydantic import JsonValue

from rlaas.aws.entity_finder import LambdaEntityFinder
from rlaas.aws.events import DynamoEventStore
from rlaas.aws.registry import DynamoRegistry
from rlaas.clock import utc_now
from rlaas.errors import RlaasError
from rlaas.runtime.admission import admitted
from rlaas.runtime.api import Reply, serving
from rlaas.runtime.environment import IngestEnvironment, environment
from rlaas.runtime.http import Caller, Event, batched, error_body, header, parse, request_id, status_of
from rlaas.runtime.scrubbers import Scrubbers
from rlaas.telemetry.events import AnyEvent, FeedbackSubmitted, InteractionCreated, OutputProduced, TaskResultReported
from rlaas.telemetry.ingest import Recorded, record, record_all
from rlaas.tenancy.keys import require_scope

MODELS: dict[str, type[AnyEvent]] = {
    "interaction": InteractionCreated,
    "output": OutputProduced,
    "feedback": FeedbackSubmitted,
    "task_result": TaskResultReported,
}
MAX_BATCH = 500


@cache
def stores() -> tuple[DynamoEventStore, DynamoRegistry]:
    """The events and the registry, made on first use."""
    settings = environment(IngestEnvironment)
    return DynamoEventStore(settings.events_table, ttl_days=settings.event_ttl_days), DynamoRegistry(settings.registry_table)


@cache
def scrubbers() -> Scrubbers:
    """The tenants' scrubbers, made on first use."""
    settings = environment(IngestEnvironment)
    finder = LambdaEntityFinder(settings.find_entities_function, at_once=settings.find_entities_at_once)
    return Scrubbers(stores()[1], clock=utc_now, finder=finder)


def permitted(event: Event) -> Caller:
    """The caller, who must hold the scope `telemetry`."""
    who = admitted(event)
    require_scope(who.scopes, "telemetry")
    return who


def ingest(event_type: str, event: Event) -> Reply:
    """Record the request's event: 201 new, 202 new and waiting for what it refers to, 200 replayed."""
    who = permitted(event)
    store, skills = stores()
    key = header(event, "Idempotency-Key")
    recorded = record(
        parse(MODELS[event_type], event),
        who.tenant_id,
        store,
        utc_now,
        skills=skills,
        scrubber=scrubbers().of(who.tenant_id),
        idempotency_key=key,
    )
    return Reply(_status(recorded), {f"{event_type}_id": recorded.event_id, **_told(recorded)})


def record_batch(event: Event) -> Reply:
    """Up to 500 events of any type; the answer says for each, in the order sent, what the endpoint of its type would have said."""
    who = permitted(event)
    store, skills = stores()
    given = batched(MODELS, event, limit=MAX_BATCH)
    key = header(event, "Idempotency-Key")
    outcomes = iter(
        record_all(
            [one for one in given if not isinstance(one, RlaasError)],
            who.tenant_id,
            store,
            utc_now,
            skills=skills,
            scrubber=scrubbers().of(who.tenant_id),
            idempotency_keys=[f"{key}/{place}" if key else None for place, one in enumerate(given) if not isinstance(one, RlaasError)],
        )
    )
    results = [_result(one if isinstance(one, RlaasError) else next(outcomes), request_id(event)) for one in given]
    return Reply(200, {"results": results})


def _result(outcome: Recorded | RlaasError, request: str) -> JsonValue:
    if isinstance(outcome, RlaasError):
        return {"status": status_of(outcome), **error_body(outcome, request)}
    return {"status": _status(outcome), "id": outcome.event_id, **_told(outcome)}


def _status(recorded: Recorded) -> int:
    return 200 if not recorded.new else 202 if recorded.pending else 201


def _told(recorded: Recorded) -> dict[str, JsonValue]:
    return {"idempotent_replay": not recorded.new, "pending": recorded.pending}


handler = serving(
    {
        "POST /v1/interaction.create": partial(ingest, "interaction"),
        "POST /v1/interaction.output": partial(ingest, "output"),
        "POST /v1/feedback.submit": partial(ingest, "feedback"),
        "POST /v1/task_result": partial(ingest, "task_result"),
        "POST /v1/events:batch": record_batch,
    }
)
