"""The functions on moto: their real adapters, tables as the data stack makes them, and a fresh environment each."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from moto import mock_aws

from rlaas.adapters.aws import clients
from rlaas.adapters.aws.audit_log import DynamoAuditLog
from rlaas.adapters.aws.events import DynamoEventStore
from rlaas.adapters.aws.registry import DynamoRegistry
from rlaas.privacy.settings import TenantPrivacy
from rlaas.runtime import stage as runtime
from rlaas.skills.skill import Skill
from rlaas.tenancy.registry import PRIVACY, skill_key
from tests.contract.tables import make_table
from tests.fakes.worlds import CHANGE, NOW, SKILL, TENANT, canary, policy, route

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient


@dataclass
class Stage:
    """A deployed stage's tables, read directly."""

    dynamodb: DynamoDBClient
    registry: DynamoRegistry
    events: DynamoEventStore
    audit: DynamoAuditLog

    def items(self, table: str) -> list[dict[str, Any]]:
        return self.dynamodb.scan(TableName=table)["Items"]


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    variables = {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "RLAAS_STAGE": "test",
        "REGISTRY_TABLE": "registry",
        "EVENTS_TABLE": "events",
        "AUDIT_TABLE": "audit",
        "COUNTERS_TABLE": "counters",
        "EVENT_TTL_DAYS": "30",
        "TENANT_REQUESTS_PER_SECOND": "100",
        "FAILURES_BUCKET": "failures",
        "FOLLOW_UPS_QUEUE_URL": "unset",
        "GRANT_ROLE_ARN": "arn:aws:iam::123456789012:role/grants",
        "FIND_ENTITIES_FUNCTION": "find_entities",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    clients._client.cache_clear()
    with mock_aws(), runtime.replace_stage(runtime.Stage(os.environ)):
        dynamodb = boto3.client("dynamodb")
        boto3.client("s3").create_bucket(Bucket="failures")
        monkeypatch.setenv("FOLLOW_UPS_QUEUE_URL", boto3.client("sqs").create_queue(QueueName="follow-ups")["QueueUrl"])
        make_table(dynamodb, "registry")
        make_table(dynamodb, "audit")
        make_table(dynamodb, "counters")
        make_table(dynamodb, "events")
        yield Stage(
            dynamodb, DynamoRegistry("registry", dynamodb), DynamoEventStore("events", dynamodb=dynamodb), DynamoAuditLog("audit", dynamodb)
        )
    clients._client.cache_clear()


@pytest.fixture(autouse=True)
def event_loop() -> Iterator[None]:
    """Mangum runs the admin API in its thread's own loop, which an `asyncio.run` of an earlier test takes away."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    asyncio.set_event_loop(None)
    loop.close()


@pytest.fixture
def furnished_stage(stage: Stage) -> Stage:
    """A stage with the skill, policies 1 and 2 and a canary route of a rollout."""
    stage.registry.put(TENANT, skill_key(SKILL), Skill(tenant_id=TENANT, skill=SKILL, created_at=NOW), CHANGE)
    stage.registry.put(TENANT, PRIVACY, TenantPrivacy(), CHANGE)
    for version in (1, 2):
        stage.registry.put_policy(policy(version), CHANGE)
    stage.registry.write_route(route(arms=(canary(2, 1.0),), last_good=route().target, rollout_id="rol_1"), expected_version=0)
    return stage
