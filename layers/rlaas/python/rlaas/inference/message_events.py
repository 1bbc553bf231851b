"""A streamed answer as the events of Anthropic's Messages API."""

from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Literal

from pydantic import JsonValue

from rlaas.chat import UNKNOWN_PROCESSING, Delta, ToolCallDelta, Usage
from rlaas.inference.growing_json import GrowingObject
from rlaas.inference.messages import build_stop, build_usage, thinking_block

StreamEvent = dict[str, JsonValue]


def events(
    deltas: Generator[Delta, None, None], *, message_id: str, model: str, extras: Mapping[str, JsonValue], shows_thoughts: bool = False
) -> Generator[StreamEvent, None, None]:
    """`deltas` as events; `extras` stand in the message that the first one begins, and what the model thinks is there
    if the client `shows_thoughts`.

    Most vendors tell the usage last, so that `message_delta` has it; `message_start` has what was told before the
    answer, or zeros. What `deltas` raises before it is raised before the first event; closing this closes `deltas`.
    """
    blocks, usage, finish_reason, stop_sequence, refusal = _Blocks(shows_thoughts=shows_thoughts), None, None, None, ""
    processing = UNKNOWN_PROCESSING
    has_begun = False
    with closing(deltas):
        for delta in deltas:
            usage = delta.usage or usage
            if not has_begun and (usage is not None or delta.has_content):
                yield _build_start(message_id, model, extras, usage)
                has_begun = True
            processing = delta.processing if delta.processing != UNKNOWN_PROCESSING else processing
            if delta.index != 0:
                continue
            finish_reason = delta.finish_reason or finish_reason
            stop_sequence = delta.stop_sequence or stop_sequence
            refusal += delta.refusal or ""
            blocks.add(delta)
            yield from blocks.send()
    if not has_begun:
        yield _build_start(message_id, model, extras, usage)
    if not blocks.say_something:
        blocks.add(Delta(text=refusal))
    yield from blocks.send(last=True)
    yield {
        "type": "message_delta",
        "delta": build_stop(finish_reason, has_calls=blocks.have_calls, refusal=refusal or None, stop_sequence=stop_sequence),
        "usage": build_usage(usage, processing),
    }
    yield {"type": "message_stop"}


def _build_start(message_id: str, model: str, extras: Mapping[str, JsonValue], usage: Usage | None) -> StreamEvent:
    message: StreamEvent = {
        "id": message_id,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "stop_details": None,
        "usage": build_usage(usage),
    }
    return {"type": "message_start", "message": {**message, **extras}}


@dataclass(slots=True)
class _Block:
    """A text, what the model thinks, or the call of a tool."""

    type: Literal["text", "thinking", "tool_use"]
    id: str | None = None
    name: str | None = None
    unsent: list[str] = field(default_factory=list)
    arguments: GrowingObject = field(default_factory=GrowingObject)
    """Those of a call that were sent."""
    is_open: bool = False

    def is_done(self) -> bool:
        """Whether nothing can follow: text that does makes a block of its own, and a whole JSON object is one."""
        return self.type != "tool_use" or self.arguments.has_ended


class _Blocks:
    """The answer's blocks, which Anthropic's clients take strictly one after the other.

    Calls by OpenAI come by index and may interleave: one that begins before the one that is open is done waits for it.
    """

    def __init__(self, *, shows_thoughts: bool) -> None:
        self._blocks: list[_Block] = []
        self._calls: dict[int, _Block] = {}
        self._at = 0
        self._shows_thoughts = shows_thoughts

    @property
    def say_something(self) -> bool:
        """Whether there is more than what the model thought."""
        return any(block.type != "thinking" for block in self._blocks)

    @property
    def have_calls(self) -> bool:
        """Whether a tool is called."""
        return bool(self._calls)

    def add(self, delta: Delta) -> None:
        """Take a piece in."""
        if delta.reasoning_content and self._shows_thoughts:
            self._add_words("thinking", delta.reasoning_content)
        if delta.text:
            self._add_words("text", delta.text)
        for call in delta.tool_calls:
            self._add_call(call)

    def _add_words(self, kind: Literal["text", "thinking"], words: str) -> None:
        if not self._blocks or self._blocks[-1].type != kind:
            self._blocks.append(_Block(kind))
        self._blocks[-1].unsent.append(words)

    def _add_call(self, call: ToolCallDelta) -> None:
        block = self._calls.get(call.index)
        if block is None:
            block = self._calls[call.index] = _Block("tool_use")
            self._blocks.append(block)
        block.id, block.name = block.id or call.id, block.name or call.name
        if call.arguments:
            block.unsent.append(call.arguments)

    def send(self, *, last: bool = False) -> Iterator[StreamEvent]:
        """The events of what can be sent: all of it after the `last` piece."""
        while self._at < len(self._blocks):
            block, index = self._blocks[self._at], self._at
            if not block.is_open:
                if block.type == "tool_use" and not block.name and not last:
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


def _build_block(block: _Block) -> StreamEvent:
    if block.type == "tool_use":
        return {"type": "tool_use", "id": block.id or "", "name": block.name or "", "input": {}}
    return thinking_block("") if block.type == "thinking" else {"type": "text", "text": ""}


def _build_delta(block: _Block) -> StreamEvent:
    text = "".join(block.unsent)
    block.unsent.clear()
    if block.type != "tool_use":
        return {"type": f"{block.type}_delta", block.type: text}
    block.arguments.add(text)
    return {"type": "input_json_delta", "partial_json": text}
