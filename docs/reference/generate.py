"""Write the JSON Schema of each event and the OpenAPI document of the whole API from their models.

    python docs/reference/generate.py

A test holds what is checked in equal to what this makes.
"""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from functools import cache, reduce
from operator import or_
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, JsonValue, create_model
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, models_json_schema

from rlaas.api.admin.app import ROUTERS, admin_app
from rlaas.api.admin.operations import build_schema, list_operations
from rlaas.api.admin.services import Services
from rlaas.api.hot_answers import (
    ChatCompletion,
    DecideAnswer,
    DecideDryRun,
    Flag,
    FlagList,
    InferAnswer,
    ListedModel,
    ModelList,
)
from rlaas.api.message_answers import MessageAnswer, MessageError, TokenCount
from rlaas.api.response_answers import OpenAIResponse
from rlaas.inference.chat_completions import ChatRequest
from rlaas.inference.decide import InferRequest
from rlaas.inference.messages import CountRequest, MessagesRequest
from rlaas.inference.responses import ResponsesRequest
from rlaas.telemetry.events import (
    MAX_BATCH,
    REPORTED,
    FeedbackSubmitted,
    InteractionCreated,
    OutputProduced,
    RewardComputed,
    TaskResultReported,
)
from rlaas.telemetry.feedback_token import FeedbackTokenRequest
from rlaas.telemetry.store import MODELS
from rlaas.wire import WireModel

HERE = Path(__file__).parent
_ITEM = re.compile(r"\s*([-*]|\d{1,2}\.) ")
_CODE = " " * 4
_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_REF = "#/components/schemas/{model}"
_ERRORS = {
    "400": "InvalidInput: `param` is the path of the first field that does not fit",
    "401": "Unauthorized: no valid key",
    "403": "Forbidden: the key lacks the scope, or is publishable and not for pages of this origin or for what `param` names",
    "404": "NotFound: the tenant has no such thing",
    "409": "Conflict: the id holds another payload, or the document changed since it was read",
    "413": "PayloadTooLarge: the body, or what masking makes of it, is too large; sending it again does not help",
    "415": "UnsupportedEncoding: the `Content-Encoding` is neither gzip nor left out",
    "424": "Misconfigured: the backends refuse what the policy names; the tenant mends it, and nobody need try again",
    "429": "QuotaExceeded, RateLimited: try again after `Retry-After` seconds",
    "500": "InternalError: the request id finds it in the log",
    "503": "DependencyUnavailable: try again, after `Retry-After` seconds where it says so",
}
_TELEMETRY: dict[str, tuple[type[BaseModel], str, str]] = {
    "/v1/interaction.create": (InteractionCreated, "interaction_id", "Report a request that an application's user made"),
    "/v1/interaction.output": (OutputProduced, "output_id", "Report what answered it"),
    "/v1/feedback.submit": (FeedbackSubmitted, "feedback_id", "Report what the user did with the answer"),
    "/v1/task_result": (TaskResultReported, "task_result_id", "Report what came of it"),
}
_Models = Sequence[type[BaseModel]]
_INFERENCE: dict[str, tuple[type[BaseModel], str, _Models]] = {
    "/v1/infer": (InferRequest, "Answer by the policy that the unit is routed to", (InferAnswer, DecideDryRun)),
    "/v1/chat/completions": (
        ChatRequest,
        "The same for OpenAI's clients, streamed with `stream`; `id` is the output id",
        (ChatCompletion,),
    ),
    "/v1/messages": (
        MessagesRequest,
        "The same for Anthropic's clients, streamed with `stream`; `id` is the output id, and the key may stand in `x-api-key`",
        (MessageAnswer,),
    ),
    "/v1/messages/count_tokens": (
        CountRequest,
        "About how many tokens a prompt has at most; the key may stand in `x-api-key`",
        (TokenCount,),
    ),
    "/v1/responses": (
        ResponsesRequest,
        "The same for clients of OpenAI's Responses API, streamed with `stream`; `id` is the output id",
        (OpenAIResponse,),
    ),
    "/v1/decide": (InferRequest, "Who is to answer and with what, for callers that ask the model themselves", (DecideAnswer, DecideDryRun)),
}
_LOOKED_UP: _Models = (ModelList, ListedModel, Flag, FlagList)
_STREAMED = ("/v1/chat/completions", "/v1/messages")
_EVALUATION: JsonValue = {
    "type": "object",
    "properties": {"context": {"type": "object", "properties": {"targetingKey": {"type": ["string", "null"], "maxLength": 512}}}},
}
_CANNOT_EVALUATE: JsonValue = {
    "type": "object",
    "required": ["errorCode", "errorDetails"],
    "properties": {"key": {"type": "string"}, "errorCode": {"type": "string"}, "errorDetails": {"type": "string"}},
}
_IDEMPOTENCY_KEY: JsonValue = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "Stands in for the id that the body leaves out.",
    "schema": {"type": "string", "pattern": "^[\\x21-\\x7e]{1,255}$"},
}


def documents() -> dict[Path, str]:
    """Every generated file's path and text."""
    contents: dict[Path, JsonValue] = {
        HERE / "schemas" / f"{event_type}.v1.json": {"$schema": _DIALECT, **model.model_json_schema()}
        for event_type, model in MODELS.items()
    }
    contents[HERE / "openapi.json"] = openapi()
    return {path: json.dumps(_join_descriptions(document), indent=2, ensure_ascii=False) + "\n" for path, document in contents.items()}


def join_lines(text: str) -> str:
    """`text` with each paragraph and each list item on one line; blank lines and indented code stay."""
    lines: list[str] = []
    for line in text.split("\n"):
        stands_alone = not line.strip() or line.startswith(_CODE) or _ITEM.match(line)
        if stands_alone or not lines or not lines[-1].strip() or lines[-1].startswith(_CODE):
            lines.append(line)
        else:
            lines[-1] += f" {line.strip()}"
    return "\n".join(lines)


def _join_descriptions(document: JsonValue) -> JsonValue:
    """`document`, whose descriptions do not depend on how docstrings are wrapped."""
    if isinstance(document, list):
        return [_join_descriptions(item) for item in document]
    if not isinstance(document, dict):
        return document
    return {
        name: join_lines(value) if name == "description" and isinstance(value, str) else _join_descriptions(value)
        for name, value in document.items()
    }


@cache
def batch_model() -> type[BaseModel]:
    """A batch as the service reads it: of each event, the model that its `type` names."""
    words = {"interaction": "An interaction", "output": "An output", "feedback": "Feedback", "task_result": "A task result"}
    events = [
        create_model(
            "Batched" + kind.title().replace("_", ""), __base__=model, __doc__=f"{words[kind]} in a batch.", type=(Literal[kind], ...)
        )
        for kind, model in REPORTED.items()
    ]
    any_event = Annotated[reduce(or_, events), Field(discriminator="type")]
    limits = Field(min_length=1, max_length=MAX_BATCH)
    doc = "Events to record, in any order; each is taken or refused by itself."
    return create_model("EventBatch", __base__=WireModel, __doc__=doc, events=(tuple[any_event, ...], limits))


def openapi() -> dict[str, JsonValue]:
    """The OpenAPI 3.1 document: what applications call, and administration."""
    admin, administration = admin_app(_not_called, _not_called), list_operations(ROUTERS)
    models: list[type[BaseModel]] = [
        *(model for model, _, _ in _TELEMETRY.values()),
        *(model for model, _, _ in _INFERENCE.values()),
        FeedbackTokenRequest,
        batch_model(),
        RewardComputed,
        *(operation.body for operation in administration if operation.body is not None),
    ]
    _, schemas = models_json_schema([(model, "validation") for model in models], ref_template=_REF)
    answers = [*(model for *_, models in _INFERENCE.values() for model in models), *_LOOKED_UP, MessageError]
    answers += [model for operation in administration for model in operation.answers]
    paths: dict[str, Any] = {}
    for path, (model, id_field, summary) in _TELEMETRY.items():
        meanings = {"200": "Recorded before", "201": "Recorded", "202": "Recorded; what it refers to has not landed yet"}
        token = {"feedback_token": _TEXT} if model is OutputProduced else {}
        body = _build_object({id_field: {"type": "string"}, **_RECORDED, **token})
        paths[path] = {
            "post": _describe_operation(
                model, summary, "telemetry", {status: _describe_answer(text, body) for status, text in meanings.items()}
            )
        }
    token_for = "What a page that shows an output gives feedback by; answers of `/v1/infer` and reported outputs bring it"
    token_answer = _describe_answer("The token, for 30 days", _build_object({"feedback_token": _TEXT}))
    paths["/v1/feedback.token"] = {"post": _describe_operation(FeedbackTokenRequest, token_for, "telemetry", {"200": token_answer})}
    results = _build_object({"results": {"type": "array", "items": {"$ref": "#/components/schemas/BatchResult"}}})
    batch = "Report up to 500 events of any type, 4 MiB at most (of a page 25 and 512 KiB); each is taken or refused by itself"
    results_answer = _describe_answer("What became of each, in the order sent", results)
    paths["/v1/events:batch"] = {"post": _describe_operation(batch_model(), batch, "telemetry", {"200": results_answer})}
    for path, (model, summary, sent) in _INFERENCE.items():
        paths[path] = {"post": _describe_operation(model, summary, "infer", {"200": _describe_answer("The answer", build_schema(sent))})}
    for path in _STREAMED:
        paths[path]["post"]["responses"]["200"]["content"]["text/event-stream"] = {"schema": {"type": "string"}}
    for path in ("/v1/messages", "/v1/messages/count_tokens"):
        paths[path]["post"]["responses"] |= _list_refusals(either=MessageError)
    paths["/v1/models"] = {"get": _describe_lookup("The skills and policies, as OpenAI's models", ModelList, [])}
    paths["/v1/models/{model}"] = {"get": _describe_lookup("One of them", ListedModel, ["model"])}
    paths["/ofrep/v1/evaluate/flags/{key}"] = {
        "post": _describe_evaluation("A skill's arm for a unit, by OpenFeature's protocol", Flag, ["key"])
    }
    paths["/ofrep/v1/evaluate/flags"] = {"post": _describe_evaluation("Every skill's arm for a unit", FlagList, [])}
    return {
        "openapi": "3.1.0",
        "info": {"title": "RLaaS", "version": "1", "description": "What applications call, and administration under `/v1/admin`."},
        "paths": {**paths, **{path: _describe_administration(operations) for path, operations in admin.openapi()["paths"].items()}},
        "components": {
            "schemas": {**schemas["$defs"], "BatchResult": _BATCH_RESULT, "Error": _ERROR, **_list_sent_schemas(answers, schemas["$defs"])},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "bearerFormat": "rlk_<id>_<secret>"}},
        },
        "security": [{"key": []}],
    }


class _Sent(GenerateJsonSchema):
    """The schemas of what is sent: with every field, those too that have a default."""

    def field_is_required(self, field: Any, total: bool) -> bool:
        return True


def _list_sent_schemas(models: Sequence[type[BaseModel]], bodies: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """The schemas of `models` as they are sent. One that has another shape in `bodies` is named `...-Output`."""
    modes: list[tuple[type[BaseModel], JsonSchemaMode]] = [(model, "serialization") for model in models]
    _, schemas = models_json_schema(modes, ref_template=_REF, schema_generator=_Sent)
    sent: dict[str, JsonValue] = schemas["$defs"]
    twice: set[str] = set()
    while more := {name for name in sent if name in bodies and bodies[name] != _rename_references(sent[name], twice)} - twice:
        twice |= more
    return {f"{name}-Output" if name in twice else name: _rename_references(schema, twice) for name, schema in sent.items()}


def _rename_references(schema: JsonValue, names: Collection[str]) -> JsonValue:
    """`schema`, in which references to `names` are to their outputs."""
    text = json.dumps(schema)
    for name in names:
        text = text.replace(f'"{_REF.format(model=name)}"', f'"{_REF.format(model=name)}-Output"')
    result: JsonValue = json.loads(text)
    return result


def _not_called() -> Services:
    raise NotImplementedError("the document is made without a request")


def _build_object(properties: dict[str, JsonValue]) -> JsonValue:
    return {"type": "object", "required": [*properties], "properties": properties}


_RECORDED: dict[str, JsonValue] = {"idempotent_replay": {"type": "boolean"}, "pending": {"type": "boolean"}}
_TEXT: JsonValue = {"type": "string"}
_ERROR = _build_object(
    {
        "error": _build_object(
            {
                **dict.fromkeys(("type", "code", "message"), _TEXT),
                "param": {"type": ["string", "null"]},
                "request_id": {"type": ["string", "null"]},
            }
        )
    }
)
_BATCH_RESULT: JsonValue = {
    "type": "object",
    "description": "What became of one event: its id, or the error that the endpoint of its type would have answered.",
    "required": ["status"],
    "properties": {
        "status": {"type": "integer", "enum": [200, 201, 202, 400, 403, 404, 409, 413, 503]},
        "id": _TEXT,
        **_RECORDED,
        "feedback_token": _TEXT,
        "error": {"$ref": "#/components/schemas/Error/properties/error"},
    },
}


def _describe_operation(model: type[BaseModel], summary: str, scope: str, answers: dict[str, JsonValue]) -> JsonValue:
    return {
        "summary": summary,
        "description": f"Needs the scope `{scope}`.",
        "parameters": [_IDEMPOTENCY_KEY],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": _REF.format(model=model.__name__)}}},
        },
        "responses": {**answers, **_list_refusals()},
    }


def _describe_lookup(summary: str, sent: type[BaseModel], names: list[str]) -> JsonValue:
    return {
        "summary": summary,
        "description": "Needs the scope `infer`.",
        "parameters": [{"name": name, "in": "path", "required": True, "schema": _TEXT} for name in names],
        "responses": {"200": _describe_answer("As asked", build_schema([sent])), **_list_refusals()},
    }


def _describe_evaluation(summary: str, sent: type[BaseModel], names: list[str]) -> JsonValue:
    """OFREP's answers to what is wrong with an evaluation have its own shape."""
    operation = _describe_lookup(summary, sent, names)
    assert isinstance(operation, dict)
    answers = operation["responses"]
    assert isinstance(answers, dict)
    for status in ("400", "404"):
        both = {"anyOf": [_CANNOT_EVALUATE, {"$ref": "#/components/schemas/Error"}]}
        answers[status] = _describe_answer("The flag cannot be evaluated", both)
    scopes = "Needs the scope `flags` or `infer`."
    return {**operation, "description": scopes, "requestBody": {"required": True, "content": {"application/json": {"schema": _EVALUATION}}}}


def _describe_administration(operations: dict[str, dict[str, JsonValue]]) -> JsonValue:
    """The operations of an admin path, with our errors in the place of FastAPI's."""
    descriptions: dict[str, JsonValue] = {}
    for method, operation in operations.items():
        answers = operation["responses"]
        assert isinstance(answers, dict)
        parameters = operation.get("parameters", [])
        assert isinstance(parameters, list)
        descriptions[method] = {
            "summary": operation["summary"],
            "description": operation.get("description", "") or "Needs the scope `admin`; tenants need `platform`.",
            "parameters": [*parameters, *([_IDEMPOTENCY_KEY] if method == "post" else [])],
            **({"requestBody": operation["requestBody"]} if "requestBody" in operation else {}),
            "responses": {**{status: answer for status, answer in answers.items() if status.startswith("2")}, **_list_refusals()},
        }
    return descriptions


def _list_refusals(*, either: type[BaseModel] | None = None) -> dict[str, JsonValue]:
    """Our errors, or where the API has `either` its own (what API Gateway refuses by itself is ours)."""
    error: JsonValue = {"$ref": "#/components/schemas/Error"}
    if either is not None:
        error = {"anyOf": [{"$ref": _REF.format(model=either.__name__)}, error]}
    return {status: _describe_answer(text, error) for status, text in _ERRORS.items()}


def _describe_answer(description: str, schema: JsonValue) -> JsonValue:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


if __name__ == "__main__":
    for target, text in documents().items():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        print(target.relative_to(HERE.parent.parent))
