"""The functions on moto: their real adapters, tables as the data stack makes them, and a fresh environment each."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import boto3
import httpx
import openai
import pytest
from moto import mock_aws

from functions.chat import handler as chat
from rlaas.adapters.aws import clients
from rlaas.adapters.aws.audit_log import DynamoAuditLog
from rlaas.adapters.aws.events import DynamoEventStore
from rlaas.adapters.aws.registry import DynamoRegistry
from rlaas.api import web
from rlaas.privacy.settings import TenantPrivacy
from rlaas.runtime import stage as runtime
from rlaas.skills.skill import Skill
from rlaas.tenancy.registry import PRIVACY, skill_key
from tests.contract.tables import make_table
from tests.declared_answers import check_answer
from tests.fakes.gateway import make_proxy_event
from tests.fakes.model_server import ModelServer, serve_model
from tests.fakes.worlds import CHANGE, NOW, SKILL, TENANT, make_canary_route, make_policy, make_route

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
        stage.registry.put_policy(make_policy(version), CHANGE)
    stage.registry.write_route(
        make_route(arms=(make_canary_route(2, 1.0),), last_good=make_route().target, rollout_id="rol_1"), expected_version=0
    )
    return stage


@pytest.fixture
def model(furnished_stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelServer]:
    with serve_model() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", server.url)
        from rlaas.adapters.models.sagemaker import _runtime

        _runtime.cache_clear()
        yield server
        _runtime.cache_clear()


def check_completion(answer: httpx.Response) -> None:
    if answer.headers["Content-Type"] == "application/json":
        check_answer("POST", answer.request.url.path, answer.status_code, json.loads(answer.read()))


@contextmanager
def serve_doors() -> Iterator[str]:
    """The address at which the function `chat` answers requests as Lambda Web Adapter sends them."""
    server = web.server(chat.DOORS, port=0)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@contextmanager
def openai_client(tenant_id: str = TENANT) -> Iterator[openai.OpenAI]:
    """OpenAI's own client; its requests come to the function `chat` as Lambda Web Adapter sends them."""
    context = json.dumps(make_proxy_event("/", {}, tenant_id=tenant_id)["requestContext"])
    wire: Any = httpx.Client(event_hooks={"response": [check_completion]})
    headers = {web.CONTEXT_HEADER: context}
    with (
        serve_doors() as url,
        openai.OpenAI(api_key="rlk_x", base_url=f"{url}/v1", default_headers=headers, max_retries=0, http_client=wire) as made,
    ):
        yield made


@pytest.fixture
def client(model: ModelServer) -> Iterator[openai.OpenAI]:
    """The client of the furnished stage's tenant."""
    with openai_client() as made:
        yield made
