"""The platform caps a tenant, whose own administrator cannot lift that. Over HTTP on the laptop cloud."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.fakes.openai_server import Script, serve_openai
from tests.laptop_cloud import SKILL, LaptopCloud, Tenant

PROMPT = {"user": "{{ email }}"}


@pytest.fixture(scope="module")
def platform(cloud: LaptopCloud) -> httpx.Client:
    return cloud.connect(cloud.key("operators", ("platform",)))


@pytest.fixture
def vendor() -> Iterator[Script]:
    with serve_openai() as script:
        script.answer_with({"message": {"content": "hello"}})
        yield script


@pytest.fixture
def tenant(cloud: LaptopCloud, vendor: Script) -> Tenant:
    """A tenant whose skill answers by the vendor."""
    tenant = cloud.tenant()
    tenant.admin("PUT", f"skills/{SKILL}", {})
    backend = {"kind": "openai", "model": "m", "base_url": vendor.url}
    policy = tenant.admin("POST", f"skills/{SKILL}/policies", {"prompt": PROMPT, "backend": backend})["policy_id"]
    tenant.admin("PUT", f"skills/{SKILL}/route", {"expected_version": 0, "control": policy})
    return tenant


def cap(platform: httpx.Client, tenant: Tenant, **ceilings: Any) -> None:
    answer = platform.put(f"v1/admin/tenants/{tenant.tenant_id}/ceilings", json={"expected_version": 0, **ceilings})
    assert answer.status_code == 200, answer.text


def status_and_ceiling(answer: httpx.Response) -> tuple[int, bool]:
    """The status, and whether the refusal says whose ceiling it is."""
    return answer.status_code, "the platform's ceiling" in answer.text


def test_the_lower_of_ceiling_and_budget_holds_and_neither_side_lifts_the_others(
    platform: httpx.Client, tenant: Tenant, vendor: Script
) -> None:
    cap(platform, tenant, spending=[{"measure": "requests", "limit": 2, "window": "month"}])
    generous = {"name": "mine", "measure": "requests", "limit": 1000, "window": "month"}
    tenant.admin("PUT", "budgets", {"expected_version": 0, "budgets": [generous]})
    for method, path in (("PUT", "ceilings"), ("GET", "ceilings")):
        assert tenant.http.request(method, f"v1/admin/tenants/{tenant.tenant_id}/{path}", json={"expected_version": 1}).status_code == 403
    ask = {"skill": SKILL, "inputs": {"email": "?"}}
    answers = [tenant.post("v1/infer", ask) for _ in range(3)]
    assert [status_and_ceiling(answer) for answer in answers] == [(200, False), (200, False), (429, True)]
    assert status_and_ceiling(tenant.post("v1/decide", ask)) == (429, True)
    assert len(vendor.requests) == 2
    assert tenant.admin("GET", "budgets/usage")["ceilings"][0]["spent"] == 2
    strict = tenant.admin("PUT", "budgets", {"expected_version": 1, "budgets": [{**generous, "limit": 0}]})
    assert strict["version"] == 2


def test_no_tenant_sends_more_a_second_than_its_ceiling(platform: httpx.Client, tenant: Tenant) -> None:
    cap(platform, tenant, requests_per_second=1)
    for path, body in (("v1/events:batch", {"events": []}), ("ofrep/v1/evaluate/flags", {"context": {"targetingKey": "u"}})):
        answers = [status_and_ceiling(tenant.post(path, body)) for _ in range(12)]
        assert (429, True) in answers, answers


def test_what_a_tenant_makes_is_counted(platform: httpx.Client, tenant: Tenant) -> None:
    cap(platform, tenant, skills=1, policies_per_skill=1, learning_runs_per_day=0)
    assert status_and_ceiling(tenant.http.put("v1/admin/skills/another", json={})) == (429, True)
    assert status_and_ceiling(tenant.post(f"v1/admin/skills/{SKILL}/policies", {"prompt": {"user": "other {{ email }}"}})) == (429, True)
    assert tenant.post(f"v1/admin/skills/{SKILL}/learning-runs", {}).status_code == 409  # its control is no model of the endpoint
