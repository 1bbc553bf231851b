"""Failures as Anthropic's API writes them."""

from collections.abc import Mapping

from rlaas.api.http import Body, find_status, internal_error_body
from rlaas.errors import ContextLengthExceeded, RlaasError, ThreadUnsupported
from rlaas.inference.anthropic_words import PARAMETERS

_TYPES: Mapping[int, str] = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    409: "conflict_error",
    413: "request_too_large",
    415: "invalid_request_error",
    429: "rate_limit_error",
    503: "overloaded_error",
}
_TOO_LONG = "prompt is too long"
_FIELDS: Mapping[str, str] = {
    "reasoning_effort": "output_config.effort",
    "parallel_tool_calls": "tool_choice",
    **{openai: anthropic for anthropic, openai in PARAMETERS.items() if openai not in PARAMETERS},
}
"""Anthropic's names of OpenAI's parameters, where they differ."""


def anthropic_failure(error: Exception, request_id: str) -> Body:
    """Anthropic's error body, and so the event `error` of a stream. The message names the field to blame."""
    if not isinstance(error, RlaasError):
        unknown = internal_error_body(request_id)["error"]
        assert isinstance(unknown, dict)
        return _build_body("api_error", str(unknown["message"]), request_id)
    if isinstance(error, ContextLengthExceeded):
        return _build_body("invalid_request_error", _say_too_long(error), request_id)
    message, field = error.message, _FIELDS.get(error.param or "", error.param)
    if field is not None and field not in message:
        message = f"{field}: {message}"
    # By this code Anthropic's tool runners know to go on without a thread.
    details: Body | None = {"error_code": error.code} if isinstance(error, ThreadUnsupported) else None
    return _build_body(_TYPES.get(find_status(error), "api_error"), message, request_id, details)


def _say_too_long(error: ContextLengthExceeded) -> str:
    """The words by which Anthropic's clients know that they have to make the conversation shorter."""
    start = error.quote.find(_TOO_LONG)
    return error.quote[start:] if start >= 0 else f"{_TOO_LONG}: {error.message}"


def _build_body(kind: str, message: str, request_id: str, details: Body | None = None) -> Body:
    return {"type": "error", "error": {"type": kind, "message": message, "details": details}, "request_id": request_id}
