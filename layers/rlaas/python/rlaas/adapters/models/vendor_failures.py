"""How a vendor's refusals, failures and counts read to the rest of RLaaS: never with payload text, the caller blamed
only for its own."""

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
"""Refusals that may come after a model has worked: out of time, in conflict, failed, left."""
_LONGEST_WAIT_S = 3600.0
_NAME = re.compile(r"[A-Za-z0-9_.\[\]-]{1,128}")
_WORD = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def failure(vendor: str, status: int, *, code: object = None, param: object = None, retry_after_s: float | None = None) -> RlaasError:
    """What to raise when `vendor` answered `status`, with its own error `code` and the parameter it names.

    A request that the vendor finds wrong (400, 413, 422) is the caller's; a key that it does not take, or a model that
    it does not know, is the policy's, and so a failure of the backend.
    """
    said = f" ({code})" if isinstance(code, str) and _WORD.fullmatch(code) else ""
    if status in _BLAMES_THE_REQUEST and param != "model":
        named = param if isinstance(param, str) and _NAME.fullmatch(param) else None
        return InvalidInput(f"{vendor} refuses {named or 'the request'}{said}", param=named)
    return BackendFailed(
        f"{vendor} answered {status}{said}",
        safe_to_repeat=status in DID_NO_WORK,
        nothing_done=400 <= status < 500 and status not in _WORKED_FIRST,
        retry_after_s=retry_after_s,
    )


def retry_after_s(headers: Mapping[str, str], *, now: datetime | None = None) -> float | None:
    """How long the vendor asks to wait, in seconds: `retry-after-ms`, or `Retry-After` in seconds or as a date. Names
    are lower-case.

    An hour at most: clients obey it, and a vendor may say anything.
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


def taken(
    vendor: str, parameters: Mapping[str, JsonValue], takes: frozenset[str], *, defaults: Mapping[str, JsonValue] | None = None
) -> dict[str, JsonValue]:
    """The parameters that say something to a vendor who takes only `takes`: without nulls and what means the same as
    leaving it out.

    `defaults` are the vendor's own. Raises: InvalidInput naming the first parameter that the vendor does not take.
    """
    silent: dict[str, JsonValue] = {**_SAYS_NOTHING, **(defaults or {})}
    telling: dict[str, JsonValue] = {
        name: value
        for name, value in parameters.items()
        if value is not None and name != "stream_options" and not (name in silent and silent[name] == value)
    }
    for name in telling:
        if name not in takes:
            raise InvalidInput(f"{vendor} does not take {name!r}", param=name)
    return telling


def counted(*, read: int, written: int, cached: int = 0) -> Usage | None:
    """A vendor's counts of tokens; None where they are none (negative, or beyond all reason), so that they are
    estimated instead."""
    try:
        return Usage(input_tokens=read, output_tokens=written, cached_tokens=cached)
    except ValidationError:
        return None


_SAYS_NOTHING: Mapping[str, JsonValue] = {
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
