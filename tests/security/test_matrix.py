"""Who may call what: every operation of the API's document by every kind of caller, over HTTP on the laptop cloud.

`OPERATIONS` is the one declaration; an operation that only the document or only the table has fails. Bodies are empty
where the scope decides before the body is read: a caller with the right learns what is wrong with his request (or gets
his answer), and everybody else gets 401 or 403, whatever he sends.
"""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import httpx
import pytest

from rlaas.tenancy.keys import make_key
from tests.laptop_cloud import SKILL, LaptopCloud

ORIGIN, ELSEWHERE = "https://app.example.com", "https://elsewhere.example.com"
Group = Literal["events", "feedback", "infer", "flags", "admin", "platform", "either"]

GATEWAY = {
    "POST /v1/interaction.create": "events",
    "POST /v1/interaction.output": "events",
    "POST /v1/task_result": "events",
    "POST /v1/feedback.token": "events",
    "POST /v1/feedback.submit": "feedback",
    "POST /v1/events:batch": "feedback",
    "POST /v1/infer": "infer",
    "POST /v1/chat/completions": "infer",
    "POST /v1/messages": "infer",
    "POST /v1/messages/count_tokens": "infer",
    "POST /v1/responses": "infer",
    "POST /v1/decide": "infer",
    "GET /v1/models": "infer",
    "GET /v1/models/{model}": "infer",
    "POST /ofrep/v1/evaluate/flags/{key}": "flags",
    "POST /ofrep/v1/evaluate/flags": "flags",
}
ADMINISTRATION = {
    "POST tenants": "platform",
    "GET tenants": "platform",
    "GET tenants/{tenant_id}/ceilings": "platform",
    "PUT tenants/{tenant_id}/ceilings": "platform",
    "POST redrives": "platform",
    "POST keys": "either",
    "DELETE keys/{key_id}": "either",
    "GET keys": "admin",
    "GET privacy": "admin",
    "PUT privacy": "admin",
    "GET budgets": "admin",
    "PUT budgets": "admin",
    "GET budgets/usage": "admin",
    "GET prices": "admin",
    "PUT prices": "admin",
    "GET usage": "admin",
    "GET skills": "admin",
    "PUT skills/{skill}": "admin",
    "GET skills/{skill}": "admin",
    "POST skills/{skill}/policies": "admin",
    "GET skills/{skill}/policies": "admin",
    "GET skills/{skill}/policies/{policy_id}": "admin",
    "GET skills/{skill}/policies/{policy_id}/diff": "admin",
    "PUT skills/{skill}/policies/{policy_id}/archived": "admin",
    "GET skills/{skill}/route": "admin",
    "PUT skills/{skill}/route": "admin",
    "POST skills/{skill}/rollback": "admin",
    "POST skills/{skill}/learning-runs": "admin",
    "GET skills/{skill}/learning-runs": "admin",
    "GET skills/{skill}/learning-runs/{run_id}": "admin",
    "POST skills/{skill}/rollouts": "admin",
    "GET skills/{skill}/rollouts": "admin",
    "GET skills/{skill}/rollouts/{rollout_id}": "admin",
    "GET skills/{skill}/rollouts/{rollout_id}/evidence": "admin",
    "GET skills/{skill}/datasets": "admin",
    "GET skills/{skill}/pending": "admin",
    "GET skills/{skill}/rewards": "admin",
    "GET skills/{skill}/rewards/report": "admin",
    "GET audit": "admin",
}
OPERATIONS: dict[str, str] = GATEWAY | {operation.replace(" ", " /v1/admin/", 1): group for operation, group in ADMINISTRATION.items()}
"""Every operation, and the group that says who may call it."""

LET_IN: dict[str, set[str]] = {
    "telemetry": {"events", "feedback"},
    "publishable": {"feedback"},
    "a page of all scopes": {"feedback", "flags"},
    "infer": {"infer", "flags"},
    "flags": {"flags"},
    "admin": {"admin", "either"},
    "another's admin": {"admin", "either"},
    "platform": {"platform", "either"},
}
"""What each kind of caller may call; who is not here may call nothing."""

_EVENT = {"skill": "nothing", "interaction_id": "nothing"}
BODIES: dict[str, object] = {
    "POST /v1/admin/redrives": {"dryrun": True},
    "POST /v1/interaction.create": {**_EVENT, "inputs": {"a": "b"}},
    "POST /v1/interaction.output": {**_EVENT, "text": "a"},
    "POST /v1/task_result": {**_EVENT, "name": "a", "value": True},
}
"""Where an empty body would have an effect, or is refused before the caller's right is checked."""

UNKNOWN = {"no key", "no such key", "revoked", "expired"}
"""Who is refused with 401. Everybody else who is refused has 403."""


@dataclass(frozen=True)
class Caller:
    """A kind of caller, and what it sends with each request."""

    kind: str
    headers: dict[str, str]

    def may(self, group: str) -> bool:
        return group in LET_IN.get(self.kind, set())


@pytest.fixture(scope="module")
def callers(cloud: LaptopCloud) -> list[Caller]:
    """One of each kind. They share a tenant, but for the administrator of another one."""
    tenant = cloud.tenant()
    tenant.admin("PUT", f"skills/{SKILL}", {})

    def key(**terms: object) -> str:
        return str(tenant.admin("POST", "keys", terms)["api_key"])

    now = datetime.now(UTC)
    expired_key = key(scopes=["admin", "infer", "telemetry"], expires_at=(now - timedelta(seconds=1)).isoformat())
    revoked_key = tenant.admin("POST", "keys", {"scopes": ["admin", "infer", "telemetry"]})
    tenant.admin("DELETE", f"keys/{revoked_key['key_id']}")
    _, unknown = make_key(tenant_id=tenant.tenant_id, scopes=("admin",), created_at=now)
    publishable = key(scopes=["telemetry"], origins=[ORIGIN])
    page_of_all_scopes = key(scopes=["telemetry", "flags", "infer"], origins=[ORIGIN])  # without a budget it drafts nothing
    texts = {
        "no such key": unknown,
        "revoked": str(revoked_key["api_key"]),
        "expired": expired_key,
        **{scope: key(scopes=[scope]) for scope in ("telemetry", "infer", "flags", "admin")},
        "another's admin": cloud.key("another", ("admin",)),
        "platform": cloud.key(tenant.tenant_id, ("platform",)),
    }
    keyed_callers = [Caller(kind, {"Authorization": f"Bearer {text}"}) for kind, text in texts.items()]
    keyed_callers += [
        Caller(kind, {"Authorization": f"Bearer {publishable}", **origin})
        for kind, origin in (
            ("publishable", {"Origin": ORIGIN}),
            ("publishable elsewhere", {"Origin": ELSEWHERE}),
            ("publishable in no page", {}),
        )
    ]
    page = Caller("a page of all scopes", {"Authorization": f"Bearer {page_of_all_scopes}", "Origin": ORIGIN})
    return [Caller("no key", {}), *keyed_callers, page]


def documented_operations() -> set[str]:
    document = json.loads((Path(__file__).parents[2] / "docs/reference/openapi.json").read_text())
    return {f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods}


def test_every_documented_operation_is_declared() -> None:
    assert documented_operations() == set(OPERATIONS)


def call(http: httpx.Client, operation: str, caller: Caller) -> int:
    method, path = operation.split(" ")
    path = path.replace("{skill}", "nothing").replace("{tenant_id}", "nobody")
    path = path.replace("{", "").replace("}", "")  # nothing has such an id
    body = None if method in ("GET", "DELETE") else BODIES.get(operation, {})
    return http.request(method, path.lstrip("/"), json=body, headers=caller.headers).status_code


def expected_statuses(caller: Caller, group: str) -> set[int]:
    if caller.may(group):
        return {200, 201, 400, 404}  # what he asks for is made, wrong, or nothing
    return {401} if caller.kind in UNKNOWN else {403}


def attempts(callers: list[Caller]) -> Iterator[tuple[str, str, Caller]]:
    for operation, group in OPERATIONS.items():
        for caller in callers:
            yield operation, group, caller


def test_who_may_call_what(cloud: LaptopCloud, callers: list[Caller]) -> None:
    with httpx.Client(base_url=cloud.api_url.rstrip("/") + "/", timeout=60) as http, ThreadPoolExecutor(4) as pool:
        answers = [(operation, group, caller, pool.submit(call, http, operation, caller)) for operation, group, caller in attempts(callers)]
        wrong = [
            f"{operation} by {caller.kind}: {status.result()}, and {sorted(expected_statuses(caller, group))} is right"
            for operation, group, caller, status in answers
            if status.result() not in expected_statuses(caller, group)
        ]
    assert len(answers) == len(OPERATIONS) * len(callers)
    assert wrong == []


def test_a_key_in_x_api_key_opens_anthropics_paths_and_no_other(cloud: LaptopCloud, callers: list[Caller]) -> None:
    for caller in callers:
        key = caller.headers.get("Authorization", "").removeprefix("Bearer ")
        moved = Caller(caller.kind, {**{name: text for name, text in caller.headers.items() if name == "Origin"}, "x-api-key": key})
        with httpx.Client(base_url=cloud.api_url.rstrip("/") + "/", timeout=60) as http:
            wrong = [
                f"{operation} by {caller.kind}: {status}"
                for operation, group in GATEWAY.items()
                if (status := call(http, operation, moved))
                not in (expected_statuses(moved, group) if "/v1/messages" in operation else {401})
            ]
        assert wrong == []


def test_a_key_in_x_api_key_does_not_open_for_who_sends_another_header(cloud: LaptopCloud, callers: list[Caller]) -> None:
    """Whatever API Gateway remembers of a wrong Authorization header, it is a refusal."""
    key = next(caller for caller in callers if caller.kind == "infer").headers["Authorization"].removeprefix("Bearer ")
    wrong = Caller("wrong", {"Authorization": "Bearer rlk_wrong", "x-api-key": key})
    with httpx.Client(base_url=cloud.api_url.rstrip("/") + "/", timeout=60) as http:
        assert {call(http, operation, wrong) for operation in GATEWAY} == {401}
