"""What tenants may ask of the server that they share, whichever way they come to it."""

import asyncio
import json
from typing import Any

import pytest

from containers.vllm.one_door import INVOCATIONS, ChatByInvocations, NotTaken, check_chat

CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "?"}], "max_tokens": 5}


def schema(**parts: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object", **parts}}}}


def nest(depth: int, **around: Any) -> dict[str, Any]:
    part: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        part = {"type": "array", "items": part, **around}
    return part


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 0.5, "top_k": 3, "min_p": 0.1, "seed": 7, "stop": ["\n\n"], "n": 2, "logprobs": True, "top_logprobs": 5},
        {"model": "base", "stream": True, "stream_options": {"include_usage": True}, "frequency_penalty": None},
        schema(properties={"city": {"type": "string", "maxLength": 5_000}, "tags": nest(1, maxItems=20)}),
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"pattern": "^[A-Z]{2}[0-9]{4}$"}}}] * 20},
        schema(pattern="^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$", description="An id. " * 500),
        schema(multipleOf=True, maxItems=None, minItems="two", properties={"multipleOf": {"type": "string"}}),
        schema(properties={"cents": {"type": "integer", "multipleOf": 5}, "price": {"type": "number", "multipleOf": 0.01}}),
    ],
)
def test_a_chat_as_applications_send_it_is_taken(fields: dict[str, Any]) -> None:
    assert json.loads(check_chat(json.dumps({**CHAT, **fields}).encode())) == {
        name: value for name, value in {**CHAT, **fields}.items() if value is not None
    }


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        *[
            ({name: "x"}, name)
            for name in ("guided_grammar", "guided_regex", "structured_outputs", "chat_template", "vllm_xargs", "best_of")
        ],
        ({"prompt_logprobs": 5}, "prompt_logprobs"),
        ({"n": 10_000}, "n"),
        ({"n": True}, "n"),
        ({"top_logprobs": 10**6}, "top_logprobs"),
        ({"messages": None}, "messages"),
        ({"stop": ["x"] * 1_000}, "stop"),
        ({"stop": ["x" * 100_000]}, "stop"),
        ({"stop": [{"a": 1}]}, "stop"),
        ({"logit_bias": {str(at): 1 for at in range(10_000)}}, "logit_bias"),
        ({"tools": [{}] * 1_000}, "tools"),
        ({"response_format": {"type": "structural_tag", "structures": []}}, "response_format"),
        ({"response_format": {"type": "grammar", "grammar": "root ::= x"}}, "response_format"),
        ({"response_format": []}, "response_format"),
        (schema(items=nest(200)), "response_format"),
        (schema(items=nest(30, maxItems=1_000)), "response_format"),
        (schema(maxItems=10**9), "response_format"),
        (schema(maxItems=1e300), "response_format"),
        (schema(minItems=-(10**9)), "response_format"),
        (schema(multipleOf=999_983), "response_format"),
        (schema(multipleOf=0.00999983), "response_format"),
        (schema(multipleOf=10**400 + 7), "response_format"),
        (schema(pattern="a" * 2_000), "response_format"),
        (schema(const="a" * 60_000), "response_format"),
        (schema(properties={"a" * 2_000: {}}), "response_format"),
        (schema(enum=["x" * 100] * 10_000), "response_format"),
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": nest(30, minItems=1_000)}}]}, "tools"),
    ],
)
def test_what_would_hold_up_everybody_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(NotTaken) as refused:
        check_chat(json.dumps({**CHAT, **fields}).encode())
    assert refused.value.param == param


@pytest.mark.parametrize("body", [b"", b"[]", b"\xff", b"[" * 100_000, b'{"n": ' + b"9" * 100_000 + b"}"])
def test_what_is_no_chat_is_refused(body: bytes) -> None:
    with pytest.raises(NotTaken):
        check_chat(body)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/invocations"])
@pytest.mark.parametrize(("fields", "status"), [({}, 200), ({"guided_regex": "x"}, 400)])
def test_both_ways_in_are_one(path: str, fields: dict[str, Any], status: int) -> None:
    requests: list[tuple[str, Any]] = []
    sent: list[Any] = []

    async def model(scope: Any, receive: Any, send: Any) -> None:
        requests.append((scope["path"], json.loads((await receive())["body"])))
        await send({"type": "http.response.start", "status": 200, "headers": []})

    content = json.dumps({**CHAT, **fields}).encode()
    parts = [{"type": "http.request", "body": content[:9], "more_body": True}, {"type": "http.request", "body": content[9:]}]

    async def receive() -> Any:
        return parts.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(ChatByInvocations(model)({"type": "http", "path": path}, receive, send))
    assert sent[0]["status"] == status
    assert requests == ([(INVOCATIONS, CHAT)] if status == 200 else [])
    if status != 200:
        assert json.loads(sent[1]["body"])["error"]["param"] == "guided_regex"


def status(door: Any, kind: str, headers: list[tuple[bytes, bytes]]) -> Any:
    """The status or type of the answer to a request; None where it is passed on."""
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def receive() -> dict[str, Any]:
        return {}

    asyncio.run(door({"type": kind, "path": "/health", "headers": headers}, receive, send))
    return sent[0].get("status", sent[0]["type"]) if sent else None


async def inside(scope: Any, receive: Any, send: Any) -> None:
    """vLLM."""


def test_who_lacks_the_key_that_is_asked_for_is_not_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLAAS_HOSTING_KEY", "k")
    door = ChatByInvocations(inside)
    assert status(door, "http", [(b"x-rlaas-hosting-key", b"k")]) is None
    for headers in ([], [(b"x-rlaas-hosting-key", b"")], [(b"x-rlaas-hosting-key", b"other")]):
        assert status(door, "http", headers) == 403
        assert status(door, "websocket", headers) == "websocket.close"
    assert status(door, "lifespan", []) is None


def test_in_a_container_of_its_own_no_key_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RLAAS_HOSTING_KEY", raising=False)
    assert status(ChatByInvocations(inside), "http", []) is None
