"""Telemetry on the deployed laptop cloud: batches, what comes out of order, metrics, publishable keys, and every answer
documented."""

import json
import os
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from ulid import ULID

from tests.laptop_cloud import INPUTS, ROOT, SKILL, LaptopCloud, Tenant, until

METRICS = {"csat": {"type": "float", "direction": "maximize"}}


def test_a_batch_in_any_order_lands_once_in_the_hot_store_and_in_the_lake(cloud: LaptopCloud) -> None:
    tenant = cloud.tenant()
    tenant.admin("PUT", f"skills/{SKILL}", {"metrics": METRICS})
    events: list[dict[str, object]] = []
    for _ in range(50):
        ulid = str(ULID())
        about = {"skill": SKILL, "interaction_id": f"int_{ulid}"}
        events += [
            {"type": "feedback", **about, "feedback_id": f"fbk_{ulid}_1", "output_id": f"out_{ulid}", "kind": "action", "action": "sent"},
            {"type": "feedback", **about, "feedback_id": f"fbk_{ulid}_2", "kind": "metric", "metric": "csat", "value": 4.5},
            {"type": "task_result", **about, "task_result_id": f"tsk_{ulid}_1", "name": "resolved", "value": True},
            {"type": "output", **about, "output_id": f"out_{ulid}", "text": "Dear Ada"},
            {"type": "interaction", **about, "inputs": INPUTS},
        ]
    for expected in (201, 200):
        results = tenant.post("v1/events:batch", {"events": events}).json()["results"]
        assert {result["status"] for result in results} == {expected}
    ids = {result["id"] for result in results}
    assert len(ids) == len(events)
    until(lambda: cloud.lake_events(tenant.tenant_id) == len(events))
    assert tenant.admin("GET", f"skills/{SKILL}/pending")["data"] == []


def test_of_the_same_events_sent_at_once_each_is_new_once_and_another_payload_never_wins_twice(cloud: LaptopCloud) -> None:
    tenant = cloud.tenant()
    tenant.admin("PUT", f"skills/{SKILL}", {})
    ulids = [str(ULID()) for _ in range(20)]
    about = [{"skill": SKILL, "interaction_id": f"int_{ulid}"} for ulid in ulids]
    events = [{"type": "interaction", **each, "inputs": INPUTS} for each in about]
    events += [{"type": "feedback", **each, "feedback_id": f"free-{n}", "kind": "comment", "comment": "c"} for n, each in enumerate(about)]

    def send(sender: int) -> list[tuple[str, int]]:
        """The batch, from another event on for each sender; every fourth one has another comment."""
        batch = [{**event, "comment": "d"} if sender % 4 == 0 and "comment" in event else event for event in events]
        rotation = batch[sender * 5 :] + batch[: sender * 5]
        results = tenant.post("v1/events:batch", {"events": rotation}).json()["results"]
        ids = [str(event.get("feedback_id", event["interaction_id"])) for event in rotation]
        return list(zip(ids, (result["status"] for result in results), strict=True))

    with ThreadPoolExecutor(8) as senders:
        answers = [answer for sent in senders.map(send, range(8)) for answer in sent]
    new = [name for name, status in answers if status in (201, 202)]
    assert sorted(new) == sorted({name for name, _ in answers})
    conflicts = Counter(name for name, status in answers if status == 409)
    assert set(conflicts.values()) <= {2, 6}  # two of the eight differ from the others
    assert conflicts.keys() == {f"free-{n}" for n in range(20)}


def test_feedback_before_its_interaction_is_joined_when_it_lands(cloud: LaptopCloud) -> None:
    tenant = cloud.tenant()
    tenant.admin("PUT", f"skills/{SKILL}", {})
    ulid = str(ULID())
    about = {"skill": SKILL, "interaction_id": f"int_{ulid}"}
    early = tenant.post("v1/feedback.submit", {**about, "output_id": f"out_{ulid}", "kind": "action", "action": "sent"})
    assert (early.status_code, early.json()["pending"]) == (202, True)
    until(lambda: [one["orphaned"] for one in tenant.admin("GET", f"skills/{SKILL}/pending")["data"]] == [False])
    assert tenant.post("v1/interaction.output", {**about, "output_id": f"out_{ulid}", "text": "Dear Ada"}).status_code == 202
    assert tenant.post("v1/interaction.create", {**about, "inputs": INPUTS}).status_code == 201
    until(lambda: tenant.admin("GET", f"skills/{SKILL}/pending")["data"] == [])
    day = tenant.admin("GET", f"skills/{SKILL}")["created_at"][:10]
    rewards = until(lambda: tenant.http.get(f"v1/admin/skills/{SKILL}/rewards", params={"date": day}).json()["data"])
    assert [reward["output_id"] for reward in rewards] == [f"out_{ulid}"]


def test_an_unregistered_metric_is_refused_with_those_that_are_registered(cloud: LaptopCloud, tenant: Tenant) -> None:
    tenant.admin("PUT", f"skills/{SKILL}", {"metrics": METRICS})
    feedback = {"skill": SKILL, "interaction_id": "int_1", "kind": "metric", "metric": "fun", "value": 1.0}
    answer = tenant.post("v1/feedback.submit", feedback)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "metric"
    assert "registered: csat" in answer.json()["error"]["message"]


def test_a_page_reports_with_a_publishable_key_from_its_own_origin_only(cloud: LaptopCloud, tenant: Tenant) -> None:
    page = "https://app.example.com"
    key = tenant.admin("POST", "keys", {"scopes": ["telemetry"], "origins": [page], "reason": "the page"})
    with cloud.connect(key["api_key"]) as browser:
        preflight_headers = {
            "Origin": page,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type",
        }
        preflight = httpx.options(f"{cloud.api_url.rstrip('/')}/v1/events:batch", headers=preflight_headers)
        assert preflight.is_success
        assert preflight.headers["access-control-allow-origin"] in ("*", page)
        assert "authorization" in preflight.headers["access-control-allow-headers"].lower()
        token = tenant.post("v1/feedback.token", {"skill": SKILL, "interaction_id": "i1", "output_id": "o1"}).json()["feedback_token"]
        body = {"events": [{"type": "feedback", "skill": SKILL, "kind": "action", "action": "sent", "feedback_token": token}]}
        answer = browser.post("v1/events:batch", json=body, headers={"Origin": page})
        assert answer.status_code == 200, answer.text
        assert [result["status"] for result in answer.json()["results"]] == [202]
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "X-Request-Id" in answer.headers["access-control-expose-headers"]
        for headers in ({}, {"Origin": "https://evil.example"}):
            assert browser.post("v1/events:batch", json=body, headers=headers).status_code == 403
        assert browser.post("v1/infer", json={"skill": SKILL, "inputs": INPUTS}, headers={"Origin": page}).status_code == 403


def _for_our_skill(node: Any) -> Any:
    """The document with the one skill that the tenant has, so that requests get past it; answers may name others, which
    requests that break the document have made."""
    if isinstance(node, list):
        return [_for_our_skill(item) for item in node]
    if not isinstance(node, dict):
        return node
    if node.get("in") == "path" and node.get("name") == "skill":
        return {**node, "schema": {"enum": [SKILL]}}
    ours = {"enum": [SKILL]}
    return {
        name: {"anyOf": [ours, value]} if name == "skill" and "pattern" in value else _for_our_skill(value) for name, value in node.items()
    }


@pytest.mark.slow
def test_no_request_that_fits_the_document_or_breaks_it_gets_an_answer_outside_it(
    cloud: LaptopCloud, tenant: Tenant, tmp_path: Path
) -> None:
    document = tmp_path / "openapi.json"
    document.write_text(json.dumps(_for_our_skill(json.loads((ROOT / "docs/reference/openapi.json").read_text()))))
    key = cloud.key(tenant.tenant_id, ("infer", "telemetry", "admin", "platform"))
    result = subprocess.run(
        [
            str(Path(sys.executable).with_name("schemathesis")),
            "run",
            str(document),
            "--url",
            cloud.api_url.rstrip("/"),
            "--header",
            f"Authorization: Bearer {key}",
            "--checks",
            "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance",
            "--phases",
            os.environ.get("FUZZ_PHASES", "fuzzing"),
            "--max-examples",
            os.environ.get("FUZZ_EXAMPLES", "10"),
            "--seed",
            "1",
            "--suppress-health-check",
            "all",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-8000:] + result.stderr[-2000:]


def test_logs_are_imported_once_however_often(cloud: LaptopCloud, tmp_path: Path) -> None:
    tenant = cloud.tenant()
    tenant.admin("PUT", f"skills/{SKILL}", {})
    (tmp_path / "log.csv").write_text(
        "ticket,asked,drafted,sent_text,what\n"
        "T-1,I was charged twice.,Dear Ada,Hi Ada,sent\n"
        "T-2,Where is my order?,Dear Bo,Hi Bo,sent\n"
        "T-3,Cancel please,Dear Cy,,discarded\n"
    )
    columns = ("thread_id=ticket", "prompt=asked", "text=drafted", "final_text=sent_text", "action=what")
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "clients/python/src"), "XDG_STATE_HOME": str(tmp_path)}
    key = cloud.key(tenant.tenant_id, ("telemetry",))
    service = ["--api-url", cloud.api_url, "--api-key", key]
    command = [sys.executable, "-m", "rlaas_sdk.cli", "import", "csv", "log.csv", "--skill", SKILL, *service]
    for column in columns:
        command += ["--map", column]
    for _ in range(2):
        result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout + result.stderr
        until(lambda: cloud.stored_events(tenant.tenant_id) >= 11)
    until(lambda: cloud.lake_events(tenant.tenant_id) == 3 * 3 + 2)  # interaction, output, action; two edits
