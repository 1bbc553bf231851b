"""`/v1/infer` and `/v1/feedback.token`: how a request is built, how its response is read, and when to try again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import httpx

from rlaas_sdk import ids
from rlaas_sdk.errors import InferenceFailed, InvalidEvent
from rlaas_sdk.events import About, Message, check_skill
from rlaas_sdk.failures import describe_failure, describe_response, is_final, is_refused
from rlaas_sdk.transport import draw_backoff_s, read_retry_after_s

MOST_REFUSALS = 3
"""After as many refused connections in a row nobody is there: a service that restarts is back after the second."""
RETRYABLE_STATUSES = frozenset({429, 500, 502, 503, 504})
Result = TypeVar("Result")


@dataclass(frozen=True)
class Retry:
    """A try that failed, and another may pass: why, the least seconds to wait, the HTTP status where one came, and
    whether the address refused the connection."""

    why: str
    after_s: float = 0.0
    status: int | None = None
    refused: bool = False


@dataclass
class Tries:
    """The tries of one request to `url` so far: how many failed, the last of them, and how many were refused in a
    row."""

    url: str
    failures: int = 0
    last: Retry = Retry("no connection yet")
    refusals: int = 0

    def note(self, failed: Retry) -> float:
        """Count a failure; the seconds to wait before the next try. Raises: InferenceFailed where the address has
        refused the connection three times in a row."""
        self.failures, self.last = self.failures + 1, failed
        self.refusals = self.refusals + 1 if failed.refused else 0
        if self.refusals == MOST_REFUSALS:
            raise InferenceFailed(f"nothing listens at {self.url}: {self.refusals} tries in a row were refused, the last: {failed.why}")
        return failed.after_s + draw_backoff_s(self.failures)

    def give_up(self, timeout_s: float) -> InferenceFailed:
        """The error when the time is over."""
        tries = f"; {self.failures} {'try' if self.failures == 1 else 'tries'} failed, the last: {self.last.why}"
        return InferenceFailed(f"no answer within {timeout_s:g} s" + tries * bool(self.failures), self.last.status)


@dataclass(frozen=True)
class Answer:
    """What the skill answered. Give `output_id` (or `interaction_id`) with feedback, and give `feedback_token` to the
    page that shows the answer."""

    interaction_id: str
    output_id: str
    text: str
    policy_id: str | None
    finish_reason: str | None
    latency_ms: float | None
    decision: Mapping[str, object]
    usage: Mapping[str, int] | None
    cost_usd: float | None = None
    feedback_token: str | None = None


@dataclass(frozen=True)
class Request(Generic[Result]):
    """A POST to `/v1/<path>`. `read` returns the result in a response, or that another try may have it; it raises
    InferenceFailed where none would."""

    path: str
    body: Mapping[str, object]
    read: Callable[[httpx.Response], Result | Retry]
    idempotency_key: str | None = None


def build_inference_request(
    skill: str, interaction_id: str | None, inputs: Mapping[str, str] | None, messages: Sequence[Message] | None, about: About
) -> Request[Answer]:
    """A request for an answer; its interaction's id stays the same over every retry. Raises: InvalidEvent."""
    if (inputs is None) == (messages is None):
        raise InvalidEvent("infer needs inputs or messages, not both")
    interaction_id = interaction_id or ids.interaction_id()
    body = {"skill": check_skill(skill), "interaction_id": interaction_id, "inputs": inputs, "messages": messages, **about}
    return Request("infer", _drop_nulls(body), _read_answer, idempotency_key=str(interaction_id))


def build_token_request(skill: str, output_id: str, interaction_id: str | None, thread_id: str | None, user_id: str | None) -> Request[str]:
    """A request for the token with which a page gives feedback. Raises: InvalidEvent."""
    about = {"interaction_id": interaction_id, "thread_id": thread_id, "user_id": user_id}
    return Request("feedback.token", _drop_nulls({"skill": check_skill(skill), "output_id": output_id, **about}), _read_token)


def _drop_nulls(body: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in body.items() if value is not None}


def _read_answer(response: httpx.Response) -> Answer | Retry:
    body = _read_body(response)
    if isinstance(body, Retry):
        return body
    try:
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
            feedback_token=body.get("feedback_token"),
        )
    except (KeyError, TypeError) as error:
        raise _build_failure(response) from error


def _read_token(response: httpx.Response) -> str | Retry:
    body = _read_body(response)
    if isinstance(body, Retry):
        return body
    try:
        return str(body["feedback_token"])
    except (KeyError, TypeError) as error:
        raise _build_failure(response) from error


def read_failure(error: httpx.TransportError) -> Retry:
    """Why no response came. Raises: InferenceFailed where none would come to another try."""
    if is_final(error):
        raise InferenceFailed(describe_failure(error)) from error
    return Retry(describe_failure(error), refused=is_refused(error))


def _read_body(response: httpx.Response) -> dict[str, Any] | Retry:
    if response.status_code in RETRYABLE_STATUSES:
        return Retry(describe_response(response), read_retry_after_s(response), response.status_code)
    if response.status_code != 200:
        raise _build_failure(response)
    try:
        body: dict[str, Any] = response.json()
    except ValueError as error:
        raise _build_failure(response) from error
    return body


def _build_failure(response: httpx.Response) -> InferenceFailed:
    return InferenceFailed(describe_response(response), response.status_code)
