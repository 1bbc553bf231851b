"""Answers: `/v1/infer`; who would answer: `/v1/decide`, `/v1/models`, and OpenFeature's remote evaluation."""

from collections.abc import Mapping

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.utilities.typing import LambdaContext

from rlaas.inference.infer import InferRequest
from rlaas.runtime import answering, deciding
from rlaas.runtime.api import answer, api
from rlaas.runtime.environment import DecidingEnvironment, environment
from rlaas.runtime.http import Caller, caller, header, parse
from rlaas.tenancy.keys import require_scope

app = api()


def permitted() -> Caller:
    """The caller, who must hold the scope `infer`."""
    who = caller(app.current_event.raw_event)
    require_scope(who.scopes, "infer")
    return who


@app.post("/v1/infer")
def native() -> Response[str]:
    """The skill's inputs in, the draft and its decision out."""
    who, event = permitted(), app.current_event.raw_event
    request, settings, key = parse(InferRequest, event), environment(DecidingEnvironment), header(event, "Idempotency-Key")
    if request.dryrun:
        return answer(200, deciding.decided(request, who, settings=settings, idempotency_key=key))
    result = answering.answered(request, who, settings=settings, idempotency_key=key, traceparent=header(event, "traceparent"))
    return answer(200, answering.told(result))


@app.post("/v1/decide")
def decide() -> Response[str]:
    """The decision, what to ask, and leave to ask the model oneself."""
    who, event = permitted(), app.current_event.raw_event
    settings, key = environment(DecidingEnvironment), header(event, "Idempotency-Key")
    return answer(200, deciding.decided(parse(InferRequest, event), who, settings=settings, idempotency_key=key))


@app.get("/v1/models")
def models() -> Response[str]:
    """The tenant's skills and policies, as models of the OpenAI API."""
    return answer(200, {"object": "list", "data": [*deciding.models(permitted(), settings=environment(DecidingEnvironment))]})


@app.get("/v1/models/<model>")
def model(model: str) -> Response[str]:
    """One of them."""
    return answer(200, deciding.model(permitted(), model, settings=environment(DecidingEnvironment)))


@app.post("/ofrep/v1/evaluate/flags/<key>")
def flag(key: str) -> Response[str]:
    """A skill's arm for a unit."""
    return answer(*deciding.flag(key, permitted(), app.current_event.raw_event, settings=environment(DecidingEnvironment)))


@app.post("/ofrep/v1/evaluate/flags")
def flags() -> Response[str]:
    """Every skill's arm for a unit."""
    return answer(*deciding.flags(permitted(), app.current_event.raw_event, settings=environment(DecidingEnvironment)))


def handler(event: Mapping[str, object], context: LambdaContext) -> dict[str, object]:
    """The Lambda entry point."""
    return app.resolve(dict(event), context)
