"""The texts of events, taken out to be scrubbed and put back.

Everything a person may have written is a text: inputs, messages, documents, answers, tools' arguments, edits, comments, labels, string
values, tags, and metadata at any depth, names and numbers included. Ids are not: the contract is that they are pseudonymous.
"""

import json
from collections.abc import Callable, Iterator, Sequence

from pydantic import JsonValue

from rlaas.privacy.scrub import Scrubber
from rlaas.routing.prompt import Document
from rlaas.telemetry.events import AnyEvent, Message, ToolCall

_TEXT_FIELDS = ("text", "final_text", "comment", "label", "name", "value", "finish_reason")


def scrubbed(events: Sequence[AnyEvent], scrubber: Scrubber) -> list[AnyEvent]:
    """`events` without personal data in their texts, all texts in one go. Raises: DependencyUnavailable."""
    texts: list[str] = []

    def collect(text: str) -> str:
        texts.append(text)
        return text

    for event in events:
        _mapped(event, collect)
    clean = iter(scrubber.texts(texts))
    return [_mapped(event, lambda _: next(clean)) for event in events]


def _mapped(event: AnyEvent, change: Callable[[str], str]) -> AnyEvent:
    """`event` with `change` made to each text, in an order that depends on nothing but the event."""
    return event.model_copy(update=dict(_changes(event, change)))


def _changes(event: AnyEvent, change: Callable[[str], str]) -> Iterator[tuple[str, object]]:
    for name in _TEXT_FIELDS:
        value = getattr(event, name, None)
        if isinstance(value, str):
            yield name, change(value)
    inputs = getattr(event, "inputs", None)
    if inputs:
        yield "inputs", {name: change(text) for name, text in inputs.items()}
    messages: tuple[Message, ...] | None = getattr(event, "messages", None)
    if messages:
        yield "messages", tuple(_message(message, change) for message in messages)
    tool_calls: tuple[ToolCall, ...] | None = getattr(event, "tool_calls", None)
    if tool_calls:
        yield "tool_calls", _calls(tool_calls, change)
    documents: tuple[Document, ...] | None = getattr(event, "documents", None)
    if documents:
        yield "documents", tuple(one.model_copy(update={"text": change(one.text), "source": change(one.source)}) for one in documents)
    parameters: dict[str, JsonValue] | None = getattr(event, "parameters", None)
    if parameters:
        yield "parameters", {name: _in_json(value, change) for name, value in parameters.items()}
    if event.tags:
        yield "tags", tuple(change(tag) for tag in event.tags)
    if event.metadata:
        yield "metadata", json.loads(change(json.dumps(event.metadata, ensure_ascii=False)))


def _message(message: Message, change: Callable[[str], str]) -> Message:
    changes: dict[str, object] = {"content": change(message.content)}
    if message.tool_calls:
        changes["tool_calls"] = _calls(message.tool_calls, change)
    return message.model_copy(update=changes)


def _calls(calls: tuple[ToolCall, ...], change: Callable[[str], str]) -> tuple[ToolCall, ...]:
    return tuple(
        call.model_copy(update={"function": call.function.model_copy(update={"arguments": change(call.function.arguments)})})
        for call in calls
    )


def _in_json(value: JsonValue, change: Callable[[str], str]) -> JsonValue:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_in_json(item, change) for item in value]
    if isinstance(value, dict):
        return {change(name): _in_json(item, change) for name, item in value.items()}
    return value
