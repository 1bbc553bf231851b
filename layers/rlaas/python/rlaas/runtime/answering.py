"""The inference use case on the stage's stores, measured: for `/v1/infer` and for `/v1/chat/completions`, whole and streamed."""

from collections.abc import Generator
from functools import cache

from rlaas.aws.events import DynamoEventStore
from rlaas.aws.registry import DynamoRegistry
from rlaas.aws.sagemaker_backend import SageMakerEndpoints
from rlaas.clock import utc_now
from rlaas.inference.backend import Choice, Delta
from rlaas.inference.chat_stream import deltas_of
from rlaas.inference.infer import Answer, InferRequest, infer
from rlaas.runtime.environment import EventsEnvironment
from rlaas.runtime.http import Caller
from rlaas.runtime.metrics import emit
from rlaas.runtime.scrubbers import Scrubbers


@cache
def stores(settings: EventsEnvironment) -> tuple[DynamoEventStore, DynamoRegistry]:
    """The events and the registry, made on first use."""
    return DynamoEventStore(settings.events_table, ttl_days=settings.event_ttl_days), DynamoRegistry(settings.registry_table)


@cache
def scrubbers(settings: EventsEnvironment) -> Scrubbers:
    """The tenants' scrubbers, made on first use."""
    return Scrubbers(stores(settings)[1], clock=utc_now)


def answered(request: InferRequest, who: Caller, *, settings: EventsEnvironment, idempotency_key: str | None) -> Answer:
    """The whole answer. Raises what `infer` does."""
    store, registry = stores(settings)
    result = infer(
        request,
        who.tenant_id,
        routes=registry,
        backend=SageMakerEndpoints(),
        store=store,
        scrubber=scrubbers(settings).of(who.tenant_id),
        clock=utc_now,
        idempotency_key=idempotency_key,
    )
    if not result.replay:
        emit(
            {
                "BackendLatency": (result.latency_ms, "Milliseconds"),
                "Overhead": (result.overhead_ms, "Milliseconds"),
                "Fallback": (float(result.decision.fallback), "Count"),
            },
            dimensions={"stage": settings.stage},
            at=utc_now(),
            properties={"tenant_id": who.tenant_id, "skill": request.skill, "output_id": result.output_id},
        )
    return result


def streamed(
    request: InferRequest, who: Caller, *, settings: EventsEnvironment, idempotency_key: str | None
) -> tuple[Answer, Generator[Delta, None, None]]:
    """The answer as it comes: what is known before its first piece, and the pieces. Raises what `infer` does."""
    result = answered(request, who, settings=settings, idempotency_key=idempotency_key)
    return result, deltas_of([Choice(result.text, result.finish_reason)], result.usage)
