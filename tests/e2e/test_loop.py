"""The loop on the deployed laptop cloud: learn, evaluate, ship, and take back; and what becomes of runs that fail."""

import json
from typing import Any

from openai import OpenAI

from tests.laptop_cloud import INPUTS, PROMPT, SKILL, LaptopCloud, Tenant, until

ENDED = {"registered", "rejected", "failed"}


def run_to_its_end(tenant: Tenant, settings: dict[str, Any]) -> dict[str, Any]:
    """A learning run, ended."""
    run_id = tenant.admin("POST", f"skills/{SKILL}/learning-runs", {"settings": settings})["run_id"]
    path = f"skills/{SKILL}/learning-runs/{run_id}"
    return until(lambda: run if (run := tenant.admin("GET", path))["status"] in ENDED else None, seconds=240)


def route(tenant: Tenant) -> dict[str, Any]:
    """The route as it is."""
    return tenant.admin("GET", f"skills/{SKILL}/route")


def promotion_report(cloud: LaptopCloud, run: dict[str, Any]) -> dict[str, Any]:
    """What the run was decided by; fails when it ended without a decision."""
    assert run["report_uri"], run["reason"]
    bucket, _, key = run["report_uri"].removeprefix("s3://").partition("/")
    report: dict[str, Any] = json.loads(cloud.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read())
    return report


def rewards_on(tenant: Tenant, day: str) -> list[dict[str, Any]]:
    """The rewards of a day, such as `2026-01-31`."""
    rows: list[dict[str, Any]] = tenant.http.get(f"v1/admin/skills/{SKILL}/rewards", params={"date": day}).json()["data"]
    return rows


def rollout_to_its_end(tenant: Tenant, candidate: str, *, likes: str, seconds: float = 120) -> dict[str, Any]:
    """A rollout under traffic in which people send the drafts of policy `likes` as they are and discard the others."""
    steps = [{"weight": 0.4, "margin": 0.1, "min_samples": 3}, {"weight": 0.7, "min_samples": 3}]
    settings = {"steps": steps, "units_a_day": 86_400, "window_hours": 5 / 3_600, "lag_seconds": 4}
    body = {"policy_id": candidate, "settings": settings, "reason": "test"}
    path = f"skills/{SKILL}/rollouts/{tenant.admin('POST', f'skills/{SKILL}/rollouts', body)['rollout_id']}"

    def rollout_if_over() -> dict[str, Any] | None:
        draft = tenant.infer()
        tenant.react(draft, final=None, action="sent" if draft["policy_id"] == likes else "discarded")
        rollout = tenant.admin("GET", path)
        return rollout if rollout["status"] not in ("starting", "running") else None

    return until(rollout_if_over, seconds=seconds)


def test_edits_become_a_dataset_an_adapter_and_a_judgement(cloud: LaptopCloud) -> None:
    tenant = cloud.tenant()
    baseline = tenant.make_skill()
    for number in range(24):
        draft = tenant.infer(thread_id=f"thread-{number}", tags=["held-out"] if number % 3 == 0 else [])
        tenant.react(draft, final=f"Hi Ada,\n\nRefund {number} is on its way.", action="sent")
    until(lambda: cloud.lake_events(tenant.tenant_id) == 24 * 4)  # interaction, output, edit, action
    before = route(tenant)
    run = run_to_its_end(tenant, {"test_share": 0.0, "validation_share": 0.0, "min_threads": 4, "sft_steps": 2, "dpo_steps": 2})
    report = promotion_report(cloud, run)
    assert run["status"] == {"promote": "registered", "reject": "rejected"}[report["decision"]], run["reason"]
    assert len(tenant.admin("GET", f"skills/{SKILL}/policies")["data"]) == (2 if report["decision"] == "promote" else 1)
    assert (report["decision"] == "promote") == all(finding["met"] for finding in report["findings"])
    assert set(report["systems"]) == {"baseline", "candidate", "sft_only"}
    assert route(tenant) == before
    [dataset] = tenant.admin("GET", f"skills/{SKILL}/datasets")["data"]
    manifest = dataset["manifest"]
    pairs = {split: file["pairs"] for split, file in manifest["splits"].items()}
    empty = manifest["dropped"].get("empty", 0)  # the tiny model's weights are random, and so is what it says
    assert pairs["train"] + pairs["test"] + empty == 24
    assert pairs["validation"] == 0
    assert pairs["test"] <= 8
    assert manifest["policies"] == [baseline]
    assert {
        reward["components"]["sent"] for reward in rewards_on(tenant, dataset["created_at"][:10]) if "sent" in reward["components"]
    } == {1.0}


def test_a_training_job_that_fails_ends_the_run_with_its_reason_and_leaves_the_route(cloud: LaptopCloud) -> None:
    tenant = cloud.tenant()
    tenant.make_skill()
    for number in range(8):
        tenant.react(tenant.infer(thread_id=f"thread-{number}"), final=f"Hi Ada,\n\nRefund {number} is on its way.", action="sent")
    until(lambda: cloud.lake_events(tenant.tenant_id) == 8 * 4)
    before = route(tenant)
    run = run_to_its_end(tenant, {"test_share": 0.0, "validation_share": 0.0, "min_pairs": 1, "max_length": 16})
    assert run["status"] == "failed"
    assert "AlgorithmError" in run["reason"]
    assert route(tenant) == before


def test_a_run_without_enough_pairs_fails_with_its_reason_and_leaves_the_route(cloud: LaptopCloud) -> None:
    tenant = cloud.tenant()
    tenant.make_skill()
    before = route(tenant)
    run = run_to_its_end(tenant, {})
    assert run["status"] == "failed"
    assert "training pairs" in run["reason"]
    assert route(tenant) == before


def test_a_better_candidate_is_shipped_and_the_api_takes_it_back(cloud: LaptopCloud) -> None:
    tenant = cloud.tenant()
    control = tenant.make_skill()
    candidate = tenant.make_policy(0.9)
    rollout = rollout_to_its_end(tenant, candidate, likes=candidate)
    assert rollout["status"] == "shipped", rollout["reason"]
    assert [step["outcome"] for step in rollout["steps"]] == ["advance", "advance", "promoted"]
    assert route(tenant)["control"] == candidate
    assert tenant.infer()["policy_id"] == candidate
    tenant.admin("POST", f"skills/{SKILL}/rollback", {"reason": "by hand"})
    assert tenant.infer()["policy_id"] == control

    def entries_with_ours() -> list[dict[str, Any]] | None:
        data: list[dict[str, Any]] = tenant.admin("GET", "audit")["data"]
        return data if any(entry["reason"] == "by hand" for entry in data) else None

    entries = until(entries_with_ours)
    assert {entry["target"].partition("#")[0] for entry in entries} >= {"TENANT", "KEY", "SKILL", "POLICY", "ROUTE"}
    assert tenant.admin("GET", "audit")["chain"]["intact"] is True


def test_the_alarm_takes_a_bad_candidate_back(cloud: LaptopCloud) -> None:
    tenant = cloud.tenant()
    control = tenant.make_skill()
    rollout = rollout_to_its_end(tenant, tenant.make_policy(0.9), likes=control)
    assert rollout["status"] == "rolled_back", rollout["reason"]
    assert rollout["reason"].startswith("guard alarm: Threshold Crossed"), rollout["reason"]
    path = f"skills/{SKILL}/rollouts/{rollout['rollout_id']}"
    assert until(lambda: tenant.admin("GET", path)["alarm_at"])
    evidence = tenant.admin("GET", f"{path}/evidence")
    assert evidence["harm"] >= evidence["threshold"] == 20
    assert evidence["points"][-1]["harm"] >= 20 > evidence["points"][0]["harm"]
    assert route(tenant)["control"] == control
    assert route(tenant)["arms"] == []


def test_a_plan_that_cannot_conclude_is_refused_with_what_would(cloud: LaptopCloud) -> None:
    tenant = cloud.tenant()
    tenant.make_skill()
    body = {"policy_id": tenant.make_policy(0.9), "settings": {"units_a_day": 5}}
    answer = tenant.post(f"v1/admin/skills/{SKILL}/rollouts", body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "settings")
    assert "it would take one of: " in answer.json()["error"]["message"]
    assert tenant.admin("POST", f"skills/{SKILL}/rollouts", {**body, "dryrun": True})["plan"]["can_conclude"] is False


def test_while_an_arms_model_is_down_the_control_answers_and_without_the_control_the_error_says_so(cloud: LaptopCloud) -> None:
    tenant = cloud.tenant()
    control = tenant.make_skill()
    nobody = {"kind": "openai", "model": "nobody", "base_url": "http://127.0.0.1:9/v1"}  # the discard port: nobody listens
    body = {"prompt": PROMPT, "sampling": {"max_tokens": 12}, "backend": nobody}
    down = tenant.admin("POST", f"skills/{SKILL}/policies", body)["policy_id"]
    arms = [{"policy_id": down, "mode": "canary", "weight": 1.0}]
    tenant.admin("PUT", f"skills/{SKILL}/route", {"expected_version": 1, "control": control, "arms": arms, "reason": "broken arm"})
    answer = tenant.infer()
    assert (answer["policy_id"], answer["decision"]["fallback"]) == (control, True)
    tenant.admin("PUT", f"skills/{SKILL}/route", {"expected_version": 2, "control": down, "reason": "broken control"})
    refusal = tenant.post("v1/infer", {"skill": SKILL, "inputs": INPUTS})
    assert refusal.status_code == 503
    assert refusal.json()["error"]["code"] == "dependency_unavailable"
    assert route(tenant)["version"] == 3


def test_the_stock_openai_client_gets_a_draft_whose_id_takes_feedback(cloud: LaptopCloud, tenant: Tenant) -> None:
    client = OpenAI(base_url=f"{cloud.api_url}/v1", api_key=cloud.key(tenant.tenant_id, ("infer",)), max_retries=0)
    completion = client.chat.completions.create(model=f"rlaas::{SKILL}", messages=[{"role": "user", "content": "I was charged twice."}])
    assert completion.choices[0].message.content is not None
    assert completion.usage is not None
    for feedback in ({"kind": "edit", "final_text": "Refunded."}, {"kind": "action", "action": "sent"}):
        answer = tenant.post("v1/feedback.submit", {"skill": SKILL, "output_id": completion.id, **feedback})
        assert (answer.status_code, answer.json()["pending"]) == (201, False)
