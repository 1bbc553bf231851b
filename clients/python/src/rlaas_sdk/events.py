"""Events as they go over the wire: built and checked in the caller's thread, serialised once, never changed again.

What can be checked without the service is checked here (ids, names, exactly one kind of feedback); the service has the
last word.
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
Action = Literal["sent", "discarded", "regenerated"]


class CalledFunction(TypedDict):
    """The function a model calls; `arguments` is the JSON it wrote."""

    name: str
    arguments: str


class ToolCall(TypedDict):
    """A model's call of a tool."""

    id: str
    type: Literal["function"]
    function: CalledFunction


class _Said(TypedDict):
    role: Literal["system", "user", "assistant", "tool"]
    content: str


class Message(_Said, total=False):
    """One message of a chat, as OpenAI has it: an assistant may call tools, and a tool's message answers one call."""

    tool_calls: Sequence[ToolCall]
    tool_call_id: str


class Usage(TypedDict):
    """Tokens read and written."""

    input_tokens: int
    output_tokens: int


class About(TypedDict, total=False):
    """What every event, and every request for an answer, may carry."""

    thread_id: str | None
    user_id: str | None
    metadata: Mapping[str, Json] | None
    tags: Sequence[str] | None


class Common(About, total=False):
    """What every event may carry. `occurred_at` must know its time zone; left out, it is now."""

    occurred_at: datetime | None


_COMMON = frozenset((*About.__annotations__, *Common.__annotations__))


class Event(NamedTuple):
    """One event's id and its JSON in UTF-8."""

    id: str
    body: bytes


def interaction(
    skill: str,
    identifier: str,
    inputs: Mapping[str, str] | None,
    messages: Sequence[Message] | None,
    common: Common,
    tools: Sequence[Mapping[str, Json]] = (),
) -> Event:
    """A request that a user made, with the `tools` that it offered the model. Raises: InvalidEvent."""
    if inputs is None and messages is None:
        raise InvalidEvent("an interaction needs inputs or messages")
    fields: dict[str, object] = {"inputs": inputs, "messages": messages, "parameters": {"tools": tools} if tools else None}
    return _event("interaction", "interaction_id", identifier, skill, fields, common)


def output(
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
    """What answered it. Raises: InvalidEvent."""
    fields: dict[str, object] = {
        "interaction_id": _checked_id("interaction_id", interaction_id),
        "text": text,
        "tool_calls": tool_calls or None,
        "policy_id": policy_id,
        "messages": messages,
        "usage": usage,
        "latency_ms": latency_ms,
        "finish_reason": finish_reason,
    }
    return _event("output", "output_id", identifier, skill, fields, common)


def feedback(
    skill: str,
    identifier: str,
    interaction_id: str | None,
    output_id: str | None,
    *,
    final_text: str | None,
    action: Action | None,
    rating: float | None,
    preferred_output_id: str | None,
    comment: str | None,
    label: str | None,
    metric: str | None,
    value: bool | float | str | None,
    common: Common,
) -> Event:
    """What a person did with an output; which one of the fields is given says the kind. Raises: InvalidEvent."""
    told: dict[str, object] = {
        "final_text": final_text,
        "action": action,
        "rating": rating,
        "preferred_output_id": preferred_output_id,
        "comment": comment,
        "label": label,
        "metric": metric,
    }
    given = [name for name, content in told.items() if content is not None]
    if len(given) != 1:
        raise InvalidEvent(f"feedback needs exactly one of {', '.join(told)}; got {', '.join(given) or 'none'}")
    (name,) = given
    kind = _KIND_OF.get(name, name)
    if rating is not None and not 0 <= rating <= 1:
        raise InvalidEvent(f"rating must be in [0, 1], got {rating!r}")
    if (kind == "metric") != (value is not None):
        raise InvalidEvent("metric and value go together")
    unbound = interaction_id is None and (output_id is None or ids.interaction_of(output_id) is None)
    if unbound and (kind != "metric" or common.get("thread_id") is None):
        raise InvalidEvent("feedback needs interaction_id, or an output_id that contains it, or a metric of a thread with thread_id")
    fields: dict[str, object] = {
        "interaction_id": None if interaction_id is None else _checked_id("interaction_id", interaction_id),
        "output_id": None if output_id is None else _checked_id("output_id", output_id),
        "kind": kind,
        name: told[name],
        "value": value,
    }
    return _event("feedback", "feedback_id", identifier, skill, fields, common)


def task_result(skill: str, identifier: str, interaction_id: str, name: str, value: bool | float | str, common: Common) -> Event:
    """A business outcome that became known later. Raises: InvalidEvent."""
    fields: dict[str, object] = {"interaction_id": _checked_id("interaction_id", interaction_id), "name": name, "value": value}
    return _event("task_result", "task_result_id", identifier, skill, fields, common)


def checked_skill(skill: str) -> str:
    """`skill` when it is a skill's name: lower-case words joined by single hyphens, at most 28 characters. Raises:
    InvalidEvent."""
    if not isinstance(skill, str) or not _SKILL.fullmatch(skill):
        raise InvalidEvent(f"not a skill's name: {skill!r}, expected lower-case words joined by hyphens, at most 28 characters")
    return skill


def _event(kind: str, id_field: str, identifier: str, skill: str, fields: Mapping[str, object], common: Common) -> Event:
    whole: dict[str, object] = {"type": kind, "skill": checked_skill(skill), id_field: _checked_id(id_field, identifier)}
    for name, content in fields.items():
        if content is not None:
            whole[name] = content
    whole["occurred_at"] = _timestamp(common.get("occurred_at"))
    if (thread := common.get("thread_id")) is not None:
        whole["thread_id"] = _checked_id("thread_id", thread)
    if user := common.get("user_id"):
        if not isinstance(user, str):
            raise InvalidEvent(f"user_id must be a text, got {type(user).__name__}")
        whole["user_id"] = external_id("usr", user)
    for name in ("metadata", "tags"):
        if given := common.get(name):
            whole[name] = given
    if unknown := common.keys() - _COMMON:
        raise InvalidEvent(f"unknown field {', '.join(sorted(unknown))}; free data goes into metadata")
    try:
        body = _ENCODER.encode(whole).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidEvent(f"the event is not JSON: {error}") from error
    if len(body) > MAX_EVENT_BYTES:
        raise InvalidEvent(f"the event has {len(body)} bytes, at most {MAX_EVENT_BYTES} are allowed")
    return Event(identifier, body)


def _checked_id(field: str, identifier: object) -> str:
    if not isinstance(identifier, str) or not _ID.fullmatch(identifier):
        raise InvalidEvent(f"{field} must match [A-Za-z0-9_-]{{1,64}}, got {identifier!r}")
    return identifier


def _timestamp(at: datetime | None) -> str:
    if at is None:
        at = datetime.now(timezone.utc)
    elif at.tzinfo is None:
        raise InvalidEvent("occurred_at must know its time zone")
    return at.astimezone(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
