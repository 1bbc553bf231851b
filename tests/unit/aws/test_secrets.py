import json
from collections.abc import Iterator
from dataclasses import dataclass

import boto3
import pytest
from moto import mock_aws

from rlaas.aws.secrets import VendorKeys
from rlaas.inference.backend import BackendFailed


@dataclass
class Stopwatch:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[VendorKeys, Stopwatch]]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        clock = Stopwatch()
        yield VendorKeys("local", client=boto3.client("secretsmanager"), clock=clock), clock


def put(name: str, value: str) -> None:
    client = boto3.client("secretsmanager")
    try:
        client.create_secret(Name=name, SecretString=value)
    except client.exceptions.ResourceExistsException:
        client.put_secret_value(SecretId=name, SecretString=value)


def test_a_tenants_key_is_its_own(keys: tuple[VendorKeys, Stopwatch]) -> None:
    put("rlaas/local/acme/openai", "sk-acme\n")
    put("rlaas/local/rival/openai", json.dumps({"api_key": "sk-rival"}))
    assert keys[0].key("acme", "openai") == "sk-acme"
    assert keys[0].key("rival", "openai") == "sk-rival"


@pytest.mark.parametrize("name", ["../rival/openai", "rival/openai", "", "a" * 65, "open ai"])
def test_no_name_leads_to_another_tenants_key(keys: tuple[VendorKeys, Stopwatch], name: str) -> None:
    put("rlaas/local/rival/openai", "sk-rival")
    with pytest.raises(BackendFailed):
        keys[0].key("acme", name)


def test_a_key_is_asked_for_again_after_minutes_and_a_missing_one_after_half_a_minute(keys: tuple[VendorKeys, Stopwatch]) -> None:
    held, clock = keys
    with pytest.raises(BackendFailed, match="does not exist"):
        held.key("acme", "openai")
    put("rlaas/local/acme/openai", "sk-1")
    with pytest.raises(BackendFailed, match="does not exist"):
        held.key("acme", "openai")
    clock.now = 31
    assert held.key("acme", "openai") == "sk-1"
    put("rlaas/local/acme/openai", "sk-2")
    clock.now = 330
    assert held.key("acme", "openai") == "sk-1"
    clock.now = 332
    assert held.key("acme", "openai") == "sk-2"


@pytest.mark.parametrize("text", ["", "two\r\nx-header: lines", '{"key": "sk"}', "{broken", "pass word"])
def test_a_secret_that_is_no_key_is_never_sent(keys: tuple[VendorKeys, Stopwatch], text: str) -> None:
    put("rlaas/local/acme/openai", text or " ")
    with pytest.raises(BackendFailed, match="does not hold a key"):
        keys[0].key("acme", "openai")


def test_without_a_stage_there_are_no_keys() -> None:
    with pytest.raises(BackendFailed):
        VendorKeys(None).key("acme", "openai")
