import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from functions.inference.handler import handler
from rlaas.telemetry.events import OutputProduced
from tests.fakes.gateway import lambda_context, proxy_event
from tests.fakes.model_server import ModelServer, model_server
from tests.fakes.worlds import SKILL, TENANT
from tests.unit.functions.conftest import Stage


@pytest.fixture
def model(furnished_stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelServer]:
    with model_server() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", server.url)
        from rlaas.aws.sagemaker_backend import _runtime

        _runtime.cache_clear()
        yield server
        _runtime.cache_clear()


def call(path: str, body: object, **event: Any) -> tuple[int, dict[str, Any]]:
    answer = handler(proxy_event(path, body, **event), lambda_context())
    assert isinstance(answer["body"], str)
    status = answer["statusCode"]
    assert isinstance(status, int)
    return status, json.loads(answer["body"])


def test_infer_answers_with_its_decision_and_stores_it(
    furnished_stage: Stage, model: ModelServer, capsys: pytest.CaptureFixture[str]
) -> None:
    status, body = call("/v1/infer", {"skill": SKILL, "inputs": {"email": "where is it?"}, "thread_id": "t1"})
    assert status == 200
    assert set(body) == {
        "interaction_id",
        "output_id",
        "text",
        "policy_id",
        "decision",
        "usage",
        "finish_reason",
        "latency_ms",
        "idempotent_replay",
    }
    assert (body["text"], body["policy_id"], body["decision"]["propensity"]) == ("v2: Reply to: where is it?", f"{SKILL}@v2", 1.0)
    stored = furnished_stage.events.get_many(TENANT, [body["output_id"]])[body["output_id"]].event()
    assert isinstance(stored, OutputProduced)
    assert stored.decision is not None
    assert stored.decision.model_dump(mode="json") == body["decision"]
    (metric,) = [json.loads(line) for line in capsys.readouterr().out.splitlines() if "_aws" in line]
    assert metric["_aws"]["CloudWatchMetrics"][0]["Dimensions"] == [["stage"]]


def test_the_model_gets_the_policys_sampling_and_no_model_name(model: ModelServer) -> None:
    call("/v1/infer", {"skill": SKILL, "inputs": {"email": "hello"}})
    (asked,) = model.asked
    assert asked.endpoint == "rlaas-local"
    assert asked.body == {
        "messages": [{"role": "user", "content": "Reply to: hello"}],
        "temperature": 0.0,
        "top_p": 1.0,
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
    assert model.asked == []


def test_infer_needs_its_scope(model: ModelServer) -> None:
    assert call("/v1/infer", {}, scopes="telemetry")[0] == 403


@pytest.fixture
def client(model: ModelServer) -> openai.OpenAI:
    """OpenAI's own client, whose requests go through the function."""

    def through_function(request: httpx.Request) -> httpx.Response:
        event = proxy_event(request.url.path.removeprefix("/stage"), request.content.decode(), headers=dict(request.headers))
        answer = handler(event, lambda_context())
        status, body = answer["statusCode"], answer["body"]
        assert isinstance(status, int)
        assert isinstance(body, str)
        return httpx.Response(status, text=body, headers={"content-type": "application/json"})

    transport = httpx.Client(transport=httpx.MockTransport(through_function))
    return openai.OpenAI(api_key="rlk_x", base_url="https://api.test/stage/v1", http_client=transport, max_retries=0)


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
        client.chat.completions.create(model=f"rlaas::{SKILL}", messages=messages, temperature=0.5)
    assert refused.value.param == "temperature"
    with pytest.raises(openai.BadRequestError) as streaming:
        client.chat.completions.create(model=f"rlaas::{SKILL}", messages=messages, stream=True)
    assert streaming.value.param == "stream"
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="rlaas::unknown", messages=messages)
    with pytest.raises(openai.BadRequestError) as unnamed:
        client.chat.completions.create(model="gpt-5", messages=messages)
    assert unnamed.value.param == "model"
    model.down |= {"v1", "v2"}
    with pytest.raises(openai.InternalServerError):
        client.chat.completions.create(model=f"rlaas::{SKILL}", messages=messages)
