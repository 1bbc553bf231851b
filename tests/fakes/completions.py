"""Answers of a model that calls tools, in OpenAI's chat API, and the tools as the Responses API has them."""

import json
from typing import Any

TOOLS: Any = [
    {
        "type": "function",
        "name": "find_order",
        "description": "Finds it",
        "parameters": {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"], "additionalProperties": False},
        "strict": True,
    }
]


def make_completion(message: dict[str, Any], finish_reason: str = "stop") -> str:
    """What a model answers, in OpenAI's chat API."""
    choice = {"index": 0, "message": {"role": "assistant", "content": None, **message}, "finish_reason": finish_reason}
    return json.dumps({"id": "x", "model": "m", "choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 2}})


def make_calls(*names: str) -> str:
    """A completion that calls tools."""
    made = [{"id": f"call_{name}", "type": "function", "function": {"name": name, "arguments": '{"id":"7"}'}} for name in names]
    return make_completion({"tool_calls": made}, "tool_calls")
