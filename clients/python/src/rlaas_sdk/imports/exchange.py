"""Builds events from a prompt, its answers and the feedback on them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from rlaas_sdk.imports.conversation import LoggedAnswer, LoggedPrompt
from rlaas_sdk.imports.identity import Identity, external_id, make_bound_id, make_output_id
from rlaas_sdk.imports.rows import JsonObject, RowRefused, format_rfc3339

MAX_TAGS = 32
"""Tags of an event, at most."""
MAX_TAG = 64
"""Characters of a tag, at most."""


@dataclass(frozen=True, slots=True)
class ImportContext:
    """What is the same for every row of an import: how ids are made, the skill, and tags for every event."""

    identity: Identity
    tags: tuple[str, ...] = ()

    @property
    def skill(self) -> str:
        """The name of the events' skill."""
        return self.identity.skill


@dataclass(frozen=True, slots=True)
class Exchange:
    """A prompt, its answers in order, and when, in which thread and by which user it was asked. `latency_ms`
    (milliseconds) and `usage` (tokens in, tokens out) are those of the first answer."""

    own_id: str
    prompt: LoggedPrompt | None
    answers: tuple[LoggedAnswer, ...] = ()
    asked_at: datetime | None = None
    answered_at: datetime | None = None
    thread: str | None = None
    user: str | None = None
    tags: tuple[str, ...] = ()
    metadata: JsonObject = field(default_factory=dict)
    usage: tuple[float | None, float | None] = (None, None)
    latency_ms: float | None = None


def build_exchange_events(exchange: Exchange, context: ImportContext) -> list[JsonObject]:
    """The interaction (where the prompt is known) and its outputs, in order. Raises: RowRefused where the usage is not
    whole numbers."""
    interaction_id = context.identity.make_interaction_id(exchange.own_id)
    shared_fields = _build_shared_fields(exchange, context)
    events: list[JsonObject] = []
    if exchange.prompt is not None:
        prompt: JsonObject = {}
        if exchange.prompt.messages is not None:
            prompt["messages"] = list(exchange.prompt.messages)
        if exchange.prompt.inputs is not None:
            prompt["inputs"] = dict(exchange.prompt.inputs)
        if exchange.prompt.tools:
            prompt["parameters"] = {"tools": exchange.prompt.tools}
        events.append(
            {"type": "interaction", "interaction_id": interaction_id, **shared_fields, **build_occurred_at(exchange.asked_at), **prompt},
        )
    for n, answer in enumerate(exchange.answers):
        output: JsonObject = {
            "type": "output",
            "output_id": make_output_id(interaction_id, n),
            "interaction_id": interaction_id,
            **shared_fields,
            **build_occurred_at(exchange.answered_at or exchange.asked_at),
            "text": answer.text,
        }
        if answer.tool_calls:
            output["tool_calls"] = answer.tool_calls
        if answer.finish_reason:
            output["finish_reason"] = answer.finish_reason
        if n == 0:
            output |= _build_measurements(exchange)
        events.append(output)
    return events


def build_feedback(
    context: ImportContext, interaction_id: str, content: JsonObject, *, at: datetime | None = None, feedback_id: str
) -> JsonObject:
    """A feedback event on the interaction's first output, unless `content` names another."""
    return {
        "type": "feedback",
        "feedback_id": feedback_id,
        "skill": context.skill,
        "interaction_id": interaction_id,
        "output_id": make_output_id(interaction_id),
        **({"tags": list(context.tags)} if context.tags else {}),
        **build_occurred_at(at),
        **content,
    }


def build_task_result(
    context: ImportContext, interaction_id: str, name: str, value: bool | float | str, *, at: datetime | None = None
) -> JsonObject:
    """The event of a task result of the interaction."""
    return {
        "type": "task_result",
        "task_result_id": make_bound_id("tsk", interaction_id, name),
        "skill": context.skill,
        "interaction_id": interaction_id,
        **({"tags": list(context.tags)} if context.tags else {}),
        **build_occurred_at(at),
        "name": name,
        "value": value,
    }


def build_occurred_at(at: datetime | None) -> JsonObject:
    """The field `occurred_at`, left out where the time is not known (the service then uses the time of arrival)."""
    return {} if at is None else {"occurred_at": format_rfc3339(at)}


def _build_shared_fields(exchange: Exchange, context: ImportContext) -> JsonObject:
    tags = list(dict.fromkeys([*context.tags, *(tag for tag in exchange.tags if 1 <= len(tag) <= MAX_TAG)]))[:MAX_TAGS]
    fields: JsonObject = {"skill": context.skill}
    if exchange.thread:
        fields["thread_id"] = external_id("thr", exchange.thread)
    if exchange.user:
        fields["user_id"] = external_id("usr", exchange.user)
    if tags:
        fields["tags"] = list(tags)
    return {**fields, "metadata": {"imported_from": context.identity.origin, "source_id": exchange.own_id, **exchange.metadata}}


def _build_measurements(exchange: Exchange) -> JsonObject:
    measurements: JsonObject = {}
    tokens = exchange.usage
    if tokens[0] is not None and tokens[1] is not None:
        for count in tokens:
            if count is None or count < 0 or count != int(count):
                raise RowRefused("bad_usage", "tokens are whole numbers from 0", param="usage")
        measurements["usage"] = {"input_tokens": int(tokens[0]), "output_tokens": int(tokens[1])}
    latency = exchange.latency_ms
    if latency is None and exchange.asked_at and exchange.answered_at:
        latency = round((exchange.answered_at - exchange.asked_at).total_seconds() * 1000, 3)
    if latency is not None and latency >= 0:
        measurements["latency_ms"] = latency
    return measurements
