"""OpenAI's chat completions on the wire: requests, and the refusals of them."""

import json
from collections.abc import Iterable, Mapping

from pydantic import JsonValue

from rlaas.adapters.models.vendor_failures import failure, leave_out_idle
from rlaas.chat import ChatCall, Message, make_piece
from rlaas.errors import RlaasError
from rlaas.prompt_cache import CacheTtl


def chat_body(call: ChatCall, *, stream: bool, model: str | None = None, marked: bool = False) -> dict[str, JsonValue]:
    """The request's body: every parameter as it is, without those that say nothing; if `marked` with the marks of the
    prompt's cache. A stream is always asked to end with its usage."""
    body = leave_out_idle(call.parameters)
    body.pop("stream_options", None)
    if isinstance(tools := body.get("tools"), list):
        body["tools"] = [_leave_out_nulls(tool) for tool in tools]
    if model is not None:
        body["model"] = model
    body["messages"] = [_mark_message(message) if marked else message.plain() for message in call.messages]
    if marked and call.tool_marks and isinstance(tools := body.get("tools"), list):
        body["tools"] = [_mark(tool, call.tool_marks.get(place)) for place, tool in enumerate(tools) if isinstance(tool, dict)]
    if stream:
        body["stream"] = True
        body["stream_options"] = {"include_usage": True}
    return body


def _mark_message(message: Message) -> dict[str, JsonValue]:
    """The message with its marks, which OpenRouter takes as Anthropic's on the parts of a content."""
    plain, marked = message.plain(), [*message.marked_pieces()]
    ttls = [*(ttl for _, ttl in marked[:-1]), *(message.ends_cached_for or ttl for _, ttl in marked[-1:])]
    if any(ttl is not None for ttl in ttls):
        plain["content"] = [_mark(make_piece(piece), ttl) for (piece, _), ttl in zip(marked, ttls, strict=True)]
    return plain


def _mark(part: dict[str, JsonValue], ttl: CacheTtl | None) -> dict[str, JsonValue]:
    return part if ttl is None else {**part, "cache_control": {"type": "ephemeral", **({"ttl": ttl} if ttl == "1h" else {})}}


def _leave_out_nulls(tool: JsonValue) -> JsonValue:
    """The tool without the nulls of its function, which clients send and OpenAI refuses."""
    function = tool.get("function") if isinstance(tool, dict) else None
    if not isinstance(tool, dict) or not isinstance(function, dict) or None not in function.values():
        return tool
    return {**tool, "function": {name: value for name, value in function.items() if value is not None}}


def read_refusal(
    vendor: str, status: int, content: bytes | str, *, private: Iterable[str] = (), retry_after_s: float | None = None
) -> RlaasError:
    """The error to raise for a response other than 200, from its status and its body, which is OpenAI's error body or
    like it. What the server says is quoted without the texts `private`."""
    error = _find_error(content)
    message, param = error.get("message") or error.get("detail") or "", error.get("param")
    metadata = error.get("metadata")
    if isinstance(metadata, dict) and isinstance(metadata.get("raw"), str):  # OpenRouter, of the provider behind it
        message = f"{message}: {metadata['raw']}"
    return failure(
        vendor,
        status,
        code=error.get("code"),
        error_type=error.get("type") or error.get("error_type") or error.get("status"),
        param=param,
        message=message if isinstance(message, str) else json.dumps(message, ensure_ascii=False),
        private=private,
        retry_after_s=retry_after_s,
    )


def _find_error(content: bytes | str) -> Mapping[str, JsonValue]:
    """The error in a body: under `error`, or at the top as older versions of vLLM and FastAPI write it, or in a list as
    Google does. Empty where the body is no JSON."""
    try:
        body: JsonValue = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    if isinstance(body, list) and body:
        body = body[0]
    if not isinstance(body, dict):
        return {}
    error = body.get("error")
    if isinstance(error, str):
        return {**body, "message": error}
    return error if isinstance(error, dict) else body


def count_choices(parameters: Mapping[str, JsonValue]) -> int:
    """How many choices `parameters` ask for, at least 1."""
    count = parameters.get("n")
    return count if isinstance(count, int) and count > 0 else 1
