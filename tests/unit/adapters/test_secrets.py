import json
from collections.abc import Iterator
from dataclasses import dataclass

import boto3
import pytest
from moto import mock_aws

from rlaas.adapters.aws.secrets import VendorKeys
from rlaas.chat import BackendFailed, Misconfigured


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


def sent(keys: VendorKeys, tenant_id: str, name: str = "openai", base_url: str = "https://api.openai.com/v1") -> str:
    return keys.key(tenant_id, name, base_url=base_url, own_host="api.openai.com")


def test_a_tenants_key_is_its_own(keys: tuple[VendorKeys, Stopwatch]) -> None:
    put("rlaas/local/acme/openai", "sk-acme\n")
    put("rlaas/local/rival/openai", json.dumps({"api_key": "sk-rival"}))
    assert sent(keys[0], "acme") == "sk-acme"
    assert sent(keys[0], "rival") == "sk-rival"


@pytest.mark.parametrize("name", ["../rival/openai", "rival/openai", "", "a" * 65, "open ai"])
def test_no_name_leads_to_another_tenants_key(keys: tuple[VendorKeys, Stopwatch], name: str) -> None:
    put("rlaas/local/rival/openai", "sk-rival")
    with pytest.raises(BackendFailed):
        sent(keys[0], "acme", name)


def test_a_key_is_asked_for_again_after_minutes_and_a_missing_one_after_half_a_minute(keys: tuple[VendorKeys, Stopwatch]) -> None:
    vendor_keys, clock = keys
    with pytest.raises(BackendFailed, match="does not exist"):
        sent(vendor_keys, "acme")
    put("rlaas/local/acme/openai", "sk-1")
    with pytest.raises(BackendFailed, match="does not exist"):
        sent(vendor_keys, "acme")
    clock.now = 31
    assert sent(vendor_keys, "acme") == "sk-1"
    put("rlaas/local/acme/openai", "sk-2")
    clock.now = 330
    assert sent(vendor_keys, "acme") == "sk-1"
    clock.now = 332
    assert sent(vendor_keys, "acme") == "sk-2"


@pytest.mark.parametrize(
    "text", ["sk-acme", "sk-acme\n", "sk-acme\r\n", "\ufeff sk-acme ", '{"api_key": "sk-acme\\n"}', ' {"api_key": "sk-acme"}\n']
)
def test_a_key_that_was_read_from_a_file_is_taken(keys: tuple[VendorKeys, Stopwatch], text: str) -> None:
    put("rlaas/local/acme/openai", text)
    assert sent(keys[0], "acme") == "sk-acme"


def test_a_secret_that_is_being_deleted_is_none(keys: tuple[VendorKeys, Stopwatch]) -> None:
    put("rlaas/local/acme/openai", "sk-acme")
    boto3.client("secretsmanager").delete_secret(SecretId="rlaas/local/acme/openai")
    with pytest.raises(Misconfigured, match="is being deleted"):
        sent(keys[0], "acme")


@pytest.mark.parametrize("text", ["", "two\r\nx-header: lines", '{"key": "sk"}', "{broken", "pass word"])
def test_a_secret_that_is_no_key_is_never_sent(keys: tuple[VendorKeys, Stopwatch], text: str) -> None:
    put("rlaas/local/acme/openai", text or " ")
    with pytest.raises(BackendFailed, match="does not hold a key"):
        sent(keys[0], "acme")


def test_without_a_stage_there_are_no_keys() -> None:
    with pytest.raises(BackendFailed):
        sent(VendorKeys(None), "acme")


@pytest.mark.parametrize(
    ("secret", "base_url"),
    [
        ("sk-acme", "https://API.openai.com:443/v1"),
        ('{"api_key": "sk-acme"}', "https://api.openai.com/v1"),
        ('{"api_key": "sk-acme", "hosts": "models.example, api.groq.com"}', "https://api.groq.com/openai/v1"),
        ('{"api_key": "sk-acme", "hosts": ["127.0.0.1"]}', "http://127.0.0.1:8000/v1"),
    ],
)
def test_a_key_goes_to_the_hosts_that_its_secret_names_or_to_its_vendors_own(
    keys: tuple[VendorKeys, Stopwatch], secret: str, base_url: str
) -> None:
    put("rlaas/local/acme/openai", secret)
    assert sent(keys[0], "acme", base_url=base_url) == "sk-acme"
    assert keys[0].find_refusal("acme", "openai", base_url=base_url, own_host="api.openai.com") is None


@pytest.mark.parametrize(
    ("secret", "base_url"),
    [
        ("sk-acme", "https://evil.example/v1"),
        ("sk-acme", "http://api.openai.com/v1"),
        ("sk-acme", "https://api.openai.com.evil.example/v1"),
        ("sk-acme", "https://evil.example/api.openai.com"),
        ("sk-acme", "https://evil.example\\api.openai.com/v1"),
        ("sk-acme", "https://api.openai.com\\.evil.example/v1"),
        ("sk-acme", "https://api.openai.com:443:evil.example/v1"),
        ("sk-acme", "https://api%2eopenai.com/v1"),
        ('{"api_key": "sk-acme", "hosts": "api.groq.com"}', "https://api.openai.com/v1"),
        ('{"api_key": "sk-acme", "hosts": "groq.com"}', "https://api.groq.com/v1"),
        ('{"api_key": "sk-acme", "hosts": "*"}', "https://api.groq.com/v1"),
    ],
)
def test_a_key_goes_nowhere_else_wherever_a_policy_points(keys: tuple[VendorKeys, Stopwatch], secret: str, base_url: str) -> None:
    put("rlaas/local/acme/openai", secret)
    with pytest.raises(BackendFailed, match="may not be sent") as refused:
        sent(keys[0], "acme", base_url=base_url)
    assert refused.value.nothing_done
    assert "sk-acme" not in str(refused.value) + repr(vars(keys[0]))
    assert "name the host in it" in (keys[0].find_refusal("acme", "openai", base_url=base_url, own_host="api.openai.com") or "")


def test_a_host_that_was_named_just_now_is_one_where_policies_are_made(keys: tuple[VendorKeys, Stopwatch]) -> None:
    there = {"base_url": "https://api.groq.com/v1", "own_host": "api.openai.com"}
    put("rlaas/local/acme/groq", "gsk-1")
    assert keys[0].find_refusal("acme", "groq", **there) is not None
    put("rlaas/local/acme/groq", '{"api_key": "gsk-1", "hosts": "api.groq.com"}')
    assert keys[0].find_refusal("acme", "groq", **there) is None
