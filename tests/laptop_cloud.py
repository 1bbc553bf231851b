"""A laptop cloud for tests: tenants over HTTP, the stores and the lake directly."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from ulid import ULID

from local import apart
from local.cloud import Cloud

ROOT = Path(__file__).resolve().parents[1]
SKILL = "support-email-draft"
PROMPT = {"system": "Write the reply.", "user": "From: {{ name }}\n\n{{ email }}"}
INPUTS = {"name": "Ada Park", "email": "I was charged twice."}


@dataclass
class Tenant:
    """A tenant of the cloud with one key, speaking HTTP as any client does."""

    tenant_id: str
    http: httpx.Client

    def post(self, path: str, body: object, **options: Any) -> httpx.Response:
        return self.http.post(path, json=body, **options)

    def admin(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """A call of the admin API that must succeed."""
        answer = self.http.request(method, f"v1/admin/{path}", json=body)
        assert answer.is_success, answer.text
        result: dict[str, Any] = answer.json()
        return result

    def make_skill(self) -> str:
        """The skill with one policy and all traffic on it; the policy's id."""
        self.admin("PUT", f"skills/{SKILL}", {})
        policy = self.make_policy(1.0)
        self.admin("PUT", f"skills/{SKILL}/route", {"expected_version": 0, "control": policy, "reason": "first"})
        return policy

    def make_policy(self, temperature: float) -> str:
        body = {"prompt": PROMPT, "sampling": {"temperature": temperature, "max_tokens": 12}}
        return str(self.admin("POST", f"skills/{SKILL}/policies", body)["policy_id"])

    def infer(self, **fields: Any) -> dict[str, Any]:
        answer = self.post("v1/infer", {"skill": SKILL, "inputs": INPUTS, **fields})
        assert answer.status_code == 200, answer.text
        result: dict[str, Any] = answer.json()
        return result

    def react(self, draft: dict[str, Any], *, final: str | None, action: str) -> None:
        """Edit a draft, if `final` is given, and send or discard it."""
        about = {"skill": SKILL, "interaction_id": draft["interaction_id"], "output_id": draft["output_id"]}
        reactions = ([{"kind": "edit", "final_text": final}] if final is not None else []) + [{"kind": "action", "action": action}]
        for feedback in reactions:
            answer = self.post("v1/feedback.submit", {**about, **feedback})
            assert answer.status_code == 201, answer.text


@dataclass
class LaptopCloud:
    """The running cloud."""

    running: Cloud
    state: Path

    @property
    def api_url(self) -> str:
        return self.running.api_url

    @property
    def endpoint(self) -> str:
        return self.running.endpoint

    def client(self, service: str) -> Any:
        return self.running.client(service)

    def key(self, tenant_id: str, scopes: tuple[str, ...]) -> str:
        return apart.make_tenant(self.running, tenant_id, scopes=scopes).api_key

    def connect(self, key: str) -> httpx.Client:
        return httpx.Client(base_url=self.api_url.rstrip("/") + "/", headers={"Authorization": f"Bearer {key}"}, timeout=60)

    def tenant(self) -> Tenant:
        """A new tenant with a key that may infer, report and administer."""
        tenant_id = f"t-{str(ULID()).lower()[-12:]}"
        return Tenant(tenant_id, self.connect(self.key(tenant_id, ("infer", "telemetry", "admin"))))

    def tenant_answered_by(self, url: str, **backend: Any) -> Tenant:
        """A fresh tenant whose skill is answered by the OpenAI-compatible server at `url`."""
        tenant = self.tenant()
        tenant.admin("PUT", f"skills/{SKILL}", {})
        spec = {"kind": "openai", "model": "stub-1", "base_url": url, **backend}
        policy = tenant.admin("POST", f"skills/{SKILL}/policies", {"prompt": PROMPT, "backend": spec})["policy_id"]
        tenant.admin("PUT", f"skills/{SKILL}/route", {"expected_version": 0, "control": policy})
        return tenant

    def stored_events(self, tenant_id: str) -> int:
        """How many events of the tenant the hot store holds."""
        pages = (
            self.client("dynamodb")
            .get_paginator("scan")
            .paginate(
                TableName="rlaas-local-events",
                FilterExpression="tenant_id = :tenant",
                ExpressionAttributeValues={":tenant": {"S": tenant_id}},
                Select="COUNT",
                ConsistentRead=True,
            )
        )
        return sum(page["Count"] for page in pages)

    def query(self, sql: str) -> list[list[str]]:
        """The rows that Athena answers `sql` with, in the stage's workgroup."""
        athena = self.client("athena")
        execution = athena.start_query_execution(
            QueryString=sql, QueryExecutionContext={"Database": "rlaas_local"}, WorkGroup="rlaas-local"
        )["QueryExecutionId"]

        def final_state() -> str | None:
            state = athena.get_query_execution(QueryExecutionId=execution)["QueryExecution"]["Status"]["State"]
            return state if state not in ("QUEUED", "RUNNING") else None

        assert until(final_state) == "SUCCEEDED", sql
        pages = athena.get_paginator("get_query_results").paginate(QueryExecutionId=execution)
        rows = [[cell["VarCharValue"] for cell in row["Data"]] for page in pages for row in page["ResultSet"]["Rows"]]
        return rows[1:]  # the first names the columns

    def lake_events(self, tenant_id: str) -> int:
        """How many events that the tenant sent the lake holds, each counted once; datasets are made from these."""
        [[count]] = self.query(f"SELECT COUNT(DISTINCT event_id) FROM events WHERE tenant_id = '{tenant_id}' AND event_type <> 'reward'")
        return int(count)


def drafted(tenant: Tenant, text: str) -> str:
    """Report an interaction and its output; the output's id."""
    interaction_id = f"int_{ULID()}"
    output_id = interaction_id.replace("int_", "out_")
    events = [
        {"type": "interaction", "skill": SKILL, "interaction_id": interaction_id, "inputs": {"email": "Where is it?"}},
        {"type": "output", "skill": SKILL, "interaction_id": interaction_id, "output_id": output_id, "text": text},
    ]
    results = tenant.post("v1/events:batch", {"events": events}).json()["results"]
    assert [one["status"] for one in results] == [201, 201], results
    return output_id


def until(done: Callable[[], Any], *, seconds: float = 60.0) -> Any:
    """What `done` returns once it is true; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (result := done()):
        assert time.monotonic() < deadline, f"not done after {seconds} s"
        time.sleep(0.1)
    return result
