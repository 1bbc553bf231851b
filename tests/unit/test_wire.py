"""What is said of a body that does not fit its model."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from rlaas.errors import InvalidInput
from rlaas.inference.chat_completions import ChatRequest
from rlaas.inference.messages import MessagesRequest
from rlaas.wire import WireModel, make_invalid_input

MODEL = {"model": "rlaas::a"}


def refuse(model: type[WireModel], body: dict[str, Any]) -> InvalidInput:
    with pytest.raises(ValidationError) as error:
        model.model_validate_json(json.dumps(body))
    return make_invalid_input(error.value, body)


@pytest.mark.parametrize(("model", "body"), [(ChatRequest, MODEL), (MessagesRequest, {**MODEL, "max_tokens": 5})])
def test_what_each_branch_of_a_union_wants_is_said(model: type[WireModel], body: dict[str, object]) -> None:
    refusal = refuse(model, {**body, "messages": [{"role": "user", "content": 5}]})
    assert (refusal.param, refusal.detail) == (
        "messages.0.content",
        "messages.0.content: Input should be a valid string, or a valid array",
    )


def test_of_the_branch_that_reads_the_parts_the_causes_are_in_them() -> None:
    refusal = refuse(ChatRequest, {**MODEL, "temperature": "hot", "messages": [{"role": "user", "content": [{"type": "text", "text": 5}]}]})
    assert refusal.param == "messages.0.content.0.text"
    assert refusal.detail == "messages.0.content.0.text: Input should be a valid string; temperature: Input should be a valid number"


def test_of_many_causes_ten_are_named_and_the_rest_are_counted() -> None:
    refusal = refuse(ChatRequest, {**MODEL, "messages": [{"role": "boss", "content": "x"}] * 3_000})
    assert refusal.detail.count("messages.") == 10
    assert refusal.detail.endswith("; and 2990 more")
    assert len(refusal.detail) < 2_000
