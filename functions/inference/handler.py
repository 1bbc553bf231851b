"""Answers: `/v1/infer`, and `/v1/chat/completions` for OpenAI's clients."""

from collections.abc import Mapping
from functools import cache

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.utilities.typing import LambdaContext

from rlaas.aws.entity_finder import LambdaEntityFinder
from rlaas.aws.events import DynamoEventStore
from rlaas.aws.registry import DynamoRegistry
from rlaas.aws.sagemaker_backend import SageMakerEndpoints
from rlaas.clock import utc_now
from rlaas.inference.chat import ChatRequest, to_completion, to_infer
from rlaas.inference.infer import Answer, InferRequest, infer
from rlaas.runtime.api import answer, api
from rlaas.runtime.environment import IngestEnvironment, environment
from rlaas.runtime.http import Caller, caller, header, parse
from rlaas.runtime.metrics import emit
from rlaas.runtime.scrubbers import Scrubbers
from rlaas.tenancy.keys import require_scope

app = api()


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


def answered(request: InferRequest, who: Caller) -> Answer:
    """The use case on the stage's stores, measured."""
    store, registry = stores()
    result = infer(
        request,
        who.tenant_id,
        routes=registry,
        backend=SageMakerEndpoints(),
        store=store,
        scrubber=scrubbers().of(who.tenant_id),
        clock=utc_now,
        idempotency_key=header(app.current_event.raw_event, "Idempotency-Key"),
    )
    if not result.replay:
        emit(
            {
                "BackendLatency": (result.latency_ms, "Milliseconds"),
                "Overhead": (result.overhead_ms, "Milliseconds"),
                "Fallback": (float(result.decision.fallback), "Count"),
            },
            dimensions={"stage": environment(IngestEnvironment).stage},
            at=utc_now(),
            properties={"tenant_id": who.tenant_id, "skill": request.skill, "output_id": result.output_id},
        )
    return result


def permitted() -> Caller:
    """The caller, who must hold the scope `infer`."""
    who = caller(app.current_event.raw_event)
    require_scope(who.scopes, "infer")
    return who


@app.post("/v1/infer")
def native() -> Response[str]:
    """The skill's inputs in, the draft and its decision out."""
    who = permitted()
    result = answered(parse(InferRequest, app.current_event.raw_event), who)
    return answer(
        200,
        {
            "interaction_id": result.interaction_id,
            "output_id": result.output_id,
            "text": result.text,
            "policy_id": result.policy_id,
            "decision": result.decision.model_dump(mode="json"),
            "usage": result.usage.model_dump() if result.usage else None,
            "finish_reason": result.finish_reason,
            "latency_ms": result.latency_ms,
            "idempotent_replay": result.replay,
        },
    )


@app.post("/v1/chat/completions")
def chat() -> Response[str]:
    """OpenAI's chat completions."""
    who = permitted()
    request = parse(ChatRequest, app.current_event.raw_event)
    return answer(200, to_completion(request, answered(to_infer(request), who), created=utc_now()))


def handler(event: Mapping[str, object], context: LambdaContext) -> dict[str, object]:
    """The Lambda entry point."""
    return app.resolve(dict(event), context)
