"""Each Protocol's fake and its real adapter on moto, so that one contract test runs against both."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import boto3
import pytest
from moto import mock_aws

from rlaas.adapters.aws.audit_log import DynamoAuditLog
from rlaas.adapters.aws.counters import DynamoCounters
from rlaas.adapters.aws.events import DynamoEventStore
from rlaas.adapters.aws.registry import DynamoRegistry
from rlaas.adapters.aws.usage import DynamoUsage
from rlaas.adapters.models import bedrock, sagemaker
from tests.contract.tables import make_table
from tests.fakes.audit import MemoryAuditLog
from tests.fakes.counters import MemoryCounters
from tests.fakes.events import MemoryEventStore
from tests.fakes.model_server import ModelServer, serve_model
from tests.fakes.registry import MemoryRegistry
from tests.fakes.usage import MemoryUsage
from tests.fakes.worlds import clock

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient


@pytest.fixture
def dynamodb(monkeypatch: pytest.MonkeyPatch) -> Iterator[DynamoDBClient]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        yield boto3.client("dynamodb")


@pytest.fixture(params=["fake", "moto"])
def registry(request: pytest.FixtureRequest) -> MemoryRegistry | DynamoRegistry:
    if request.param == "fake":
        return MemoryRegistry()
    dynamodb = request.getfixturevalue("dynamodb")
    return DynamoRegistry(make_table(dynamodb, "registry"), dynamodb)


@pytest.fixture(params=["fake", "moto"])
def event_store(request: pytest.FixtureRequest) -> MemoryEventStore | DynamoEventStore:
    if request.param == "fake":
        return MemoryEventStore()
    dynamodb = request.getfixturevalue("dynamodb")
    return DynamoEventStore(make_table(dynamodb, "events"), ttl_days=30, dynamodb=dynamodb, clock=clock)


@pytest.fixture(params=["fake", "moto"])
def audit_log(request: pytest.FixtureRequest) -> MemoryAuditLog | DynamoAuditLog:
    if request.param == "fake":
        return MemoryAuditLog()
    dynamodb = request.getfixturevalue("dynamodb")
    return DynamoAuditLog(make_table(dynamodb, "audit"), dynamodb)


@pytest.fixture(params=["fake", "moto"])
def counters(request: pytest.FixtureRequest) -> MemoryCounters | DynamoCounters:
    if request.param == "fake":
        return MemoryCounters()
    dynamodb = request.getfixturevalue("dynamodb")
    return DynamoCounters(make_table(dynamodb, "counters"), dynamodb)


@pytest.fixture(params=["fake", "moto"])
def usage(request: pytest.FixtureRequest) -> MemoryUsage | DynamoUsage:
    if request.param == "fake":
        return MemoryUsage()
    dynamodb = request.getfixturevalue("dynamodb")
    return DynamoUsage(make_table(dynamodb, "counters"), dynamodb, clock)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelServer]:
    """A model server that SageMaker's and Bedrock's clients ask, too."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with serve_model() as state:
        for service in ("SAGEMAKER", "BEDROCK"):
            monkeypatch.setenv(f"AWS_ENDPOINT_URL_{service}_RUNTIME", state.url)
        for client in (sagemaker._runtime, bedrock.runtime):
            client.cache_clear()
        yield state
        for client in (sagemaker._runtime, bedrock.runtime):
            client.cache_clear()
