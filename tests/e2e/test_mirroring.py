"""Mirroring and allocation on the deployed laptop cloud."""

import json
from typing import Any

import pytest

from tests.fakes.model_server import ModelServer, serve_model
from tests.laptop_cloud import PROMPT, SKILL, LaptopCloud, Tenant, until

REQUESTS = 20


def policy(tenant: Tenant, server: ModelServer, model: str) -> str:
    """A policy whose model is `server`."""
    backend = {"kind": "openai", "model": model, "base_url": f"{server.url}/v1"}
    return str(tenant.admin("POST", f"skills/{SKILL}/policies", {"prompt": PROMPT, "backend": backend})["policy_id"])


def see_dead_letters(cloud: LaptopCloud, seen: dict[str, dict[str, Any]]) -> None:
    """Add to `seen`, by message, the tasks among the shadows' dead letters; they stay there, invisible for a while."""
    sqs = cloud.client("sqs")
    [url] = [url for url in sqs.list_queues()["QueueUrls"] if "DeadLetters" in url]
    while messages := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=30).get("Messages"):
        seen |= {message["MessageId"]: json.loads(message["Body"]) for message in messages}


def shadow_outputs(cloud: LaptopCloud, tenant_id: str) -> list[dict[str, Any]]:
    """The outputs of shadows."""
    pages = (
        cloud.client("dynamodb")
        .get_paginator("scan")
        .paginate(
            TableName="rlaas-local-events",
            FilterExpression="tenant_id = :tenant AND shadow = :yes",
            ExpressionAttributeValues={":tenant": {"S": tenant_id}, ":yes": {"BOOL": True}},
            ConsistentRead=True,
        )
    )
    return [json.loads(item["payload"]["S"]) for page in pages for item in page["Items"]]


@pytest.mark.slow
def test_each_mirrored_request_ends_as_an_output_or_as_a_dead_letter_and_users_notice_nothing(cloud: LaptopCloud) -> None:
    tenant = cloud.tenant()
    tenant.admin("PUT", f"skills/{SKILL}", {})
    with serve_model() as control_model, serve_model() as shadow_model:
        shadow_model.fails_on = lambda prompt: int(prompt.split()[-1]) % 10 < 3
        control, shadow = policy(tenant, control_model, "served"), policy(tenant, shadow_model, "unseen")
        arms = [{"policy_id": shadow, "mode": "shadow", "weight": 1.0}]
        tenant.admin("PUT", f"skills/{SKILL}/route", {"expected_version": 0, "control": control, "arms": arms})
        for number in range(REQUESTS):
            draft = tenant.infer(inputs={"name": "Ada Park", "email": f"Where is order {number}"})
            assert (draft["policy_id"], draft["decision"]["shadows"]) == (control, [shadow])

        seen: dict[str, dict[str, Any]] = {}

        def counts_if_all_ended() -> tuple[int, int] | None:
            see_dead_letters(cloud, seen)
            dead = [task for task in seen.values() if task["tenant_id"] == tenant.tenant_id]
            counts = len(shadow_outputs(cloud, tenant.tenant_id)), len(dead)
            return counts if sum(counts) == REQUESTS else None

        assert until(counts_if_all_ended, seconds=240) == (14, 6)
    assert {output["decision"]["reason"] for output in shadow_outputs(cloud, tenant.tenant_id)} == {"shadow"}
    answer = cloud.client("lambda").invoke(FunctionName="rlaas-local-reconcile_shadows")
    assert json.loads(answer["Payload"].read())["lost"] == 0


def test_the_schedule_finds_a_route_with_a_bandit(cloud: LaptopCloud) -> None:
    tenant = cloud.tenant()
    control, other = tenant.make_skill(), tenant.make_policy(0.9)
    body = {"expected_version": 1, "control": control, "arms": [{"policy_id": other, "mode": "bandit", "weight": 0.5}]}
    assert tenant.admin("PUT", f"skills/{SKILL}/route", body)["bandit"]["reward"] == "continuous"
    assert tenant.infer()["decision"]["bandit"] is True
    answer = cloud.client("lambda").invoke(FunctionName="rlaas-local-allocate")
    done = json.loads(answer["Payload"].read())
    assert done["looked_at"] >= 1
    assert done["failed"] == 0
