"""Bad input at the deployed API: the error body names what was wrong, and nothing is stored."""

import json
from typing import Any

import httpx
import pytest

from tests.laptop_cloud import INPUTS, SKILL, LaptopCloud, Tenant

INFER = {"skill": SKILL, "inputs": INPUTS}
FEEDBACK = {"skill": SKILL, "interaction_id": "int_1", "kind": "action", "action": "sent"}


def check_refusal(answer: httpx.Response, status: int, param: str | None) -> dict[str, Any]:
    """The error of an answer that must be refused with `status` and name `param`."""
    assert answer.status_code == status, answer.text
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) == {"type", "code", "message", "param", "request_id"}
    assert error["param"] == param
    assert error["message"]
    assert error["request_id"]
    return error


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        ("v1/infer", "{not json", 400, None),
        ("v1/infer", "[1]", 400, None),
        ("v1/infer", {**INFER, "colour": "red"}, 400, "colour"),
        ("v1/infer", {"inputs": INPUTS}, 400, "skill"),
        ("v1/infer", {**INFER, "thread_id": 7}, 400, "thread_id"),
        ("v1/infer", {**INFER, "inputs": {"name": "Ada"}}, 400, "inputs.email"),
        ("v1/infer", {**INFER, "skill": "unheard-of"}, 404, "skill"),
        ("v1/interaction.create", {"skill": "unheard-of", "inputs": INPUTS}, 404, "skill"),
        ("v1/interaction.create", {"skill": SKILL, "inputs": INPUTS, "metadata": {"n": float("inf")}}, 400, None),
        ("v1/feedback.submit", {**FEEDBACK, "action": "thrown"}, 400, "action"),
        ("v1/feedback.submit", {**FEEDBACK, "kind": "edit"}, 400, None),
        ("v1/feedback.submit", {**FEEDBACK, "interaction_id": "int 1"}, 400, "interaction_id"),
        ("v1/task_result", {"skill": SKILL, "interaction_id": "int_1", "name": "csat", "value": None}, 400, "value"),
        ("v1/interaction.create", {"skill": SKILL, "inputs": {"email": "x" * 270_000}}, 413, None),
        ("v1/nothing", {}, 404, None),
    ],
)
def test_a_bad_request_is_refused_by_name_and_stores_nothing(
    cloud: LaptopCloud, tenant: Tenant, path: str, body: object, status: int, param: str | None
) -> None:
    before = cloud.stored_events(tenant.tenant_id)
    content = body if isinstance(body, str) else json.dumps(body)
    answer = tenant.http.post(path, content=content, headers={"Content-Type": "application/json"})
    error = answer.json()["error"]
    check_refusal(answer, status, error["param"] if param is None else param)
    assert cloud.stored_events(tenant.tenant_id) == before


@pytest.mark.parametrize("header", [{}, {"Authorization": ""}, {"Authorization": "Bearer nonsense"}, {"Authorization": "Basic abc"}])
def test_without_a_right_key_nothing_answers(cloud: LaptopCloud, header: dict[str, str]) -> None:
    answer = httpx.post(f"{cloud.api_url}/v1/infer", json=INFER, headers=header)
    check_refusal(answer, 401, None)


def test_a_key_of_a_tenant_that_was_revoked_is_refused(cloud: LaptopCloud, tenant: Tenant) -> None:
    key = tenant.admin("POST", "keys", {"scopes": ["telemetry"], "reason": "to be revoked"})
    with cloud.connect(key["api_key"]) as other:
        assert other.post("v1/interaction.create", json={"skill": SKILL, "inputs": INPUTS}).status_code == 201
        tenant.admin("DELETE", f"keys/{key['key_id']}")
        check_refusal(other.post("v1/interaction.create", json={"skill": SKILL, "inputs": INPUTS}), 401, None)


def test_a_key_without_the_scope_is_told_which(cloud: LaptopCloud, tenant: Tenant) -> None:
    with cloud.connect(cloud.key(tenant.tenant_id, ("telemetry",))) as telemetry_only:
        assert "infer" in check_refusal(telemetry_only.post("v1/infer", json=INFER), 403, None)["message"]
        assert "admin" in check_refusal(telemetry_only.get("v1/admin/skills"), 403, None)["message"]


def test_a_replay_is_answered_and_a_conflict_refused(cloud: LaptopCloud, tenant: Tenant) -> None:
    body = {"skill": SKILL, "interaction_id": "int_twice", "inputs": INPUTS}
    first, again = (tenant.post("v1/interaction.create", body) for _ in range(2))
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json()["idempotent_replay"] is True
    before = cloud.stored_events(tenant.tenant_id)
    check_refusal(tenant.post("v1/interaction.create", {**body, "inputs": {"email": "other"}}), 409, "interaction_id")
    assert cloud.stored_events(tenant.tenant_id) == before


def test_one_tenant_cannot_see_anothers_things(cloud: LaptopCloud, tenant: Tenant) -> None:
    draft = tenant.infer()
    stranger = cloud.tenant()
    check_refusal(stranger.http.get(f"v1/admin/skills/{SKILL}"), 404, "skill")
    about = {"skill": SKILL, "interaction_id": draft["interaction_id"], "output_id": draft["output_id"], "kind": "action", "action": "sent"}
    check_refusal(stranger.post("v1/feedback.submit", about), 404, "skill")
