"""What a model server refuses, as OpenAI's and Anthropic's clients hear of it at each door."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import anthropic
import httpx
import openai
import pytest

from functions.inference.handler import handler as inference
from rlaas.adapters.models.sagemaker import _runtime
from rlaas.api import web
from tests.fakes.gateway import make_lambda_context, make_proxy_event
from tests.fakes.loopback import QuietHandler, serve_handler
from tests.fakes.worlds import SKILL, make_route
from tests.unit.functions.conftest import Stage, serve_doors

MODEL = f"rlaas::{SKILL}"
HELLO: Any = [{"role": "user", "content": "hello"}]
NO_TOOLS = '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'
TOO_LONG = "This model's maximum context length is 2048 tokens. However, your request has 9000 input tokens."


@pytest.fixture
def refusal(furnished_stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What the model server of both policies answers: its `status`, its error's fields, and `retry_after`."""
    error: dict[str, Any] = {}

    class Server(QuietHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            body = {"error": {name: value for name, value in error.items() if name not in ("status", "retry_after")}}
            content = {"OriginalStatusCode": error["status"], "OriginalMessage": json.dumps(body), "Message": "refused"}
            headers = {"x-amzn-ErrorType": "ModelError", **({"Retry-After": error["retry_after"]} if "retry_after" in error else {})}
            self.answer(424, json.dumps(content).encode(), headers)

    with serve_handler(Server) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", address)
        _runtime.cache_clear()
        yield error
        _runtime.cache_clear()


@pytest.fixture
def url(refusal: dict[str, Any]) -> Iterator[str]:
    with serve_doors() as url:
        yield url


HEADERS = {web.CONTEXT_HEADER: json.dumps(make_proxy_event("/", {})["requestContext"])}


@contextmanager
def openai_client(url: str, *, retries: int = 0, seen: list[int] | None = None) -> Iterator[openai.OpenAI]:
    """OpenAI's client; `seen` gets the status of each answer."""
    statuses = [] if seen is None else seen
    wire: Any = httpx.Client(event_hooks={"response": [lambda answer: statuses.append(answer.status_code)]})
    client = openai.OpenAI(api_key="rlk_x", base_url=f"{url}/v1", default_headers=HEADERS, max_retries=retries, http_client=wire)
    with client:
        yield client


ASKS: dict[str, Callable[[openai.OpenAI], object]] = {
    "chat": lambda client: client.chat.completions.create(model=MODEL, messages=HELLO),
    "chat, streamed": lambda client: client.chat.completions.create(model=MODEL, messages=HELLO, stream=True),
    "responses": lambda client: client.responses.create(model=MODEL, input="hello"),
    "responses, streamed": lambda client: client.responses.create(model=MODEL, input="hello", stream=True),
}


def ask_anthropic(url: str) -> anthropic.APIStatusError:
    client = anthropic.Anthropic(api_key="rlk_x", base_url=url, default_headers=HEADERS, max_retries=0)
    with client, pytest.raises(anthropic.APIStatusError) as refused:
        client.messages.create(model=MODEL, max_tokens=64, messages=HELLO)
    return refused.value


@pytest.mark.parametrize("door", ASKS)
def test_a_model_servers_own_words_param_and_code_reach_the_caller(refusal: dict[str, Any], url: str, door: str) -> None:
    refusal |= {"status": 400, "message": NO_TOOLS, "type": "BadRequestError", "param": "tool_choice", "code": "no_parser"}
    with openai_client(url) as client, pytest.raises(openai.BadRequestError) as refused:
        ASKS[door](client)
    assert NO_TOOLS in refused.value.message
    assert (refused.value.param, refused.value.code, refused.value.type) == ("tool_choice", "no_parser", "invalid_request_error")


@pytest.mark.parametrize("door", ASKS)
def test_a_request_that_is_too_long_is_the_error_that_frameworks_recognise(refusal: dict[str, Any], url: str, door: str) -> None:
    refusal |= {"status": 400, "message": TOO_LONG, "type": "BadRequestError", "param": "input_tokens", "code": 400}
    with openai_client(url) as client, pytest.raises(openai.BadRequestError) as refused:
        ASKS[door](client)
    assert (refused.value.code, refused.value.param) == ("context_length_exceeded", "messages" if "chat" in door else "input")
    assert "context_length_exceeded" in str(refused.value)  # by which LangChain knows it
    assert "this model's maximum context length is" in refused.value.message.lower()  # LiteLLM
    assert TOO_LONG in refused.value.message
    failed = ask_anthropic(url)
    assert (failed.status_code, failed.type) == (400, "invalid_request_error")
    assert str(failed.api_message).startswith("prompt is too long: ")  # coding agents


def test_anthropics_own_words_for_too_long_come_first_at_its_door(refusal: dict[str, Any], url: str) -> None:
    refusal |= {"status": 400, "message": "prompt is too long: 208310 tokens > 200000 maximum"}
    assert ask_anthropic(url).api_message == "prompt is too long: 208310 tokens > 200000 maximum"


@pytest.mark.parametrize("door", ASKS)
def test_a_limit_of_the_vendors_is_a_limit_with_the_time_to_wait(refusal: dict[str, Any], url: str, door: str) -> None:
    refusal |= {"status": 429, "message": "slow down", "code": "rate_limit_exceeded", "retry_after": "20"}
    for _ in range(7):  # from the sixth time on the circuit is open
        with openai_client(url) as client, pytest.raises(openai.RateLimitError) as refused:
            ASKS[door](client)
        assert (refused.value.code, refused.value.type) == ("rate_limit_exceeded", "rate_limit_error")
        assert refused.value.response.headers["Retry-After"] == "20"
    failed = ask_anthropic(url)
    assert (failed.status_code, failed.type, failed.response.headers["Retry-After"]) == (429, "rate_limit_error", "20")


@pytest.mark.parametrize(
    "error",
    [
        {"status": 401, "message": "Incorrect API key provided: sk-abcdefgh.", "code": "invalid_api_key"},
        {"status": 404, "message": "The model does not exist.", "code": "model_not_found"},
        {"status": 429, "message": "You exceeded your current quota.", "type": "insufficient_quota", "code": "insufficient_quota"},
    ],
)
def test_no_client_repeats_what_only_the_tenant_can_mend(refusal: dict[str, Any], url: str, error: dict[str, Any]) -> None:
    refusal |= error
    for _ in range(7):
        seen: list[int] = []
        with openai_client(url, retries=2, seen=seen) as client, pytest.raises(openai.APIStatusError) as refused:
            ASKS["chat"](client)
        assert seen == [424]
        assert (refused.value.code, refused.value.type) == ("backend_misconfigured", "upstream_error")
    assert "sk-" not in refused.value.message
    failed = ask_anthropic(url)
    assert (failed.status_code, failed.type) == (424, "api_error")


def test_the_vendors_words_are_neither_stored_nor_logged(
    refusal: dict[str, Any], url: str, furnished_stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    for status in (400, 401, 429, 500):
        refusal |= {"status": status, "message": "the customer wrote: zanzibar", "code": f"x{status}"}
        with openai_client(url) as client, pytest.raises(openai.APIStatusError, match="zanzibar"):
            ASKS["chat"](client)
    events = [json.dumps(item) for item in furnished_stage.items("events")]
    assert [("x429" in text, "x500" in text) for text in events if "failure" in text].count((False, True)) == 1
    out, err = capsys.readouterr()
    assert "zanzibar" not in out + err + "".join(events)


@pytest.mark.parametrize("name", ["gpt-5", "rlaas::unknown", f"rlaas::{SKILL}@v9", "rlaas::Not A Skill"])
@pytest.mark.parametrize("stream", [False, True])
def test_an_unknown_model_is_not_found_and_the_ones_that_the_key_may_ask_are_named(url: str, name: str, stream: bool) -> None:
    with openai_client(url) as client:
        for ask in (
            lambda: client.chat.completions.create(model=name, messages=HELLO, stream=stream),
            lambda: client.responses.create(model=name, input="hello", stream=stream),
        ):
            with pytest.raises(openai.NotFoundError, match=rf"this key may ask rlaas::{SKILL}$") as unknown:
                ask()
            assert (unknown.value.code, unknown.value.type, unknown.value.param) == ("model_not_found", "invalid_request_error", "model")
    with anthropic.Anthropic(api_key="rlk_x", base_url=url, default_headers=HEADERS, max_retries=0) as coding:
        with pytest.raises(anthropic.NotFoundError, match=rf"this key may ask rlaas::{SKILL}") as missing:
            coding.messages.create(model=name, max_tokens=64, messages=HELLO, stream=stream)
        assert missing.value.type == "not_found_error"


def test_many_skills_are_named_in_part(url: str, furnished_stage: Stage) -> None:
    for number in range(30):
        furnished_stage.registry.write_route(make_route().model_copy(update={"skill": f"skill-{number}"}), expected_version=0)
    with openai_client(url) as client, pytest.raises(openai.NotFoundError, match="and more") as unknown:
        client.chat.completions.create(model="gpt-5", messages=HELLO)
    assert unknown.value.message.count("rlaas::") < 25


def test_an_unknown_skill_hears_the_known_ones(furnished_stage: Stage) -> None:
    body = {"skill": "unknown", "inputs": {"email": "?"}}
    for path in ("/v1/infer", "/v1/decide"):
        answer = inference({**make_proxy_event(path, body), "httpMethod": "POST", "resource": path}, make_lambda_context("inference"))
        error = json.loads(str(answer["body"]))["error"]
        assert (answer["statusCode"], error["code"], error["param"]) == (404, "not_found", "skill")
        assert error["message"] == f"the skill 'unknown' has no route; this key may ask {SKILL}"
