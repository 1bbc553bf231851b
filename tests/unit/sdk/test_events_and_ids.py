import json
import re
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ulid import ULID

from rlaas.telemetry.events import AnyEvent, FeedbackSubmitted, InteractionCreated, OutputProduced, TaskResultReported
from rlaas_sdk import Client, InvalidEvent, ids
from rlaas_sdk.events import Message
from rlaas_sdk.spool import MEMORY
from rlaas_sdk.transport import BASE_S, CAP_S, draw_backoff_s, read_retry_after_s

MODELS: dict[str, type[AnyEvent]] = {
    "interaction": InteractionCreated,
    "output": OutputProduced,
    "feedback": FeedbackSubmitted,
    "task_result": TaskResultReported,
}


@pytest.fixture
def strict() -> Iterator[Client]:
    client = Client("http://127.0.0.1:9", "rlk_k_s", spool=MEMORY, strict=True)
    yield client
    client.close(0)


def read_reports(client: Client) -> list[dict[str, object]]:
    assert client._delivery is not None
    client._delivery._move()
    return [json.loads(body) for _, _, body in client._delivery._spool.claim("h", max_events=500, max_bytes=1 << 30).events]


def test_what_the_sdk_builds_is_what_the_service_accepts(strict: Client) -> None:
    common: dict[str, Any] = {"thread_id": "t-1", "user_id": "u_1", "metadata": {"a": [1, None]}, "tags": ["x"]}
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=2)))
    messages: list[Message] = [{"role": "user", "content": "hi"}]
    interaction = strict.log_interaction("emails", messages=messages, occurred_at=at, **common)
    first_output = strict.log_output(
        "emails", interaction, "Dear", usage={"input_tokens": 1, "output_tokens": 2}, latency_ms=1.5, finish_reason="stop"
    )
    second_output = strict.log_output("emails", interaction, "Or", policy_id="emails@v1")
    for feedback in (
        {"final_text": "Dear all"},
        {"action": "sent"},
        {"rating": 1.0},
        {"preferred_output_id": first_output},
        {"comment": "c"},
        {"label": "l"},
    ):
        strict.submit_feedback("emails", interaction_id=interaction, output_id=second_output, **feedback)
    strict.submit_feedback("emails", output_id=first_output, metric="csat", value=0.5)
    strict.submit_feedback("emails", metric="solved", value=True, thread_id="t-1")
    strict.task_result("emails", interaction, "resolved", True)
    events = read_reports(strict)
    assert len(events) == 12
    for event in events:
        MODELS[str(event.pop("type"))].model_validate_json(json.dumps(event))
    assert events[0]["occurred_at"] == "2026-01-02T01:04:05.000Z"


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"rating": 1.1},
        {"rating": 0.5, "label": "good"},
        {"metric": "csat"},
        {"label": "good", "interaction_id": None},
        {"label": "good", "interaction_id": "a b"},
        {"label": "good", "skill": "Emails"},
        {"label": "good", "unknown": 1},
        {"label": "good", "occurred_at": datetime(2026, 1, 1)},
        {"label": "good", "metadata": {"x": float("nan")}},
        {"label": "good", "metadata": {"x": object()}},
        {"comment": "\ud800"},
        {"comment": "x" * 300_000},
    ],
)
def test_an_event_the_service_would_refuse_is_refused_before_it_is_queued(strict: Client, fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidEvent):
        strict.submit_feedback(**{"skill": "emails", "interaction_id": "int_1", **fields})
    assert read_reports(strict) == []
    assert strict.stats().dropped == {"invalid": 1}


def test_an_event_is_as_it_was_when_reported(strict: Client) -> None:
    metadata: dict[str, int] = {"n": 1}
    strict.submit_feedback("emails", interaction_id="int_1", label="good", metadata=metadata)
    metadata["n"] = 2
    assert read_reports(strict)[0]["metadata"] == {"n": 1}


def test_ids_are_ulids_and_bound_to_their_interaction() -> None:
    interaction = ids.interaction_id()
    ulid = interaction.removeprefix("int_")
    assert abs(ULID.from_str(ulid).timestamp - datetime.now().timestamp()) < 60
    output = ids.first_output_id(interaction)
    assert output == f"out_{ulid}"
    assert re.fullmatch(rf"out_{ulid}_[0-9A-HJKMNP-TV-Z]{{10}}", ids.output_id(interaction))
    assert ids.feedback_id(None, ids.output_id(interaction)).startswith(f"fbk_{ulid}_")
    assert ids.task_result_id(interaction).startswith(f"tsk_{ulid}_")
    assert ids.find_interaction_id(ids.output_id(interaction)) == interaction
    assert ids.find_interaction_id("out_mine") is None
    assert re.fullmatch(r"fbk_[0-9A-Z]{26}", ids.feedback_id("mine", None))


@given(st.integers(min_value=0, max_value=40))
def test_backoff_has_full_jitter_below_its_cap(failures: int) -> None:
    assert 0 <= draw_backoff_s(failures) <= min(CAP_S, BASE_S * 2**failures)


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126)))
def test_any_retry_after_is_a_bounded_number_of_seconds(header: str) -> None:
    assert 0 <= read_retry_after_s(httpx.Response(429, headers={"Retry-After": header})) <= 3600
