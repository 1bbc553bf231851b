"""What servers that speak OpenAI's format are asked, and what they say where they refuse it."""

import json
from typing import Any

import pytest

from rlaas.adapters.models.openai import completions_body
from rlaas.adapters.models.openai_chat import read_refusal
from rlaas.chat import ChatCall, Message
from rlaas.policies.backend import OpenAIBackend

ANY_SERVER = OpenAIBackend(model="m", base_url="https://models.example/v1")
FUNCTION = {"name": "f", "parameters": {"type": "object", "properties": {}}}


def ask(parameters: dict[str, Any], *, stream: bool = False, backend: OpenAIBackend = ANY_SERVER) -> dict[str, Any]:
    """The body of the request, without its messages."""
    call = ChatCall(messages=(Message(role="user", content="Hi"),), parameters=parameters, tenant_id="acme")
    body: dict[str, Any] = completions_body("the server", backend, call, stream=stream)
    return {name: value for name, value in body.items() if name not in ("messages", "model")}


def test_what_says_nothing_is_not_sent() -> None:
    assert ask({"stop": [], "seed": None, "tools": [], "tool_choice": "auto", "parallel_tool_calls": False}) == {}
    assert ask({"tool_choice": "none", "parallel_tool_calls": True, "n": 1}) == {"n": 1}
    assert ask({"tool_choice": "required"}) == {"tool_choice": "required"}
    offered = {"tools": [{"type": "function", "function": FUNCTION}], "tool_choice": "auto", "parallel_tool_calls": False}
    assert ask(offered) == offered


def test_nulls_of_a_tool_are_not_sent() -> None:
    tool = {"type": "function", "function": {**FUNCTION, "description": None, "strict": None}}
    assert ask({"tools": [tool, {"type": "web_search"}]}) == {"tools": [{"type": "function", "function": FUNCTION}, {"type": "web_search"}]}


def test_mistral_is_asked_in_its_own_words() -> None:
    parameters = {"max_tokens": 9, "max_completion_tokens": 5, "seed": 7}
    mistral = OpenAIBackend(model="mistral-large", base_url="https://api.mistral.ai/v1")
    assert ask(parameters, stream=True, backend=mistral) == {"max_tokens": 5, "random_seed": 7, "stream": True}
    assert ask(parameters, stream=True) == {**parameters, "stream": True, "stream_options": {"include_usage": True}}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"error": {"message": "too hot", "param": "temperature"}}, "too hot"),
        ({"error": "too hot", "error_type": "validation"}, "too hot"),
        ([{"error": {"code": 400, "message": "too hot", "status": "INVALID_ARGUMENT"}}], "too hot"),
        ({"object": "error", "message": "too hot", "type": "BadRequestError", "param": None, "code": 400}, "too hot"),
        ({"detail": "too hot"}, "too hot"),
        ({"detail": [{"loc": ["body", "temperature"], "msg": "too hot"}]}, '[{"loc": ["body", "temperature"], "msg": "too hot"}]'),
        ({"error": {"message": "Provider returned error", "metadata": {"raw": "too hot"}}}, "Provider returned error: too hot"),
        ({"error": {"message": None}}, ""),
        ({"error": None}, ""),
        ({}, ""),
        ([], ""),
        ("too hot", ""),
        (None, ""),
    ],
)
def test_what_a_server_says_is_found_wherever_it_stands(body: object, words: str) -> None:
    assert read_refusal("the server", 400, json.dumps(body)).quote == words


@pytest.mark.parametrize("content", [b"", b"<html>Bad Request</html>", b"\xff", b"[" * 100_000])
def test_a_refusal_that_is_no_json_has_no_words(content: bytes) -> None:
    assert read_refusal("the server", 400, content).message == "the server refuses the request"
