"""What of OpenAI's chat request has no place in an answer of ours is refused, and not left out of the answer."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from rlaas.inference.chat_completions import ChatRequest
from rlaas.wire import make_invalid_input

HELLO = {"model": "rlaas::reply", "messages": [{"role": "user", "content": "Hello!"}]}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"modalities": ["text", "audio"]}, "modalities.1"),
        ({"audio": {"voice": "alloy", "format": "wav"}}, "audio"),
        ({"functions": [{"name": "f", "parameters": {}}]}, "functions"),
        ({"function_call": "auto"}, "function_call"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}, {"type": "custom", "custom": {"name": "g"}}]}, "tools"),
    ],
)
def test_sound_and_calls_by_other_names_are_refused_since_no_answer_would_have_them(fields: dict[str, Any], param: str) -> None:
    body = {**HELLO, **fields}
    with pytest.raises(ValidationError) as refusal:
        ChatRequest.model_validate_json(json.dumps(body))
    assert make_invalid_input(refusal.value, body).param == param


def test_a_client_may_say_that_it_wants_neither() -> None:
    nulls = dict.fromkeys(("audio", "functions", "function_call"))
    request = ChatRequest.model_validate_json(json.dumps({**HELLO, **nulls, "modalities": ["text"]}))
    assert request.parameters() == {"modalities": ["text"]}
