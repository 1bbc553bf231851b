import base64
import json
import os
from typing import Any
from unittest.mock import ANY

import openai
import pytest

from functions.chat.handler import DOORS
from functions.inference.handler import handler
from functions.telemetry.handler import handler as telemetry
from rlaas.errors import Forbidden
from rlaas.ids import make_pseudonym
from rlaas.metering.budgets import BUDGETS, Budget, Budgets
from rlaas.policies.backend import AnthropicBackend, BedrockBackend, OpenAIBackend
from rlaas.policies.bundle import Policy
from rlaas.runtime import stage as runtime
from rlaas.telemetry.events import OutputProduced
from tests.declared_answers import check_answer
from tests.fakes.gateway import make_lambda_context, make_proxy_event
from tests.fakes.model_server import ModelServer
from tests.fakes.worlds import CHANGE, NOW, SKILL, TENANT, make_canary_route, make_policy, make_route
from tests.unit.functions.conftest import Stage


def call(path: str, body: object, **event: Any) -> tuple[int, dict[str, Any]]:
    request = make_proxy_event(path, body, **event)
    answer = handler(request, make_lambda_context())
    assert isinstance(answer["body"], str)
    status = answer["statusCode"]
    assert isinstance(status, int)
    content = json.loads(answer["body"])
    check_answer(request["httpMethod"], path, status, content)
    return status, content


def test_infer_answers_with_its_decision_and_stores_it(
    furnished_stage: Stage, model: ModelServer, capsys: pytest.CaptureFixture[str]
) -> None:
    status, body = call("/v1/infer", {"skill": SKILL, "inputs": {"email": "where is it?"}, "thread_id": "t1"})
    assert status == 200
    assert set(body) == {
        "interaction_id",
        "output_id",
        "feedback_token",
        "text",
        "tool_calls",
        "policy_id",
        "decision",
        "usage",
        "cost_usd",
        "finish_reason",
        "latency_ms",
        "idempotent_replay",
    }
    assert (body["text"], body["policy_id"], body["decision"]["propensity"]) == ("v2: Reply to: where is it?", f"{SKILL}@v2", 1.0)
    stored = furnished_stage.events.get_many(TENANT, [body["output_id"]])[body["output_id"]].event()
    assert isinstance(stored, OutputProduced)
    assert stored.decision is not None
    assert stored.decision.model_dump(mode="json") == body["decision"]
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    metrics = [line for line in lines if "_aws" in line]
    assert {name for line in metrics for name in line["_aws"]["CloudWatchMetrics"][0]["Dimensions"][0]} == {
        *("stage", "gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.token.type"),
    }
    names = {metric["Name"] for line in metrics for metric in line["_aws"]["CloudWatchMetrics"][0]["Metrics"]}
    assert names >= {"Overhead", "BackendLatency", "Fallback", "gen_ai.client.operation.duration", "gen_ai.client.token.usage"}
    spans = [line["resourceSpans"][0]["scopeSpans"][0]["spans"][0] for line in lines if "resourceSpans" in line]
    assert [(span["name"], span["kind"]) for span in spans] == [("chat v2", 3), (f"infer {SKILL}", 2)]
    assert spans[0]["parentSpanId"] == spans[1]["spanId"]
    assert "where is it" not in json.dumps(lines)


def test_the_model_gets_the_policys_sampling_and_no_model_name(model: ModelServer) -> None:
    call("/v1/infer", {"skill": SKILL, "inputs": {"email": "hello"}})
    (request,) = model.requests
    assert request.endpoint == "rlaas-local"
    assert request.body == {
        "messages": [{"role": "user", "content": "Reply to: hello"}],
        "temperature": 0.0,
        "max_tokens": 256,
    }


def test_an_adapter_that_is_not_loaded_falls_back_to_the_control(model: ModelServer) -> None:
    model.down.add("v2")
    status, body = call("/v1/infer", {"skill": SKILL, "inputs": {"email": "hello"}})
    assert (status, body["policy_id"], body["decision"]["fallback"]) == (200, f"{SKILL}@v1", True)


def test_a_model_that_is_down_is_a_503_in_our_shape(model: ModelServer) -> None:
    model.down |= {"v1", "v2"}
    status, body = call("/v1/infer", {"skill": SKILL, "inputs": {"email": "hello"}})
    assert (status, body["error"]["code"], body["error"]["request_id"]) == (503, "dependency_unavailable", "req-1")


def refusals(capsys: pytest.CaptureFixture[str]) -> list[tuple[str, str]]:
    """The model and the tenant of each line of the metric NoCapacity."""
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    metrics = [line for line in lines if "NoCapacity" in line]
    assert all(line["_aws"]["CloudWatchMetrics"][0]["Dimensions"] == [["stage"]] for line in metrics)
    return [(line["gen_ai.request.model"], line["tenant_id"]) for line in metrics]


def test_a_sleeping_model_is_a_503_with_retry_after_and_is_woken_whichever_component_was_asked(
    model: ModelServer, capsys: pytest.CaptureFixture[str]
) -> None:
    model.asleep = True
    answer = handler(make_proxy_event("/v1/infer", {"skill": SKILL, "inputs": {"email": "?"}}), make_lambda_context())
    headers: Any = answer["headers"]
    assert (answer["statusCode"], headers["Retry-After"]) == (503, "60")
    assert refusals(capsys) == [("v2", TENANT), ("v1", TENANT)]


def test_a_stream_of_a_sleeping_model_is_a_503_before_its_first_part(
    client: openai.OpenAI, model: ModelServer, capsys: pytest.CaptureFixture[str]
) -> None:
    model.asleep = True
    with pytest.raises(openai.InternalServerError) as refused:
        client.chat.completions.create(model=f"rlaas::{SKILL}", messages=[{"role": "user", "content": "hi"}], stream=True)
    assert (refused.value.status_code, refused.value.response.headers["Retry-After"]) == (503, "60")
    assert refusals(capsys) == [("v2", TENANT), ("v1", TENANT)]


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"skill": SKILL, "inputs": {}}, 400, "inputs.email"),
        ({"skill": SKILL}, 400, None),
        ({"skill": SKILL, "inputs": {"email": 1}}, 400, "inputs.email"),
        ({"skill": "unknown", "inputs": {}}, 404, "skill"),
        ({"skill": SKILL, "inputs": {"email": "x"}, "temperature": 1}, 400, "temperature"),
    ],
)
def test_bad_requests_name_their_field_and_store_nothing(
    furnished_stage: Stage, model: ModelServer, body: object, status: int, param: str | None
) -> None:
    got, answer = call("/v1/infer", body)
    assert (got, answer["error"]["param"]) == (status, param)
    assert furnished_stage.items("events") == []
    assert model.requests == []


def test_infer_needs_its_scope(model: ModelServer) -> None:
    assert call("/v1/infer", {}, scopes="telemetry")[0] == 403


def test_openais_client_gets_a_completion_whose_id_takes_feedback(furnished_stage: Stage, client: openai.OpenAI) -> None:
    completion = client.chat.completions.create(
        model=f"rlaas::{SKILL}",
        messages=[{"role": "user", "content": [{"type": "text", "text": "hello"}]}],
        extra_body={"rlaas::thread_id": "t1"},
    )
    assert completion.choices[0].message.content == "v2: hello"
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage is not None
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + completion.usage.completion_tokens
    stored = furnished_stage.events.get_many(TENANT, [completion.id])[completion.id]
    assert (stored.event_type, stored.thread_id) == ("output", "t1")


def test_openais_client_raises_its_own_errors(client: openai.OpenAI, model: ModelServer) -> None:
    messages: Any = [{"role": "user", "content": "hello"}]
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model=f"rlaas::{SKILL}", messages=messages, temperature=5)
    assert refused.value.param == "temperature"
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="rlaas::unknown", messages=messages)
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model=f"rlaas::{'a' * 29}", messages=messages)
    with pytest.raises(openai.NotFoundError, match="rlaas::<skill>") as unnamed:
        client.chat.completions.create(model="gpt-5", messages=messages)
    assert unnamed.value.param == "model"
    model.down |= {"v1", "v2"}
    with pytest.raises(openai.InternalServerError):
        client.chat.completions.create(model=f"rlaas::{SKILL}", messages=messages)


def test_parameters_reach_the_model_and_the_answer_may_be_streamed(
    furnished_stage: Stage, client: openai.OpenAI, model: ModelServer
) -> None:
    messages: Any = [{"role": "user", "content": "hello"}]
    client.chat.completions.create(
        model=f"rlaas::{SKILL}", messages=messages, temperature=0.5, seed=7, extra_body={"top_k": 3, "rlaas::thread_id": "t1"}
    )
    assert {name: model.requests[0].body[name] for name in ("temperature", "seed", "top_k")} == {"temperature": 0.5, "seed": 7, "top_k": 3}
    assert not [name for name in model.requests[0].body if "rlaas" in name]
    stream = client.chat.completions.create(model=f"rlaas::{SKILL}", messages=messages, stream=True, stream_options={"include_usage": True})
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "v2: hello"
    assert (chunks[-1].choices, chunks[-1].usage is not None) == ([], True)
    [chunk_id] = {chunk.id for chunk in chunks}
    assert furnished_stage.events.get_many(TENANT, [chunk_id])[chunk_id].event_type == "output"


def test_openais_client_may_call_its_user_what_it_likes(
    furnished_stage: Stage, client: openai.OpenAI, model: ModelServer, capsys: pytest.CaptureFixture[str]
) -> None:
    messages: Any = [{"role": "user", "content": "hello"}]
    completion = client.chat.completions.create(model=f"rlaas::{SKILL}", messages=messages, user="kim@shop.example")
    stored = furnished_stage.events.get_many(TENANT, [completion.id])[completion.id].event()
    assert stored.user_id == make_pseudonym("kim@shop.example")
    for place in (str(furnished_stage.items("events")), capsys.readouterr().out, str(model.requests)):
        assert "kim@" not in place


def test_openais_client_gets_every_choice_again_by_its_idempotency_key(
    furnished_stage: Stage, client: openai.OpenAI, model: ModelServer
) -> None:
    choices = [{"index": at, "message": {"role": "assistant", "content": f"draft {at}"}, "finish_reason": "stop"} for at in range(3)]
    model.nonsense = json.dumps({"choices": choices, "usage": {"prompt_tokens": 3, "completion_tokens": 6}})
    messages: Any = [{"role": "user", "content": "hello"}]
    first, again = (
        client.chat.completions.create(model=f"rlaas::{SKILL}", messages=messages, n=3, extra_headers={"Idempotency-Key": "k1"})
        for _ in range(2)
    )
    assert [choice.message.content for choice in first.choices] == ["draft 0", "draft 1", "draft 2"]
    assert (again.id, again.choices, again.usage, len(model.requests)) == (first.id, first.choices, first.usage, 1)
    ids = [first.id, f"{first.id}_1", f"{first.id}_2"]
    stored = furnished_stage.events.get_many(TENANT, ids)
    drafts = [stored[one].event() for one in ids]
    assert [draft.text for draft in drafts if isinstance(draft, OutputProduced)] == ["draft 0", "draft 1", "draft 2"]


# Who would answer


def test_a_decision_comes_back_with_the_output_in_its_token(furnished_stage: Stage, model: ModelServer) -> None:
    status, body = call("/v1/decide", {"skill": SKILL, "inputs": {"email": "hello"}, "thread_id": "t1"})
    assert (status, body["policy_id"], body["messages"]) == (200, f"{SKILL}@v2", [{"role": "user", "content": "Reply to: hello"}])
    assert body["grant"]["base_url"].endswith("/endpoints/rlaas-local/inference-components/v2/openai/v1")
    assert body["grant"]["api_key"].startswith("sagemaker-api-key-")
    assert model.requests == []
    output = {"skill": SKILL, "interaction_id": body["interaction_id"], "text": "Dear", "decision_token": body["decision_token"]}
    event = make_proxy_event("/v1/interaction.output", output)
    answer = json.loads(str(telemetry(event, make_lambda_context())["body"]))
    assert answer["output_id"] == body["output_id"]
    stored = furnished_stage.events.get_many(TENANT, [body["output_id"]])[body["output_id"]].event()
    assert isinstance(stored, OutputProduced)
    assert stored.decision is not None
    assert (stored.decision.model_dump(mode="json"), stored.policy_id) == (body["decision"], f"{SKILL}@v2")
    assert stored.decision_token is None


@pytest.mark.parametrize(
    "backend",
    [OpenAIBackend(model="gpt-4.1", secret="openai"), AnthropicBackend(model="claude", secret="anthropic"), BedrockBackend(model="nova")],
    ids=lambda backend: backend.kind,
)
def test_a_decision_for_a_vendors_model_says_what_to_ask_and_keeps_the_name_of_the_secret(
    furnished_stage: Stage, backend: OpenAIBackend | AnthropicBackend | BedrockBackend
) -> None:
    bundle = make_policy(3).model_copy(update={"backend": backend})
    vendors = Policy.of(bundle, tenant_id=TENANT, skill=SKILL, version=3, created_at=NOW)
    furnished_stage.registry.put_policy(vendors, CHANGE)
    called = {"id": "call_1", "type": "function", "function": {"name": "find_order", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "Where is it?"},
        {"role": "assistant", "content": "", "tool_calls": [called]},
        {"role": "tool", "content": "on its way", "tool_call_id": "call_1"},
    ]
    status, body = call("/v1/decide", {"skill": SKILL, "policy_id": f"{SKILL}@v3", "messages": messages})
    assert (status, body["grant"], body["messages"]) == (200, None, messages)
    assert (body["backend"]["kind"], body["backend"]["model"]) == (backend.kind, backend.model)
    assert "secret" not in body["backend"]


def test_a_decision_that_rlaas_did_not_make_is_refused(furnished_stage: Stage) -> None:
    _, body = call("/v1/decide", {"skill": SKILL, "inputs": {"email": "hello"}})
    output = {"skill": SKILL, "interaction_id": body["interaction_id"], "text": "Dear"}
    payload, _, proof = body["decision_token"].partition(".")
    forged = base64.urlsafe_b64encode(base64.urlsafe_b64decode(payload + "==").replace(b'"propensity":1.0', b'"propensity":0.1')).decode()
    for more, param in (
        ({"decision": body["decision"]}, "decision"),
        ({"decision_token": f"{forged}.{proof}"}, "decision_token"),
        ({"decision_token": f"{payload}.{proof[:-1]}"}, "decision_token"),
        ({"decision_token": "nonsense"}, "decision_token"),
        ({"decision_token": body["decision_token"], "interaction_id": "another"}, "interaction_id"),
        ({"decision_token": body["decision_token"], "output_id": "another"}, "output_id"),
    ):
        answer = telemetry(make_proxy_event("/v1/interaction.output", {**output, **more}), make_lambda_context())
        assert (answer["statusCode"], json.loads(str(answer["body"]))["error"]["param"]) == (400, param)
    assert [item["event_type"]["S"] for item in furnished_stage.items("events")] == ["interaction"]


def test_a_dry_run_of_infer_decides_and_asks_and_stores_nothing(furnished_stage: Stage, model: ModelServer) -> None:
    status, body = call("/v1/infer", {"skill": SKILL, "inputs": {"email": "hello"}, "dryrun": True})
    assert (status, body["policy_id"]) == (200, f"{SKILL}@v2")
    assert "decision_token" not in body
    assert (model.requests, furnished_stage.items("events")) == ([], [])


def test_skills_and_policies_are_listed_as_models(furnished_stage: Stage) -> None:
    status, body = call("/v1/models", "", method="GET")
    assert (status, body["object"]) == (200, "list")
    assert [one["id"] for one in body["data"]] == [f"rlaas::{SKILL}", f"rlaas::{SKILL}@v2", f"rlaas::{SKILL}@v1"]
    for name in (f"rlaas::{SKILL}", f"rlaas::{SKILL}@v1"):
        assert call(f"/v1/models/{name}", "", method="GET")[1]["id"] == name
    assert call("/v1/models/rlaas::nobody", "", method="GET")[1]["error"]["param"] == "model"


def test_a_route_is_a_feature_flag(furnished_stage: Stage) -> None:
    path = f"/ofrep/v1/evaluate/flags/{SKILL}"
    status, flag = call(path, {"context": {"targetingKey": "t1"}})
    assert (status, flag["key"], flag["value"], flag["variant"], flag["reason"]) == (200, SKILL, f"{SKILL}@v2", f"{SKILL}@v2", "STATIC")
    assert flag["metadata"]["propensity"] == 1.0
    assert call("/ofrep/v1/evaluate/flags", {"context": {"targetingKey": "t1"}})[1]["flags"] == [flag]
    assert call(path, {"context": {"targetingKey": 7}}) == (400, {"key": SKILL, "errorCode": "INVALID_CONTEXT", "errorDetails": ANY})
    assert call(path, "{")[1]["errorCode"] == "PARSE_ERROR"
    assert call(path, '{"context": {"targetingKey": "\\ud800"}}')[1]["errorCode"] == "INVALID_CONTEXT"
    assert call(path, {"context": []})[1]["errorCode"] == "INVALID_CONTEXT"
    status, missing = call("/ofrep/v1/evaluate/flags/nobody", {"context": {"targetingKey": "t1"}})
    assert (status, missing["errorCode"], missing["key"]) == (404, "FLAG_NOT_FOUND", "nobody")
    assert call(f"/ofrep/v1/evaluate/flags/{'x' * 3_000}", {"context": {"targetingKey": "t1"}})[0] == 404
    assert call(f"/v1/models/{'x' * 3_000}", "", method="GET")[0] == 404


def test_a_flag_that_is_the_same_for_all_needs_no_targeting_key(furnished_stage: Stage) -> None:
    path = f"/ofrep/v1/evaluate/flags/{SKILL}"
    nobodies: tuple[dict[str, Any], ...] = ({"context": {}}, {"context": {"targetingKey": ""}}, {"context": {"targetingKey": None}}, {})
    for nobody in nobodies:
        status, flag = call(path, nobody)
        assert (status, flag["value"], flag["reason"]) == (200, f"{SKILL}@v2", "STATIC")
        assert call("/ofrep/v1/evaluate/flags", nobody)[1]["flags"] == [flag]


def test_a_flag_that_splits_says_what_the_key_names(furnished_stage: Stage) -> None:
    path = f"/ofrep/v1/evaluate/flags/{SKILL}"
    furnished_stage.registry.write_route(make_route(arms=(make_canary_route(2, 0.5),), version=2), expected_version=1)
    refusal = {"key": SKILL, "errorCode": "TARGETING_KEY_MISSING", "errorDetails": ANY}
    assert call(path, {"context": {}}) == (400, refusal)
    assert "thread" in call(path, {"context": {}})[1]["errorDetails"]
    assert call("/ofrep/v1/evaluate/flags", {"context": {}}) == (200, {"flags": [refusal]})
    assert call(path, {"context": {"targetingKey": "t1"}})[1]["reason"] == "SPLIT"


def test_a_flag_and_an_answer_agree_about_a_user_who_is_an_email(furnished_stage: Stage, model: ModelServer) -> None:
    furnished_stage.registry.write_route(
        make_route(arms=(make_canary_route(2, 0.5),), version=2).model_copy(update={"unit": "user"}), expected_version=1
    )
    arms = set()
    for number in range(12):
        who = f"kim{number}@shop.example"
        flag = call(f"/ofrep/v1/evaluate/flags/{SKILL}", {"context": {"targetingKey": who}})[1]
        answer = call("/v1/infer", {"skill": SKILL, "inputs": {"email": "hello"}, "user_id": who})[1]
        assert answer["policy_id"] == flag["value"]
        arms.add(flag["value"])
    assert len(arms) == 2


PAGE_KEY_ID = "01arz3ndektsv4rrffq69g5fav"
PAGE: dict[str, Any] = {
    "origins": "https://app.example.com",
    "headers": {"origin": "https://app.example.com"},
    "key_id": PAGE_KEY_ID,
}


def test_a_page_evaluates_flags_with_a_key_for_it(furnished_stage: Stage) -> None:
    for path in (f"/ofrep/v1/evaluate/flags/{SKILL}", "/ofrep/v1/evaluate/flags"):
        body = {"context": {"targetingKey": "t1"}}
        assert call(path, body, scopes="flags", **PAGE)[0] == 200
        assert call(path, body, scopes="flags")[0] == 200
        assert call(path, body, scopes="telemetry", **PAGE)[0] == 403
        assert call(path, body, scopes="flags", origins=PAGE["origins"], headers={"origin": "https://elsewhere.example"})[0] == 403


def give_budget(stage: Stage, key_id: str) -> None:
    few = Budget(name="page", scope="key", key_id=key_id, measure="requests", limit=1, window="month")
    stage.registry.put(TENANT, BUDGETS, Budgets(budgets=(few,)), CHANGE)


def test_a_page_drafts_within_a_budget_of_its_key_alone(furnished_stage: Stage, model: ModelServer) -> None:
    request = {"skill": SKILL, "inputs": {"email": "hello"}, "thread_id": "t1"}
    refusal = call("/v1/infer", request, scopes="infer", **PAGE)[1]["error"]
    assert (refusal["type"], "budget of its own" in refusal["message"], model.requests) == ("Forbidden", True, [])
    give_budget(furnished_stage, PAGE_KEY_ID)
    with runtime.replace_stage(runtime.Stage(os.environ)):  # budgets are remembered for some seconds
        assert [call("/v1/infer", request, scopes="infer", **PAGE)[0] for _ in range(2)] == [200, 429]
    assert len(model.requests) == 1


@pytest.mark.parametrize(
    "more", [{"policy_id": f"{SKILL}@v1"}, {"parameters": {"max_tokens": 9}}, {"documents": []}, {"tags": ["held-out"]}]
)
def test_a_page_decides_nothing_of_what_is_asked_but_the_inputs(furnished_stage: Stage, model: ModelServer, more: dict[str, Any]) -> None:
    give_budget(furnished_stage, PAGE_KEY_ID)
    status, answer = call("/v1/infer", {"skill": SKILL, "inputs": {"email": "hello"}, **more}, scopes="infer", **PAGE)
    assert (status, answer["error"]["param"], model.requests) == (403, next(iter(more)), [])


@pytest.mark.parametrize(("method", "path"), [("POST", "/v1/decide"), ("GET", "/v1/models"), ("GET", f"/v1/models/rlaas::{SKILL}")])
def test_a_page_gets_neither_a_grant_nor_a_list(furnished_stage: Stage, method: str, path: str) -> None:
    body = {"skill": SKILL, "inputs": {"email": "hello"}} if method == "POST" else ""
    assert call(path, body, method=method, scopes="infer", **PAGE)[0] == 403


def test_a_page_does_not_chat(furnished_stage: Stage, model: ModelServer) -> None:
    for path, door in DOORS.items():
        with pytest.raises(Forbidden, match="publishable"):
            door.respond(make_proxy_event(path, {}, scopes="infer", **PAGE))
