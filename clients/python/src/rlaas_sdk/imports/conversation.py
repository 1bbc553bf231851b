"""Prompts and answers as the many tools write them, read into RLaaS's messages and texts."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from rlaas_sdk.imports.messages import messages_of, tools_of
from rlaas_sdk.imports.rows import Json, JsonObject, RowRefused, decoded, first


@dataclass(frozen=True, slots=True)
class Prompt:
    """What was asked: a chat's messages or the skill's inputs, never both; and the tools that the model was offered."""

    messages: list[JsonObject] | None = None
    inputs: dict[str, str] | None = None
    tools: list[Json] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model answered: a text, calls of tools, or both."""

    text: str
    finish_reason: str | None = None
    tool_calls: list[Json] = field(default_factory=list)


def prompt_of(value: Json, *, param: str, request: JsonObject | None = None) -> Prompt:
    """The prompt that `value` holds: a list of messages, `{"messages": [...]}`, a text, or an object of inputs; with
    the tools that it or its `request` offers. Raises: RowRefused."""
    value = decoded(value)
    if isinstance(value, dict) and isinstance(first(value, "messages"), list):
        request = value
        value = request["messages"]
    offered = tools_of(decoded(first(request or {}, "tools", "functions")))
    if isinstance(value, dict) and "role" in value and "content" in value:
        value = [value]
    if isinstance(value, str) and value.strip():
        return Prompt(messages=[{"role": "user", "content": value}], tools=offered)
    if isinstance(value, list) and (messages := messages_of(value, param=param)):
        return Prompt(messages=messages, tools=offered)
    if isinstance(value, dict) and value:
        return Prompt(inputs={key: item if isinstance(item, str) else json.dumps(item, ensure_ascii=False) for key, item in value.items()})
    raise RowRefused("no_input", f"{param} holds no prompt: give messages, a text or an object of inputs", param=param)


def answers_of(value: Json, *, param: str) -> list[Answer]:
    """The answers that `value` holds, in order; an empty list when there is none.

    Takes a text, a message, a list of messages (the last counts), a chat completion with `choices`, an answer of the
    Responses API; any other JSON is an answer in JSON, kept as text. Raises: RowRefused.
    """
    shape = decoded(value)
    if isinstance(shape, dict):
        choices = shape.get("choices")
        if isinstance(choices, list):
            return [_choice(choice, param=param) for choice in choices]
        if isinstance(shape.get("output"), list) and shape.get("object") == "response":
            return _response(shape, param=param)
        if "role" in shape and shape.keys() & {"content", "tool_calls", "function_call"}:
            return [_answer([shape], param=param)]
    if isinstance(shape, list) and shape and all(isinstance(item, dict) and "role" in item for item in shape):
        return [_answer(shape[-1:], param=param)]
    if isinstance(value, str):
        return [Answer(value)] if value else []
    return [] if shape in (None, [], {}) else [Answer(json.dumps(shape, ensure_ascii=False))]


def _answer(messages: list[Json], *, param: str, finish_reason: str | None = None) -> Answer:
    """What the assistant says in `messages`, its texts on lines of their own."""
    said = messages_of(messages, param=param)
    calls = [call for message in said if isinstance(called := message.get("tool_calls"), list) for call in called]
    return Answer("\n".join(str(message["content"]) for message in said if message["content"]), finish_reason, calls)


def _choice(choice: Json, *, param: str) -> Answer:
    if not isinstance(choice, dict):
        raise RowRefused("unsupported_message", f"{param} has a choice that is no object", param=param)
    reason = choice.get("finish_reason")
    finish_reason = reason[:128] if isinstance(reason, str) and reason else None
    message = choice.get("message")
    if isinstance(message, dict):
        return _answer([message], param=param, finish_reason=finish_reason)
    if isinstance(choice.get("text"), str):
        return Answer(str(choice["text"]), finish_reason)
    raise RowRefused("unsupported_message", f"{param} has a choice with neither message nor text", param=param)


def _response(response: JsonObject, *, param: str) -> list[Answer]:
    output = response.get("output")
    items = [item for item in output if isinstance(item, dict)] if isinstance(output, list) else []
    said: list[Json] = [item for item in items if item.get("type") in ("message", "function_call")]
    if not said and any(str(item.get("type")).endswith("_call") for item in items):
        raise RowRefused("tool_call", f"{param} has a call of a vendor's own tool in place of a text", param=param)
    return [_answer(said, param=param)] if said else []
