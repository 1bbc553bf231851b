"""A streamed answer as the events of OpenAI's Responses API.

One item is open at a time, as OpenAI has it: what comes of another one waits until the open one is whole, or the answer
ends.
"""

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain, count
from typing import Literal

from pydantic import JsonValue

from rlaas.chat import UNKNOWN_PROCESSING, CalledFunction, Delta, Processing, ToolCall, ToolCallDelta, Usage
from rlaas.inference.growing_json import GrowingObject
from rlaas.inference.response_items import (
    ItemStatus,
    OutputItem,
    call_id,
    call_item,
    list_annotations,
    list_logprobs,
    message_id,
    message_item,
    reasoning_id,
    reasoning_item,
    text_part,
)

StreamEvent = dict[str, JsonValue]
Describe = Callable[[list[OutputItem], Usage | None, str | None, Processing], OutputItem]
"""The response with the items that it has, its usage, why it ended and how it was processed; without a reason it is in
progress."""
_PartType = Literal["output_text", "refusal", "reasoning_text"]


@dataclass(frozen=True, slots=True)
class _Words:
    type: _PartType
    text: str
    logprobs: list[JsonValue] = field(default_factory=list)
    annotations: list[JsonValue] = field(default_factory=list)


_Piece = _Words | ToolCallDelta
_Key = int | Literal["message", "reasoning"]
"""The item that a piece belongs to: a call's index, or what is said or thought."""


def response_events(
    deltas: Generator[Delta, None, None], *, output_id: str, describe: Describe, incomplete: frozenset[str]
) -> Generator[StreamEvent, None, None]:
    """The first choice of `deltas` as events, numbered from 0; reasons in `incomplete` say that it is cut off.

    What `deltas` raises before its first delta is raised before the first event; closing this closes `deltas`.
    """
    numbers, writer = count(), _Writer(output_id)

    def numbered(events: Iterator[StreamEvent]) -> Iterator[StreamEvent]:
        for event in events:
            event["sequence_number"] = next(numbers)
            yield event

    with closing(deltas):
        first = next(deltas, Delta())
        yield from numbered(
            iter(
                {"type": f"response.{status}", "response": describe([], None, None, UNKNOWN_PROCESSING)}
                for status in ("created", "in_progress")
            )
        )
        for delta in chain((first,), deltas):
            yield from numbered(writer.take(delta))
        reason = writer.reason or "stop"
        is_cut = reason in incomplete
        yield from numbered(writer.end("incomplete" if is_cut else "completed"))
        response = describe(writer.items, writer.usage, reason, writer.processing)
        yield from numbered(iter([{"type": "response.incomplete" if is_cut else "response.completed", "response": response}]))


def failure_event(body: StreamEvent, sequence_number: int) -> StreamEvent:
    """The event of a failure in the middle, from the body of an error answer.

    OpenAI documents its fields beside the type and sends them under `error`, by which its clients raise: both are here.
    """
    error = body["error"]
    assert isinstance(error, dict)
    own = {name: error[name] for name in ("code", "message", "param")}
    return {"type": "error", **own, "error": error, "sequence_number": sequence_number}


class _OpenWords:
    """A message or what the model thinks, as it is being written. Its parts are texts and refusals, one at a time."""

    def __init__(self, identifier: str, output_index: int, make_item: Callable[[str, list[OutputItem], ItemStatus], OutputItem]) -> None:
        self._id = identifier
        self._index = output_index
        self._make_item = make_item
        self._parts: list[OutputItem] = []
        self._type: _PartType | None = None
        self._texts: list[str] = []
        self._logprobs: list[JsonValue] = []
        self._annotations: list[JsonValue] = []

    @property
    def whole(self) -> bool:
        """Whether it may end: what is said later begins another item."""
        return True

    def begin(self) -> Iterator[StreamEvent]:
        yield {"type": "response.output_item.added", "output_index": self._index, "item": self.item("in_progress")}

    def write(self, piece: _Piece) -> Iterator[StreamEvent]:
        assert isinstance(piece, _Words)
        if piece.type != self._type:
            yield from self._end_part()
            self._type = piece.type
            yield {"type": "response.content_part.added", **self._place(), "part": self._part("")}
        self._texts.append(piece.text)
        self._logprobs += piece.logprobs
        if piece.text or piece.logprobs or not piece.annotations:
            delta: StreamEvent = {"type": f"response.{piece.type}.delta", **self._place(), "delta": piece.text}
            yield {**delta, "logprobs": piece.logprobs} if piece.type == "output_text" else delta
        for annotation in piece.annotations:
            place: StreamEvent = {**self._place(), "annotation_index": len(self._annotations), "annotation": annotation}
            yield {"type": "response.output_text.annotation.added", **place}
            self._annotations.append(annotation)

    def end(self, status: ItemStatus) -> Iterator[StreamEvent]:
        yield from self._end_part()
        yield {"type": "response.output_item.done", "output_index": self._index, "item": self.item(status)}

    def item(self, status: ItemStatus) -> OutputItem:
        return self._make_item(self._id, self._parts, status)

    def _end_part(self) -> Iterator[StreamEvent]:
        if self._type is None:
            return
        text, place = "".join(self._texts), self._place()
        part = self._part(text)
        done: StreamEvent = {"type": f"response.{self._type}.done", **place, "refusal" if self._type == "refusal" else "text": text}
        yield {**done, "logprobs": self._logprobs} if self._type == "output_text" else done
        yield {"type": "response.content_part.done", **place, "part": part}
        self._parts.append(part)
        self._type, self._texts, self._logprobs, self._annotations = None, [], [], []

    def _part(self, text: str) -> OutputItem:
        if self._type == "output_text":
            return text_part(text, self._logprobs, self._annotations)
        return {"type": "refusal", "refusal": text} if self._type == "refusal" else {"type": "reasoning_text", "text": text}

    def _place(self) -> OutputItem:
        return {"item_id": self._id, "output_index": self._index, "content_index": len(self._parts)}


class _OpenCall:
    """A call of a tool that is being written."""

    def __init__(self, identifier: str, output_index: int, first: ToolCallDelta) -> None:
        self._id = identifier
        self._index = output_index
        self._call = first.id or ""
        self._name = first.name or ""
        self._arguments = GrowingObject()

    @property
    def whole(self) -> bool:
        """Whether its arguments are an object that has ended, which nothing more can belong to."""
        return self._arguments.has_ended

    def begin(self) -> Iterator[StreamEvent]:
        yield {"type": "response.output_item.added", "output_index": self._index, "item": self.item("in_progress")}

    def write(self, piece: _Piece) -> Iterator[StreamEvent]:
        assert isinstance(piece, ToolCallDelta)
        if piece.arguments:
            self._arguments.add(piece.arguments)
            yield {
                "type": "response.function_call_arguments.delta",
                "item_id": self._id,
                "output_index": self._index,
                "delta": piece.arguments,
            }

    def end(self, status: ItemStatus) -> Iterator[StreamEvent]:
        yield {
            "type": "response.function_call_arguments.done",
            "item_id": self._id,
            "output_index": self._index,
            "arguments": self._arguments.text,
        }
        yield {"type": "response.output_item.done", "output_index": self._index, "item": self.item(status)}

    def item(self, status: ItemStatus) -> OutputItem:
        function = CalledFunction.model_construct(name=self._name, arguments=self._arguments.text)
        return call_item(self._id, ToolCall.model_construct(id=self._call, function=function), status)


class _Writer:
    """The events of an answer, whose pieces come in any order."""

    def __init__(self, output_id: str) -> None:
        self.items: list[OutputItem] = []
        """Those that have ended."""
        self.usage: Usage | None = None
        self.reason: str | None = None
        self.processing = UNKNOWN_PROCESSING
        self._output_id = output_id
        self._open: _OpenWords | _OpenCall | None = None
        self._key: _Key = "message"
        self._messages = count()
        self._thoughts = count()
        self._ended: set[_Key] = set()
        self._waiting: dict[_Key, list[_Piece]] = {}

    def take(self, delta: Delta) -> Iterator[StreamEvent]:
        """What a piece of the answer adds."""
        self.usage = delta.usage or self.usage
        if delta.processing != UNKNOWN_PROCESSING:
            self.processing = delta.processing
        if delta.index:
            return
        self.reason = delta.finish_reason or self.reason
        logprobs, annotations = list_logprobs(delta.logprobs), list_annotations(delta.annotations)
        if delta.reasoning_content:
            yield from self._add("reasoning", _Words("reasoning_text", delta.reasoning_content))
        if delta.text or logprobs or annotations:
            yield from self._add("message", _Words("output_text", delta.text, logprobs, annotations))
        if delta.refusal:
            yield from self._add("message", _Words("refusal", delta.refusal))
        for piece in delta.tool_calls:
            yield from self._add(piece.index, piece)

    def end(self, status: ItemStatus) -> Iterator[StreamEvent]:
        """What was still open or waiting; the last item ends with `status`. An answer that says and calls
        nothing has an empty message."""
        is_answering = self._open is not None and self._key != "reasoning"
        if not (self._waiting or is_answering or any(item["type"] != "reasoning" for item in self.items)):
            self._waiting["message"] = [_Words("output_text", "")]
        while self._waiting:
            if self._open is not None:
                yield from self._end_open("completed")
            yield from self._begin_next()
        yield from self._end_open(status)

    def _add(self, key: _Key, piece: _Piece) -> Iterator[StreamEvent]:
        if key in self._ended:  # its arguments had ended: what comes after them is a blank, or nothing that JSON has
            return
        self._waiting.setdefault(key, []).append(piece)
        while self._waiting:
            if self._open is not None and self._key in self._waiting:
                yield from self._write_waiting(self._open)
            elif self._open is None:
                yield from self._begin_next()
            elif self._open.whole:
                yield from self._end_open("completed")
            else:
                return

    def _begin_next(self) -> Iterator[StreamEvent]:
        self._key = key = next(iter(self._waiting))
        piece = self._waiting[key][0]
        if isinstance(piece, ToolCallDelta):
            self._open = _OpenCall(call_id(self._output_id, piece.index), len(self.items), piece)
        elif key == "reasoning":
            self._open = _OpenWords(reasoning_id(self._output_id, next(self._thoughts)), len(self.items), reasoning_item)
        else:
            self._open = _OpenWords(message_id(self._output_id, next(self._messages)), len(self.items), message_item)
        yield from self._open.begin()
        yield from self._write_waiting(self._open)

    def _write_waiting(self, item: _OpenWords | _OpenCall) -> Iterator[StreamEvent]:
        for piece in self._waiting.pop(self._key):
            yield from item.write(piece)

    def _end_open(self, status: ItemStatus) -> Iterator[StreamEvent]:
        if self._open is None:
            return
        yield from self._open.end(status)
        self.items.append(self._open.item(status))
        if isinstance(self._open, _OpenCall):
            self._ended.add(self._key)
        self._open = None
