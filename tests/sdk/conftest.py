"""A stub service, a spool's path and a client of both."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from rlaas_sdk import Client
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
