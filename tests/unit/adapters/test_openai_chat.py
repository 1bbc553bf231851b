"""What servers that speak OpenAI's format say where they refuse a request."""

import json

import pytest

from rlaas.adapters.models.openai_chat import read_refusal


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
