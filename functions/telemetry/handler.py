"""Records what users do with each answer: `/v1/interaction.create`, `/v1/interaction.output`, `/v1/feedback.submit`,
`/v1/task_result`, and many events at once, `/v1/events:batch`. `/v1/feedback.token` lets a page give feedback."""

from functools import partial

from pydantic import JsonValue

from rlaas.api.admission import admit_caller
from rlaas.api.hot_paths import Reply, make_handler
from rlaas.api.http import Caller, GatewayEvent, caller, error_body, find_status, header, parse, parse_batch, request_id
from rlaas.clock import utc_now
from rlaas.errors import Forbidden, RlaasError
from rlaas.runtime.stage import current_stage, import_ahead
from rlaas.telemetry.events import MAX_BATCH, REPORTED
from rlaas.telemetry.feedback_token import FeedbackTokenRequest, issue_feedback_token
from rlaas.telemetry.ingest import RecordedEvent, record_event, record_events
from rlaas.telemetry.permission import FEEDBACK_ONLY
from rlaas.tenancy.keys import require_scope

import_ahead("adapters.aws.entity_finder", "adapters.aws.events", "runtime.scrubbers")

MAX_PAGE_BATCH, MAX_PAGE_BATCH_BYTES = 25, 512 * 1024
"""Most events, and most bytes, in one batch with a publishable key."""


def authorize(event: GatewayEvent, *, events: int = 1) -> Caller:
    """The caller, who must have the scope `telemetry`. Raises: Unauthorized, Forbidden, QuotaExceeded."""
    who = admit_caller(event, events=events)
    require_scope(who.scopes, "telemetry")
    return who


def authorize_server(event: GatewayEvent) -> Caller:
    """The caller, whose key must also be secret. Raises: as `authorize`."""
    who = authorize(event)
    if who.publishable:
        raise Forbidden(FEEDBACK_ONLY, param="type")
    return who


def ingest(event_type: str, event: GatewayEvent) -> Reply:
    """Record the request's event: 201 new, 202 new and waiting for the event that it refers to, 200 replayed."""
    who = authorize(event) if event_type == "feedback" else authorize_server(event)
    stage = current_stage()
    key = header(event, "Idempotency-Key")
    result = record_event(
        parse(REPORTED[event_type], event),
        who.tenant_id,
        stage.events,
        utc_now,
        skills=stage.registry,
        scrubber=stage.scrubbers.of(who.tenant_id),
        idempotency_key=key,
        page_key_id=_find_page_key(who),
    )
    return Reply(_find_status(result), {f"{event_type}_id": result.event_id, **_build_reply_fields(result)})


def record_batch(event: GatewayEvent) -> Reply:
    """Record up to 500 events of any type, from a page up to 25; the reply has for each, in the order sent, what the
    endpoint of its type would have replied."""
    if caller(event).publishable:
        events = parse_batch(REPORTED, event, limit=MAX_PAGE_BATCH, most_bytes=MAX_PAGE_BATCH_BYTES)
        who = authorize(event, events=len(events))
    else:
        who = authorize(event)
        events = parse_batch(REPORTED, event, limit=MAX_BATCH)
    stage = current_stage()
    key = header(event, "Idempotency-Key")
    outcomes = iter(
        record_events(
            [item for item in events if not isinstance(item, RlaasError)],
            who.tenant_id,
            stage.events,
            utc_now,
            skills=stage.registry,
            scrubber=stage.scrubbers.of(who.tenant_id),
            idempotency_keys=[f"{key}/{place}" if key else None for place, item in enumerate(events) if not isinstance(item, RlaasError)],
            page_key_id=_find_page_key(who),
        )
    )
    results = [_build_result(item if isinstance(item, RlaasError) else next(outcomes), request_id(event)) for item in events]
    return Reply(200, {"results": results})


def make_token(event: GatewayEvent) -> Reply:
    """The token with which a page may give feedback on an output, for a back end that reports outputs in the
    background."""
    who = authorize_server(event)
    output = parse(FeedbackTokenRequest, event).to_shown()
    return Reply(200, {"feedback_token": issue_feedback_token(output, scrubber=current_stage().scrubbers.of(who.tenant_id), now=utc_now())})


def _find_page_key(who: Caller) -> str | None:
    return who.key_id if who.publishable else None


def _build_result(outcome: RecordedEvent | RlaasError, request: str) -> JsonValue:
    if isinstance(outcome, RlaasError):
        return {"status": find_status(outcome), **error_body(outcome, request)}
    return {"status": _find_status(outcome), "id": outcome.event_id, **_build_reply_fields(outcome)}


def _find_status(result: RecordedEvent) -> int:
    return 200 if not result.new else 202 if result.pending else 201


def _build_reply_fields(result: RecordedEvent) -> dict[str, JsonValue]:
    token: dict[str, JsonValue] = {"feedback_token": result.feedback_token} if result.feedback_token else {}
    return {"idempotent_replay": not result.new, "pending": result.pending, **token}


handler = make_handler(
    {
        "POST /v1/interaction.create": partial(ingest, "interaction"),
        "POST /v1/interaction.output": partial(ingest, "output"),
        "POST /v1/feedback.submit": partial(ingest, "feedback"),
        "POST /v1/feedback.token": make_token,
        "POST /v1/task_result": partial(ingest, "task_result"),
        "POST /v1/events:batch": record_batch,
    }
)
