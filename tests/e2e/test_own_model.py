"""What agents ask of the stage's own model, through the deployed gateway by OpenAI's client."""

import json
from typing import Any

import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletionToolParam

from tests.laptop_cloud import SKILL, Tenant

TOOL: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Where a parcel is",
        "parameters": {
            "type": "object",
            "properties": {"parcel": {"type": "string", "maxLength": 12}},
            "required": ["parcel"],
            "additionalProperties": False,
        },
    },
}
ASK: Any = [{"role": "user", "content": "Where is parcel 17?"}]


@pytest.fixture
def client(tenant: Tenant) -> OpenAI:
    tenant.make_skill()
    key = tenant.http.headers["Authorization"].removeprefix("Bearer ")
    return OpenAI(base_url=f"{tenant.http.base_url}v1", api_key=key, max_retries=0)


NAMED: Any = {"type": "function", "function": {"name": "look_up"}}


@pytest.mark.parametrize("choice", ["required", NAMED], ids=["required", "named"])
def test_a_tool_that_has_to_be_called_is_called_with_arguments_that_fit(client: OpenAI, choice: Any) -> None:
    for seed in range(6):
        completion = client.chat.completions.create(
            model=f"rlaas::{SKILL}", messages=ASK, tools=[TOOL], tool_choice=choice, parallel_tool_calls=False, max_tokens=300, seed=seed
        )
        [call] = completion.choices[0].message.tool_calls
        assert call.function.name == "look_up"
        assert [*json.loads(call.function.arguments)] == ["parcel"]


def test_tools_may_be_offered_in_a_stream(client: OpenAI) -> None:
    chunks = list(client.chat.completions.create(model=f"rlaas::{SKILL}", messages=ASK, tools=[TOOL], max_tokens=8, stream=True))
    assert chunks[-1].choices[0].finish_reason in ("length", "stop", "tool_calls")


def test_tokens_come_with_their_probabilities(client: OpenAI) -> None:
    completion = client.chat.completions.create(model=f"rlaas::{SKILL}", messages=ASK, logprobs=True, top_logprobs=2, max_tokens=4)
    tokens = completion.choices[0].logprobs.content
    assert tokens
    assert all(token.logprob <= 0 and len(token.top_logprobs) == 2 for token in tokens)
