"""Events as they go over the wire: built and checked in the caller's thread, serialised once, never changed again.

The checks here need no service: ids, names, exactly one kind of feedback. The service checks the rest.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Literal, NamedTuple, TypedDict, Union

from rlaas_sdk import ids
from rlaas_sdk.errors import InvalidEvent
from rlaas_sdk.imports.identity import external_id

MAX_EVENT_BYTES = 256 * 1024
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SKILL = re.compile(r"(?=.{1,28}\Z)[a-z0-9]+(-[a-z0-9]+)*")
_KIND_OF = {"final_text": "edit", "preferred_output_id": "comparison"}
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))

Json = Union[None, bool, int, float, str, Sequence["Json"], Mapping[str, "Json"]]  # noqa: UP007 (a recursive alias in Python 3.10)
FeedbackAction = Literal["sent", "discarded", "regenerated"]


class CalledFunction(TypedDict):
    """The function that a model calls; `arguments` is the JSON text that the model wrote."""

    name: str
    arguments: str


class ToolCall(TypedDict):
    """A model's call of a tool."""

    id: str
    type: Literal["function"]
    function: CalledFunction


class _MessageFields(TypedDict):
    role: Literal["system", "user", "assistant", "tool"]
    content: str


class Message(_MessageFields, total=False):
    """One message of a chat, as in OpenAI's API: an assistant may call tools, and a tool's message answers one call."""

    tool_calls: Sequence[ToolCall]
    tool_call_id: str


class Usage(TypedDict):
    """The tokens that a model read and wrote."""

    input_tokens: int
    output_tokens: int


class About(TypedDict, total=False):
    """The optional fields of every event and of every request for an answer."""

    thread_id: str | None
    user_id: str | None
    metadata: Mapping[str, Json] | None
    tags: Sequence[str] | None


class Common(About, total=False):
    """The optional fields of every event. `occurred_at` needs a time zone; left out, it is now."""

    occurred_at: datetime | None


_COMMON = frozenset((*About.__annotations__, *Common.__annotations__))


class Event(NamedTuple):
    """One event's id and its JSON in UTF-8."""

    id: str
    body: bytes


def build_interaction(
    skill: str,
    identifier: str,
    inputs: Mapping[str, str] | None,
    messages: Sequence[Message] | None,
    common: Common,
    tools: Sequence[Mapping[str, Json]] = (),
) -> Event:
    """The event of a request that a user made, with the `tools` that it offered the model. Raises: InvalidEvent."""
    if inputs is None and messages is None:
        raise InvalidEvent("an interaction needs inputs or messages")
    fields: dict[str, object] = {"inputs": inputs, "messages": messages, "parameters": {"tools": tools} if tools else None}
    return _build_event("interaction", "interaction_id", identifier, skill, fields, common)


def build_output(
    skill: str,
    identifier: str,
    interaction_id: str,
    text: str,
    *,
    policy_id: str | None,
    messages: Sequence[Message] | None,
    usage: Usage | None,
    latency_ms: float | None,
    finish_reason: str | None,
    common: Common,
    tool_calls: Sequence[ToolCall] | None = None,
) -> Event:
    """The event of an answer to an interaction; `latency_ms` in milliseconds. Raises: InvalidEvent."""
    fields: dict[str, object] = {
        "interaction_id": _check_id("interaction_id", interaction_id),
        "text": text,
        "tool_calls": tool_calls or None,
        "policy_id": policy_id,
        "messages": messages,
        "usage": usage,
        "latency_ms": latency_ms,
        "finish_reason": finish_reason,
    }
    return _build_event("output", "output_id", identifier, skill, fields, common)


def build_feedback(
    skill: str,
    identifier: str,
    interaction_id: str | None,
    output_id: str | None,
    *,
    final_text: str | None,
    action: FeedbackAction | None,
    rating: float | None,
    preferred_output_id: str | None,
    comment: str | None,
    label: str | None,
    metric: str | None,
    value: bool | float | str | None,
    common: Common,
) -> Event:
    """The event of what a person did with an output. Exactly one of the fields from `final_text` to `metric` is given
    and decides the kind; `rating` is in [0, 1]; `value` goes with `metric`. Raises: InvalidEvent."""
    choices: dict[str, object] = {
        "final_text": final_text,
        "action": action,
        "rating": rating,
        "preferred_output_id": preferred_output_id,
        "comment": comment,
        "label": label,
        "metric": metric,
    }
    names = [name for name, content in choices.items() if content is not None]
    if len(names) != 1:
        raise InvalidEvent(f"feedback needs exactly one of {', '.join(choices)}; got {', '.join(names) or 'none'}")
    (name,) = names
    kind = _KIND_OF.get(name, name)
    if rating is not None and not 0 <= rating <= 1:
        raise InvalidEvent(f"rating must be in [0, 1], got {rating!r}")
    if (kind == "metric") != (value is not None):
        raise InvalidEvent("metric and value go together")
    unbound = interaction_id is None and (output_id is None or ids.find_interaction_id(output_id) is None)
    if unbound and (kind != "metric" or common.get("thread_id") is None):
        raise InvalidEvent("feedback needs interaction_id, or an output_id that contains it, or a metric of a thread with thread_id")
    fields: dict[str, object] = {
        "interaction_id": None if interaction_id is None else _check_id("interaction_id", interaction_id),
        "output_id": None if output_id is None else _check_id("output_id", output_id),
        "kind": kind,
        name: choices[name],
        "value": value,
    }
    return _build_event("feedback", "feedback_id", identifier, skill, fields, common)


def build_task_result(skill: str, identifier: str, interaction_id: str, name: str, value: bool | float | str, common: Common) -> Event:
    """The event of a business outcome that became known later. Raises: InvalidEvent."""
    fields: dict[str, object] = {"interaction_id": _check_id("interaction_id", interaction_id), "name": name, "value": value}
    return _build_event("task_result", "task_result_id", identifier, skill, fields, common)


def check_skill(skill: str) -> str:
    """`skill`, where it is a skill's name: lower-case words joined by single hyphens, at most 28 characters. Raises:
    InvalidEvent."""
    if not isinstance(skill, str) or not _SKILL.fullmatch(skill):
        raise InvalidEvent(f"not a skill's name: {skill!r}, expected lower-case words joined by hyphens, at most 28 characters")
    return skill


def _build_event(kind: str, id_field: str, identifier: str, skill: str, fields: Mapping[str, object], common: Common) -> Event:
    event: dict[str, object] = {"type": kind, "skill": check_skill(skill), id_field: _check_id(id_field, identifier)}
    for name, content in fields.items():
        if content is not None:
            event[name] = content
    event["occurred_at"] = _format_timestamp(common.get("occurred_at"))
    if (thread := common.get("thread_id")) is not None:
        event["thread_id"] = _check_id("thread_id", thread)
    if user := common.get("user_id"):
        if not isinstance(user, str):
            raise InvalidEvent(f"user_id must be a string, got {type(user).__name__}")
        event["user_id"] = external_id("usr", user)
    for name in ("metadata", "tags"):
        if value := common.get(name):
            event[name] = value
    if unknown := common.keys() - _COMMON:
        raise InvalidEvent(f"unknown field {', '.join(sorted(unknown))}; put data of your own into metadata")
    try:
        body = _ENCODER.encode(event).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidEvent(f"the event is not JSON: {error}") from error
    if len(body) > MAX_EVENT_BYTES:
        raise InvalidEvent(f"the event has {len(body)} bytes, at most {MAX_EVENT_BYTES} are allowed")
    return Event(identifier, body)


def _check_id(field: str, identifier: object) -> str:
    if not isinstance(identifier, str) or not _ID.fullmatch(identifier):
        raise InvalidEvent(f"{field} must match [A-Za-z0-9_-]{{1,64}}, got {identifier!r}")
    return identifier


def _format_timestamp(at: datetime | None) -> str:
    if at is None:
        at = datetime.now(timezone.utc)
    elif at.tzinfo is None:
        raise InvalidEvent("occurred_at needs a time zone")
    return at.astimezone(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
