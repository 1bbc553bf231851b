"""A tenant that sends too many requests in a second is told to wait, by every function that takes requests."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from functions.admin.handler import handler as admin
from functions.inference.handler import handler as inference
from functions.telemetry.handler import handler as telemetry
from rlaas.metering.ceilings import CEILINGS, Ceilings
from tests.fakes.gateway import make_lambda_context, make_proxy_event
from tests.fakes.worlds import CHANGE, TENANT
from tests.unit.functions.conftest import Stage

REQUESTS: list[tuple[Callable[..., dict[str, Any]], str, str, str]] = [
    (inference, "GET", "/v1/models", "infer"),
    (telemetry, "POST", "/v1/events:batch", "telemetry"),
    (admin, "GET", "/v1/admin/skills", "admin"),
]


@pytest.mark.parametrize(("handler", "method", "path", "scope"), REQUESTS)
def test_the_next_request_of_a_full_second_is_refused(
    handler: Callable[..., dict[str, Any]], method: str, path: str, scope: str, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TENANT_REQUESTS_PER_SECOND", "1")
    for name in ("ENDPOINT_NAME", "BASE_MODEL", "LEARNING_STATE_MACHINE_ARN", "ROLLOUT_STATE_MACHINE_ARN", "AUDIT_TABLE"):
        monkeypatch.setenv(name, "audit")
    event = make_proxy_event(path, {"events": []} if method == "POST" else "", scopes=scope, method=method)
    answers = [handler(event, make_lambda_context()) for _ in range(5)]  # at most one second begins anew in between
    refused = [answer for answer in answers if answer["statusCode"] == 429]
    assert len(refused) >= 3
    body = json.loads(refused[0]["body"])
    assert body["error"]["code"] == "quota_exceeded"
    headers = {name.lower(): value for name, value in refused[0].get("headers", {}).items()}
    headers |= {name.lower(): values[0] for name, values in (refused[0].get("multiValueHeaders") or {}).items()}
    assert headers["retry-after"] == "1"


@pytest.mark.parametrize(("handler", "method", "path", "scope"), REQUESTS)
def test_the_platforms_ceiling_is_below_the_stages(
    handler: Callable[..., dict[str, Any]], method: str, path: str, scope: str, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ENDPOINT_NAME", "BASE_MODEL", "LEARNING_STATE_MACHINE_ARN", "ROLLOUT_STATE_MACHINE_ARN", "AUDIT_TABLE"):
        monkeypatch.setenv(name, "audit")
    stage.registry.put(TENANT, CEILINGS, Ceilings(requests_per_second=1), CHANGE)
    event = make_proxy_event(path, {"events": []} if method == "POST" else "", scopes=scope, method=method)
    answers = [handler(event, make_lambda_context()) for _ in range(5)]
    refused = [answer for answer in answers if answer["statusCode"] == 429]
    assert len(refused) >= 3
    assert "the platform's ceiling" in refused[0]["body"]
    others = make_proxy_event(path, {"events": []} if method == "POST" else "", scopes=scope, method=method, tenant_id="another")
    assert [handler(others, make_lambda_context())["statusCode"] for _ in range(3)] != [429] * 3


@pytest.mark.parametrize(("hops", "status"), [(None, 200), ("1", 200), ("2", 403), ("-1", 400), ("1e0", 400)])
def test_a_request_that_has_passed_gateways_is_let_in_once(hops: str | None, status: int, stage: Stage) -> None:
    event = make_proxy_event("/v1/models", "", scopes="infer", method="GET", headers={} if hops is None else {"X-RLaaS-Hops": hops})
    assert inference(event, make_lambda_context())["statusCode"] == status
