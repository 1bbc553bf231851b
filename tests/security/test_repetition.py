"""Guards and rewards count units of people: one person who repeats himself moves nothing by more than his share, over
HTTP."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.laptop_cloud import INPUTS, SKILL, LaptopCloud, Tenant, until

PEOPLE, REPEATED = 25, 60
SHARE = 2 / (PEOPLE + 1)
AGAIN = "mallory"


def draft(policy: str, user: str, number: int, actions: list[str]) -> list[dict[str, Any]]:
    """A draft in a thread of its own, and what its user did with it."""
    name = f"{user}-{number}"
    about = {"skill": SKILL, "interaction_id": f"int-{name}", "thread_id": f"thr-{name}", "user_id": user}
    output = {"type": "output", **about, "output_id": f"out-{name}", "policy_id": policy, "text": "Dear Ada, it is on its way."}
    feedback = [{"type": "feedback", **about, "output_id": f"out-{name}", "kind": "action", "action": action} for action in actions]
    return [{"type": "interaction", **about, "inputs": INPUTS}, output, *feedback]


def send(tenant: Tenant, events: list[dict[str, Any]]) -> None:
    for start in range(0, len(events), 100):
        results = tenant.post("v1/events:batch", {"events": events[start : start + 100]}).json()["results"]
        assert {result["status"] for result in results} <= {201, 202}, results


def report(tenant: Tenant) -> dict[str, Any]:
    today = datetime.now(UTC).date().isoformat()
    return tenant.admin("GET", f"skills/{SKILL}/rewards/report?from={today}&to={today}")


@pytest.fixture(scope="module")
def team(cloud: LaptopCloud) -> tuple[Tenant, str]:
    """A tenant whose people sent a draft each, while one opened threads and discarded all; one of his drafts 20 times.
    And its policy."""
    tenant = cloud.tenant()
    policy = tenant.make_skill()
    honest = [event for number in range(PEOPLE) for event in draft(policy, f"user-{number}", 0, ["sent"])]
    his = [event for number in range(REPEATED) for event in draft(policy, AGAIN, number, ["discarded"] * (1 if number else 20))]
    send(tenant, honest + his)
    until(lambda: report(tenant)["policies"].get(policy, {}).get("drafts") == PEOPLE + REPEATED)
    return tenant, policy


def test_a_reward_report_counts_each_unit_once_and_says_whom_it_capped(team: tuple[Tenant, str]) -> None:
    tenant, policy = team
    figures = report(tenant)["policies"][policy]
    assert (figures["units"], figures["people"], figures["capped_people"]) == (PEOPLE + REPEATED, PEOPLE + 1, 1)
    assert figures["largest_share"] == pytest.approx(SHARE)
    assert figures["mean"] == pytest.approx(1 - SHARE)  # of all drafts alike it would be 0.29
    assert figures["sampled"] == "people"
    assert figures["low"] < figures["mean"] < figures["high"]


def test_a_plan_is_made_from_what_people_make_and_not_from_what_one_repeats(team: tuple[Tenant, str]) -> None:
    tenant, _ = team
    body = {"policy_id": tenant.make_policy(0.8), "dryrun": True}
    traffic = tenant.admin("POST", f"skills/{SKILL}/rollouts", body)["plan"]["traffic"]
    assert (traffic["people"], traffic["sampled"]) == (PEOPLE + 1, PEOPLE + REPEATED)
    assert traffic["reward_mean"] > 0.85
    assert traffic["unsent"] < 0.15


def test_a_rollout_hears_of_one_person_no_more_than_his_share(cloud: LaptopCloud, team: tuple[Tenant, str]) -> None:
    tenant, _ = team
    candidate = tenant.make_policy(0.9)
    settings = {"steps": [{"weight": 0.5, "min_samples": 100}], "units_a_day": 86_400, "window_hours": 3 / 3_600, "lag_seconds": 2}
    rollout = tenant.admin("POST", f"skills/{SKILL}/rollouts", {"policy_id": candidate, "settings": settings, "reason": "test"})
    path = f"skills/{SKILL}/rollouts/{rollout['rollout_id']}"
    until(lambda: tenant.admin("GET", path)["steps"])
    for number in range(30):
        about = {"skill": SKILL, "thread_id": f"more-{number}", "user_id": AGAIN}
        decision = tenant.post("v1/decide", {**about, "inputs": INPUTS}).json()
        about |= {"interaction_id": decision["interaction_id"]}
        output = {"type": "output", **about, "text": "Dear Ada, soon.", "decision_token": decision["decision_token"]}
        action = "discarded" if decision["policy_id"] == candidate else "sent"
        send(tenant, [output, {"type": "feedback", **about, "output_id": decision["output_id"], "kind": "action", "action": action}])

    def look() -> dict[str, Any] | None:
        cloud.client("lambda").invoke(FunctionName="rlaas-local-watch_rollouts", Payload=json.dumps({}).encode())
        evidence = tenant.admin("GET", f"{path}/evidence")
        settled_count = evidence["candidate"]["settled"] + evidence["control"]["settled"]
        return evidence if settled_count + evidence["left_out"] == 30 else None

    evidence = until(look)
    assert evidence["left_out"] == 28
    assert evidence["harm"] < 5 < evidence["threshold"]
    assert tenant.admin("GET", f"skills/{SKILL}/route")["rollout_id"] == rollout["rollout_id"]
    tenant.admin("POST", f"skills/{SKILL}/rollback", {"reason": "the test is over"})
