import base64
import json
from typing import Any

import pytest

from functions.telemetry.handler import handler
from tests.fakes.gateway import make_lambda_context, make_proxy_event
from tests.fakes.worlds import SKILL, TENANT
from tests.unit.functions.conftest import Stage

INTERACTION = {"interaction_id": "i1", "skill": SKILL, "inputs": {"email": "hello"}}
EDIT = {"interaction_id": "i1", "output_id": "o1", "skill": SKILL, "kind": "edit", "final_text": "Hi"}


def call(path: str, body: object, **event: Any) -> tuple[int, dict[str, Any]]:
    answer = handler({**make_proxy_event(path, body, **event)}, make_lambda_context())
    assert isinstance(answer["body"], str)
    status = answer["statusCode"]
    assert isinstance(status, int)
    return status, json.loads(answer["body"])


def test_the_four_events_of_an_interaction_are_taken_and_stored(furnished_stage: Stage) -> None:
    output = {"output_id": "o1", "interaction_id": "i1", "skill": SKILL, "text": "Dear customer"}
    result = {"interaction_id": "i1", "skill": SKILL, "name": "resolved", "value": True}
    assert call("/v1/interaction.create", INTERACTION) == (
        201,
        {"interaction_id": "i1", "idempotent_replay": False, "pending": False},
    )
    assert call("/v1/interaction.output", output)[0] == 201
    assert call("/v1/feedback.submit", EDIT)[0] == 201
    assert call("/v1/task_result", result)[0] == 201
    stored = furnished_stage.events.read_interaction(TENANT, "i1")
    assert [event.event_type for event in stored] == ["interaction", "output", "feedback", "task_result"]


def test_replays_answer_200_conflicts_409_and_early_feedback_202(furnished_stage: Stage) -> None:
    status, body = call("/v1/feedback.submit", EDIT, headers={"idempotency-key": "k1"})
    assert (status, body["pending"]) == (202, True)
    again, replay = call("/v1/feedback.submit", EDIT, headers={"Idempotency-Key": "k1"})
    assert (again, replay["idempotent_replay"], replay["feedback_id"]) == (200, True, body["feedback_id"])
    conflict, error = call("/v1/feedback.submit", {**EDIT, "final_text": "other"}, headers={"Idempotency-Key": "k1"})
    assert (conflict, error["error"]["code"], error["error"]["param"]) == (409, "conflict", "feedback_id")
    assert [event.event_id for event in furnished_stage.events.read_interaction(TENANT, "i1")] == [body["feedback_id"]]


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ("{", 400, None),
        ("", 400, None),
        ("[]", 400, None),
        ("nul\\l", 400, None),
        ({**INTERACTION, "surprise": 1}, 400, "surprise"),
        ({**INTERACTION, "skill": 1}, 400, "skill"),
        ({**INTERACTION, "inputs": {"email": 1}}, 400, "inputs.email"),
        ({**INTERACTION, "tags": ["ok", 2]}, 400, "tags.1"),
        ({**INTERACTION, "skill": "unknown"}, 404, "skill"),
        ({**INTERACTION, "inputs": {"email": "x" * 262_144}}, 413, None),
        ('{"skill":"support-email-draft","inputs":{},"metadata":{"a":NaN}}', 400, "metadata.a"),
        ('{"skill":"support-email-draft","inputs":{"a":"\\ud800"}}', 400, None),
        ('{"skill":"support-email-draft","inputs":{"a":"\ud800"}}', 400, None),
    ],
)
def test_bad_input_gets_the_error_body_with_the_field_named_and_nothing_is_stored(
    furnished_stage: Stage, body: object, status: int, param: str | None
) -> None:
    got, answer = call("/v1/interaction.create", body)
    assert got == status
    assert set(answer) == {"error"}
    assert set(answer["error"]) == {"type", "code", "message", "param", "request_id"}
    assert answer["error"]["param"] == param
    assert answer["error"]["request_id"] == "req-1"
    assert furnished_stage.items("events") == []


def test_every_bad_field_is_in_the_message_and_no_value_is(furnished_stage: Stage) -> None:
    _, answer = call("/v1/task_result", {"skill": "Bad Skill!", "name": "", "value": {"secret": "s3cr3t"}})
    message = answer["error"]["message"]
    assert all(f"{field}: " in message for field in ("skill", "interaction_id", "name", "value"))
    assert "s3cr3t" not in message
    assert "Bad Skill" not in message


def test_other_content_types_are_refused(furnished_stage: Stage) -> None:
    status, answer = call("/v1/interaction.create", INTERACTION, headers={"content-type": "text/plain"})
    assert (status, answer["error"]["param"]) == (400, "Content-Type")


def test_a_base64_body_is_read(furnished_stage: Stage) -> None:
    event = make_proxy_event("/v1/interaction.create", base64.b64encode(json.dumps(INTERACTION).encode()).decode())
    assert handler({**event, "isBase64Encoded": True}, make_lambda_context())["statusCode"] == 201


def test_a_missing_scope_is_forbidden_by_name(furnished_stage: Stage) -> None:
    status, answer = call("/v1/interaction.create", INTERACTION, scopes="infer admin")
    assert (status, answer["error"]["type"]) == (403, "Forbidden")
    assert "'telemetry'" in answer["error"]["message"]
    assert furnished_stage.items("events") == []


def test_an_unknown_path_is_not_found_in_the_same_shape(furnished_stage: Stage) -> None:
    status, answer = call("/v1/nothing", {})
    assert (status, answer["error"]["code"], answer["error"]["request_id"]) == (404, "not_found", "req-1")


def test_an_unforeseen_failure_shows_and_logs_no_payload(furnished_stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    furnished_stage.dynamodb.put_item(
        TableName="events", Item={"pk": {"S": f"T#{TENANT}#i1"}, "sk": {"S": "i1"}, "text": {"S": "a private letter"}}
    )
    status, answer = call("/v1/interaction.create", {**INTERACTION, "inputs": {"email": "a private letter"}})
    assert (status, answer["error"]["code"]) == (500, "internal_error")
    assert answer["error"]["request_id"] == "req-1"
    logged = str([vars(entry) for entry in caplog.records])
    assert "req-1" in logged
    assert "a private letter" not in logged + json.dumps(answer)


def test_a_store_that_is_not_there_is_a_dependency_unavailable(furnished_stage: Stage) -> None:
    furnished_stage.dynamodb.delete_table(TableName="events")
    status, answer = call("/v1/interaction.create", INTERACTION)
    assert (status, answer["error"]["code"]) == (503, "dependency_unavailable")


# Many at once


def batch(*events: object, **event: Any) -> list[Any]:
    status, answer = call("/v1/events:batch", {"events": list(events)}, **event)
    assert status == 200, answer
    results: list[Any] = answer["results"]
    return results


def test_a_batch_answers_for_each_event_and_a_bad_one_spoils_no_other(furnished_stage: Stage) -> None:
    results = batch(
        {"type": "feedback", "feedback_id": "f1", **EDIT},
        {"type": "output", "output_id": "o1", "interaction_id": "i1", "skill": SKILL, "text": "Dear"},
        {"type": "interaction", **INTERACTION},
        {"type": "interaction", **INTERACTION},
        {"type": "interaction", **INTERACTION, "inputs": {"email": "other"}},
        {"type": "interaction", "skill": "unknown", "inputs": {}},
        {"type": "feedback", **EDIT, "kind": "rating"},
        {"type": "surprise"},
        "no event",
        {"type": "task_result", "interaction_id": "later", "skill": SKILL, "name": "resolved", "value": True, "task_result_id": "t1"},
        {"type": "interaction", "skill": SKILL, "inputs": {"email": "x" * 262_144}},
        {"type": "interaction", "skill": SKILL, "inputs": {"email": "\ud800"}},
    )
    assert [result["status"] for result in results] == [201, 201, 201, 200, 409, 404, 400, 400, 400, 202, 413, 400]
    assert results[0] == {"status": 201, "id": "f1", "idempotent_replay": False, "pending": False}
    assert results[3]["idempotent_replay"] is True
    assert results[9] == {"status": 202, "id": "t1", "idempotent_replay": False, "pending": True}
    assert [result["error"]["param"] for result in results if "error" in result] == [
        "interaction_id",
        "skill",
        None,
        "type",
        "type",
        None,
        None,
    ]
    stored = furnished_stage.events.read_interaction(TENANT, "i1")
    assert {event.event_id for event in stored} == {"i1", "o1", "f1"}


def test_a_batch_sent_again_is_all_replays(furnished_stage: Stage) -> None:
    events = [{"type": "interaction", "skill": SKILL, "inputs": {"n": str(number)}} for number in range(60)]
    first = batch(*events, headers={"Idempotency-Key": "k1"})
    again = batch(*events, headers={"Idempotency-Key": "k1"})
    assert {result["status"] for result in first} == {201}
    assert {result["status"] for result in again} == {200}
    assert [result["id"] for result in first] == [result["id"] for result in again]


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ("{", 400, None),
        ("[" * 100_000, 400, None),
        ([], 400, None),
        ({}, 400, "events"),
        ({"events": []}, 400, "events"),
        ({"events": {"type": "interaction"}}, 400, "events"),
        ({"events": [{}] * 501}, 400, "events"),
        ({"events": [{}], "more": 1}, 400, "more"),
        ({"events": ["x" * (5 * 1024 * 1024)]}, 413, None),
    ],
)
def test_what_is_no_batch_is_refused_whole(furnished_stage: Stage, body: object, status: int, param: str | None) -> None:
    got, answer = call("/v1/events:batch", body)
    assert (got, answer["error"]["param"]) == (status, param)


def test_a_dry_run_is_answered_as_ever_and_stores_nothing(furnished_stage: Stage) -> None:
    assert call("/v1/interaction.create", {**INTERACTION, "dryrun": True})[0] == 201
    assert furnished_stage.items("events") == []
    assert call("/v1/interaction.create", INTERACTION)[0] == 201
    assert call("/v1/interaction.create", {**INTERACTION, "dryrun": True})[0] == 200
    assert call("/v1/interaction.create", {**INTERACTION, "inputs": {}, "dryrun": True})[0] == 409


def test_a_publishable_key_reports_from_its_own_pages_only(furnished_stage: Stage) -> None:
    origins = "https://app.example.com http://localhost:5173"
    token = call("/v1/feedback.token", {"skill": SKILL, "output_id": "out_01ARZ3NDEKTSV4RRFFQ69G5FAV"})[1]["feedback_token"]
    edit = {"skill": SKILL, "kind": "edit", "final_text": "Hi", "feedback_token": token}
    for origin, expected in (("https://app.example.com", 202), ("https://evil.example", 403), (None, 403)):
        headers = {"origin": origin} if origin else {}
        status, _ = call("/v1/feedback.submit", edit, scopes="telemetry", origins=origins, headers=headers)
        assert status == expected
    assert len(furnished_stage.items("events")) == 1


ULID = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
SENT = {"skill": SKILL, "kind": "action", "action": "sent"}


def by_page(path: str, body: object) -> tuple[int, str | None]:
    """The status of a page's request, and the field that it is refused for."""
    page = "https://app.example.com"
    status, answer = call(path, body, scopes="telemetry", origins=page, headers={"origin": page})
    return status, answer["error"]["param"] if "error" in answer else None


def test_what_a_page_may_not_say_is_refused_by_name_before_or_after_its_body_is_read(furnished_stage: Stage) -> None:
    output = {"skill": SKILL, "interaction_id": f"int_{ULID}", "output_id": f"out_{ULID}_a", "text": "Hi", "user_id": "agent-7"}
    token = call("/v1/interaction.output", output)[1]["feedback_token"]
    payload, _, proof = token.partition(".")
    for wrong in (
        "",
        "x",
        f"{payload}.",
        f"{payload}.{'0' * len(proof)}",
        f"{payload}=.{proof}",
        f"{payload}==.{proof}",
        f"{payload[:-1]}.{proof}",
        "é.x",
    ):
        assert by_page("/v1/feedback.submit", {**SENT, "feedback_token": wrong}) == (403, "feedback_token")
    beyond = {"output_id": "o2", "interaction_id": "i2", "user_id": "agent-8", "thread_id": "t9", "skill": "another", "tags": ["held-out"]}
    for field, value in beyond.items():
        assert by_page("/v1/feedback.submit", {**SENT, "feedback_token": token, field: value}) == (403, field)
    for path in ("/v1/interaction.create", "/v1/interaction.output", "/v1/task_result", "/v1/feedback.token"):
        assert by_page(path, {}) == (403, "type")
    assert by_page("/v1/events:batch", {"events": [{"type": "feedback", **SENT}] * 26}) == (400, "events")
    assert call("/v1/interaction.output", {**output, "output_id": "o9", "decision_token": token})[0] == 400
    assert by_page("/v1/feedback.submit", {**SENT, "feedback_token": token}) == (202, None)
