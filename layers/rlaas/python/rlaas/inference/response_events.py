"""A streamed answer as the events of OpenAI's Responses API.

One item is open at a time, as OpenAI has it: what comes of another one waits until the open one is whole, or the answer
ends.
"""

import json
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, count
from typing import Literal

from pydantic import JsonValue

from rlaas.chat import CalledFunction, Delta, ToolCall, ToolCallDelta, Usage
from rlaas.inference.response_items import Item, ItemStatus, call_id, call_item, logprobs_of, message_id, message_item, text_part

Event = dict[str, JsonValue]
Describe = Callable[[list[Item], Usage | None, str | None], Item]
"""The response with the items that it has, its usage and why it ended; without a reason it is in progress."""
_PartType = Literal["output_text", "refusal"]


@dataclass(frozen=True, slots=True)
class _Words:
    type: _PartType
    text: str
    logprobs: list[JsonValue]


_Piece = _Words | ToolCallDelta
_Key = int | None
"""The item that a piece belongs to: a call's index, None for what is said."""


def response_events(
    deltas: Generator[Delta, None, None], *, output_id: str, describe: Describe, incomplete: frozenset[str]
) -> Generator[Event, None, None]:
    """The first choice of `deltas` as events, numbered from 0; reasons in `incomplete` say that it is cut off.

    What `deltas` raises before its first delta is raised before the first event; closing this closes `deltas`.
    """
    numbers, writer = count(), _Writer(output_id)

    def numbered(events: Iterator[Event]) -> Iterator[Event]:
        for event in events:
            event["sequence_number"] = next(numbers)
            yield event

    with closing(deltas):
        first = next(deltas, Delta())
        yield from numbered(
            iter({"type": f"response.{status}", "response": describe([], None, None)} for status in ("created", "in_progress"))
        )
        for delta in chain((first,), deltas):
            yield from numbered(writer.take(delta))
        reason = writer.reason or "stop"
        is_cut = reason in incomplete
        yield from numbered(writer.end("incomplete" if is_cut else "completed"))
        response = describe(writer.items, writer.usage, reason)
        yield from numbered(iter([{"type": "response.incomplete" if is_cut else "response.completed", "response": response}]))


def failure_event(body: Event, sequence_number: int) -> Event:
    """The event of a failure in the middle, from the body of an error answer.

    OpenAI documents its fields beside the type and sends them under `error`, by which its clients raise: both are here.
    """
    error = body["error"]
    assert isinstance(error, dict)
    own = {name: error[name] for name in ("code", "message", "param")}
    return {"type": "error", **own, "error": error, "sequence_number": sequence_number}


class _OpenMessage:
    """A message that is being written. Its parts are texts and refusals, one at a time."""

    def __init__(self, identifier: str, output_index: int) -> None:
        self._id = identifier
        self._index = output_index
        self._parts: list[Item] = []
        self._type: _PartType | None = None
        self._texts: list[str] = []
        self._logprobs: list[JsonValue] = []

    @property
    def whole(self) -> bool:
        """Whether it may end: what is said later begins another message."""
        return True

    def begin(self) -> Iterator[Event]:
        yield {"type": "response.output_item.added", "output_index": self._index, "item": self.item("in_progress")}

    def write(self, piece: _Piece) -> Iterator[Event]:
        assert isinstance(piece, _Words)
        if piece.type != self._type:
            yield from self._end_part()
            self._type = piece.type
            yield {"type": "response.content_part.added", **self._place(), "part": self._part("", [])}
        self._texts.append(piece.text)
        self._logprobs += piece.logprobs
        delta: Event = {"type": f"response.{piece.type}.delta", **self._place(), "delta": piece.text}
        yield {**delta, "logprobs": piece.logprobs} if piece.type == "output_text" else delta

    def end(self, status: ItemStatus) -> Iterator[Event]:
        yield from self._end_part()
        yield {"type": "response.output_item.done", "output_index": self._index, "item": self.item(status)}

    def item(self, status: ItemStatus) -> Item:
        return message_item(self._id, self._parts, status)

    def _end_part(self) -> Iterator[Event]:
        if self._type is None:
            return
        text, logprobs, place = "".join(self._texts), self._logprobs, self._place()
        part = self._part(text, logprobs)
        if self._type == "output_text":
            yield {"type": "response.output_text.done", **place, "text": text, "logprobs": logprobs}
        else:
            yield {"type": "response.refusal.done", **place, "refusal": text}
        yield {"type": "response.content_part.done", **place, "part": part}
        self._parts.append(part)
        self._type, self._texts, self._logprobs = None, [], []

    def _part(self, text: str, logprobs: list[JsonValue]) -> Item:
        return text_part(text, logprobs) if self._type == "output_text" else {"type": "refusal", "refusal": text}

    def _place(self) -> Item:
        return {"item_id": self._id, "output_index": self._index, "content_index": len(self._parts)}


class _OpenCall:
    """A call of a tool that is being written."""

    def __init__(self, identifier: str, output_index: int, first: ToolCallDelta) -> None:
        self._id = identifier
        self._index = output_index
        self._call = first.id or ""
        self._name = first.name or ""
        self._pieces: list[str] = []
        self._whole: bool | None = None

    @property
    def whole(self) -> bool:
        """Whether its arguments are an object that has ended, which nothing more can belong to."""
        if self._whole is None:
            try:
                self._whole = self._may_have_ended() and isinstance(json.loads("".join(self._pieces)), dict)
            except (ValueError, RecursionError):
                self._whole = False
        return self._whole

    def _may_have_ended(self) -> bool:
        """Whether it is worth reading all of it: pieces may be single letters, and there may be many."""
        return bool(self._pieces) and self._pieces[-1].rstrip().endswith("}")

    def begin(self) -> Iterator[Event]:
        yield {"type": "response.output_item.added", "output_index": self._index, "item": self.item("in_progress")}

    def write(self, piece: _Piece) -> Iterator[Event]:
        assert isinstance(piece, ToolCallDelta)
        if piece.arguments:
            self._pieces.append(piece.arguments)
            self._whole = None
            yield {
                "type": "response.function_call_arguments.delta",
                "item_id": self._id,
                "output_index": self._index,
                "delta": piece.arguments,
            }

    def end(self, status: ItemStatus) -> Iterator[Event]:
        yield {
            "type": "response.function_call_arguments.done",
            "item_id": self._id,
            "output_index": self._index,
            "arguments": "".join(self._pieces),
        }
        yield {"type": "response.output_item.done", "output_index": self._index, "item": self.item(status)}

    def item(self, status: ItemStatus) -> Item:
        function = CalledFunction.model_construct(name=self._name, arguments="".join(self._pieces))
        return call_item(self._id, ToolCall.model_construct(id=self._call, function=function), status)


class _Writer:
    """The events of an answer, whose pieces come in any order."""

    def __init__(self, output_id: str) -> None:
        self.items: list[Item] = []
        """Those that have ended."""
        self.usage: Usage | None = None
        self.reason: str | None = None
        self._output_id = output_id
        self._open: _OpenMessage | _OpenCall | None = None
        self._key: _Key = None
        self._messages = count()
        self._ended: set[int] = set()
        self._waiting: dict[_Key, list[_Piece]] = {}

    def take(self, delta: Delta) -> Iterator[Event]:
        """What a piece of the answer adds."""
        self.usage = delta.usage or self.usage
        if delta.index:
            return
        self.reason = delta.finish_reason or self.reason
        logprobs = logprobs_of(delta.logprobs)
        if delta.text or logprobs:
            yield from self._add(None, _Words("output_text", delta.text, logprobs))
        if delta.refusal:
            yield from self._add(None, _Words("refusal", delta.refusal, []))
        for piece in delta.tool_calls:
            yield from self._add(piece.index, piece)

    def end(self, status: ItemStatus) -> Iterator[Event]:
        """What was still open or waiting; the last item ends with `status`. An answer without any has an empty
        message."""
        if self._open is None and not self._waiting:
            self._waiting[None] = [_Words("output_text", "", [])]
        while self._waiting:
            if self._open is not None:
                yield from self._end_open("completed")
            yield from self._begin_next()
        yield from self._end_open(status)

    def _add(self, key: _Key, piece: _Piece) -> Iterator[Event]:
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

    def _begin_next(self) -> Iterator[Event]:
        self._key = key = next(iter(self._waiting))
        piece = self._waiting[key][0]
        if isinstance(piece, ToolCallDelta):
            self._open = _OpenCall(call_id(self._output_id, piece.index), len(self.items), piece)
        else:
            self._open = _OpenMessage(message_id(self._output_id, next(self._messages)), len(self.items))
        yield from self._open.begin()
        yield from self._write_waiting(self._open)

    def _write_waiting(self, item: _OpenMessage | _OpenCall) -> Iterator[Event]:
        for piece in self._waiting.pop(self._key):
            yield from item.write(piece)

    def _end_open(self, status: ItemStatus) -> Iterator[Event]:
        if self._open is None:
            return
        yield from self._open.end(status)
        self.items.append(self._open.item(status))
        if self._key is not None:
            self._ended.add(self._key)
        self._open = None
