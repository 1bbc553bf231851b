"""`/v1/infer` answers; `/v1/decide`, `/v1/models` and OpenFeature's remote evaluation say which model would answer."""

from rlaas.api import answering, deciding
from rlaas.api.admission import admit_caller
from rlaas.api.asker_admission import admit_asker, check_page_request
from rlaas.api.hot_paths import Reply, make_handler
from rlaas.api.http import Caller, GatewayEvent, header, parse, path_parameter
from rlaas.api.model_names import skill_not_found
from rlaas.errors import NotFound
from rlaas.inference.decide import InferRequest
from rlaas.runtime.stage import current_stage
from rlaas.tenancy.keys import require_scope


def admit_evaluator(event: GatewayEvent) -> Caller:
    """The caller, who may evaluate flags. Raises: as `admit_caller`; Forbidden."""
    who = admit_caller(event)
    require_scope(who.scopes, "flags", "infer")
    return who


def infer(event: GatewayEvent) -> Reply:
    """Answer a skill's inputs with a draft and its decision."""
    who, stage = admit_asker(event, from_pages=True), current_stage()
    request, key = parse(InferRequest, event), header(event, "Idempotency-Key")
    if who.publishable:
        check_page_request(request)
    with skill_not_found(who, stage):
        if request.dryrun:
            return Reply(200, deciding.decide_request(request, who, stage=stage, idempotency_key=key))
        result = answering.answer_request(request, who, stage=stage, idempotency_key=key, traceparent=header(event, "traceparent"))
    return Reply(200, answering.infer_body(result))


def decide(event: GatewayEvent) -> Reply:
    """The decision, the request for the model, and a grant with which the caller asks the model directly."""
    who, stage, key = admit_asker(event), current_stage(), header(event, "Idempotency-Key")
    with skill_not_found(who, stage):
        return Reply(200, deciding.decide_request(parse(InferRequest, event), who, stage=stage, idempotency_key=key))


def list_models(event: GatewayEvent) -> Reply:
    """The tenant's skills and policies, as models of the OpenAI API."""
    entries = deciding.models(admit_asker(event), stage=current_stage())
    return Reply(200, {"object": "list", "data": [*entries]})


def show_model(event: GatewayEvent) -> Reply:
    """One skill or policy, as a model of the OpenAI API."""
    return Reply(200, deciding.model(admit_asker(event), path_parameter(event, "model"), stage=current_stage()))


def evaluate_flag(event: GatewayEvent) -> Reply:
    """The arm of one skill for a unit."""
    return Reply(*deciding.flag(path_parameter(event, "key"), admit_evaluator(event), event, stage=current_stage()))


def evaluate_flags(event: GatewayEvent) -> Reply:
    """The arm of every skill for a unit."""
    return Reply(*deciding.flags(admit_evaluator(event), event, stage=current_stage()))


def refuse_stored_responses(event: GatewayEvent) -> Reply:
    """Of OpenAI's Responses API there is one operation."""
    admit_asker(event)
    raise NotFound(
        "of the Responses API there is POST /v1/responses alone: responses are not read, deleted, cancelled, listed, counted or compacted; "
        "go on from one by previous_response_id"
    )


handler = make_handler(
    {
        "POST /v1/infer": infer,
        "POST /v1/decide": decide,
        "GET /v1/models": list_models,
        "GET /v1/models/{model}": show_model,
        "POST /ofrep/v1/evaluate/flags/{key}": evaluate_flag,
        "POST /ofrep/v1/evaluate/flags": evaluate_flags,
        **dict.fromkeys((f"{method} /v1/responses/{{proxy+}}" for method in ("GET", "POST", "DELETE")), refuse_stored_responses),
    }
)
