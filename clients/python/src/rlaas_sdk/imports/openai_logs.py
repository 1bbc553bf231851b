"""OpenAI-style JSON Lines: fine-tuning lines, request/response logs, stored completions, batch input and output,
preferences."""

from __future__ import annotations

from dataclasses import replace

from rlaas_sdk.imports.conversation import Answer, Prompt, answers_of, prompt_of
from rlaas_sdk.imports.exchange import Exchange, Making, exchange_events, feedback
from rlaas_sdk.imports.identity import bound, output_of
from rlaas_sdk.imports.rows import Json, JsonObject, RowRefused, RowSkipped, decoded, first, moment_of, number_of, object_of, text_of

_SHAPES = (
    '{"messages": [...]}, {"request": {...}, "response": {...}}, a stored completion with its messages, a batch line with "custom_id", '
    'or {"input": {...}, "preferred_output": [...], "non_preferred_output": [...]}'
)


def events_of(row: JsonObject, making: Making, own_id: str) -> list[JsonObject]:
    """The events of one line; `own_id` is used where the line has no id of its own. Raises: RowRefused, RowSkipped."""
    if "preferred_output" in row or "non_preferred_output" in row:
        return _preference(row, making, own_id)
    if "custom_id" in row:
        return _batch_line(row, making)
    if "request" in row or "response" in row:
        return _logged_call(object_of(row, "request"), decoded(row.get("response")), row, making, own_id)
    if isinstance(row.get("choices"), list) or row.get("object") == "response":
        return _logged_call(row, row, row, making, own_id)
    if isinstance(row.get("messages"), list):
        return _fine_tuning_line(row, making, own_id)
    raise RowRefused("unknown_shape", f"the line is none of {_SHAPES}")


def _fine_tuning_line(row: JsonObject, making: Making, own_id: str) -> list[JsonObject]:
    messages = row["messages"]
    asked, last = (messages[:-1], messages[-1]) if isinstance(messages, list) and messages else ([], None)
    if not isinstance(last, dict) or last.get("role") != "assistant":
        raise RowRefused("no_answer", "a fine-tuning line ends with the assistant's message", param="messages")
    prompt, answers = prompt_of(asked, param="messages", request=row), answers_of(last, param="messages")
    own_id = text_of(row, "id") or own_id
    events = exchange_events(_exchange(own_id, prompt, answers, row, {}), making)
    if last.get("weight") == 0:
        return events
    interaction_id = making.identity.interaction(own_id)
    demonstration: JsonObject = {"kind": "edit", "final_text": answers[0].text}
    return [*events, feedback(making, interaction_id, demonstration, feedback_id=bound("fbk", interaction_id, "demonstration"))]


def _preference(row: JsonObject, making: Making, own_id: str) -> list[JsonObject]:
    answers = []
    for field in ("preferred_output", "non_preferred_output"):
        given = answers_of(row.get(field), param=field)
        if not given:
            raise RowRefused("no_answer", f"{field} holds no answer", param=field)
        answers.append(given[0])
    own_id = text_of(row, "id") or own_id
    prompt = prompt_of(row.get("input"), param="input")
    interaction_id = making.identity.interaction(own_id)
    comparison: JsonObject = {
        "kind": "comparison",
        "preferred_output_id": output_of(interaction_id),
        "output_id": output_of(interaction_id, 1),
    }
    return [
        *exchange_events(_exchange(own_id, prompt, answers, row, {}), making),
        feedback(making, interaction_id, comparison, feedback_id=bound("fbk", interaction_id, "comparison")),
    ]


def _batch_line(row: JsonObject, making: Making) -> list[JsonObject]:
    own_id = text_of(row, "custom_id")
    if own_id is None:
        raise RowRefused("no_id", "custom_id is empty", param="custom_id")
    if "body" in row:
        body = object_of(row, "body")
        return exchange_events(_exchange(own_id, _prompt(body, "body"), [], body, {}), making)
    response = object_of(row, "response")
    body = object_of(response, "body")
    if row.get("error") or response.get("status_code") != 200:
        raise RowSkipped("failed_call")
    answers = answers_of(body, param="response.body")
    if not answers:
        raise RowRefused("no_answer", "response.body holds no answer", param="response.body")
    return exchange_events(_exchange(own_id, None, answers, {}, body), making)


def _logged_call(request: JsonObject, response: Json, row: JsonObject, making: Making, own_id: str) -> list[JsonObject]:
    request = object_of(request, "body") or request
    answered = response if isinstance(response, dict) else {}
    answered = object_of(answered, "body") or answered
    if answered.get("error") or row.get("error"):
        raise RowSkipped("failed_call")
    prompt = _prompt(request, "request")
    answers = answers_of(answered or response, param="response")
    own_id = text_of(row, "id") or text_of(answered, "id") or own_id
    return exchange_events(_exchange(own_id, prompt, answers, {**row, **request}, answered), making)


def _prompt(request: JsonObject, param: str) -> Prompt:
    field = "messages" if request.get("messages") else "input" if request.get("input") else "prompt"
    prompt = prompt_of(request.get(field), param=f"{param}.{field}", request=request)
    instructions = request.get("instructions")
    if isinstance(instructions, str) and instructions and prompt.messages is not None:
        return replace(prompt, messages=[{"role": "system", "content": instructions}, *prompt.messages])
    return prompt


def _exchange(own_id: str, prompt: Prompt | None, answers: list[Answer], request: JsonObject, response: JsonObject) -> Exchange:
    usage = object_of(response, "usage") or object_of(request, "usage")
    return Exchange(
        own_id=own_id,
        prompt=prompt,
        answers=tuple(answers),
        asked_at=moment_of({**request, **response}, "created", "created_at", "timestamp"),
        thread=text_of(request, "thread_id", "conversation_id", "session_id"),
        user=text_of(request, "user", "user_id", "safety_identifier"),
        metadata=_metadata(request, response),
        usage=(number_of(usage, "prompt_tokens", "input_tokens"), number_of(usage, "completion_tokens", "output_tokens")),
        latency_ms=number_of(request, "latency_ms"),
    )


def _metadata(request: JsonObject, response: JsonObject) -> JsonObject:
    metadata: JsonObject = {}
    model = first(response, "model") or first(request, "model")
    if isinstance(model, str):
        metadata["model"] = model
    own = object_of(response, "metadata") or object_of(request, "metadata")
    return {**metadata, "source_metadata": own} if own else metadata
