"""JSON Lines in OpenAI's formats: fine-tuning lines, request/response logs, stored completions, batch input and output,
preferences."""

from __future__ import annotations

from dataclasses import replace

from rlaas_sdk.imports.conversation import LoggedAnswer, LoggedPrompt, read_answers, read_prompt
from rlaas_sdk.imports.exchange import Exchange, ImportContext, build_exchange_events, build_feedback
from rlaas_sdk.imports.identity import make_bound_id, make_output_id
from rlaas_sdk.imports.rows import (
    Json,
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

_SHAPES = (
    '{"messages": [...]}, {"request": {...}, "response": {...}}, a stored completion with its messages, a batch line with "custom_id", '
    'or {"input": {...}, "preferred_output": [...], "non_preferred_output": [...]}'
)


def build_events(row: JsonObject, context: ImportContext, own_id: str) -> list[JsonObject]:
    """The events of one line; `own_id` is used where the line has no id of its own. Raises: RowRefused, RowSkipped."""
    if "preferred_output" in row or "non_preferred_output" in row:
        return _read_preference(row, context, own_id)
    if "custom_id" in row:
        return _read_batch_line(row, context)
    if "request" in row or "response" in row:
        return _read_logged_call(read_object(row, "request"), decode_cell(row.get("response")), row, context, own_id)
    if isinstance(row.get("choices"), list) or row.get("object") == "response":
        return _read_logged_call(row, row, row, context, own_id)
    if isinstance(row.get("messages"), list):
        return _read_fine_tuning_line(row, context, own_id)
    raise RowRefused("unknown_shape", f"the line is none of {_SHAPES}")


def _read_fine_tuning_line(row: JsonObject, context: ImportContext, own_id: str) -> list[JsonObject]:
    messages = row["messages"]
    prompt_messages, last = (messages[:-1], messages[-1]) if isinstance(messages, list) and messages else ([], None)
    if not isinstance(last, dict) or last.get("role") != "assistant":
        raise RowRefused("no_answer", "a fine-tuning line ends with the assistant's message", param="messages")
    prompt, answers = read_prompt(prompt_messages, param="messages", request=row), read_answers(last, param="messages")
    own_id = read_text(row, "id") or own_id
    events = build_exchange_events(_build_exchange(own_id, prompt, answers, row, {}), context)
    if last.get("weight") == 0:
        return events
    interaction_id = context.identity.make_interaction_id(own_id)
    demonstration: JsonObject = {"kind": "edit", "final_text": answers[0].text}
    return [
        *events,
        build_feedback(context, interaction_id, demonstration, feedback_id=make_bound_id("fbk", interaction_id, "demonstration")),
    ]


def _read_preference(row: JsonObject, context: ImportContext, own_id: str) -> list[JsonObject]:
    answers = []
    for field in ("preferred_output", "non_preferred_output"):
        choices = read_answers(row.get(field), param=field)
        if not choices:
            raise RowRefused("no_answer", f"{field} holds no answer", param=field)
        answers.append(choices[0])
    own_id = read_text(row, "id") or own_id
    prompt = read_prompt(row.get("input"), param="input")
    interaction_id = context.identity.make_interaction_id(own_id)
    comparison: JsonObject = {
        "kind": "comparison",
        "preferred_output_id": make_output_id(interaction_id),
        "output_id": make_output_id(interaction_id, 1),
    }
    return [
        *build_exchange_events(_build_exchange(own_id, prompt, answers, row, {}), context),
        build_feedback(context, interaction_id, comparison, feedback_id=make_bound_id("fbk", interaction_id, "comparison")),
    ]


def _read_batch_line(row: JsonObject, context: ImportContext) -> list[JsonObject]:
    own_id = read_text(row, "custom_id")
    if own_id is None:
        raise RowRefused("no_id", "custom_id is empty", param="custom_id")
    if "body" in row:
        body = read_object(row, "body")
        return build_exchange_events(_build_exchange(own_id, _read_prompt(body, "body"), [], body, {}), context)
    response = read_object(row, "response")
    body = read_object(response, "body")
    if row.get("error") or response.get("status_code") != 200:
        raise RowSkipped("failed_call")
    answers = read_answers(body, param="response.body")
    if not answers:
        raise RowRefused("no_answer", "response.body holds no answer", param="response.body")
    return build_exchange_events(_build_exchange(own_id, None, answers, {}, body), context)


def _read_logged_call(request: JsonObject, response: Json, row: JsonObject, context: ImportContext, own_id: str) -> list[JsonObject]:
    request = read_object(request, "body") or request
    body = response if isinstance(response, dict) else {}
    body = read_object(body, "body") or body
    if body.get("error") or row.get("error"):
        raise RowSkipped("failed_call")
    prompt = _read_prompt(request, "request")
    answers = read_answers(body or response, param="response")
    own_id = read_text(row, "id") or read_text(body, "id") or own_id
    return build_exchange_events(_build_exchange(own_id, prompt, answers, {**row, **request}, body), context)


def _read_prompt(request: JsonObject, param: str) -> LoggedPrompt:
    field = "messages" if request.get("messages") else "input" if request.get("input") else "prompt"
    prompt = read_prompt(request.get(field), param=f"{param}.{field}", request=request)
    instructions = request.get("instructions")
    if isinstance(instructions, str) and instructions and prompt.messages is not None:
        return replace(prompt, messages=[{"role": "system", "content": instructions}, *prompt.messages])
    return prompt


def _build_exchange(
    own_id: str, prompt: LoggedPrompt | None, answers: list[LoggedAnswer], request: JsonObject, response: JsonObject
) -> Exchange:
    usage = read_object(response, "usage") or read_object(request, "usage")
    return Exchange(
        own_id=own_id,
        prompt=prompt,
        answers=tuple(answers),
        asked_at=read_moment({**request, **response}, "created", "created_at", "timestamp"),
        thread=read_text(request, "thread_id", "conversation_id", "session_id"),
        user=read_text(request, "user", "user_id", "safety_identifier"),
        metadata=_read_metadata(request, response),
        usage=(read_number(usage, "prompt_tokens", "input_tokens"), read_number(usage, "completion_tokens", "output_tokens")),
        latency_ms=read_number(request, "latency_ms"),
    )


def _read_metadata(request: JsonObject, response: JsonObject) -> JsonObject:
    metadata: JsonObject = {}
    model = find_first(response, "model") or find_first(request, "model")
    if isinstance(model, str):
        metadata["model"] = model
    own_metadata = read_object(response, "metadata") or read_object(request, "metadata")
    return {**metadata, "source_metadata": own_metadata} if own_metadata else metadata
