"""Schemas of structured answers for vendors that take fewer keywords than OpenAI."""

import json
from typing import Any

import pytest
from pydantic import JsonValue

from rlaas.adapters.models.anthropic_requests import messages_body
from rlaas.adapters.models.bedrock import converse_request
from rlaas.adapters.models.closed_schemas import close_schema
from rlaas.chat import ChatCall, Message

OPEN: dict[str, Any] = {
    "type": "object",
    "properties": {
        "age": {"type": "integer", "description": "In years.", "minimum": 1, "maximum": 120},
        "name": {"anyOf": [{"type": "string", "minLength": 2, "format": "name"}, {"type": "null"}]},
        "orders": {"type": "array", "minItems": 2, "items": {"type": ["object", "null"], "properties": {"minimum": {"type": "number"}}}},
        "mail": {"type": "string", "format": "email"},
        "address": {"oneOf": [{"$ref": "#/$defs/Address"}]},
    },
    "$defs": {"Address": {"type": "object", "properties": {}, "additionalProperties": {"type": "string"}}},
    "required": ["age"],
}
CLOSED: dict[str, Any] = {
    "type": "object",
    "properties": {
        "age": {"type": "integer", "description": "In years.\n\n{minimum: 1, maximum: 120}"},
        "name": {"anyOf": [{"type": "string", "description": "{minLength: 2, format: name}"}, {"type": "null"}]},
        "orders": {
            "type": "array",
            "items": {"type": ["object", "null"], "properties": {"minimum": {"type": "number"}}, "additionalProperties": False},
            "description": "{minItems: 2}",
        },
        "mail": {"type": "string", "format": "email"},
        "address": {"anyOf": [{"$ref": "#/$defs/Address"}]},
    },
    "$defs": {"Address": {"type": "object", "properties": {}, "additionalProperties": False}},
    "required": ["age"],
    "additionalProperties": False,
}


def test_objects_are_closed_and_bounds_stand_in_the_description() -> None:
    assert close_schema(OPEN) == CLOSED
    assert close_schema(CLOSED) == CLOSED


@pytest.mark.parametrize("strict", [True, False])
def test_the_schema_of_an_answer_and_of_a_strict_tool_is_one_that_claude_takes(strict: bool) -> None:
    tool: JsonValue = {"type": "function", "function": {"name": "f", "parameters": OPEN, "strict": strict}}
    answer: JsonValue = {"type": "json_schema", "json_schema": {"name": "a", "schema": OPEN, "strict": strict}}
    call = ChatCall((Message(role="user", content="Hi"),), {"max_tokens": 9, "tools": [tool], "response_format": answer}, "acme")
    body: Any = messages_body("claude-opus-4-6", call)
    assert body["output_config"]["format"]["schema"] == CLOSED
    assert body["tools"][0]["input_schema"] == (CLOSED if strict else OPEN)
    request = converse_request("us.anthropic.claude-opus-4-6-v1", call)
    assert json.loads(request["outputConfig"]["textFormat"]["structure"]["jsonSchema"]["schema"]) == CLOSED
    assert request["toolConfig"]["tools"][0]["toolSpec"]["inputSchema"]["json"] == (CLOSED if strict else OPEN)
