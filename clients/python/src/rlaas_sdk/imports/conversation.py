"""Reads prompts and answers, however a tool wrote them, into RLaaS's messages and texts."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from rlaas_sdk.imports.messages import read_messages, read_tools
from rlaas_sdk.imports.rows import Json, JsonObject, RowRefused, decode_cell, find_first


@dataclass(frozen=True, slots=True)
class LoggedPrompt:
    """What was asked, as a chat's messages or as the skill's inputs, never both; and the tools offered to the model."""

    messages: list[JsonObject] | None = None
    inputs: dict[str, str] | None = None
    tools: list[Json] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class LoggedAnswer:
    """What a model answered: a text, calls of tools, or both."""

    text: str
    finish_reason: str | None = None
    tool_calls: list[Json] = field(default_factory=list)


def read_prompt(value: Json, *, param: str, request: JsonObject | None = None) -> LoggedPrompt:
    """The prompt in `value`, which is a list of messages, `{"messages": [...]}`, a text, or an object of inputs; with
    the tools that it or its `request` offers. `param` names the field in an error. Raises: RowRefused."""
    value = decode_cell(value)
    if isinstance(value, dict) and isinstance(find_first(value, "messages"), list):
        request = value
        value = request["messages"]
    tools = read_tools(decode_cell(find_first(request or {}, "tools", "functions")))
    if isinstance(value, dict) and "role" in value and "content" in value:
        value = [value]
    if isinstance(value, str) and value.strip():
        return LoggedPrompt(messages=[{"role": "user", "content": value}], tools=tools)
    if isinstance(value, list) and (messages := read_messages(value, param=param)):
        return LoggedPrompt(messages=messages, tools=tools)
    if isinstance(value, dict) and value:
        return LoggedPrompt(
            inputs={key: item if isinstance(item, str) else json.dumps(item, ensure_ascii=False) for key, item in value.items()}
        )
    raise RowRefused("no_input", f"{param} holds no prompt: give messages, a text or an object of inputs", param=param)


def read_answers(value: Json, *, param: str) -> list[LoggedAnswer]:
    """The answers in `value`, in order; an empty list where there is none.

    `value` is a text, a message, a list of messages (of which the last is the answer), a chat completion with
    `choices`, or a response of the Responses API. Any other JSON is an answer in JSON and is kept as text. `param`
    names the field in an error. Raises: RowRefused.
    """
    shape = decode_cell(value)
    if isinstance(shape, dict):
        choices = shape.get("choices")
        if isinstance(choices, list):
            return [_read_choice(choice, param=param) for choice in choices]
        if isinstance(shape.get("output"), list) and shape.get("object") == "response":
            return _read_response(shape, param=param)
        if "role" in shape and shape.keys() & {"content", "tool_calls", "function_call"}:
            return [_build_answer([shape], param=param)]
    if isinstance(shape, list) and shape and all(isinstance(item, dict) and "role" in item for item in shape):
        return [_build_answer(shape[-1:], param=param)]
    if isinstance(value, str):
        return [LoggedAnswer(value)] if value else []
    return [] if shape in (None, [], {}) else [LoggedAnswer(json.dumps(shape, ensure_ascii=False))]


def _build_answer(entries: list[Json], *, param: str, finish_reason: str | None = None) -> LoggedAnswer:
    """The assistant's answer in `entries`, each of its texts on a line of its own."""
    messages = read_messages(entries, param=param)
    calls = [call for message in messages if isinstance(tool_calls := message.get("tool_calls"), list) for call in tool_calls]
    return LoggedAnswer("\n".join(str(message["content"]) for message in messages if message["content"]), finish_reason, calls)


def _read_choice(choice: Json, *, param: str) -> LoggedAnswer:
    if not isinstance(choice, dict):
        raise RowRefused("unsupported_message", f"{param} has a choice that is not an object", param=param)
    reason = choice.get("finish_reason")
    finish_reason = reason[:128] if isinstance(reason, str) and reason else None
    message = choice.get("message")
    if isinstance(message, dict):
        return _build_answer([message], param=param, finish_reason=finish_reason)
    if isinstance(choice.get("text"), str):
        return LoggedAnswer(str(choice["text"]), finish_reason)
    raise RowRefused("unsupported_message", f"{param} has a choice with neither message nor text", param=param)


def _read_response(response: JsonObject, *, param: str) -> list[LoggedAnswer]:
    output = response.get("output")
    items = [item for item in output if isinstance(item, dict)] if isinstance(output, list) else []
    entries: list[Json] = [item for item in items if item.get("type") in ("message", "function_call")]
    if not entries and any(str(item.get("type")).endswith("_call") for item in items):
        raise RowRefused("tool_call", f"{param} has a call of a vendor's own tool instead of a text", param=param)
    return [_build_answer(entries, param=param)] if entries else []
