"""Failure refunds nothing: what reached a vendor counts against the tenant's budget, over HTTP on the laptop cloud."""

import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.fakes.openai_server import Script, serve_openai
from tests.laptop_cloud import INPUTS, SKILL, LaptopCloud, Tenant

BUDGET = 2


@pytest.fixture
def vendor() -> Iterator[Script]:
    with serve_openai() as script:
        yield script


@pytest.fixture
def poor(cloud: LaptopCloud, vendor: Script) -> Tenant:
    """A tenant that may make two requests an hour, of the vendor."""
    tenant = cloud.tenant_answered_by(vendor.url, timeout_s=1)
    limit = {"name": "few", "measure": "requests", "limit": BUDGET, "window": "month"}
    tenant.admin("PUT", "budgets", {"expected_version": 0, "budgets": [limit]})
    return tenant


def request_status(tenant: Tenant, *, stream: bool) -> int:
    """The status of one request, which may be left in the middle."""
    if not stream:
        return tenant.post("v1/infer", {"skill": SKILL, "inputs": INPUTS}).status_code
    body = {"model": f"rlaas::{SKILL}", "messages": [{"role": "user", "content": "?"}], "stream": True}
    try:
        with tenant.http.stream("POST", "v1/chat/completions", json=body) as answer:
            for _ in answer.iter_lines():
                pass
            return answer.status_code
    except httpx.HTTPError:
        return 0


def waits(vendor: Script) -> None:
    vendor.stream_parts({"delta": {"content": "a"}}, threading.Event())


FAILURES: dict[str, Any] = {
    "an error": lambda vendor: setattr(vendor, "status", 500),
    "an unreadable answer": lambda vendor: setattr(vendor, "whole", {"choices": "none"}),
    "no choices": lambda vendor: setattr(vendor, "whole", {"choices": []}),
    "a broken stream": lambda vendor: vendor.stream_parts({"delta": {"content": "a"}}, breaks=True),
    "a stream that never goes on": waits,
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_vendor_that_fails_is_asked_no_more_often_than_the_budget_says(poor: Tenant, vendor: Script, failure: str) -> None:
    FAILURES[failure](vendor)
    statuses = [request_status(poor, stream="stream" in failure) for _ in range(BUDGET + 2)]
    assert statuses[BUDGET:] == [429, 429], statuses
    assert len(vendor.requests) == BUDGET


def test_a_stream_that_its_reader_leaves_counts(poor: Tenant, vendor: Script) -> None:
    waits(vendor)
    body = {"model": f"rlaas::{SKILL}", "messages": [{"role": "user", "content": "?"}], "stream": True}
    for _ in range(BUDGET):
        with poor.http.stream("POST", "v1/chat/completions", json=body) as answer:
            next(answer.iter_lines())
    assert request_status(poor, stream=True) == 429
    assert len(vendor.requests) == BUDGET


def test_a_vendor_that_refuses_before_it_works_costs_nothing(poor: Tenant, vendor: Script) -> None:
    vendor.status = 401
    assert [request_status(poor, stream=False) for _ in range(BUDGET + 2)] == [424] * (BUDGET + 2)
    vendor.status = 200
    vendor.answer_with({"message": {"content": "hello"}})
    assert request_status(poor, stream=False) == 200
