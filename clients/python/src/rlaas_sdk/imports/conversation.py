"""Prompts and answers as the many tools write them, read into RLaaS's messages and texts."""

from __future__ import annotations

import json
from dataclasses import dataclass

from rlaas_sdk.imports.rows import Json, JsonObject, RowRefused, decoded, first

_ROLES = {"system": "system", "developer": "system", "user": "user", "human": "user", "assistant": "assistant", "ai": "assistant"}
_TEXT_PARTS = ("text", "input_text", "output_text")


@dataclass(frozen=True, slots=True)
class Prompt:
    """What was asked: a chat's messages or the skill's inputs, never both."""

    messages: list[JsonObject] | None = None
    inputs: dict[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model answered."""

    text: str
    finish_reason: str | None = None


def prompt_of(value: Json, *, param: str) -> Prompt:
    """The prompt that `value` holds: a list of messages, `{"messages": [...]}`, a text, or an object of inputs. Raises: RowRefused."""
    value = decoded(value)
    if isinstance(value, dict) and isinstance(first(value, "messages"), list):
        value = value["messages"]
    if isinstance(value, dict) and "role" in value and "content" in value:
        value = [value]
    if isinstance(value, str) and value.strip():
        return Prompt(messages=[{"role": "user", "content": value}])
    if isinstance(value, list) and value:
        return Prompt(messages=[message_of(item, param=param) for item in value])
    if isinstance(value, dict) and value:
        return Prompt(inputs={key: item if isinstance(item, str) else json.dumps(item, ensure_ascii=False) for key, item in value.items()})
    raise RowRefused("no_input", f"{param} holds no prompt: give messages, a text or an object of inputs", param=param)


def message_of(value: Json, *, param: str) -> JsonObject:
    """One message as `{"role", "content"}`. Raises: RowRefused for tools, images and anything else that is not text."""
    if not isinstance(value, dict):
        raise RowRefused("unsupported_message", f"{param} has a message that is no object", param=param)
    role = _ROLES.get(str(value.get("role")).lower())
    if role is None:
        raise RowRefused("unsupported_message", f"{param} has a message of another role than system, user and assistant", param=param)
    return {"role": role, "content": content_of(value, param=param)}


def content_of(message: JsonObject, *, param: str) -> str:
    """A message's text; its text parts joined. Raises: RowRefused."""
    content = message.get("content")
    if isinstance(content, str) and (content or not message.get("tool_calls")):
        return content
    if message.get("tool_calls") or message.get("function_call"):
        raise RowRefused("tool_call", f"{param} has a tool call in place of a text", param=param)
    if isinstance(content, list) and content:
        return "".join(_part_text(part, param=param) for part in content)
    raise RowRefused("unsupported_message", f"{param} has a message without a text", param=param)


def _part_text(part: Json, *, param: str) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, dict) and part.get("type") in _TEXT_PARTS and isinstance(part.get("text"), str):
        return str(part["text"])
    raise RowRefused("unsupported_message", f"{param} has content that is not text (an image, audio or a file)", param=param)


def answers_of(value: Json, *, param: str) -> list[Answer]:
    """The answers that `value` holds, in order; an empty list when there is none.

    Takes a text, a message, a list of messages (the last counts), a chat completion with `choices`, an answer of the Responses API; any
    other JSON is an answer in JSON, kept as text. Raises: RowRefused.
    """
    shape = decoded(value)
    if isinstance(shape, dict):
        choices = shape.get("choices")
        if isinstance(choices, list):
            return [_choice(choice, param=param) for choice in choices]
        if isinstance(shape.get("output"), list) and shape.get("object") == "response":
            return _response(shape, param=param)
        if "role" in shape and ("content" in shape or "tool_calls" in shape):
            return [Answer(content_of(shape, param=param))]
    if isinstance(shape, list) and shape and all(isinstance(item, dict) and "role" in item for item in shape):
        last = shape[-1]
        return [Answer(content_of(last, param=param))] if isinstance(last, dict) else []
    if isinstance(value, str):
        return [Answer(value)] if value else []
    return [] if shape in (None, [], {}) else [Answer(json.dumps(shape, ensure_ascii=False))]


def _choice(choice: Json, *, param: str) -> Answer:
    if not isinstance(choice, dict):
        raise RowRefused("unsupported_message", f"{param} has a choice that is no object", param=param)
    reason = choice.get("finish_reason")
    finish_reason = reason[:128] if isinstance(reason, str) and reason else None
    message = choice.get("message")
    if isinstance(message, dict):
        return Answer(content_of(message, param=param), finish_reason)
    if isinstance(choice.get("text"), str):
        return Answer(str(choice["text"]), finish_reason)
    raise RowRefused("unsupported_message", f"{param} has a choice with neither message nor text", param=param)


def _response(response: JsonObject, *, param: str) -> list[Answer]:
    output = response.get("output")
    items = [item for item in output if isinstance(item, dict)] if isinstance(output, list) else []
    texts = [content_of(item, param=param) for item in items if item.get("type") == "message"]
    if not texts and any(str(item.get("type")).endswith("_call") for item in items):
        raise RowRefused("tool_call", f"{param} has a tool call in place of a text", param=param)
    return [Answer("\n".join(texts))] if texts else []
