"""OpenAI's chat completions on the wire: requests, and the refusals of them."""

import json
from collections.abc import Iterable, Mapping

from pydantic import JsonValue

from rlaas.adapters.models.vendor_failures import failure
from rlaas.chat import ChatCall
from rlaas.errors import RlaasError


def chat_body(call: ChatCall, *, stream: bool, model: str | None = None) -> dict[str, JsonValue]:
    """The request's body: every parameter as it is, without nulls. A stream is always asked to end with its usage."""
    body: dict[str, JsonValue] = {name: value for name, value in call.parameters.items() if value is not None}
    body.pop("stream_options", None)
    if model is not None:
        body["model"] = model
    body["messages"] = [message.plain() for message in call.messages]
    if stream:
        body["stream"] = True
        body["stream_options"] = {"include_usage": True}
    return body


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
