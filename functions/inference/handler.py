"""Answers: `/v1/infer`; who would answer: `/v1/decide`, `/v1/models`, and OpenFeature's remote evaluation."""

from rlaas.api import answering, deciding
from rlaas.api.admission import admitted
from rlaas.api.hot_paths import Reply, serving
from rlaas.api.http import Caller, Event, header, named, parse
from rlaas.inference.decide import InferRequest
from rlaas.runtime.environment import DecidingEnvironment, environment
from rlaas.tenancy.keys import require_scope


def permitted(event: Event) -> Caller:
    """The caller, who must hold the scope `infer`."""
    who = admitted(event)
    require_scope(who.scopes, "infer")
    return who


def infer(event: Event) -> Reply:
    """The skill's inputs in, the draft and its decision out."""
    who, settings = permitted(event), environment(DecidingEnvironment)
    request, key = parse(InferRequest, event), header(event, "Idempotency-Key")
    if request.dryrun:
        return Reply(200, deciding.decide_request(request, who, settings=settings, idempotency_key=key))
    result = answering.answer_request(request, who, settings=settings, idempotency_key=key, traceparent=header(event, "traceparent"))
    return Reply(200, answering.infer_body(result))


def decide(event: Event) -> Reply:
    """The decision, what to ask the model, and a grant with which the caller asks it directly."""
    who, settings, key = permitted(event), environment(DecidingEnvironment), header(event, "Idempotency-Key")
    return Reply(200, deciding.decide_request(parse(InferRequest, event), who, settings=settings, idempotency_key=key))


def models(event: Event) -> Reply:
    """The tenant's skills and policies, as models of the OpenAI API."""
    found = deciding.models(permitted(event), settings=environment(DecidingEnvironment))
    return Reply(200, {"object": "list", "data": [*found]})


def model(event: Event) -> Reply:
    """One of them."""
    return Reply(200, deciding.model(permitted(event), named(event, "model"), settings=environment(DecidingEnvironment)))


def flag(event: Event) -> Reply:
    """A skill's arm for a unit."""
    return Reply(*deciding.flag(named(event, "key"), permitted(event), event, settings=environment(DecidingEnvironment)))


def flags(event: Event) -> Reply:
    """Every skill's arm for a unit."""
    return Reply(*deciding.flags(permitted(event), event, settings=environment(DecidingEnvironment)))


handler = serving(
    {
        "POST /v1/infer": infer,
        "POST /v1/decide": decide,
        "GET /v1/models": models,
        "GET /v1/models/{model}": model,
        "POST /ofrep/v1/evaluate/flags/{key}": flag,
        "POST /ofrep/v1/evaluate/flags": flags,
    }
)
