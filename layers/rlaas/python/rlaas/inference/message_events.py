"""A streamed answer as the events of Anthropic's Messages API."""

import json
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field

from pydantic import JsonValue

from rlaas.chat import Delta, ToolCallDelta, Usage
from rlaas.inference.messages import build_stop, build_tool_id, build_usage

Event = dict[str, JsonValue]


def events(
    deltas: Generator[Delta, None, None], *, message_id: str, model: str, extras: Mapping[str, JsonValue]
) -> Generator[Event, None, None]:
    """`deltas` as events; `extras` stand in the message that the first one begins.

    The usage is known last, so that `message_delta` has it and `message_start` zeros. What `deltas` raises before its
    first delta is raised before the first event; closing this closes `deltas`.
    """
    blocks, usage, finish_reason, stop_sequence, refusal = _Blocks(), None, None, None, ""
    start: Event | None = _build_start(message_id, model, extras)
    with closing(deltas):
        for delta in deltas:
            if start is not None:
                yield start
                start = None
            usage = delta.usage or usage
            if delta.index != 0:
                continue
            finish_reason = delta.finish_reason or finish_reason
            stop_sequence = delta.stop_sequence or stop_sequence
            refusal += delta.refusal or ""
            blocks.add(delta)
            yield from blocks.send()
    if start is not None:
        yield start
    if not blocks:
        blocks.add(Delta(text=refusal))
    yield from blocks.send(last=True)
    yield {
        "type": "message_delta",
        "delta": build_stop(finish_reason, has_calls=blocks.have_calls, refusal=refusal or None, stop_sequence=stop_sequence),
        "usage": build_usage(usage),
    }
    yield {"type": "message_stop"}


def _build_start(message_id: str, model: str, extras: Mapping[str, JsonValue]) -> Event:
    nothing = Usage(input_tokens=0, output_tokens=0)
    message: Event = {
        "id": message_id,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "stop_details": None,
        "usage": build_usage(nothing),
    }
    return {"type": "message_start", "message": {**message, **extras}}


@dataclass(slots=True)
class _Block:
    """A text, or the call of a tool, which has a position among the calls."""

    position: int | None = None
    id: str | None = None
    name: str | None = None
    unsent: list[str] = field(default_factory=list)
    sent: list[str] = field(default_factory=list)
    is_open: bool = False

    def is_done(self) -> bool:
        """Whether nothing can follow: text that does makes a block of its own, and a whole JSON object is one."""
        if self.position is None:
            return True
        if not self.sent or not self.sent[-1].rstrip().endswith("}"):
            return False
        try:
            json.loads("".join(self.sent))
        except (ValueError, RecursionError):
            return False
        return True


class _Blocks:
    """The answer's blocks, which Anthropic's clients take strictly one after the other.

    Calls by OpenAI come by index and may interleave: one that begins before the one that is open is done waits for it.
    """

    def __init__(self) -> None:
        self._blocks: list[_Block] = []
        self._calls: dict[int, _Block] = {}
        self._at = 0

    def __bool__(self) -> bool:
        return bool(self._blocks)

    @property
    def have_calls(self) -> bool:
        """Whether a tool is called."""
        return bool(self._calls)

    def add(self, delta: Delta) -> None:
        """Take a piece in."""
        if delta.text:
            if not self._blocks or self._blocks[-1].position is not None:
                self._blocks.append(_Block())
            self._blocks[-1].unsent.append(delta.text)
        for call in delta.tool_calls:
            self._add_call(call)

    def _add_call(self, call: ToolCallDelta) -> None:
        block = self._calls.get(call.index)
        if block is None:
            block = self._calls[call.index] = _Block(position=len(self._calls))
            self._blocks.append(block)
        block.id, block.name = block.id or call.id, block.name or call.name
        if call.arguments:
            block.unsent.append(call.arguments)

    def send(self, *, last: bool = False) -> Iterator[Event]:
        """The events of what can be sent: all of it after the `last` piece."""
        while self._at < len(self._blocks):
            block, index = self._blocks[self._at], self._at
            if not block.is_open:
                if block.position is not None and not block.name and not last:
                    return
                yield {"type": "content_block_start", "index": index, "content_block": _build_block(block)}
                block.is_open = True
            if block.unsent:
                yield {"type": "content_block_delta", "index": index, "delta": _build_delta(block)}
            has_next = index + 1 < len(self._blocks)
            if not last and not (has_next and block.is_done()):
                return
            yield {"type": "content_block_stop", "index": index}
            self._at += 1


def _build_block(block: _Block) -> Event:
    if block.position is None:
        return {"type": "text", "text": ""}
    return {"type": "tool_use", "id": build_tool_id(block.id, block.position), "name": block.name or "", "input": {}}


def _build_delta(block: _Block) -> Event:
    text = "".join(block.unsent)
    block.unsent.clear()
    if block.position is None:
        return {"type": "text_delta", "text": text}
    block.sent.append(text)
    return {"type": "input_json_delta", "partial_json": text}
