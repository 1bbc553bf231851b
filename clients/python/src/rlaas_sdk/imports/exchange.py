"""A prompt with its answers and what was said of them, made into events."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from rlaas_sdk.imports.conversation import Answer, Prompt
from rlaas_sdk.imports.identity import Identity, bound, external_id, output_of
from rlaas_sdk.imports.rows import JsonObject, RowRefused, rfc3339

MAX_TAGS = 32
"""Tags of an event."""
MAX_TAG = 64
"""Characters of a tag."""


@dataclass(frozen=True, slots=True)
class Making:
    """What is the same for every row of an import."""

    identity: Identity
    tags: tuple[str, ...] = ()

    @property
    def skill(self) -> str:
        """The skill that the events are of."""
        return self.identity.skill


@dataclass(frozen=True, slots=True)
class Exchange:
    """A prompt, its answers in order, and when, where and by whom it was asked. `latency_ms` and `usage` are of the
    first answer."""

    own_id: str
    prompt: Prompt | None
    answers: tuple[Answer, ...] = ()
    asked_at: datetime | None = None
    answered_at: datetime | None = None
    thread: str | None = None
    user: str | None = None
    tags: tuple[str, ...] = ()
    metadata: JsonObject = field(default_factory=dict)
    usage: tuple[float | None, float | None] = (None, None)
    latency_ms: float | None = None


def exchange_events(exchange: Exchange, making: Making) -> list[JsonObject]:
    """The interaction (where the prompt is known) and its outputs, in order."""
    interaction_id = making.identity.interaction(exchange.own_id)
    shared = _shared(exchange, making)
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
            {"type": "interaction", "interaction_id": interaction_id, **shared, **occurred(exchange.asked_at), **prompt},
        )
    for n, answer in enumerate(exchange.answers):
        output: JsonObject = {
            "type": "output",
            "output_id": output_of(interaction_id, n),
            "interaction_id": interaction_id,
            **shared,
            **occurred(exchange.answered_at or exchange.asked_at),
            "text": answer.text,
        }
        if answer.tool_calls:
            output["tool_calls"] = answer.tool_calls
        if answer.finish_reason:
            output["finish_reason"] = answer.finish_reason
        if n == 0:
            output |= _measured(exchange)
        events.append(output)
    return events


def feedback(making: Making, interaction_id: str, what: JsonObject, *, at: datetime | None = None, feedback_id: str) -> JsonObject:
    """A feedback event on the interaction's first output, unless `what` names another."""
    return {
        "type": "feedback",
        "feedback_id": feedback_id,
        "skill": making.skill,
        "interaction_id": interaction_id,
        "output_id": output_of(interaction_id),
        **({"tags": list(making.tags)} if making.tags else {}),
        **occurred(at),
        **what,
    }


def task_result(making: Making, interaction_id: str, name: str, value: bool | float | str, *, at: datetime | None = None) -> JsonObject:
    """A task result of the interaction."""
    return {
        "type": "task_result",
        "task_result_id": bound("tsk", interaction_id, name),
        "skill": making.skill,
        "interaction_id": interaction_id,
        **({"tags": list(making.tags)} if making.tags else {}),
        **occurred(at),
        "name": name,
        "value": value,
    }


def occurred(at: datetime | None) -> JsonObject:
    """The field `occurred_at`, left out where the time is not known (the service then takes its own)."""
    return {} if at is None else {"occurred_at": rfc3339(at)}


def _shared(exchange: Exchange, making: Making) -> JsonObject:
    tags = list(dict.fromkeys([*making.tags, *(tag for tag in exchange.tags if 1 <= len(tag) <= MAX_TAG)]))[:MAX_TAGS]
    shared: JsonObject = {"skill": making.skill}
    if exchange.thread:
        shared["thread_id"] = external_id("thr", exchange.thread)
    if exchange.user:
        shared["user_id"] = external_id("usr", exchange.user)
    if tags:
        shared["tags"] = list(tags)
    return {**shared, "metadata": {"imported_from": making.identity.origin, "source_id": exchange.own_id, **exchange.metadata}}


def _measured(exchange: Exchange) -> JsonObject:
    measured: JsonObject = {}
    tokens = exchange.usage
    if tokens[0] is not None and tokens[1] is not None:
        for count in tokens:
            if count is None or count < 0 or count != int(count):
                raise RowRefused("bad_usage", "tokens are whole numbers from 0", param="usage")
        measured["usage"] = {"input_tokens": int(tokens[0]), "output_tokens": int(tokens[1])}
    latency = exchange.latency_ms
    if latency is None and exchange.asked_at and exchange.answered_at:
        latency = round((exchange.answered_at - exchange.asked_at).total_seconds() * 1000, 3)
    if latency is not None and latency >= 0:
        measured["latency_ms"] = latency
    return measured
