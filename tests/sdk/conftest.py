"""A stub service, a spool's path and a client of both; a stub of OpenAI, and clients of it, traced and not."""

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from rlaas_sdk import Client
from tests.sdk.stub_openai import StubOpenAI
from tests.sdk.stub_service import KEY, StubService


@pytest.fixture
def service() -> Iterator[StubService]:
    stub = StubService()
    yield stub
    stub.stop()


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool.db"


@pytest.fixture
def client(service: StubService, spool: Path) -> Iterator[Client]:
    sdk = Client(service.url, KEY, spool=spool)
    yield sdk
    sdk.close(0.1)


@pytest.fixture
def provider() -> Iterator[StubOpenAI]:
    stub = StubOpenAI()
    yield stub
    stub.stop()


@pytest.fixture
def plain(provider: StubOpenAI) -> openai.OpenAI:
    return openai.OpenAI(base_url=provider.url, api_key="x", max_retries=0)


@pytest.fixture
def wrapped(provider: StubOpenAI, client: Client) -> openai.OpenAI:
    return client.wrap_openai(openai.OpenAI(base_url=provider.url, api_key="x", max_retries=0), skill="emails")


def read_stored(client: Client, service: StubService, kind: str) -> list[dict[str, object]]:
    assert client.flush(10)
    return [event for event in service.stored.values() if event["type"] == kind]
