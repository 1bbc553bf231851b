"""`/v1/infer`: the request, what an answer means, and when to try again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import httpx

from rlaas_sdk import ids
from rlaas_sdk.errors import InferenceFailed, InvalidEvent
from rlaas_sdk.events import About, Message, checked_skill
from rlaas_sdk.transport import retry_after_s

RETRIED = frozenset({429, 500, 502, 503, 504})


@dataclass(frozen=True)
class Answer:
    """What the skill answered. Give `output_id` (or `interaction_id`) with the feedback."""

    interaction_id: str
    output_id: str
    text: str
    policy_id: str | None
    finish_reason: str | None
    latency_ms: float | None
    decision: Mapping[str, object]
    usage: Mapping[str, int] | None
    cost_usd: float | None = None


def request_body(
    skill: str, interaction_id: str | None, inputs: Mapping[str, str] | None, messages: Sequence[Message] | None, about: About
) -> dict[str, object]:
    """The request, its interaction's id made once. Raises: InvalidEvent."""
    if (inputs is None) == (messages is None):
        raise InvalidEvent("infer needs inputs or messages, not both")
    body: dict[str, object] = {"skill": checked_skill(skill), "interaction_id": interaction_id or ids.interaction_id()}
    asked = {"inputs": inputs, "messages": messages, **about}
    return body | {name: value for name, value in asked.items() if value is not None}


def answer_or_wait(response: httpx.Response) -> Answer | float:
    """The answer, or the least seconds to wait before the next try. Raises: InferenceFailed."""
    if response.status_code in RETRIED:
        return retry_after_s(response)
    try:
        body = response.json()
        if response.status_code != 200:
            raise InferenceFailed(f"HTTP {response.status_code}: {body['error']['message']}", response.status_code)
        return Answer(
            interaction_id=body["interaction_id"],
            output_id=body["output_id"],
            text=body["text"],
            policy_id=body.get("policy_id"),
            finish_reason=body.get("finish_reason"),
            latency_ms=body.get("latency_ms"),
            decision=body.get("decision") or {},
            usage=body.get("usage"),
            cost_usd=body.get("cost_usd"),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise InferenceFailed(f"HTTP {response.status_code}, an answer that is none of the service's", response.status_code) from error
