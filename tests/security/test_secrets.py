"""A vendor's key goes to the hosts that its secret names, wherever a policy points. Over HTTP on the laptop cloud."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from tests.fakes.loopback import QuietHandler, serve_handler
from tests.laptop_cloud import SKILL, LaptopCloud, Tenant

KEY = "sk-the-tenants-own"


@dataclass
class Vendor:
    """A server that keeps the headers it is sent, and answers or redirects to `location`."""

    url: str = ""
    location: str | None = None
    requests: list[dict[str, str]] = field(default_factory=list)


@pytest.fixture
def vendor() -> Iterator[Vendor]:
    vendor = Vendor()

    class Handler(QuietHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            vendor.requests.append({name.lower(): value for name, value in self.headers.items()})
            if vendor.location is not None:
                self.answer(307, b"", {"Location": vendor.location})
                return
            self.answer(200, json.dumps({"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}]}).encode())

    with serve_handler(Handler) as url:
        vendor.url = f"{url}/v1"
        yield vendor


@pytest.fixture
def tenant_with_secrets(cloud: LaptopCloud) -> Tenant:
    """A tenant with a secret that says nothing of hosts, and one for `127.0.0.1`."""
    tenant = cloud.tenant()
    tenant.admin("PUT", f"skills/{SKILL}", {})
    for name, secret in {"openai": KEY, "local": json.dumps({"api_key": KEY, "hosts": "127.0.0.1"})}.items():
        cloud.client("secretsmanager").create_secret(Name=f"rlaas/local/{tenant.tenant_id}/{name}", SecretString=secret)
    return tenant


def register_policy(tenant: Tenant, **backend: str) -> tuple[int, dict[str, object]]:
    body = {"prompt": {"user": "{{ email }}"}, "backend": {"kind": "openai", "model": "m", **backend}}
    answer = tenant.post(f"v1/admin/skills/{SKILL}/policies", body)
    return answer.status_code, answer.json()


def test_a_policy_cannot_have_a_secret_sent_to_a_host_that_it_does_not_name(tenant_with_secrets: Tenant, vendor: Vendor) -> None:
    by_name = vendor.url.replace("127.0.0.1", "localhost")
    for secret, base_url in (("openai", vendor.url), ("local", by_name), ("none", vendor.url)):
        status, answer = register_policy(tenant_with_secrets, secret=secret, base_url=base_url)
        assert (status, answer["error"]["param"]) == (400, "backend.base_url")
    assert register_policy(tenant_with_secrets, secret="openai")[0] == 201


def test_a_key_goes_to_the_host_that_its_secret_names_and_no_longer_than_it_does(
    cloud: LaptopCloud, tenant_with_secrets: Tenant, vendor: Vendor
) -> None:
    status, policy = register_policy(tenant_with_secrets, secret="local", base_url=vendor.url)
    assert status == 201
    tenant_with_secrets.admin("PUT", f"skills/{SKILL}/route", {"expected_version": 0, "control": policy["policy_id"]})
    assert tenant_with_secrets.infer()["text"] == "hi"
    assert vendor.requests[-1]["authorization"] == f"Bearer {KEY}"


def test_a_policy_from_before_is_refused_when_it_is_used(cloud: LaptopCloud, tenant_with_secrets: Tenant, vendor: Vendor) -> None:
    _, policy = register_policy(tenant_with_secrets, secret="local", base_url=vendor.url)
    tenant_with_secrets.admin("PUT", f"skills/{SKILL}/route", {"expected_version": 0, "control": policy["policy_id"]})
    cloud.client("secretsmanager").put_secret_value(SecretId=f"rlaas/local/{tenant_with_secrets.tenant_id}/local", SecretString=KEY)
    answer = tenant_with_secrets.post("v1/infer", {"skill": SKILL, "inputs": {"email": "?"}})
    assert answer.status_code == 424
    assert "may not be sent" in answer.json()["error"]["message"]
    assert KEY not in answer.text
    assert vendor.requests == []


def test_a_redirect_does_not_carry_a_key_on(cloud: LaptopCloud, tenant_with_secrets: Tenant, vendor: Vendor) -> None:
    with serve_handler(QuietHandler) as elsewhere:
        vendor.location = f"{elsewhere}/v1/chat/completions"
        _, policy = register_policy(tenant_with_secrets, secret="local", base_url=vendor.url)
        tenant_with_secrets.admin("PUT", f"skills/{SKILL}/route", {"expected_version": 0, "control": policy["policy_id"]})
        answer = tenant_with_secrets.post("v1/infer", {"skill": SKILL, "inputs": {"email": "?"}})
    assert (answer.status_code, len(vendor.requests)) == (424, 1)
    assert "answered 307" in answer.json()["error"]["message"]
