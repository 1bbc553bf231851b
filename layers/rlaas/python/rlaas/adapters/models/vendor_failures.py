"""A vendor's refusals, failures and token counts in RLaaS's own terms: without payload text, and as the caller's error
only where the caller's request is wrong."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from pydantic import JsonValue, ValidationError

from rlaas.chat import BackendFailed, Usage
from rlaas.errors import InvalidInput, RlaasError

DID_NO_WORK = frozenset({429, 503, 529})
"""The statuses by which a vendor refuses a request before it does any work."""
_BLAMES_THE_REQUEST = frozenset({400, 413, 422})
_WORKED_FIRST = frozenset({408, 409, 424, 499})
"""Refusals that may come after a model has worked: out of time, in conflict, failed, the client gone."""
_LONGEST_WAIT_S = 3600.0
_NAME = re.compile(r"[A-Za-z0-9_.\[\]-]{1,128}")
_WORD = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def failure(vendor: str, status: int, *, code: object = None, param: object = None, retry_after_s: float | None = None) -> RlaasError:
    """The error to raise when `vendor` answers with the HTTP status `status`, its own error `code` and the parameter
    that it names.

    A request that the vendor finds wrong (400, 413, 422) is the caller's error: InvalidInput. A key that it does not
    accept, or a model that it does not know, is the policy's error: BackendFailed.
    """
    suffix = f" ({code})" if isinstance(code, str) and _WORD.fullmatch(code) else ""
    if status in _BLAMES_THE_REQUEST and param != "model":
        name = param if isinstance(param, str) and _NAME.fullmatch(param) else None
        return InvalidInput(f"{vendor} refuses {name or 'the request'}{suffix}", param=name)
    return BackendFailed(
        f"{vendor} answered {status}{suffix}",
        safe_to_repeat=status in DID_NO_WORK,
        nothing_done=400 <= status < 500 and status not in _WORKED_FIRST,
        retry_after_s=retry_after_s,
    )


def retry_after_s(headers: Mapping[str, str], *, now: datetime | None = None) -> float | None:
    """How long the vendor asks to wait, in seconds: `retry-after-ms`, or `Retry-After` in seconds or as a date. The
    headers' names are in lower case.

    An hour at most, since clients obey it and a vendor may send any number.
    """
    for name, unit in (("retry-after-ms", 1000), ("retry-after", 1)):
        if re.fullmatch(r"\d{1,9}(\.\d{1,6})?", text := headers.get(name, "")):
            return min(float(text) / unit, _LONGEST_WAIT_S)
    try:
        until = parsedate_to_datetime(headers.get("retry-after", ""))
        seconds = (until.astimezone(UTC) - (now or datetime.now(UTC))).total_seconds()
    except (ValueError, OverflowError):
        return None
    return min(max(0.0, seconds), _LONGEST_WAIT_S)


def select_parameters(
    vendor: str, parameters: Mapping[str, JsonValue], supported: frozenset[str], *, defaults: Mapping[str, JsonValue] | None = None
) -> dict[str, JsonValue]:
    """The parameters to send to a vendor that takes only `supported`: without nulls and without values that mean the
    same as leaving the parameter out, which include the vendor's own `defaults`.

    Raises: InvalidInput naming the first parameter that the vendor does not take.
    """
    no_effect: dict[str, JsonValue] = {**_NO_EFFECT, **(defaults or {})}
    selection: dict[str, JsonValue] = {
        name: value
        for name, value in parameters.items()
        if value is not None and name != "stream_options" and not (name in no_effect and no_effect[name] == value)
    }
    for name in selection:
        if name not in supported:
            raise InvalidInput(f"{vendor} does not take {name!r}", param=name)
    return selection


def make_usage(*, input_tokens: int, output_tokens: int, cached_tokens: int = 0) -> Usage | None:
    """A vendor's counts of tokens; None where they cannot be true (negative, or far too large), so that they are
    estimated instead."""
    try:
        return Usage(input_tokens=input_tokens, output_tokens=output_tokens, cached_tokens=cached_tokens)
    except ValidationError:
        return None


_NO_EFFECT: Mapping[str, JsonValue] = {
    "n": 1,
    "frequency_penalty": 0,
    "presence_penalty": 0,
    "logprobs": False,
    "top_logprobs": 0,
    "logit_bias": {},
    "stop": [],
    "tools": [],
    "parallel_tool_calls": True,
    "response_format": {"type": "text"},
    "store": False,
}
"""Parameters at the value that means the same as leaving them out."""
