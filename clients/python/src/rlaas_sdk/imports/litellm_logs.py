"""LiteLLM: StandardLoggingPayload objects (callbacks, S3, GCS) and rows of its spend logs (API, CSV of the table)."""

from __future__ import annotations

import re
from datetime import datetime

from rlaas_sdk.imports.conversation import Answer, Prompt, answers_of, prompt_of
from rlaas_sdk.imports.exchange import Exchange, Making, exchange_events
from rlaas_sdk.imports.rows import JsonObject, RowRefused, RowSkipped, decoded, first, moment_of, number_of, object_of, text_of

_TEXT_CALLS = {"completion", "acompletion", "text_completion", "atext_completion", "responses", "aresponses", "anthropic_messages"}
_REDACTED = "redacted-by-litellm"
_CUT = re.compile(r"\.\.\. \((?:litellm_)?truncated (?:skipped )?\d+ chars")
"""What LiteLLM's spend logs hold in place of the middle (in old versions the end) of a text above 2,048 characters."""


def events_of(row: JsonObject, making: Making, own_id: str) -> list[JsonObject]:
    """The events of one logged call; `own_id` is used where it has no id. Raises: RowRefused, RowSkipped."""
    row = object_of(row, "standard_logging_object") or row
    if not {"startTime", "call_type", "request_id"} & row.keys():
        raise RowRefused("unknown_shape", "neither a StandardLoggingPayload nor a row of the spend logs: it has no startTime or call_type")
    if row.get("status") == "failure" or row.get("error_str"):
        raise RowSkipped("failed_call")
    call_type = row.get("call_type")
    if isinstance(call_type, str) and call_type and call_type not in _TEXT_CALLS:
        raise RowSkipped("not_a_completion")
    asked_at, answered_at = moment_of(row, "startTime"), moment_of(row, "endTime")
    return exchange_events(
        Exchange(
            own_id=text_of(row, "id", "request_id") or own_id,
            prompt=_prompt(row),
            answers=tuple(_answers(row)),
            asked_at=asked_at,
            answered_at=answered_at,
            thread=text_of(row, "session_id", "trace_id"),
            user=text_of(row, "end_user"),
            tags=_tags(row),
            metadata=_metadata(row),
            usage=(number_of(row, "prompt_tokens"), number_of(row, "completion_tokens")),
            latency_ms=_latency_ms(row, asked_at, answered_at),
        ),
        making,
    )


def _prompt(row: JsonObject) -> Prompt:
    given = decoded(first(row, "messages"))
    request = object_of(row, "proxy_server_request")
    request = object_of(request, "body") or request
    if given in (None, "{}", {}, []):
        given = first(request, "messages", "input", "prompt")
    if given is None:
        message = "the call was logged without its messages; set store_prompts_in_spend_logs in LiteLLM to have them from now on"
        raise RowRefused("no_input", message, param="messages")
    prompt = prompt_of(given, param="messages", request={**object_of(row, "model_parameters"), **request})
    _check([str(message["content"]) for message in prompt.messages or []], param="messages")
    return prompt


def _answers(row: JsonObject) -> list[Answer]:
    answers = answers_of(row.get("response") if row.get("response") != "{}" else None, param="response")
    if not answers:
        raise RowRefused("no_answer", "the call was logged without its response", param="response")
    _check([answer.text for answer in answers], param="response")
    return answers


def _check(texts: list[str], *, param: str) -> None:
    """Raises: RowRefused where LiteLLM did not log what was said."""
    if _REDACTED in texts:
        raise RowRefused("redacted", f"LiteLLM redacted the {param} (turn_off_message_logging)", param=param)
    if any(_CUT.search(text) for text in texts):
        message = f"LiteLLM cut the {param} short; set MAX_STRING_LENGTH_PROMPT_IN_DB, or import what its callbacks (S3, GCS) logged"
        raise RowRefused("truncated", message, param=param)


def _latency_ms(row: JsonObject, asked_at: datetime | None, answered_at: datetime | None) -> float | None:
    if asked_at and answered_at:
        return None
    return number_of(row, "request_duration_ms")


def _tags(row: JsonObject) -> tuple[str, ...]:
    tags = decoded(row.get("request_tags"))
    return tuple(tag for tag in tags if isinstance(tag, str)) if isinstance(tags, list) else ()


def _metadata(row: JsonObject) -> JsonObject:
    kept: JsonObject = {}
    for name in ("model", "model_group", "custom_llm_provider"):
        if value := text_of(row, name):
            kept[name] = value
    cache_hit = row.get("cache_hit")
    if cache_hit is True or str(cache_hit).lower() == "true":
        kept["cache_hit"] = True
    cost = number_of(row, "response_cost", "spend")
    if cost is not None:
        kept["cost_usd"] = cost
    own = object_of(row, "metadata")
    asked_for = object_of(own, "spend_logs_metadata") or object_of(own, "requester_metadata")
    return {**kept, "source_metadata": asked_for} if asked_for else kept
