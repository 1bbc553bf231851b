"""What servers that speak OpenAI's format loosely say, read as what they mean."""

import json
from typing import Any

import pytest

from rlaas.adapters.models.openai_chat import completion_of, deltas_of, read_refusal
from rlaas.chat import Usage


def whole(usage: dict[str, Any] | None, finish_reason: str | None = "stop") -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": finish_reason}
    return json.dumps({"choices": [choice], "usage": usage}).encode()


@pytest.mark.parametrize("count", [-1, 10**12])
def test_counts_that_cannot_be_are_none_and_the_answer_stands(count: int) -> None:
    answer = completion_of("the server", whole({"prompt_tokens": count, "completion_tokens": 3}))
    assert (answer.choices[0].text, answer.usage) == ("Hello", None)
    assert completion_of("the server", whole({"prompt_tokens": 4, "completion_tokens": 3})).usage == Usage(input_tokens=4, output_tokens=3)


def test_an_empty_reason_for_ending_is_none_and_a_long_one_is_cut() -> None:
    assert completion_of("the server", whole(None, "")).choices[0].finish_reason is None
    assert completion_of("the server", whole(None, "x" * 500)).choices[0].finish_reason == "x" * 128


def test_a_stream_is_finished_by_a_reason_and_not_by_an_empty_one() -> None:
    pieces = [{"choices": [{"index": 0, "delta": {"content": word}, "finish_reason": ""}]} for word in ("Hel", "lo")]
    last = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": {"prompt_tokens": -4, "completion_tokens": 2}}
    deltas = list(deltas_of("the server", [json.dumps(piece).encode() for piece in (*pieces, last)], choices=1))
    assert ["".join(delta.text for delta in deltas), deltas[-1].finish_reason, deltas[-1].usage] == ["Hello", "stop", None]


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
