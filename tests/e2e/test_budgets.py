"""Budgets on the deployed laptop cloud: they serve as many callers as fit, and a killed worker's money comes back."""

import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fakes.model_server import ModelServer, serve_model
from tests.laptop_cloud import INPUTS, SKILL, LaptopCloud, Tenant, until

CALLERS = 64
MODEL = "stub-1"


@pytest.fixture
def models() -> Iterator[ModelServer]:
    with serve_model() as server:
        yield server


@pytest.fixture
def spender(cloud: LaptopCloud, models: ModelServer) -> Tenant:
    """A tenant whose skill is answered by `models`."""
    tenant = cloud.tenant_answered_by(f"{models.url}/v1")
    tenant.http.timeout = httpx.Timeout(300)
    return tenant


def budget(tenant: Tenant, limit: int) -> None:
    entry = {"name": "ten", "measure": "requests", "limit": limit, "window": "month"}
    tenant.admin("PUT", "budgets", {"expected_version": 0, "budgets": [entry]})


def spent_and_set_aside(tenant: Tenant) -> tuple[int, int]:
    """(spent, set aside) of the one budget; what is spent includes what is set aside."""
    (usage,) = tenant.admin("GET", "budgets/usage")["data"]
    return usage["spent"], usage["set_aside"]


def infer(tenant: Tenant) -> httpx.Response:
    return tenant.post("v1/infer", {"skill": SKILL, "inputs": INPUTS})


def at_once(tenant: Tenant, number: int = CALLERS) -> list[httpx.Response]:
    """The answers to `number` callers at once."""
    with ThreadPoolExecutor(number) as callers:
        return list(callers.map(lambda _: infer(tenant), range(number)))


def all_served(tenant: Tenant, number: int) -> bool:
    """Whether `number` callers at once are all served."""
    return {answer.status_code for answer in at_once(tenant, number)} == {200}


def test_of_64_callers_exactly_10_are_served_and_paid_for(cloud: LaptopCloud, models: ModelServer, spender: Tenant) -> None:
    # Another tenant has every caller's worker started, some at a time: an authorizer that starts among 64 is stopped at
    # its timeout.
    other = cloud.tenant_answered_by(f"{models.url}/v1")
    other.http.timeout = httpx.Timeout(300)
    for number in (8, 16, 32, CALLERS):
        until(partial(all_served, other, number), seconds=200)

    spender.admin("PUT", "prices", {"expected_version": 0, "prices": {MODEL: {"input": 1000.0, "output": 2000.0}}})
    budget(spender, 10)
    answers = at_once(spender)
    assert Counter(answer.status_code for answer in answers) == {200: 10, 429: 54}
    outputs = [answer.json() for answer in answers if answer.status_code == 200]
    refusals = [answer for answer in answers if answer.status_code == 429]
    assert {answer.json()["error"]["type"] for answer in refusals} == {"QuotaExceeded"}
    assert all(int(answer.headers["Retry-After"]) >= 1 for answer in refusals)
    assert spent_and_set_aside(spender) == (10, 0)

    day = dict.fromkeys(("from", "to"), outputs[0]["decision"]["decided_at"][:10])
    usage: dict[str, Any] = until(lambda: _usage_row(spender, day, 10))
    input_tokens, output_tokens = (sum(one["usage"][name] for one in outputs) for name in ("input_tokens", "output_tokens"))
    assert (usage["input_tokens"], usage["output_tokens"]) == (input_tokens, output_tokens)
    assert usage["cost_usd"] == pytest.approx((input_tokens * 1000 + output_tokens * 2000) / 1e6, abs=1e-9)
    assert (usage["skill"], usage["policy"]) == (SKILL, outputs[0]["policy_id"])
    assert usage["key"]


def _usage_row(tenant: Tenant, days: dict[str, str], requests: int) -> dict[str, Any] | None:
    answer = tenant.http.get("v1/admin/usage", params={**days, "group_by": "skill,policy,key"})
    assert answer.status_code == 200, answer.text
    rows: list[dict[str, Any]] = answer.json()["data"]
    return next((row for row in rows if row["requests"] == requests), None)


def test_after_a_kill_in_mid_flight_the_budget_heals(cloud: LaptopCloud, spender: Tenant, models: ModelServer) -> None:
    models.silent = threading.Event()
    budget(spender, 3)
    with ThreadPoolExecutor(3) as callers:
        calls = [callers.submit(infer, spender) for _ in range(3)]
        until(lambda: spent_and_set_aside(spender) == (3, 3) and len(models.requests) == 3, seconds=120)
        _kill_workers(cloud, "inference")
        assert all(call.result().status_code >= 500 for call in calls)
    models.silent.set()

    def is_served() -> bool:
        answer = infer(spender)
        assert answer.status_code == 200 or (answer.status_code, answer.headers["Retry-After"]) == (429, "1")
        return answer.status_code == 200

    for _ in range(3):  # what the three had set aside comes back, not all at once where a bucket ended between them
        until(is_served, seconds=90)
    assert spent_and_set_aside(spender) == (3, 0)
    assert infer(spender).status_code == 429


def _kill_workers(cloud: LaptopCloud, function: str) -> None:
    """SIGKILL every worker of one function of this cloud, and of no other that runs on the machine."""
    ours = {f"AWS_LAMBDA_FUNCTION_NAME=rlaas-local-{function}", f"AWS_ENDPOINT_URL={cloud.endpoint}"}
    kills = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environment = set((process / "environ").read_text(errors="replace").split("\0"))
        except OSError:
            continue
        if ours <= environment:
            os.kill(int(process.name), signal.SIGKILL)
            kills += 1
    assert kills, "no worker was found"
