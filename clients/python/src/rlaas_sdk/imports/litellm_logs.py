"""LiteLLM: StandardLoggingPayload objects (callbacks, S3, GCS) and rows of its spend logs (API, CSV of the table)."""

from __future__ import annotations

import re
from datetime import datetime

from rlaas_sdk.imports.conversation import LoggedAnswer, LoggedPrompt, read_answers, read_prompt
from rlaas_sdk.imports.exchange import Exchange, ImportContext, build_exchange_events
from rlaas_sdk.imports.rows import (
    JsonObject,
    RowRefused,
    RowSkipped,
    decode_cell,
    find_first,
    read_moment,
    read_number,
    read_object,
    read_text,
)

_TEXT_CALLS = {"completion", "acompletion", "text_completion", "atext_completion", "responses", "aresponses", "anthropic_messages"}
_REDACTED = "redacted-by-litellm"
_CUT = re.compile(r"\.\.\. \((?:litellm_)?truncated (?:skipped )?\d+ chars")
"""LiteLLM's spend logs hold this in place of the middle (in old versions the end) of a text above 2,048 characters."""


def build_events(row: JsonObject, context: ImportContext, own_id: str) -> list[JsonObject]:
    """The events of one logged call; `own_id` is used where it has no id. Raises: RowRefused, RowSkipped."""
    row = read_object(row, "standard_logging_object") or row
    if not {"startTime", "call_type", "request_id"} & row.keys():
        raise RowRefused("unknown_shape", "neither a StandardLoggingPayload nor a row of the spend logs: it has no startTime or call_type")
    if row.get("status") == "failure" or row.get("error_str"):
        raise RowSkipped("failed_call")
    call_type = row.get("call_type")
    if isinstance(call_type, str) and call_type and call_type not in _TEXT_CALLS:
        raise RowSkipped("not_a_completion")
    asked_at, answered_at = read_moment(row, "startTime"), read_moment(row, "endTime")
    return build_exchange_events(
        Exchange(
            own_id=read_text(row, "id", "request_id") or own_id,
            prompt=_read_prompt(row),
            answers=tuple(_read_answers(row)),
            asked_at=asked_at,
            answered_at=answered_at,
            thread=read_text(row, "session_id", "trace_id"),
            user=read_text(row, "end_user"),
            tags=_read_tags(row),
            metadata=_read_metadata(row),
            usage=(read_number(row, "prompt_tokens"), read_number(row, "completion_tokens")),
            latency_ms=_read_latency_ms(row, asked_at, answered_at),
        ),
        context,
    )


def _read_prompt(row: JsonObject) -> LoggedPrompt:
    value = decode_cell(find_first(row, "messages"))
    request = read_object(row, "proxy_server_request")
    request = read_object(request, "body") or request
    if value in (None, "{}", {}, []):
        value = find_first(request, "messages", "input", "prompt")
    if value is None:
        message = "the call was logged without its messages; set store_prompts_in_spend_logs in LiteLLM to log them from now on"
        raise RowRefused("no_input", message, param="messages")
    prompt = read_prompt(value, param="messages", request={**read_object(row, "model_parameters"), **request})
    _check_complete([str(message["content"]) for message in prompt.messages or []], param="messages")
    return prompt


def _read_answers(row: JsonObject) -> list[LoggedAnswer]:
    answers = read_answers(row.get("response") if row.get("response") != "{}" else None, param="response")
    if not answers:
        raise RowRefused("no_answer", "the call was logged without its response", param="response")
    _check_complete([answer.text for answer in answers], param="response")
    return answers


def _check_complete(texts: list[str], *, param: str) -> None:
    """Check that LiteLLM logged the texts whole. Raises: RowRefused."""
    if _REDACTED in texts:
        raise RowRefused("redacted", f"LiteLLM redacted the {param} (turn_off_message_logging)", param=param)
    if any(_CUT.search(text) for text in texts):
        message = f"LiteLLM cut the {param} short; set MAX_STRING_LENGTH_PROMPT_IN_DB, or import what its callbacks (S3, GCS) logged"
        raise RowRefused("truncated", message, param=param)


def _read_latency_ms(row: JsonObject, asked_at: datetime | None, answered_at: datetime | None) -> float | None:
    if asked_at and answered_at:
        return None
    return read_number(row, "request_duration_ms")


def _read_tags(row: JsonObject) -> tuple[str, ...]:
    tags = decode_cell(row.get("request_tags"))
    return tuple(tag for tag in tags if isinstance(tag, str)) if isinstance(tags, list) else ()


def _read_metadata(row: JsonObject) -> JsonObject:
    metadata: JsonObject = {}
    for name in ("model", "model_group", "custom_llm_provider"):
        if value := read_text(row, name):
            metadata[name] = value
    cache_hit = row.get("cache_hit")
    if cache_hit is True or str(cache_hit).lower() == "true":
        metadata["cache_hit"] = True
    cost = read_number(row, "response_cost", "spend")
    if cost is not None:
        metadata["cost_usd"] = cost
    own_metadata = read_object(row, "metadata")
    request_metadata = read_object(own_metadata, "spend_logs_metadata") or read_object(own_metadata, "requester_metadata")
    return {**metadata, "source_metadata": request_metadata} if request_metadata else metadata
