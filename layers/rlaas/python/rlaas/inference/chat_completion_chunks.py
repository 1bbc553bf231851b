"""A streamed answer as OpenAI's chat completion chunks."""

from collections.abc import Generator, Mapping
from contextlib import closing
from datetime import datetime

from pydantic import JsonValue

from rlaas.chat import UNKNOWN_PROCESSING, Delta, Processing, ToolCallDelta, Usage

Chunk = dict[str, JsonValue]


def chunks(
    deltas: Generator[Delta, None, None],
    *,
    completion_id: str,
    model: str,
    created: datetime,
    include_usage: bool,
    extras: Mapping[str, JsonValue],
) -> Generator[Chunk, None, None]:
    """`deltas` as chunks of one id, model and time; `extras` stand in the first one.

    Each choice begins with its role. With `include_usage` every chunk has the key `usage`, null but in the last,
    which has no choices. What `deltas` raises before its first delta is raised before the first chunk; closing this
    closes `deltas`.
    """
    head: Chunk = {"id": completion_id, "object": "chat.completion.chunk", "created": int(created.timestamp()), "model": model}
    tail: Chunk = {"usage": None} if include_usage else {}
    first: Chunk = dict(extras)
    indexes: set[int] = set()
    usage: Usage | None = None
    processing = UNKNOWN_PROCESSING
    with closing(deltas):
        for delta in deltas:
            usage = delta.usage or usage
            processing = delta.processing if delta.processing != UNKNOWN_PROCESSING else processing
            if not _has_content(delta):
                continue
            piece = _build_piece(delta, is_first=delta.index not in indexes)
            indexes.add(delta.index)
            choice: Chunk = {"index": delta.index, "delta": piece, "logprobs": delta.logprobs, "finish_reason": delta.finish_reason}
            yield {**head, **describe_processing(processing), "choices": [choice], **tail, **first}
            first = {}
    if include_usage:
        yield {**head, **describe_processing(processing), "choices": [], "usage": build_usage(usage) if usage else None, **first}


def build_usage(usage: Usage) -> Chunk:
    """OpenAI's `usage`."""
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": usage.cache_write_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


def describe_processing(processing: Processing) -> Chunk:
    """The fields of an answer that say how the vendor processed the call, where it says so itself."""
    fields = {"system_fingerprint": processing.system_fingerprint, "service_tier": processing.service_tier}
    return {name: value for name, value in fields.items() if value is not None}


def _has_content(delta: Delta) -> bool:
    words = delta.text or delta.tool_calls or delta.refusal or delta.reasoning_content or delta.annotations
    return bool(words or delta.finish_reason or delta.logprobs is not None)


def _build_piece(delta: Delta, *, is_first: bool) -> Chunk:
    piece: Chunk = {"role": "assistant", "content": None if delta.tool_calls else "", "refusal": None} if is_first else {}
    if delta.text:
        piece["content"] = delta.text
    if delta.refusal:
        piece["refusal"] = delta.refusal
    if delta.reasoning_content:
        piece["reasoning_content"] = delta.reasoning_content
    if delta.annotations:
        piece["annotations"] = [*delta.annotations]
    if delta.tool_calls:
        piece["tool_calls"] = [_build_call(call) for call in delta.tool_calls]
    return piece


def _build_call(call: ToolCallDelta) -> Chunk:
    function: Chunk = {"arguments": call.arguments} if call.name is None else {"name": call.name, "arguments": call.arguments}
    piece: Chunk = {"index": call.index, **({} if call.id is None else {"id": call.id, "type": "function"}), "function": function}
    if call.extra_content is not None:
        piece["extra_content"] = call.extra_content
    return piece
