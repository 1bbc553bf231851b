"""Anthropic's own client against the function `chat`, which gets its requests as Lambda Web Adapter sends them."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anthropic
import httpx2
import pytest

from rlaas.adapters.models.sagemaker import _runtime
from rlaas.api import web
from rlaas.ids import make_pseudonym
from rlaas.telemetry.events import InteractionCreated, OutputProduced
from tests.declared_answers import check_answer
from tests.fakes.event_stream import encode_event
from tests.fakes.gateway import make_proxy_event
from tests.fakes.loopback import QuietHandler, serve_handler
from tests.fakes.model_server import ModelServer, serve_model
from tests.fakes.worlds import SKILL, TENANT
from tests.unit.functions.conftest import Stage, serve_doors

MODEL = f"rlaas::{SKILL}"
HELLO: Any = [{"role": "user", "content": "hello"}]
LOOK_UP: Any = {"name": "look_up", "description": "Finds an order", "input_schema": {"type": "object", "properties": {"order": {}}}}


EVENTS = {"Content-Type": "application/vnd.amazon.eventstream"}
BINARY = "application/octet-stream"


@pytest.fixture
def model(furnished_stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelServer]:
    with serve_model() as server:
        ask_there(server.url, monkeypatch)
        yield server
        _runtime.cache_clear()


def ask_there(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the function ask the SageMaker at `address`."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", address)
    _runtime.cache_clear()


def check_message(answer: httpx2.Response) -> None:
    if answer.headers["Content-Type"] == "application/json":
        check_answer("POST", answer.request.url.path, answer.status_code, json.loads(answer.read()))


@pytest.fixture
def url(model: ModelServer) -> Iterator[str]:
    with serve_doors() as url:
        yield url


@pytest.fixture
def client(url: str) -> Iterator[anthropic.Anthropic]:
    with connect(url) as connected:
        yield connected


def connect(url: str, **caller: Any) -> anthropic.Anthropic:
    headers = {web.CONTEXT_HEADER: json.dumps(make_proxy_event("/", {}, **caller)["requestContext"])}
    wire = httpx2.Client(event_hooks={"response": [check_message]})
    return anthropic.Anthropic(api_key="rlk_x", base_url=url, default_headers=headers, max_retries=0, http_client=wire)


def test_anthropics_client_gets_a_message_whose_id_takes_feedback(furnished_stage: Stage, client: anthropic.Anthropic) -> None:
    message = client.messages.create(
        model=MODEL,
        max_tokens=64,
        messages=[{"role": "user", "content": [{"type": "text", "text": "hello", "cache_control": {"type": "ephemeral"}}]}],
        metadata={"user_id": "kim@shop.example"},
        extra_body={"rlaas::thread_id": "t1"},
    )
    [block] = message.content
    assert (block.type, getattr(block, "text", None)) == ("text", "v2: hello")
    assert (message.role, message.model, message.stop_reason) == ("assistant", MODEL, "end_turn")
    assert message.usage.input_tokens > 0
    assert message.usage.output_tokens > 0
    assert (message.usage.cache_read_input_tokens, message.usage.cache_creation_input_tokens) == (0, 0)
    stored = furnished_stage.events.get_many(TENANT, [message.id])[message.id]
    assert (stored.event_type, stored.thread_id) == ("output", "t1")
    assert stored.event().user_id == make_pseudonym("kim@shop.example")
    assert message.model_extra is not None
    assert message.model_extra["rlaas::interaction_id"] == stored.interaction_id


def test_anthropics_client_streams_what_it_accumulates_to_the_same_message(furnished_stage: Stage, client: anthropic.Anthropic) -> None:
    with client.messages.stream(model=MODEL, max_tokens=64, messages=HELLO) as stream:
        pieces = list(stream.text_stream)
        message = stream.get_final_message()
    assert len(pieces) > 1
    assert "".join(pieces) == stream.get_final_text() == "v2: hello"
    whole = client.messages.create(model=MODEL, max_tokens=64, messages=HELLO)
    assert (message.stop_reason, message.usage.input_tokens, message.usage.output_tokens) == (
        whole.stop_reason,
        whole.usage.input_tokens,
        whole.usage.output_tokens,
    )
    assert furnished_stage.events.get_many(TENANT, [message.id])[message.id].event_type == "output"


def test_a_coding_agents_request_is_answered_with_all_that_it_sends(client: anthropic.Anthropic, model: ModelServer) -> None:
    """What such agents put into every request, by the beta resource: `?beta=true` and its header."""
    tools: Any = [{**LOOK_UP, "cache_control": {"type": "ephemeral"}}]
    message = client.beta.messages.create(
        model=MODEL,
        max_tokens=8_192,
        betas=["interleaved-thinking-2025-05-14", "context-management-2025-06-27"],
        system=[
            {"type": "text", "text": "You are an agent.", "cache_control": {"type": "ephemeral"}},
            {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
        ],
        messages=HELLO,
        tools=tools,
        thinking={"type": "enabled", "budget_tokens": 1024},
        context_management={"edits": [{"type": "clear_tool_uses_20250919"}]},
        metadata={"user_id": "user_0f_account__session_1"},
        stop_sequences=["END"],
        extra_body={"temperature": 1},
    )
    assert message.stop_reason == "end_turn"
    request = model.requests[0].body
    assert request["messages"] == [
        {"role": "system", "content": "You are an agent.\n\nBe brief."},
        {"role": "user", "content": "hello"},
    ]
    assert {name: request[name] for name in request if name != "messages"} == {
        "max_tokens": 8_192,
        "temperature": 1.0,
        "stop": ["END"],
        "tools": [
            {
                "type": "function",
                "function": {"name": "look_up", "description": "Finds an order", "parameters": LOOK_UP["input_schema"]},
            }
        ],
    }


def test_a_tools_call_and_result_keep_the_vendors_id(
    furnished_stage: Stage, client: anthropic.Anthropic, monkeypatch: pytest.MonkeyPatch
) -> None:
    with calling_model(monkeypatch) as bodies:
        with client.messages.stream(model=MODEL, max_tokens=64, messages=HELLO, tools=[LOOK_UP], tool_choice={"type": "any"}) as stream:
            message = stream.get_final_message()
        assert message.stop_reason == "tool_use"
        assert [(block.id, block.name, block.input) for block in message.content if block.type == "tool_use"] == [
            ("call_a", "look_up", {"order": 7}),
            ("call_b", "look_up", {"order": 8}),
        ]
        results: Any = [
            {"type": "tool_result", "tool_use_id": "call_b", "content": [{"type": "text", "text": "lost"}], "is_error": True},
            {"type": "tool_result", "tool_use_id": "call_a", "content": "sent"},
        ]
        turns: Any = [*HELLO, {"role": "assistant", "content": message.content}, {"role": "user", "content": results}]
        answer = client.messages.create(model=MODEL, max_tokens=64, messages=turns, tools=[LOOK_UP])
    assert answer.usage.model_dump(include={"input_tokens", "cache_read_input_tokens"}) == {
        "input_tokens": 5,
        "cache_read_input_tokens": 4,
    }
    assert bodies[0]["tool_choice"] == "required"
    _, called, second, first = bodies[1]["messages"]
    assert [call["id"] for call in called["tool_calls"]] == ["call_a", "call_b"]
    assert (second["tool_call_id"], second["content"], first["tool_call_id"], first["content"]) == (
        "call_b",
        "Error: lost",
        "call_a",
        "sent",
    )
    stored = furnished_stage.events.get_many(TENANT, [message.id])[message.id].event()
    assert isinstance(stored, OutputProduced)
    assert [call.id for call in stored.tool_calls] == ["call_a", "call_b"]


@contextmanager
def calling_model(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """A model whose parallel calls interleave: what it was asked."""
    bodies: list[dict[str, Any]] = []
    usage = {"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}}

    class Server(QuietHandler):
        def do_POST(self) -> None:
            bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            if not bodies[-1].get("stream"):
                choice = {"index": 0, "message": {"role": "assistant", "content": "Sorry."}, "finish_reason": "stop"}
                self.answer(200, json.dumps({"choices": [choice], "usage": usage}).encode())
                return
            pieces = [
                {"index": 0, "id": "call_a", "function": {"name": "look_up", "arguments": ""}},
                {"index": 1, "id": "call_b", "function": {"name": "look_up", "arguments": '{"order"'}},
                {"index": 0, "function": {"arguments": '{"order": 7}'}},
                {"index": 1, "function": {"arguments": ": 8}"}},
            ]
            chunks: list[dict[str, Any]] = [{"choices": [{"index": 0, "delta": {"tool_calls": [piece]}}]} for piece in pieces]
            chunks += [{"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}, {"choices": [], "usage": usage}]
            lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
            self.answer(200, encode_event("PayloadPart", "".join([*lines, "data: [DONE]\n\n"]).encode(), content_type=BINARY), EVENTS)

    with serve_handler(Server) as address:
        ask_there(address, monkeypatch)
        yield bodies


def test_anthropics_client_raises_its_own_errors(url: str, client: anthropic.Anthropic, model: ModelServer) -> None:
    with pytest.raises(anthropic.BadRequestError) as refused:
        client.messages.create(model=MODEL, max_tokens=64, messages=HELLO, extra_body={"temperature": 5})
    assert (refused.value.type, refused.value.request_id) == ("invalid_request_error", "req-1")
    assert refused.value.api_message is not None
    assert refused.value.api_message.startswith("temperature: ")
    for name in ("claude-opus-4-6", "rlaas::unknown"):
        with pytest.raises(anthropic.NotFoundError) as unknown:
            client.messages.create(model=name, max_tokens=64, messages=HELLO)
        assert unknown.value.type == "not_found_error"
    with pytest.raises(anthropic.ContentTooLargeError):
        client.messages.create(model=MODEL, max_tokens=64, messages=[{"role": "user", "content": "a" * 5_000_000}])
    with connect(url, scopes="telemetry") as other, pytest.raises(anthropic.PermissionDeniedError) as forbidden:
        other.messages.create(model=MODEL, max_tokens=64, messages=HELLO)
    assert forbidden.value.type == "permission_error"
    model.refuses.add("stop")
    with pytest.raises(anthropic.BadRequestError) as blamed:
        client.messages.create(model=MODEL, max_tokens=64, messages=HELLO, stop_sequences=["END"])
    assert str(blamed.value.api_message).startswith("stop_sequences: ")
    model.down |= {"v1", "v2"}
    for stream in (False, True):
        with pytest.raises(anthropic.InternalServerError) as failed:
            client.messages.create(model=MODEL, max_tokens=64, messages=HELLO, stream=stream)
        assert (failed.value.status_code, failed.value.type) == (503, "overloaded_error")


def test_anthropics_tool_runner_which_would_have_its_conversation_kept_sends_it_whole_instead(
    client: anthropic.Anthropic, monkeypatch: pytest.MonkeyPatch
) -> None:
    @anthropic.beta_tool
    def look_up(order: int) -> str:
        """Finds an order."""
        return f"{order}: on its way"

    with calling_model(monkeypatch) as bodies:
        runner = client.beta.messages.tool_runner(
            model=MODEL, max_tokens=64, messages=HELLO, tools=[look_up], stream=True, max_iterations=2
        )
        for stream in runner:
            stream.get_final_message()
    assert [message["role"] for message in bodies[1]["messages"]][-4:] == ["user", "assistant", "tool", "tool"]
    with pytest.raises(anthropic.types.ThreadUnsupportedRequestError, match="thread"):
        client.beta.messages.create(model=MODEL, max_tokens=64, messages=HELLO, thread={"type": "create"})


def test_the_refusal_of_a_model_says_which_names_there_are(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError, match=r"rlaas::<skill>"):
        client.messages.create(model="claude-opus-4-6", max_tokens=64, messages=HELLO)


def test_an_answer_that_breaks_off_is_an_error_of_the_client(client: anthropic.Anthropic, monkeypatch: pytest.MonkeyPatch) -> None:
    class Server(QuietHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            chunk = {"choices": [{"index": 0, "delta": {"content": "Dear"}}]}
            self.answer(200, encode_event("PayloadPart", f"data: {json.dumps(chunk)}\n\n".encode(), content_type=BINARY), EVENTS)

    with serve_handler(Server) as address:
        ask_there(address, monkeypatch)
        with client.messages.stream(model=MODEL, max_tokens=64, messages=HELLO) as stream:
            assert next(stream.text_stream) == "Dear"
            with pytest.raises(anthropic.APIStatusError) as broken:
                stream.until_done()
    assert broken.value.type == "overloaded_error"
    assert "broke off" in str(broken.value.api_message)


def test_a_count_is_an_estimate_and_asks_and_stores_nothing(
    furnished_stage: Stage, client: anthropic.Anthropic, model: ModelServer
) -> None:
    count = client.messages.count_tokens(model=MODEL, messages=HELLO, system="Be brief.", tools=[LOOK_UP])
    alone = client.messages.count_tokens(model=MODEL, messages=HELLO)
    assert count.input_tokens > alone.input_tokens > 0
    assert count.model_extra == {"rlaas::estimate": True}
    assert (model.requests, furnished_stage.items("events")) == ([], [])
    with pytest.raises(anthropic.NotFoundError):
        client.messages.count_tokens(model="claude-haiku-4-5", messages=HELLO)


def test_an_interaction_of_a_message_is_that_of_a_chat(furnished_stage: Stage, client: anthropic.Anthropic) -> None:
    message = client.messages.create(model=MODEL, max_tokens=64, messages=HELLO, extra_body={"rlaas::interaction_id": "int-1"})
    again = client.messages.create(model=MODEL, max_tokens=64, messages=HELLO, extra_body={"rlaas::interaction_id": "int-1"})
    assert again.id == message.id
    stored = furnished_stage.events.get_many(TENANT, ["int-1"])["int-1"].event()
    assert isinstance(stored, InteractionCreated)
    assert [each.plain() for each in stored.messages or ()] == HELLO
