"""Requests of Anthropic's Messages API, from those of OpenAI's chat API."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

from pydantic import JsonValue

from rlaas.adapters.models.openai_parameters import (
    NamedTool,
    Parameters,
    cut_system_texts,
    group_turns,
    join_system_texts,
    read_parameters,
)
from rlaas.adapters.models.vendor_parts import anthropic_block
from rlaas.chat import ChatCall, JsonObject, Message, read_arguments
from rlaas.errors import InvalidInput
from rlaas.inference.anthropic_words import TOOL_CHOICES
from rlaas.prompt_cache import CacheTtl

VENDOR = "Anthropic"
SUPPORTED = frozenset(Parameters.model_fields)
# The API's own defaults. Its newer models refuse these parameters, and some refuse both together.
DEFAULTS: Mapping[str, JsonValue] = {"temperature": 1, "top_p": 1}
_TOOL_CHOICES = {openai: anthropic for anthropic, openai in TOOL_CHOICES.items()}


def messages_body(model: str, call: ChatCall) -> JsonObject:
    """The Messages API's request. Raises: InvalidInput naming the parameter that it does not take, or `max_tokens`,
    which it requires."""
    parameters = read_parameters(VENDOR, call.parameters, SUPPORTED, defaults=DEFAULTS)
    if parameters.longest is None:
        raise InvalidInput(f"{VENDOR} needs max_tokens", param="max_tokens")
    body: JsonObject = {"model": model, "max_tokens": parameters.longest, "messages": [_turn(*turn) for turn in group_turns(call.messages)]}
    output: JsonObject = {}
    if parameters.response_format is not None:
        output["format"] = {"type": "json_schema", "schema": parameters.response_format.json_schema.json_schema}
    if parameters.reasoning_effort is not None:
        output["effort"] = parameters.reasoning_effort
    optional: JsonObject = {
        "system": _system(call.messages),
        "temperature": parameters.temperature,
        "top_p": parameters.top_p,
        "top_k": parameters.top_k,
        "stop_sequences": list[JsonValue](parameters.stops),
        "tools": _tools(parameters, call.tool_marks),
        "tool_choice": _tool_choice(parameters),
        "output_config": output,
        "metadata": {"user_id": parameters.user} if parameters.user else None,
    }
    return body | {name: value for name, value in optional.items() if value not in (None, "", [], {})}


def _system(messages: Iterable[Message]) -> JsonValue:
    """The system's text, in blocks where it is to be cached."""
    texts = cut_system_texts(messages)
    if all(ttl is None for _, ttl in texts):
        return join_system_texts(messages)
    return [_mark({"type": "text", "text": text}, ttl) for text, ttl in texts]


def _turn(role: Literal["user", "assistant"], messages: Iterable[Message]) -> JsonValue:
    return {"role": role, "content": [block for message in messages for block in _blocks(message)]}


def _blocks(message: Message) -> list[JsonValue]:
    blocks = _list_blocks(message)
    return [*blocks[:-1], *(_mark(last, message.ends_cached_for) for last in blocks[-1:])]


def _list_blocks(message: Message) -> list[JsonObject]:
    if message.role == "tool":
        is_plain = not message.parts and all(mark.at is None for mark in message.cache_marks)
        content: JsonValue = message.content if is_plain else list[JsonValue](_pieces(message))
        return [{"type": "tool_result", "tool_use_id": message.tool_call_id, "content": content}]
    blocks = [*_pieces(message)]
    for call in message.tool_calls:
        blocks.append({"type": "tool_use", "id": call.id, "name": call.function.name, "input": read_arguments(call)})
    return blocks


def _pieces(message: Message) -> Iterator[JsonObject]:
    for piece, ttl in message.marked_pieces():
        yield _mark({"type": "text", "text": piece} if isinstance(piece, str) else anthropic_block(VENDOR, piece), ttl)


def _mark(block: JsonObject, ttl: CacheTtl | None) -> JsonObject:
    """The block with a mark of the prompt's cache; an hour is said, and five minutes are what a mark means."""
    if ttl is None:
        return block
    return {**block, "cache_control": {"type": "ephemeral", "ttl": "1h"} if ttl == "1h" else {"type": "ephemeral"}}


def _tools(parameters: Parameters, marks: Mapping[int, CacheTtl]) -> list[JsonValue]:
    tools: list[JsonValue] = []
    for place, tool in enumerate(parameters.tools or ()):
        function = tool.function
        definition: JsonObject = {"name": function.name, "input_schema": function.schema_to_send}
        if function.description:
            definition["description"] = function.description
        if function.strict:
            definition["strict"] = True
        tools.append(_mark(definition, marks.get(place)))
    return tools


def _tool_choice(parameters: Parameters) -> JsonObject | None:
    choice: JsonObject | None = None
    if not parameters.tools:
        return None
    if isinstance(parameters.tool_choice, NamedTool):
        choice = {"type": "tool", "name": parameters.tool_choice.function.name}
    elif parameters.tool_choice is not None:
        choice = {"type": _TOOL_CHOICES[parameters.tool_choice]}
    if parameters.parallel_tool_calls is False and parameters.tool_choice != "none":
        choice = {**(choice or {"type": "auto"}), "disable_parallel_tool_use": True}
    return choice
