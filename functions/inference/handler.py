"""Answers: `/v1/infer`; who would answer: `/v1/decide`, `/v1/models`, and OpenFeature's remote evaluation."""

from rlaas.api import answering, deciding
from rlaas.api.admission import admitted
from rlaas.api.hot_paths import Reply, serving
from rlaas.api.http import Caller, Event, header, named, parse
from rlaas.inference.decide import InferRequest
from rlaas.runtime.stage import current_stage
from rlaas.tenancy.keys import require_scope


def permitted(event: Event) -> Caller:
    """The caller, who must hold the scope `infer`."""
    who = admitted(event)
    require_scope(who.scopes, "infer")
    return who


def infer(event: Event) -> Reply:
    """The skill's inputs in, the draft and its decision out."""
    who, stage = permitted(event), current_stage()
    request, key = parse(InferRequest, event), header(event, "Idempotency-Key")
    if request.dryrun:
        return Reply(200, deciding.decide_request(request, who, stage=stage, idempotency_key=key))
    result = answering.answer_request(request, who, stage=stage, idempotency_key=key, traceparent=header(event, "traceparent"))
    return Reply(200, answering.infer_body(result))


def decide(event: Event) -> Reply:
    """The decision, what to ask, and leave to ask the model oneself."""
    who, stage, key = permitted(event), current_stage(), header(event, "Idempotency-Key")
    return Reply(200, deciding.decide_request(parse(InferRequest, event), who, stage=stage, idempotency_key=key))


def models(event: Event) -> Reply:
    """The tenant's skills and policies, as models of the OpenAI API."""
    found = deciding.models(permitted(event), stage=current_stage())
    return Reply(200, {"object": "list", "data": [*found]})


def model(event: Event) -> Reply:
    """One of them."""
    return Reply(200, deciding.model(permitted(event), named(event, "model"), stage=current_stage()))


def flag(event: Event) -> Reply:
    """A skill's arm for a unit."""
    return Reply(*deciding.flag(named(event, "key"), permitted(event), event, stage=current_stage()))


def flags(event: Event) -> Reply:
    """Every skill's arm for a unit."""
    return Reply(*deciding.flags(permitted(event), event, stage=current_stage()))


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
