"""The inference use case on the stage's stores, measured: for `/v1/infer` and for `/v1/chat/completions`, whole and streamed."""

import time
from functools import cache

from pydantic import JsonValue

from rlaas.aws.backends import Backends
from rlaas.aws.counters import DynamoCounters
from rlaas.aws.events import DynamoEventStore
from rlaas.aws.registry import DynamoRegistry
from rlaas.aws.secrets import VendorKeys
from rlaas.clock import utc_now
from rlaas.inference.attempts import CircuitBreakers
from rlaas.inference.infer import Answer, AnswerStream, Asker, Gateway, InferRequest, infer, infer_stream
from rlaas.runtime.environment import EventsEnvironment, InferenceEnvironment
from rlaas.runtime.http import Caller
from rlaas.runtime.metrics import emit
from rlaas.runtime.scrubbers import Scrubbers
from rlaas.runtime.spendings import Spendings


@cache
def stores(settings: EventsEnvironment) -> tuple[DynamoEventStore, DynamoRegistry]:
    """The events and the registry, made on first use."""
    return DynamoEventStore(settings.events_table, ttl_days=settings.event_ttl_days), DynamoRegistry(settings.registry_table)


@cache
def scrubbers(settings: EventsEnvironment) -> Scrubbers:
    """The tenants' scrubbers, made on first use."""
    return Scrubbers(stores(settings)[1], clock=utc_now)


@cache
def spendings(settings: InferenceEnvironment) -> Spendings:
    """The tenants' budgets and prices, made on first use."""
    counters = DynamoCounters(settings.counters_table)
    return Spendings(stores(settings)[1], counters, clock=utc_now, lifetime_s=settings.reservation_seconds)


@cache
def backends(stage: str) -> Backends:
    """The process's connections to models. On the laptop a policy may name a server on the laptop itself."""
    return Backends(VendorKeys(stage), private_addresses=stage == "local")


@cache
def breakers() -> CircuitBreakers:
    """The process's circuit breakers."""
    return CircuitBreakers(time.perf_counter)


def gateway(who: Caller, settings: InferenceEnvironment) -> Gateway:
    """What the caller's requests are answered with."""
    store, registry = stores(settings)
    return Gateway(
        routes=registry,
        backend=backends(settings.stage),
        store=store,
        scrubber=scrubbers(settings).of(who.tenant_id),
        spending=spendings(settings).of(who.tenant_id),
        clock=utc_now,
        breakers=breakers(),
    )


def answered(
    request: InferRequest, who: Caller, *, settings: InferenceEnvironment, idempotency_key: str | None, trace: str | None
) -> Answer:
    """The whole answer. `trace` is the request's `traceparent`. Raises what `infer` does."""
    result = infer(request, Asker(who.tenant_id, who.key_id, trace), gateway(who, settings), idempotency_key=idempotency_key)
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
    request: InferRequest, who: Caller, *, settings: InferenceEnvironment, idempotency_key: str | None, trace: str | None
) -> AnswerStream:
    """The answer as it comes. Raises what `infer_stream` does."""
    return infer_stream(request, Asker(who.tenant_id, who.key_id, trace), gateway(who, settings), idempotency_key=idempotency_key)


def told(result: Answer) -> dict[str, JsonValue]:
    """What `/v1/infer` answers."""
    return {
        "interaction_id": result.interaction_id,
        "output_id": result.output_id,
        "text": result.text,
        "tool_calls": [call.model_dump(mode="json") for call in result.choices[0].tool_calls],
        "policy_id": result.policy_id,
        "decision": result.decision.model_dump(mode="json"),
        "usage": result.usage.model_dump() if result.usage else None,
        "finish_reason": result.finish_reason,
        "latency_ms": result.latency_ms,
        "idempotent_replay": result.replay,
    }
