"""A vendor's refusals, failures and token counts in RLaaS's own terms: as the caller's error only where the caller's
request is wrong, and as the tenant's where its policy is."""

import logging
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from pydantic import JsonValue, ValidationError

from rlaas.adapters.models.vendor_words import blames_policy, is_about_part, is_spent, is_too_long, quote
from rlaas.chat import BackendFailed, Misconfigured, RateLimited, Usage
from rlaas.errors import ContextLengthExceeded, InvalidInput, RlaasError, TranslationRefused

_DID_NO_WORK = frozenset({503, 529})
"""The statuses, beside 429, by which a vendor refuses a request before it does any work."""
_BLAMES_THE_REQUEST = frozenset({400, 413, 422})
_BLAMES_THE_POLICY = frozenset({301, 302, 303, 307, 308, 401, 402, 403, 404, 405, 407, 410, 451})
"""Its key, its model, its address or its account is wrong."""
_WORKED_FIRST = frozenset({408, 409, 424, 499})
"""Refusals that may come after a model has worked: out of time, in conflict, failed, the client gone."""
_TOO_LONG = "this model's maximum context length is exceeded (context_length_exceeded)"
"""Clients that look at the message alone know a request that is too long by these words: LangChain and LiteLLM do."""
_TRANSLATED = frozenset({None, "messages", "tools", "tool_choice"})
"""What the caller's request has in another form than the vendor's."""
_LONGEST_WAIT_S = 3600.0
_LOG = logging.getLogger(__name__)
_NAME = re.compile(r"[A-Za-z0-9_.\[\]-]{1,128}")
_WORD = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def failure(
    vendor: str,
    status: int,
    *,
    code: object = None,
    error_type: object = None,
    param: object = None,
    message: str = "",
    private: Iterable[str] = (),
    retry_after_s: float | None = None,
) -> RlaasError:
    """The error to raise when `vendor` answers with the HTTP status `status`, its own error `code` and `error_type`,
    the parameter that it names, and its `message`.

    A request that the vendor finds wrong (400, 413, 422) is the caller's error: InvalidInput, ContextLengthExceeded for
    one that is too long. A key, a model or an address that is wrong is the policy's: Misconfigured. The rest may pass:
    RateLimited (429), BackendFailed. The error's detail holds names only; the message, which may repeat the request, is
    its quote, without the texts `private`.
    """
    own_codes, codes = _list_codes(code), _list_codes(code, error_type)
    suffix = f" ({codes[0]})" if codes else ""
    words, blames_request = quote(message, private=private), status in _BLAMES_THE_REQUEST
    if status == 402 or is_spent(codes, message if blames_request else ""):
        return Misconfigured(f"{vendor}'s account has nothing left to spend", quote=words)
    if status in _BLAMES_THE_POLICY or (blames_request and (param == "model" or blames_policy(codes, message))):
        return Misconfigured(f"{vendor} answered {status}{suffix}", quote=words)
    if blames_request and is_too_long(codes, message):
        return ContextLengthExceeded(f"{_TOO_LONG}, says {vendor}", param="messages", quote=words)
    if blames_request:
        name = param if isinstance(param, str) and _NAME.fullmatch(param) else None
        return InvalidInput(f"{vendor} refuses {name or 'the request'}{suffix}", param=name, code="".join(own_codes), quote=words)
    if status == 429:
        return RateLimited(f"{vendor} answered 429{suffix}", retry_after_s=retry_after_s, quote=words)
    return BackendFailed(
        f"{vendor} answered {status}{suffix}",
        safe_to_repeat=status in _DID_NO_WORK,
        nothing_done=400 <= status < 500 and status not in _WORKED_FIRST,
        retry_after_s=retry_after_s,
        quote=words,
    )


def blame_translation(vendor: str, error: RlaasError) -> RlaasError:
    """The error for a request that RLaaS translated and the vendor finds wrong (400): TranslationRefused, which is
    logged, where `error` names nothing that stands in the caller's request in the same form, as an image does."""
    if type(error) is not InvalidInput or (error.param and re.split(r"[.\[]", error.param)[0]) not in _TRANSLATED:
        return error
    if is_about_part(error.quote):
        return error
    _LOG.warning("translation refused", extra={"vendor": vendor, "detail": error.detail})
    return TranslationRefused(error.detail, param=error.param, code=error.code, quote=error.quote)


def _list_codes(*words: object) -> list[str]:
    """What of `words` sorts errors: numbers and whole sentences do not."""
    return [word for word in words if isinstance(word, str) and _WORD.fullmatch(word) and not word.isdigit()]


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


def leave_out_idle(parameters: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """The parameters without those that say nothing, which some vendors refuse: nulls, empty lists, and how to call
    tools where none are offered."""
    useful: dict[str, JsonValue] = {name: value for name, value in parameters.items() if value is not None and value != []}
    if "tools" not in useful:
        useful.pop("parallel_tool_calls", None)
        if useful.get("tool_choice") in ("auto", "none"):
            del useful["tool_choice"]
    return useful


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
        for name, value in leave_out_idle(parameters).items()
        if name not in _HINTS and not (name in no_effect and no_effect[name] == value)
    }
    for name in selection:
        if name not in supported:
            raise InvalidInput(f"{vendor} does not take {name!r}", param=name)
    return selection


def make_usage(
    *,
    input_tokens: int,
    output_tokens: int,
    cached_tokens: int = 0,
    cache_write_tokens: int = 0,
    cache_write_1h_tokens: int = 0,
    reasoning_tokens: int = 0,
) -> Usage | None:
    """A vendor's counts of tokens; None where they cannot be true (negative, or far too large), so that they are
    estimated instead. What was written to the cache for an hour is some of what was written."""
    try:
        return Usage(
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            cached_tokens=cached_tokens,
            cache_write_tokens=cache_write_tokens,
            cache_write_1h_tokens=min(cache_write_1h_tokens, cache_write_tokens),
            reasoning_tokens=min(reasoning_tokens, max(0, output_tokens)),
        )
    except ValidationError:
        return None


_HINTS = frozenset({"stream_options", "prompt_cache_key", "prompt_cache_retention", "prompt_cache_options"})
"""Parameters that change nothing in an answer: for OpenAI's own cache, and for streams, which are asked for as such."""
_NO_EFFECT: Mapping[str, JsonValue] = {
    "n": 1,
    "frequency_penalty": 0,
    "presence_penalty": 0,
    "logprobs": False,
    "top_logprobs": 0,
    "logit_bias": {},
    "parallel_tool_calls": True,
    "response_format": {"type": "text"},
    "modalities": ["text"],
    "service_tier": "auto",
    "store": False,
}
"""Parameters at the value that means the same as leaving them out."""
