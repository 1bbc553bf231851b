"""A request that circles between gateways ends, an interaction gets one grant for its model, and nobody trains without
bounds. Over HTTP on the laptop cloud."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.fakes.loopback import QuietHandler, serve_handler
from tests.laptop_cloud import INPUTS, SKILL, LaptopCloud, Tenant

HOPS = "x-rlaas-hops"


@pytest.fixture
def relay(cloud: LaptopCloud) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """Another host, which forwards each request to the gateway as it is; and the headers that it received."""
    received: list[dict[str, str]] = []

    class Handler(QuietHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            sent = {name.lower(): value for name, value in self.headers.items()}
            received.append(sent)
            forwarded_headers = {name: value for name, value in sent.items() if name in ("authorization", "content-type", HOPS)}
            if len(received) > 20:  # nobody else stops it
                self.answer(500, b"{}")
                return
            answer = httpx.post(cloud.api_url.rstrip("/") + "/v1/chat/completions", content=body, headers=forwarded_headers, timeout=30)
            self.answer(answer.status_code, answer.content)

    with serve_handler(Handler) as url:
        yield f"{url}/v1", received


def test_a_policy_whose_backend_is_the_gateway_does_not_ask_itself_for_ever(
    cloud: LaptopCloud, relay: tuple[str, list[dict[str, str]]]
) -> None:
    url, received = relay
    tenant = cloud.tenant()
    tenant.admin("PUT", f"skills/{SKILL}", {})
    key = str(tenant.http.headers["Authorization"]).removeprefix("Bearer ")
    secret = json.dumps({"api_key": key, "hosts": "127.0.0.1"})
    cloud.client("secretsmanager").create_secret(Name=f"rlaas/local/{tenant.tenant_id}/itself", SecretString=secret)
    backend = {"kind": "openai", "model": f"rlaas::{SKILL}", "base_url": url, "secret": "itself", "timeout_s": 20}
    policy = tenant.admin("POST", f"skills/{SKILL}/policies", {"prompt": {"user": "{{ email }}"}, "backend": backend})
    tenant.admin("PUT", f"skills/{SKILL}/route", {"expected_version": 0, "control": policy["policy_id"]})
    answer = tenant.post("v1/infer", {"skill": SKILL, "inputs": INPUTS})
    assert answer.status_code == 503, answer.text
    hops = [headers[HOPS] for headers in received]
    assert hops == ["1", "2"] * (len(hops) // 2)
    assert len(hops) <= 4, "a busy backend is asked once more, and nobody else ever"


@pytest.mark.parametrize(("hops", "status"), [("0", 200), ("1", 200), ("2", 403), ("999", 403), ("-1", 400), ("1, 1", 400), ("x", 400)])
def test_a_request_that_has_passed_gateways_is_let_in_once(tenant: Tenant, hops: str, status: int) -> None:
    answer = tenant.post("v1/infer", {"skill": SKILL, "inputs": INPUTS, "dryrun": True}, headers={HOPS: hops})
    assert answer.status_code == status, answer.text


def test_an_interaction_gets_a_grant_for_its_model_once(tenant: Tenant) -> None:
    request: dict[str, Any] = {"skill": SKILL, "inputs": INPUTS, "interaction_id": "int_once"}
    first, *again = [tenant.post("v1/decide", request).json() for _ in range(3)]
    assert first["grant"]["api_key"]
    assert [(replay["grant"], replay["idempotent_replay"]) for replay in again] == [(None, True)] * 2


@pytest.mark.parametrize(
    "settings", [{"dpo_steps": 10**9}, {"sft_steps": 10**9}, {"lora_rank": 256}, {"batch_size": 10**6}, {"max_length": 10**6}]
)
def test_a_learning_run_beyond_what_a_stage_trains_and_serves_is_refused_by_name(tenant: Tenant, settings: dict[str, int]) -> None:
    answer = tenant.post(f"v1/admin/skills/{SKILL}/learning-runs", {"settings": settings})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, f"settings.{next(iter(settings))}")
    assert tenant.admin("GET", f"skills/{SKILL}/learning-runs")["data"] == []
