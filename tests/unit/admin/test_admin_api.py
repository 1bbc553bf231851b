"""The admin API through Mangum, as API Gateway calls it, on stores in memory."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, cast

import pytest
from mangum import Mangum

from rlaas.api.admin.app import ROUTERS, admin_app
from rlaas.api.admin.operations import list_operations
from rlaas.api.admin.services import Services
from rlaas.api.http import caller
from rlaas.chat import Usage
from rlaas.errors import Conflict, DependencyUnavailable
from rlaas.metering.budgets import BUDGETS, Amount, Budgets, SpendingRequest, list_charges
from rlaas.metering.ledger import reserve, settle
from rlaas.policies.allowed_models import AllowedModels
from rlaas.policies.hosts import may_be_sent
from rlaas.routing.route import MILLION
from rlaas.telemetry.events import FeedbackSubmitted, InteractionCreated, OutputProduced, RewardComputed
from rlaas.telemetry.ingest import prepare
from rlaas.tenancy.audit import RegistryChange, append_change
from rlaas.tenancy.keys import ApiKey
from rlaas.tenancy.registry import TENANT as TENANT_KEY
from rlaas.tenancy.registry import Page, encode_cursor
from rlaas.tenancy.tenant import Tenant
from tests.declared_answers import check_answer
from tests.fakes.adapters import MemoryAdapters
from tests.fakes.audit import MemoryAuditLog
from tests.fakes.counters import MemoryCounters
from tests.fakes.events import MemoryEventStore
from tests.fakes.gateway import make_lambda_context, make_proxy_event
from tests.fakes.guards import MemoryGuards
from tests.fakes.redriver import MemoryRedriver
from tests.fakes.registry import MemoryRegistry, make_content
from tests.fakes.trials import MemoryTrials
from tests.fakes.usage import MemoryUsage
from tests.fakes.worlds import CHANGE, NOW, SKILL, TENANT, clock, furnish_registry

HERE = f"/v1/admin/skills/{SKILL}"
PROMPT = {"user": "Reply to: {{ email }}"}


@dataclass
class MemoryTenants:
    registry: MemoryRegistry

    def list(self, *, limit: int, cursor: str | None) -> Page[Tenant]:
        tenants = [self.registry.get(Tenant, tenant, sk) for tenant, sk in self.registry.records if sk == TENANT_KEY]
        return Page(tuple(tenants[:limit]), None)


@dataclass
class Executions:
    """What was started; `away` says that Step Functions does not answer."""

    started: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    away: bool = False

    def start(self, name: str, payload: dict[str, Any]) -> None:
        if self.away:
            raise DependencyUnavailable("Step Functions could not be reached: ConnectTimeoutError")
        self.started.append((name, payload))


@dataclass
class NamedHosts:
    """Secrets that name `hosts`."""

    hosts: frozenset[str] = frozenset()
    missing: frozenset[str] = frozenset()

    def find_refusal(self, tenant_id: str, name: str, *, base_url: str, own_host: str) -> str | None:
        if name in self.missing:
            return f"the secret {name!r} does not exist"
        return None if may_be_sent(base_url, hosts=self.hosts, own=own_host) else f"{tenant_id}/{name} may not go there"


class Api:
    """The API as one tenant's administrator sees it."""

    def __init__(self) -> None:
        self.registry = furnish_registry()
        self.audit = MemoryAuditLog()
        self.events = MemoryEventStore()
        self.counters, self.usage = MemoryCounters(), MemoryUsage()
        self.learning, self.rollout = Executions(), Executions()
        self.adapters = MemoryAdapters()
        self.redriver = MemoryRedriver()
        self.secrets = NamedHosts()
        self.until: datetime | None = None
        """When the caller's key expires."""
        self.services = Services(
            records=self.registry,
            tenants=MemoryTenants(self.registry),
            events=self.events,
            audit=self.audit,
            guards=MemoryGuards(),
            trials=MemoryTrials(),
            counters=self.counters,
            usage=self.usage,
            learning=self.learning,
            rollout=self.rollout,
            adapters=self.adapters,
            redriver=self.redriver,
            clock=clock,
            endpoint="rlaas-test",
            base_model="smollm2",
            learning_settings={"window_days": 5},
            rollout_settings={"min_samples": 20, "units_a_day": 5_000},
            secrets=self.secrets,
        )
        self._app: Any = Mangum(admin_app(lambda: self.services, caller), lifespan="off")

    def call(
        self, method: str, path: str, body: object = None, *, scopes: str = "admin", query: dict[str, str] | None = None, **more: Any
    ) -> tuple[int, Any]:
        event = make_proxy_event(path, "" if body is None else body, scopes=scopes, method=method, **more)
        terms: Any = {"scopes": tuple(scopes.split()), "expires_at": self.until}
        self.registry.callers["key1"] = ApiKey(key_id="key1", tenant_id=TENANT, secret_sha256="0" * 64, created_at=NOW, **terms)
        event["queryStringParameters"] = query
        event["multiValueQueryStringParameters"] = {name: [value] for name, value in (query or {}).items()} or None
        answer = self._app(event, make_lambda_context())
        status, content = answer["statusCode"], json.loads(answer["body"])
        check_answer(method, path, status, content)
        return status, content


@pytest.fixture
def api() -> Api:
    return Api()


def check_refusal(answer: tuple[int, Any], status: int, kind: str, param: str | None) -> None:
    assert answer[0] == status
    error = answer[1]["error"]
    assert (error["type"], error["param"], error["request_id"]) == (kind, param, "req-1")
    assert set(error) == {"type", "code", "message", "param", "request_id"}


# Errors and scopes


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "kind", "param"),
    [
        ("POST", f"{HERE}/rollback", {}, 400, "InvalidInput", "reason"),
        ("POST", f"{HERE}/rollback", {"reason": 5}, 400, "InvalidInput", "reason"),
        ("POST", f"{HERE}/rollback", {"reason": "x", "surprise": 1}, 400, "InvalidInput", "surprise"),
        ("POST", f"{HERE}/rollback", "{not json", 400, "InvalidInput", None),
        ("POST", f"{HERE}/rollback", {"reason": "x" * 300_000}, 413, "PayloadTooLarge", None),
        ("PUT", "/v1/admin/skills/Not-A-Name", {}, 400, "InvalidInput", "skill"),
        ("PUT", "/v1/admin/skills/nobody/route", {"expected_version": 0, "control": "nobody@v1"}, 404, "NotFound", "skill"),
        ("GET", f"{HERE}/rollouts/rol_9", None, 404, "NotFound", None),
        ("GET", f"{HERE}/policies/{SKILL}@v9", None, 404, "NotFound", "policy_id"),
        ("GET", "/v1/admin/nothing-here", None, 404, "NotFound", None),
        ("PATCH", f"{HERE}/route", {}, 405, "MethodNotAllowed", None),
        ("POST", f"{HERE}/policies", {"prompt": {"user": "{{ oops"}}, 400, "InvalidInput", "prompt.user.template"),
        ("POST", f"{HERE}/policies", {"prompt": {"user": "x"}, "backend": {"kind": "openai"}}, 400, "InvalidInput", "backend.model"),
        ("POST", f"{HERE}/policies", {"prompt": {"nodes": [{"kind": "user"}]}}, 400, "InvalidInput", "prompt.nodes.0.name"),
        ("POST", f"{HERE}/policies", {"prompt": {"user": "x"}, "backend": {"kind": "none"}}, 400, "InvalidInput", "backend"),
        ("POST", f"{HERE}/learning-runs", {"settings": {"dpo_steps": 0}}, 400, "InvalidInput", "settings.dpo_steps"),
        ("POST", f"{HERE}/learning-runs", {"settings": {"dpo_steps": 10**9}}, 400, "InvalidInput", "settings.dpo_steps"),
        ("POST", f"{HERE}/learning-runs", {"settings": {"lora_rank": 17}}, 400, "InvalidInput", "settings.lora_rank"),
        ("POST", f"{HERE}/learning-runs", {"settings": {"beta": 10**400}}, 400, "InvalidInput", "settings.beta"),
        ("POST", f"{HERE}/rollouts", {"policy_id": f"{SKILL}@v9"}, 404, "NotFound", "policy_id"),
        (
            "POST",
            f"{HERE}/rollouts",
            {"policy_id": f"{SKILL}@v2", "settings": {"steps": [{"weight": 2}]}},
            400,
            "InvalidInput",
            "settings.steps.0.weight",
        ),
    ],
)
def test_a_refusal_has_the_one_body_and_names_the_field(
    api: Api, method: str, path: str, body: object, status: int, kind: str, param: str | None
) -> None:
    before = dict(api.registry.records)
    check_refusal(api.call(method, path, body), status, kind, param)
    assert api.registry.records == before


@pytest.mark.parametrize("query", [{"limit": "0"}, {"limit": "many"}])
def test_a_query_that_does_not_fit_is_refused_like_a_body(api: Api, query: dict[str, str]) -> None:
    check_refusal(api.call("GET", f"{HERE}/policies", query=query), 400, "InvalidInput", "limit")


@pytest.mark.parametrize("path", ["keys", f"skills/{SKILL}/route", "audit"])
def test_another_scope_is_not_enough(api: Api, path: str) -> None:
    check_refusal(api.call("GET", f"/v1/admin/{path}", scopes="infer telemetry platform"), 403, "Forbidden", None)


def test_a_request_that_passed_no_authorizer_is_unauthorized(api: Api) -> None:
    event = make_proxy_event(f"{HERE}/route", "", method="GET")
    event["requestContext"]["authorizer"] = None
    assert api._app(event, make_lambda_context())["statusCode"] == 401


def test_a_failure_nobody_foresaw_shows_nothing_of_itself(api: Api) -> None:
    api.services = replace(api.services, records=cast(Any, None))
    answer = api.call("GET", f"{HERE}/route")
    check_refusal(answer, 500, "InternalError", None)
    assert "NoneType" not in json.dumps(answer[1])


# Tenants and keys


def test_the_platform_makes_a_tenant_and_its_first_key(api: Api) -> None:
    status, tenant = api.call("POST", "/v1/admin/tenants", {"tenant_id": "globex", "name": "Globex"}, scopes="platform")
    assert (status, tenant["idempotent_replay"]) == (201, False)
    assert api.call("POST", "/v1/admin/tenants", {"tenant_id": "globex", "name": "Globex"}, scopes="platform")[0] == 200
    check_refusal(api.call("POST", "/v1/admin/tenants", {"tenant_id": "globex"}, scopes="platform"), 409, "Conflict", "tenant_id")
    check_refusal(api.call("POST", "/v1/admin/tenants", {"tenant_id": "initech"}), 403, "Forbidden", None)
    status, key = api.call("POST", "/v1/admin/keys", {"tenant_id": "globex", "scopes": ["admin"]}, scopes="platform")
    assert (status, key["tenant_id"]) == (201, "globex")
    status, tenants = api.call("GET", "/v1/admin/tenants", scopes="platform")
    assert [tenant["tenant_id"] for tenant in tenants["data"]] == ["globex"]


def test_a_keys_secret_is_shown_once_and_never_listed(api: Api) -> None:
    status, key = api.call("POST", "/v1/admin/keys", {"scopes": ["infer", "telemetry"]})
    assert status == 201
    assert key["api_key"].startswith(f"rlk_{key['key_id']}_")
    _, listed = api.call("GET", "/v1/admin/keys")
    assert [one["key_id"] for one in listed["data"]] == [key["key_id"]]
    assert "secret" not in json.dumps(listed)
    status, revoked = api.call("DELETE", f"/v1/admin/keys/{key['key_id']}")
    assert (status, revoked["revoked_at"]) == (200, "2026-03-01T12:00:00.000000Z")
    assert api.call("DELETE", f"/v1/admin/keys/{key['key_id']}")[1] == revoked


def test_a_repeated_key_request_makes_one_key_and_keeps_its_secret(api: Api) -> None:
    again: dict[str, Any] = {"headers": {"Idempotency-Key": "first-key"}}
    _, key = api.call("POST", "/v1/admin/keys", {"scopes": ["infer"]}, **again)
    status, replay = api.call("POST", "/v1/admin/keys", {"scopes": ["infer"]}, **again)
    assert (status, replay["key_id"], replay["api_key"]) == (200, key["key_id"], None)
    assert key["api_key"].startswith(f"rlk_{key['key_id']}_")
    check_refusal(api.call("POST", "/v1/admin/keys", {"scopes": ["admin"]}, **again), 409, "Conflict", "Idempotency-Key")
    blank: dict[str, Any] = {"headers": {"Idempotency-Key": "first key"}}
    check_refusal(api.call("POST", "/v1/admin/keys", {"scopes": ["admin"]}, **blank), 400, "InvalidInput", "Idempotency-Key")


@pytest.mark.parametrize(
    ("request_", "param"), [({"scopes": ["platform"]}, "scopes"), ({"scopes": ["infer"], "tenant_id": "globex"}, None)]
)
def test_nobody_gives_away_what_they_do_not_have(api: Api, request_: dict[str, Any], param: str | None) -> None:
    check_refusal(api.call("POST", "/v1/admin/keys", request_), 403, "Forbidden", param)


def test_a_key_that_expires_gives_no_more_than_it_has(api: Api) -> None:
    api.until = NOW + timedelta(minutes=5)
    until, later = "2026-03-01T12:05:00.000000Z", "2026-03-01T12:05:00.000001Z"
    for body, param in (
        ({"scopes": ["admin"]}, "expires_at"),
        ({"scopes": ["admin"], "expires_at": later}, "expires_at"),
        ({"scopes": ["infer"], "expires_at": until}, "scopes"),
        ({"scopes": ["telemetry"], "origins": ["https://a.example"], "expires_at": until}, "scopes"),
    ):
        check_refusal(api.call("POST", "/v1/admin/keys", body), 403, "Forbidden", param)
    assert api.call("POST", "/v1/admin/keys", {"scopes": ["admin"], "expires_at": until})[0] == 201
    check_refusal(api.call("POST", "/v1/admin/keys", {"scopes": ["infer"]}, scopes="platform"), 403, "Forbidden", "expires_at")
    assert api.call("POST", "/v1/admin/keys", {"scopes": ["infer"], "expires_at": until}, scopes="platform")[0] == 201


def test_a_key_is_revoked_by_one_that_manages_its_scopes(api: Api) -> None:
    _, operator = api.call("POST", "/v1/admin/keys", {"scopes": ["platform"]}, scopes="platform")
    path = f"/v1/admin/keys/{operator['key_id']}"
    check_refusal(api.call("DELETE", path), 403, "Forbidden", "key_id")
    check_refusal(api.call("DELETE", "/v1/admin/keys/key1", scopes="platform"), 409, "Conflict", "key_id")
    assert api.call("DELETE", path, scopes="platform")[0] == 200
    api.registry.put("globex", TENANT_KEY, Tenant(tenant_id="globex", created_at=NOW), CHANGE)
    _, theirs = api.call("POST", "/v1/admin/keys", {"scopes": ["infer"], "tenant_id": "globex"}, scopes="platform")
    check_refusal(api.call("DELETE", f"/v1/admin/keys/{theirs['key_id']}"), 404, "NotFound", "key_id")
    assert api.call("DELETE", f"/v1/admin/keys/{theirs['key_id']}", scopes="platform")[1]["revoked_at"] is not None


@pytest.mark.parametrize(
    ("bundle", "param"),
    [
        ({"backend": {"kind": "openai", "model": "gpt-4.1"}}, "backend"),
        ({"fallbacks": [{"kind": "bedrock", "model": "amazon.nova"}]}, "fallbacks.0"),
        ({"guardrails": {"input": [{"kind": "moderation"}]}}, "guardrails.input.0"),
    ],
)
def test_a_policy_names_only_models_that_the_stage_allows(api: Api, bundle: dict[str, Any], param: str) -> None:
    api.services = replace(api.services, allowed=AllowedModels(("sagemaker:*",)))
    check_refusal(api.call("POST", f"{HERE}/policies", {"prompt": PROMPT, **bundle}), 400, "InvalidInput", param)
    api.registry.numbers[TENANT, SKILL, "policy"] = 2
    assert api.call("POST", f"{HERE}/policies", {"prompt": PROMPT})[0] == 201


# Ceilings

ACME = "/v1/admin/tenants/acme/ceilings"


def cap_tenant(api: Api, **ceilings: Any) -> None:
    with suppress(Conflict):
        api.registry.put(TENANT, TENANT_KEY, Tenant(tenant_id=TENANT, created_at=NOW), CHANGE)
    version = api.call("GET", ACME, scopes="platform")[1]["version"]
    status, put = api.call("PUT", ACME, {"expected_version": version, **ceilings}, scopes="platform")
    assert (status, put["version"]) == (200, version + 1)


def check_over_ceiling(answer: tuple[int, Any]) -> None:
    assert answer[0] == 429, answer
    assert "the platform's ceiling" in answer[1]["error"]["message"]


def test_a_tenant_reads_its_ceilings_and_cannot_lift_them(api: Api) -> None:
    check_refusal(api.call("GET", ACME, scopes="platform"), 404, "NotFound", "tenant_id")
    day = {"measure": "usd", "limit": 5.0, "window": "day"}
    cap_tenant(api, spending=[day], skills=3)
    for method, body in (("GET", None), ("PUT", {"expected_version": 1})):
        check_refusal(api.call(method, ACME, body), 403, "Forbidden", None)
    again = {"expected_version": 1, "spending": [day], "skills": 3}
    assert api.call("PUT", ACME, again, scopes="platform")[1]["idempotent_replay"] is True
    check_refusal(api.call("PUT", ACME, {"expected_version": 7}, scopes="platform"), 409, "Conflict", "expected_version")
    check_refusal(api.call("PUT", ACME, {"expected_version": 1, "spending": [day, day]}, scopes="platform"), 400, "InvalidInput", None)
    mine = {"name": "mine", "measure": "usd", "limit": 9.0, "window": "day"}
    assert api.call("PUT", "/v1/admin/budgets", {"expected_version": 0, "budgets": [mine]})[1]["version"] == 1
    check_refusal(
        api.call("PUT", "/v1/admin/budgets", {"expected_version": 1, "budgets": [], "spending": []}), 400, "InvalidInput", "spending"
    )
    assert api.call("GET", "/v1/admin/budgets")[1]["ceilings"]["spending"] == [day]
    usage = api.call("GET", "/v1/admin/budgets/usage")[1]
    assert (usage["data"][0]["limit"], usage["ceilings"][0]["limit"], usage["ceilings"][0]["spent"]) == (9.0, 5.0, 0)


def test_a_tenant_makes_no_more_skills_and_policies_than_the_platform_says(api: Api) -> None:
    cap_tenant(api, skills=2, policies_per_skill=3)
    assert api.call("PUT", "/v1/admin/skills/second", {})[0] == 201
    check_over_ceiling(api.call("PUT", "/v1/admin/skills/third", {}))
    assert api.call("PUT", "/v1/admin/skills/second", {"description": "changed"})[0] == 200
    api.registry.numbers[TENANT, SKILL, "policy"] = 2
    assert api.call("POST", f"{HERE}/policies", {"prompt": PROMPT})[0] == 201
    check_over_ceiling(api.call("POST", f"{HERE}/policies", {"prompt": {"user": "another: {{ email }}"}}))
    assert api.call("POST", f"{HERE}/policies", {"prompt": PROMPT})[0] == 200


def test_a_tenant_starts_no_more_learning_runs_a_day_than_the_platform_says(api: Api) -> None:
    cap_tenant(api, learning_runs_per_day=2)
    check_refusal(api.call("POST", f"{HERE}/learning-runs", {"settings": {"dpo_steps": 10**9}}), 400, "InvalidInput", "settings.dpo_steps")
    options: dict[str, Any] = {"headers": {"Idempotency-Key": "monday"}}
    first = api.call("POST", f"{HERE}/learning-runs", {}, **options)
    assert [first[0], api.call("POST", f"{HERE}/learning-runs", {})[0]] == [202, 202]
    check_over_ceiling(api.call("POST", f"{HERE}/learning-runs", {}))
    assert api.call("POST", f"{HERE}/learning-runs", {}, **options)[1]["run_id"] == first[1]["run_id"]
    assert len(api.learning.started) == 3  # the first twice, under its own name
    cap_tenant(api, learning_runs_per_day=0)
    check_over_ceiling(api.call("POST", f"{HERE}/learning-runs", {}))


def test_a_tenant_has_no_more_adapters_loaded_than_the_platform_says(api: Api) -> None:
    cap_tenant(api, adapters=3)
    for version in (1, 2):
        api.adapters.add(f"rlaas-test--{TENANT}--{SKILL}--v{version}")
    api.adapters.add(f"rlaas-test--another--{SKILL}--v1")
    check_over_ceiling(api.call("POST", f"{HERE}/learning-runs", {}))  # it loads two
    cap_tenant(api, adapters=4)
    assert api.call("POST", f"{HERE}/learning-runs", {})[0] == 202


# Skills, policies, routes


def test_a_skill_is_put_under_its_name_and_put_again_unchanged(api: Api) -> None:
    assert api.call("PUT", "/v1/admin/skills/summary", {"description": "one"})[0] == 201
    assert api.call("PUT", "/v1/admin/skills/summary", {"description": "one"})[1]["idempotent_replay"] is True
    assert api.call("PUT", "/v1/admin/skills/summary", {"description": "two"})[0] == 200
    assert api.call("GET", "/v1/admin/skills/summary")[1]["description"] == "two"
    assert [skill["skill"] for skill in api.call("GET", "/v1/admin/skills")[1]["data"]] == sorted(["summary", SKILL])


def test_equal_policies_are_one_policy_and_a_new_one_gets_the_next_number(api: Api) -> None:
    api.registry.numbers[TENANT, SKILL, "policy"] = 2
    status, policy = api.call("POST", f"{HERE}/policies", {"prompt": PROMPT})
    assert (status, policy["policy_id"], policy["backend"]["component"]) == (201, f"{SKILL}@v3", "rlaas-test--base")
    status, same = api.call("POST", f"{HERE}/policies", {"prompt": PROMPT, "base_model": "smollm2"})
    assert (status, same["policy_id"], same["idempotent_replay"]) == (200, f"{SKILL}@v3", True)
    assert api.call("GET", f"{HERE}/policies/{SKILL}@v3")[1]["sha256"] == policy["sha256"]


@pytest.mark.parametrize(
    ("backend", "param"),
    [
        ({"endpoint": "rlaas-test", "component": "rlaas-test--other--mail--v1"}, "component"),
        ({"endpoint": "rlaas-test", "component": f"rlaas-test--{TENANT}-two--mail--v1"}, "component"),
        ({"endpoint": "rlaas-test", "component": f"rlaas-prod--{TENANT}--mail--v1"}, "component"),
        ({"endpoint": "rlaas-test", "component": f"rlaas-test-2--{TENANT}--mail--v1"}, "component"),
        ({"endpoint": "rlaas-test"}, "component"),
        ({"endpoint": "rlaas-prod", "component": f"rlaas-prod--{TENANT}--mail--v1"}, "endpoint"),
    ],
)
def test_a_policy_asks_the_base_model_or_adapters_of_its_tenant_and_no_others(api: Api, backend: dict[str, str], param: str) -> None:
    check_refusal(api.call("POST", f"{HERE}/policies", {"prompt": PROMPT, "backend": backend}), 400, "InvalidInput", f"backend.{param}")
    elsewhere = {"kind": "openai", "model": "gpt", "base_url": "https://models.example.com/v1"}
    body = {"prompt": PROMPT, "backend": elsewhere, "fallbacks": [elsewhere, backend]}
    check_refusal(api.call("POST", f"{HERE}/policies", body), 400, "InvalidInput", f"fallbacks.1.{param}")
    own = {"endpoint": "rlaas-test", "component": f"rlaas-test--{TENANT}--mail--v1"}
    api.registry.numbers[TENANT, SKILL, "policy"] = 2
    assert api.call("POST", f"{HERE}/policies", {"prompt": PROMPT, "backend": own})[0] == 201


@pytest.mark.parametrize(
    ("bundle", "param"),
    [
        ({"backend": {"kind": "openai", "model": "m", "base_url": "https://evil.example/v1", "secret": "openai"}}, "backend.base_url"),
        ({"fallbacks": [{"kind": "anthropic", "model": "m", "base_url": "https://evil.example", "secret": "a"}]}, "fallbacks.0.base_url"),
        (
            {"guardrails": {"output": [{"kind": "moderation", "base_url": "https://evil.example/v1", "secret": "openai"}]}},
            "guardrails.output.0.base_url",
        ),
    ],
)
def test_a_policy_that_sends_a_secret_where_it_may_not_go_is_refused(api: Api, bundle: dict[str, Any], param: str) -> None:
    api.registry.numbers[TENANT, SKILL, "policy"] = 2
    before = len(api.registry.records)
    check_refusal(api.call("POST", f"{HERE}/policies", {"prompt": PROMPT, **bundle}), 400, "InvalidInput", param)
    assert len(api.registry.records) == before
    api.secrets.hosts = frozenset({"evil.example"})
    assert api.call("POST", f"{HERE}/policies", {"prompt": PROMPT, **bundle})[0] == 201


@pytest.mark.parametrize(
    ("bundle", "place"),
    [
        ({"backend": {"kind": "openai", "model": "m", "secret": "gone"}}, "backend"),
        (
            {"backend": {"kind": "openai", "model": "m"}, "fallbacks": [{"kind": "anthropic", "model": "m", "secret": "gone"}]},
            "fallbacks.0",
        ),
        ({"guardrails": {"input": [{"kind": "moderation", "secret": "gone"}]}}, "guardrails.input.0"),
    ],
)
def test_a_policy_whose_secret_does_not_exist_is_refused_when_it_is_made(api: Api, bundle: dict[str, Any], place: str) -> None:
    api.registry.numbers[TENANT, SKILL, "policy"] = 2
    api.secrets.missing = frozenset({"gone"})
    before = len(api.registry.records)
    check_refusal(api.call("POST", f"{HERE}/policies", {"prompt": PROMPT, **bundle}), 400, "InvalidInput", f"{place}.secret")
    assert len(api.registry.records) == before
    api.secrets.missing = frozenset()
    assert api.call("POST", f"{HERE}/policies", {"prompt": PROMPT, **bundle})[0] == 201


def test_a_vendors_own_host_needs_no_naming(api: Api) -> None:
    api.registry.numbers[TENANT, SKILL, "policy"] = 2
    backend = {"kind": "openai", "model": "m", "secret": "openai"}
    assert api.call("POST", f"{HERE}/policies", {"prompt": PROMPT, "backend": backend})[0] == 201


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        (
            "PUT",
            "route",
            {"expected_version": 1, "control": f"{SKILL}@v1", "arms": [{"policy_id": f"{SKILL}@v3", "mode": "ab", "weight": 0.5}]},
        ),
        ("POST", "rollouts", {"policy_id": f"{SKILL}@v3"}),
    ],
)
def test_a_policy_whose_adapter_was_unloaded_is_routed_to_once_it_is_loaded_again(
    api: Api, method: str, path: str, body: dict[str, object]
) -> None:
    component = f"rlaas-test--{TENANT}--mail--v1"
    ref = {"name": component, "artifact_uri": "s3://b/k", "sha256": "0" * 64, "run_id": "run_1", "dataset_version": "v1"}
    api.registry.numbers[TENANT, SKILL, "policy"] = 2
    api.call("POST", f"{HERE}/policies", {"prompt": PROMPT, "adapter": ref, "backend": {"endpoint": "rlaas-test", "component": component}})
    check_refusal(api.call(method, f"{HERE}/{path}", body), 503, "DependencyUnavailable", None)
    assert (api.registry.get_route(TENANT, SKILL).version, api.rollout.started) == (1, [])
    api.adapters.settle()
    assert api.call(method, f"{HERE}/{path}", body)[0] in (200, 202)
    assert api.adapters.requests == [("load", "s3://b/k")]


def test_a_route_that_names_nothing_new_is_changed_without_a_word_to_sagemaker(api: Api) -> None:
    component = f"rlaas-test--{TENANT}--mail--v1"
    api.registry.numbers[TENANT, SKILL, "policy"] = 2
    api.adapters.add(component)
    api.call("POST", f"{HERE}/policies", {"prompt": PROMPT, "backend": {"endpoint": "rlaas-test", "component": component}})
    arms = [{"policy_id": f"{SKILL}@v3", "mode": "ab", "weight": 0.5}]
    assert api.call("PUT", f"{HERE}/route", {"expected_version": 1, "control": f"{SKILL}@v1", "arms": arms})[0] == 200
    api.adapters.by_name.clear()
    less = [{**arms[0], "weight": 0.1}]
    assert api.call("PUT", f"{HERE}/route", {"expected_version": 2, "control": f"{SKILL}@v1", "arms": less})[0] == 200


def test_lists_are_walked_by_an_opaque_cursor(api: Api) -> None:
    seen, cursor = [], None
    while True:
        query = {"limit": "1", **({"cursor": cursor} if cursor else {})}
        _, page = api.call("GET", f"{HERE}/policies", query=query)
        seen += [policy["policy_id"] for policy in page["data"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == [f"{SKILL}@v2", f"{SKILL}@v1"]


def test_a_route_is_replaced_at_its_version_and_a_lost_race_is_told(api: Api) -> None:
    put = {"expected_version": 1, "control": f"{SKILL}@v1", "arms": [{"policy_id": f"{SKILL}@v2", "mode": "ab", "weight": 0.25}]}
    status, route = api.call("PUT", f"{HERE}/route", put)
    assert (status, route["version"], route["changed_by"]) == (200, 2, "key:key1")
    assert sum(end - start for start, end in route["arms"][0]["spans"]) == MILLION // 4
    assert route["last_good"]["control"] == f"{SKILL}@v1"
    assert api.call("PUT", f"{HERE}/route", put)[1]["idempotent_replay"] is True
    check_refusal(api.call("PUT", f"{HERE}/route", {**put, "reason": "another"}), 409, "Conflict", "expected_version")


@pytest.mark.parametrize(
    ("change", "status", "param"),
    [
        ({"control": f"{SKILL}@v9"}, 404, "control"),
        ({"arms": [{"policy_id": f"{SKILL}@v9", "mode": "ab", "weight": 0.5}]}, 404, "arms.0.policy_id"),
        ({"arms": [{"policy_id": f"{SKILL}@v2", "mode": "ab", "weight": 1.5}]}, 400, "arms.0.weight"),
        ({"arms": [{"policy_id": f"{SKILL}@v1", "mode": "ab", "weight": 0.5}]}, 400, None),
        ({"unit": "user"}, 400, "unit"),
    ],
)
def test_a_route_that_cannot_be_is_refused(api: Api, change: dict[str, Any], status: int, param: str | None) -> None:
    answer = api.call("PUT", f"{HERE}/route", {"expected_version": 1, "control": f"{SKILL}@v1", **change})
    assert (answer[0], answer[1]["error"]["param"]) == (status, param)


def test_weights_that_add_up_to_over_one_are_refused(api: Api) -> None:
    api.registry.numbers[TENANT, SKILL, "policy"] = 2
    assert api.call("POST", f"{HERE}/policies", {"prompt": {"user": "{{ email }}"}, "sampling": {"temperature": 0.1}})[0] == 201
    arms = [{"policy_id": f"{SKILL}@v{number}", "mode": "canary", "weight": 0.7} for number in (2, 3)]
    status, body = api.call("PUT", f"{HERE}/route", {"expected_version": 1, "control": f"{SKILL}@v1", "arms": arms})
    assert (status, body["error"]["param"]) == (400, "arms"), body


def test_a_route_with_a_bandit_has_its_settings_and_keeps_them(api: Api) -> None:
    put = {"expected_version": 1, "control": f"{SKILL}@v1", "arms": [{"policy_id": f"{SKILL}@v2", "mode": "bandit", "weight": 0.5}]}
    status, route = api.call("PUT", f"{HERE}/route", put)
    assert (status, route["bandit"]["reward"], route["bandit"]["window_hours"]) == (200, "continuous", 24.0)
    assert api.call("PUT", f"{HERE}/route", put)[1]["idempotent_replay"] is True
    guarded = {**put, "expected_version": 2, "bandit": {"reward": "binary", "error_rate": {"above": 0.1}}}
    assert api.call("PUT", f"{HERE}/route", guarded)[1]["bandit"]["error_rate"] == {"above": 0.1}
    assert api.call("PUT", f"{HERE}/route", {**put, "expected_version": 3})[1]["bandit"]["reward"] == "binary"


def test_a_rollback_puts_the_last_good_route_back_and_may_be_repeated(api: Api) -> None:
    check_refusal(api.call("POST", f"{HERE}/rollback", {"reason": "bad"}), 409, "Conflict", None)
    api.call("PUT", f"{HERE}/route", {"expected_version": 1, "control": f"{SKILL}@v2"})
    status, route = api.call("POST", f"{HERE}/rollback", {"reason": "customers complain"})
    assert (status, route["control"], route["mode"], route["reason"]) == (200, f"{SKILL}@v1", "rolled_back", "customers complain")
    assert api.call("POST", f"{HERE}/rollback", {"reason": "again"})[1] == route


# Learning runs and rollouts


@pytest.mark.parametrize(("what", "body"), [("learning-runs", {}), ("rollouts", {"policy_id": f"{SKILL}@v2"})])
def test_one_request_starts_one_execution_under_its_id(api: Api, what: str, body: dict[str, Any]) -> None:
    again: dict[str, Any] = {"headers": {"Idempotency-Key": "weekly"}}
    status, first = api.call("POST", f"{HERE}/{what}", body, **again)
    second = api.call("POST", f"{HERE}/{what}", body, **again)[1]
    executions, id_field = (api.learning, "run_id") if what == "learning-runs" else (api.rollout, "rollout_id")
    assert (status, first) == (202, second)
    assert {name for name, _ in executions.started} == {first[id_field]}
    payload = executions.started[0][1]
    assert (payload["tenant_id"], payload["skill"], payload[id_field]) == (TENANT, SKILL, first[id_field])
    assert payload["settings"]["window_days" if what == "learning-runs" else "min_samples"] in (5, 20)
    assert api.call("GET", f"{HERE}/{what}/{first[id_field]}")[1]["status"] == first["status"]
    assert [one[id_field] for one in api.call("GET", f"{HERE}/{what}")[1]["data"]] == [first[id_field]]


@pytest.mark.parametrize(("what", "body"), [("learning-runs", {}), ("rollouts", {"policy_id": f"{SKILL}@v2"})])
def test_when_step_functions_is_away_the_record_says_so_and_the_next_try_is_free(api: Api, what: str, body: dict[str, Any]) -> None:
    api.learning.away = api.rollout.away = True
    check_refusal(api.call("POST", f"{HERE}/{what}", body), 503, "DependencyUnavailable", None)
    (record,) = api.call("GET", f"{HERE}/{what}")[1]["data"]
    assert record["status"] == "failed"
    assert "Step Functions" in record["reason"]
    api.learning.away = api.rollout.away = False
    assert api.call("POST", f"{HERE}/{what}", body)[0] == 202


def test_a_dry_run_tells_the_plan_and_starts_nothing(api: Api) -> None:
    body = {"policy_id": f"{SKILL}@v2", "settings": {"units_a_day": 5}, "dryrun": True}
    status, dry = api.call("POST", f"{HERE}/rollouts", body)
    assert (status, dry["plan"]["can_conclude"]) == (200, False)
    assert "it would take one of: " in dry["plan"]["advice"]
    assert api.call("GET", f"{HERE}/rollouts")[1]["data"] == api.rollout.started == []
    check_refusal(api.call("POST", f"{HERE}/rollouts", {**body, "dryrun": False}), 400, "InvalidInput", "settings")
    endless = {**body, "settings": {"gain": 0.001}, "dryrun": True}
    assert api.call("POST", f"{HERE}/rollouts", endless)[1]["plan"]["days"] is None


def test_a_rollouts_evidence_is_told(api: Api) -> None:
    rollout = api.call("POST", f"{HERE}/rollouts", {"policy_id": f"{SKILL}@v2"})[1]
    path = f"{HERE}/rollouts/{rollout['rollout_id']}"
    status, evidence = api.call("GET", f"{path}/evidence")
    assert (status, evidence["threshold"], evidence["candidate"]["settled"], evidence["points"]) == (200, pytest.approx(20), 0, [])
    check_refusal(api.call("GET", f"{HERE}/rollouts/rol_9/evidence"), 404, "NotFound", None)


# What was recorded


def test_the_audit_is_listed_with_the_state_of_its_chain(api: Api) -> None:
    for number in range(3):
        change = RegistryChange(
            registry_event_id=f"e{number}",
            tenant_id=TENANT,
            at=NOW,
            actor="key:1",
            action="change",
            target="ROUTE#reply",
            before_version=number,
            after_version=number + 1,
            reason="test",
        )
        append_change(change, api.audit)
    _, page = api.call("GET", "/v1/admin/audit", query={"limit": "2"})
    assert [entry["seq"] for entry in page["data"]] == [1, 2]
    assert page["chain"] == {"intact": True, "length": 3, "fault": None}
    _, rest = api.call("GET", "/v1/admin/audit", query={"cursor": page["next_cursor"]})
    assert ([entry["seq"] for entry in rest["data"]], rest["chain"]) == ([3], None)  # it is walked once
    for forged in ("bogus!", encode_cursor("9" * 12), encode_cursor("9" * 5_000), encode_cursor("\u0663"), encode_cursor("-1")):
        check_refusal(api.call("GET", "/v1/admin/audit", query={"cursor": forged}), 400, "InvalidInput", "cursor")


def test_rewards_of_a_day_are_walked_in_order(api: Api) -> None:
    for number in range(5):
        reward = RewardComputed(
            skill=SKILL,
            reward_id=f"rew_{number}",
            interaction_id=f"int_{number}",
            output_id=f"out_{number}",
            occurred_at=NOW + timedelta(seconds=number // 2),
            reward=0.5,
            components={"sent": 1.0},
            n=1,
            event_ids=("fbk_1",),
        )
        api.events.put_new(prepare(reward, TENANT, received_at=NOW))
    seen, cursor = [], None
    while True:
        query = {"date": "2026-03-01", "limit": "2", **({"cursor": cursor} if cursor else {})}
        _, page = api.call("GET", f"{HERE}/rewards", query=query)
        seen += [one["reward_id"] for one in page["data"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == [f"rew_{number}" for number in range(5)]
    check_refusal(api.call("GET", f"{HERE}/rewards", query={"date": "yesterday"}), 400, "InvalidInput", "date")
    check_refusal(api.call("GET", "/v1/admin/skills/nobody/rewards", query={"date": "2026-03-01"}), 404, "NotFound", "skill")
    for forged in ("2026-03-01 rew_1", "2026-02-31T00:00:00.000000Z rew_1", "0001-01-01T00:00:00+23:59 x", "x" * 3_000):
        query = {"date": "2026-03-01", "cursor": encode_cursor(forged)}
        check_refusal(api.call("GET", f"{HERE}/rewards", query=query), 400, "InvalidInput", "cursor")


def test_what_rewards_come_to_is_told_for_days_and_not_for_too_many(api: Api) -> None:
    for number in range(3):
        reward = RewardComputed(
            skill=SKILL,
            thread_id="again",
            reward_id=f"rew_{number}",
            interaction_id=f"int_{number}",
            output_id=f"out_{number}",
            occurred_at=NOW,
            reward=number / 2,
            components={"sent": 1.0},
            n=1,
            event_ids=("fbk_1",),
        )
        api.events.put_new(prepare(reward, TENANT, received_at=NOW))
    days = {"from": "2026-03-01", "to": "2026-03-02"}
    status, report = api.call("GET", f"{HERE}/rewards/report", query=days)
    assert (status, report["unit"], report["policies"]) == (200, "thread", {})
    assert (report["others"]["mean"], report["others"]["drafts"], report["others"]["units"]) == (0.5, 3, 1)
    for wrong in ({"from": "2026-03-02", "to": "2026-03-01"}, {"from": "2026-01-01", "to": "2026-12-31"}):
        check_refusal(api.call("GET", f"{HERE}/rewards/report", query=wrong), 400, "InvalidInput", "to")
    check_refusal(api.call("GET", "/v1/admin/skills/nobody/rewards/report", query=days), 404, "NotFound", "skill")


# What telemetry is judged by


def test_another_method_is_405_with_those_that_the_path_has(api: Api) -> None:
    for method, path, methods in (("PATCH", "skills/reply", "GET and PUT"), ("PUT", "keys", "GET and POST")):
        status, answer = api.call(method, f"/v1/admin/{path}")
        assert (status, answer["error"]["code"], answer["error"]["message"]) == (405, "method_not_allowed", f"this path takes {methods}")
    assert api.call("GET", "/v1/admin/nothing")[0] == 404


def test_a_publishable_key_names_its_pages_and_manages_nothing(api: Api) -> None:
    for scopes in (["telemetry"], ["flags"], ["telemetry", "flags", "infer"]):
        status, key = api.call("POST", "/v1/admin/keys", {"scopes": scopes, "origins": ["https://app.example.com"]})
        assert status == 201
        assert key["api_key"].startswith(f"rlp_{key['key_id']}_")
        assert (key["origins"], key["scopes"]) == (["https://app.example.com"], scopes)
    for refused_body in (
        {"scopes": ["platform"], "origins": ["https://app.example.com"]},
        {"scopes": ["telemetry", "admin"], "origins": ["https://app.example.com"]},
        {"scopes": ["telemetry"], "origins": ["*"]},
        {"scopes": ["telemetry"], "origins": ["https://app.example.com/path"]},
        {"scopes": ["telemetry"], "origins": ["https://a.example https://b.example"]},
    ):
        assert api.call("POST", "/v1/admin/keys", refused_body)[0] == 400


@pytest.mark.parametrize(
    ("metric", "param"),
    [
        ({"type": "float"}, "metrics.csat"),
        ({"type": "comment", "direction": "maximize"}, "metrics.csat"),
        ({"type": "number", "direction": "maximize"}, "metrics.csat.type"),
        ({"type": "float", "direction": "maximize", "attribution_window_hours": 0}, "metrics.csat.attribution_window_hours"),
    ],
)
def test_a_metric_that_makes_no_sense_is_refused_by_field(api: Api, metric: dict[str, Any], param: str) -> None:
    check_refusal(api.call("PUT", HERE, {"metrics": {"csat": metric}}), 400, "InvalidInput", param)


def test_what_waits_is_listed_with_the_end_of_its_window_until_it_lands(api: Api) -> None:
    csat = {"type": "float", "direction": "maximize", "attribution_window_hours": 2}
    assert api.call("PUT", HERE, {"metrics": {"csat": csat}})[1]["metrics"]["csat"]["level"] == "interaction"
    for number, age in enumerate((1, 3, 0)):
        event = FeedbackSubmitted(skill=SKILL, interaction_id=f"int_{number}", kind="metric", metric="csat", value=1.0)
        early = NOW - timedelta(hours=age)
        api.events.put_new(replace(prepare(event, TENANT, received_at=early), pending=True))
    _, page = api.call("GET", f"{HERE}/pending", query={"limit": "2"})
    assert [(one["interaction_id"], one["orphaned"]) for one in page["data"]] == [("int_1", True), ("int_0", False)]
    assert page["data"][0]["orphaned_at"] == "2026-03-01T11:00:00.000000Z"
    _, rest = api.call("GET", f"{HERE}/pending", query={"cursor": page["next_cursor"]})
    assert [one["interaction_id"] for one in rest["data"]] == ["int_2"]
    for number in range(3):
        landed = InteractionCreated(skill=SKILL, interaction_id=f"int_{number}", inputs={})
        api.events.put_new(prepare(landed, TENANT, received_at=NOW))
    assert api.call("GET", f"{HERE}/pending")[1]["data"] == []


def test_every_mutation_is_described_with_its_body() -> None:
    document = admin_app(lambda: Api().services, caller).openapi()
    bodies = {
        operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        for operations in document["paths"].values()
        for method, operation in operations.items()
        if method in ("post", "put")
    }
    assert bodies == {operation.body.__name__ for operation in list_operations(ROUTERS) if operation.body}
    assert len(bodies) == 14


def test_privacy_settings_are_put_at_a_version_and_the_salt_is_never_shown(api: Api) -> None:
    status, settings = api.call("GET", "/v1/admin/privacy")
    assert (status, settings["version"], settings["actions"]) == (200, 1, {})
    assert "salt" not in settings
    body = {"expected_version": 1, "actions": {"EMAIL_ADDRESS": "hash"}, "allow": ["help@example.com"]}
    status, changed = api.call("PUT", "/v1/admin/privacy", body)
    assert (status, changed["version"], changed["actions"]) == (200, 2, {"EMAIL_ADDRESS": "hash"})
    assert api.call("PUT", "/v1/admin/privacy", body)[1]["idempotent_replay"] is True
    check_refusal(api.call("PUT", "/v1/admin/privacy", {**body, "allow": []}), 409, "Conflict", "expected_version")
    for wrong, param in (
        ({"actions": {"SHOE_SIZE": "mask"}}, "actions.SHOE_SIZE"),
        ({"actions": {"URL": "burn"}}, "actions.URL"),
        ({"custom": [{"name": "MINE", "pattern": "(?=a)"}]}, "custom.0"),
    ):
        check_refusal(api.call("PUT", "/v1/admin/privacy", {"expected_version": 2, **wrong}), 400, "InvalidInput", param)
    status, changed = api.call("PUT", "/v1/admin/privacy", {"expected_version": 2, "actions": {"PERSON": "hash", "UK_NINO": "mask"}})
    assert (status, changed["actions"]) == (200, {"PERSON": "hash", "UK_NINO": "mask"})


# Money


DAILY = {"name": "daily", "measure": "usd", "limit": 0.5, "window": "day"}


def test_budgets_are_put_at_a_version_and_say_what_is_left_of_them(api: Api) -> None:
    current = api.call("GET", "/v1/admin/budgets")[1]
    assert (current["budgets"], current["version"]) == ([], 0)
    rate = {"name": "rate", "scope": "skill", "skill": SKILL, "measure": "requests", "limit": 5, "window": "minute"}
    body = {"expected_version": 0, "budgets": [DAILY, rate]}
    status, answer = api.call("PUT", "/v1/admin/budgets", body)
    assert (status, answer["version"], [budget["name"] for budget in answer["budgets"]]) == (200, 1, ["daily", "rate"])
    assert api.call("PUT", "/v1/admin/budgets", body)[1]["idempotent_replay"] is True
    check_refusal(api.call("PUT", "/v1/admin/budgets", {**body, "budgets": [DAILY]}), 409, "Conflict", "expected_version")

    budgets = api.registry.get(Budgets, TENANT, BUDGETS).record
    due = list_charges(budgets, SpendingRequest(skill=SKILL, key_id="key1"), now=NOW)
    for number in range(2):
        estimate = Amount(tokens=10, nano_usd=200_000_000)
        reservation = reserve(api.counters, TENANT, due, estimate, reservation_id=f"r{number}", now=NOW, lifetime_s=30)
        if number == 0 and reservation is not None:
            settle(api.counters, reservation, Amount(tokens=5, nano_usd=150_000_001), now=NOW)
    _, usage = api.call("GET", "/v1/admin/budgets/usage")
    assert [(one["name"], one["spent"], one["set_aside"], one["resets_at"]) for one in usage["data"]] == [
        ("daily", 0.350000001, 0.2, "2026-03-02T00:00:00.000000Z"),
        ("rate", 2, 0, "2026-03-01T12:01:00.000000Z"),
    ]


@pytest.mark.parametrize(
    ("budgets", "param"),
    [
        ([{**DAILY, "limit": -1}], "budgets.0.limit"),
        ([{**DAILY, "window": "week"}], "budgets.0.window"),
        ([{**DAILY, "scope": "skill"}], "budgets.0"),
        ([{**DAILY, "key_id": "k" * 26}], "budgets.0"),
        ([{**DAILY, "measure": "tokens"}], "budgets.0"),
        ([DAILY, {**DAILY, "limit": 2.0}], None),
        ([DAILY, {**DAILY, "name": "again"}], None),
        ([{**DAILY, "name": f"b{number}", "scope": "skill", "skill": f"s{number}"} for number in range(33)], "budgets"),
    ],
)
def test_a_budget_that_makes_no_sense_is_refused_by_field(api: Api, budgets: list[dict[str, Any]], param: str | None) -> None:
    check_refusal(api.call("PUT", "/v1/admin/budgets", {"expected_version": 0, "budgets": budgets}), 400, "InvalidInput", param)


def test_every_version_of_the_prices_stays(api: Api) -> None:
    assert api.call("GET", "/v1/admin/prices") == (200, {"version": 0, "prices": {}})
    first = {"m-1": {"input": 0.15, "output": 0.6, "cached_input": None}}
    second = {"m-1": {"input": 0.1, "output": 0.4, "cached_input": 0.05}}
    for version, prices in enumerate((first, second), start=1):
        status, answer = api.call("PUT", "/v1/admin/prices", {"expected_version": version - 1, "prices": prices})
        assert (status, answer) == (200, {"version": version, "prices": prices, "idempotent_replay": False})
    replay = api.call("PUT", "/v1/admin/prices", {"expected_version": 1, "prices": second})[1]
    assert (replay["version"], replay["idempotent_replay"]) == (2, True)
    for lost in (0, 1, 7):
        check_refusal(api.call("PUT", "/v1/admin/prices", {"expected_version": lost, "prices": first}), 409, "Conflict", "expected_version")
    assert api.call("GET", "/v1/admin/prices")[1] == {"version": 2, "prices": second}
    assert api.call("GET", "/v1/admin/prices", query={"version": "1"})[1] == {"version": 1, "prices": first}
    check_refusal(api.call("GET", "/v1/admin/prices", query={"version": "9"}), 404, "NotFound", None)
    for wrong in ({"input": -1, "output": 1}, {"input": 0.0000001, "output": 1}, {"input": 1}):
        assert api.call("PUT", "/v1/admin/prices", {"expected_version": 2, "prices": {"m-1": wrong}})[0] == 400


def test_usage_is_told_by_what_it_is_asked_for(api: Api) -> None:
    for number in range(6):
        output = OutputProduced(
            skill=SKILL,
            interaction_id=f"int_{number}",
            output_id=f"out_{number}",
            policy_id=f"{SKILL}@v{1 + number % 2}",
            text="Dear customer",
            usage=Usage(input_tokens=100, output_tokens=10, cached_tokens=40),
            cost_usd=0.1,
            key_id="key1" if number < 4 else None,
        )
        api.usage.count([prepare(output, TENANT, received_at=NOW + timedelta(days=number // 3))])
    whole = {"requests": 6, "input_tokens": 600, "cached_tokens": 240, "output_tokens": 60, "cache_write_tokens": 0, "cost_usd": 0.6}
    days = {"from": "2026-03-01", "to": "2026-03-02"}
    assert api.call("GET", "/v1/admin/usage", query=days) == (200, {"data": [whole]})
    _, usage = api.call("GET", "/v1/admin/usage", query={**days, "group_by": "key,policy"})
    assert [(one["key"], one["policy"], one["requests"]) for one in usage["data"]] == [
        (None, f"{SKILL}@v1", 1),
        (None, f"{SKILL}@v2", 1),
        ("key1", f"{SKILL}@v1", 2),
        ("key1", f"{SKILL}@v2", 2),
    ]
    _, usage = api.call("GET", "/v1/admin/usage", query={**days, "to": "2026-03-01", "group_by": "day"})
    assert [(one["day"], one["requests"]) for one in usage["data"]] == [("2026-03-01", 3)]
    for wrong, param in (
        ({"group_by": "colour"}, "group_by"),
        ({"to": "2026-02-01"}, "to"),
        ({"from": "2025-01-01"}, "to"),
        ({"from": "x"}, "from"),
    ):
        check_refusal(api.call("GET", "/v1/admin/usage", query={**days, **wrong}), 400, "InvalidInput", param)


# Policies compared and put away


OTHER = "/v1/admin/skills/other"


def test_a_diff_names_every_place_that_changed(api: Api) -> None:
    api.call("PUT", OTHER, {})
    first = api.call("POST", f"{OTHER}/policies", {"prompt": {"user": "Reply to {{ email }}"}})[1]["policy_id"]
    changed = {"prompt": {"system": "Be brief.", "user": "Reply to {{ email }}"}, "sampling": {"temperature": 0.7}}
    second = api.call("POST", f"{OTHER}/policies", changed)[1]["policy_id"]
    status, diff = api.call("GET", f"{OTHER}/policies/{second}/diff", query={"against": first})
    assert (status, diff["policy_id"], diff["against"]) == (200, second, first)
    changes = {change["path"]: (change["from"], change["to"]) for change in diff["changes"]}
    assert changes["sampling.temperature"] == (0.0, 0.7)
    assert changes["prompt.nodes.0.template"] == ("Reply to {{ email }}", "Be brief.")
    assert api.call("GET", f"{OTHER}/policies/{first}/diff", query={"against": first})[1]["changes"] == []
    check_refusal(api.call("GET", f"{OTHER}/policies/{first}/diff", query={"against": "x@v9"}), 404, "NotFound", "against")


def test_an_archived_policy_can_be_read_and_not_routed_to(api: Api) -> None:
    api.call("PUT", OTHER, {})
    first, second = (api.call("POST", f"{OTHER}/policies", {"prompt": {"user": text}})[1]["policy_id"] for text in ("a", "b"))
    api.call("PUT", f"{OTHER}/route", {"expected_version": 0, "control": first})
    check_refusal(api.call("PUT", f"{OTHER}/policies/{first}/archived", {"archived": True}), 409, "Conflict", "policy_id")
    body = {"archived": True, "reason": "tried"}
    assert api.call("PUT", f"{OTHER}/policies/{second}/archived", body) == (
        200,
        {"policy_id": second, "archived": True, "idempotent_replay": False},
    )
    assert api.call("PUT", f"{OTHER}/policies/{second}/archived", body)[1]["idempotent_replay"] is True
    assert api.call("GET", f"{OTHER}/policies/{second}")[1]["archived"] is True
    check_refusal(api.call("PUT", f"{OTHER}/route", {"expected_version": 1, "control": second}), 409, "Conflict", "control")
    api.call("PUT", f"{OTHER}/policies/{second}/archived", {"archived": False})
    assert api.call("PUT", f"{OTHER}/route", {"expected_version": 1, "control": second})[0] == 200


MAIL, CARD = "ada@example.com", "4111 1111 1111 1111"


def test_reasons_descriptions_and_metadata_are_kept_without_personal_data(api: Api) -> None:
    body = {"description": f"for {MAIL}", "metadata": {MAIL: [4111111111111111.0]}, "reason": f"{MAIL} paid by {CARD}"}
    status, skill = api.call("PUT", f"{HERE}", body)
    assert (status, skill["description"], skill["metadata"]) == (200, "for <EMAIL_ADDRESS>", {"<EMAIL_ADDRESS>": ["<CREDIT_CARD>"]})
    assert api.registry.records[TENANT, f"SKILL#{SKILL}"].change.reason == "<EMAIL_ADDRESS> paid by <CREDIT_CARD>"
    assert api.call("PUT", f"{HERE}", body)[1]["idempotent_replay"] is True
    api.registry.numbers[TENANT, SKILL, "policy"] = 2
    status, policy = api.call("POST", f"{HERE}/policies", {"prompt": {"system": f"Write to {MAIL}", "user": "{{ email }}"}})
    assert policy["prompt"]["nodes"][0]["template"] == f"Write to {MAIL}"


@pytest.mark.parametrize("depth", [40, 150, 5_000, 40_000])
def test_what_nests_too_deep_for_a_body_is_no_failure_of_ours(api: Api, depth: int) -> None:
    for deep in ("[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth, "[" * depth):
        status, _ = api.call("PUT", f"{HERE}", f'{{"metadata": {{"a": {deep}}}}}')
        assert status in (200, 400)


def test_a_path_with_a_slash_at_its_end_leads_nowhere(api: Api) -> None:
    check_refusal(api.call("GET", "/v1/admin/skills/", headers={"Host": "evil.example"}), 404, "NotFound", None)


def test_a_route_has_as_many_shadows_as_a_decision_can_name(api: Api) -> None:
    arms = [{"policy_id": f"{SKILL}@v{at + 2}", "mode": "shadow", "weight": 1.0} for at in range(33)]
    body = {"expected_version": 0, "control": f"{SKILL}@v1", "arms": arms}
    check_refusal(api.call("PUT", f"{HERE}/route", body), 400, "InvalidInput", "arms")
    live = [{**arm, "mode": "ab", "weight": 0.0, "policy_id": f"{SKILL}@v{at + 2}"} for at, arm in enumerate(arms * 4)]
    check_refusal(api.call("PUT", f"{HERE}/route", {**body, "arms": live}), 400, "InvalidInput", "arms")


def test_a_tail_dropped_from_the_audit_is_seen_by_what_it_leaves_without_an_entry(api: Api) -> None:
    def enter(target: str, version: int) -> None:
        stored = api.registry.records[TENANT, target]
        change = RegistryChange(
            registry_event_id=f"{target}-{version}",
            tenant_id=TENANT,
            at=stored.change.at,
            actor=stored.change.actor,
            action="change",
            target=target,
            before_version=version - 1 or None,
            after_version=version,
            reason=stored.change.reason,
            content_sha256=make_content(stored),
        )
        append_change(change, api.audit)

    def chain() -> Any:
        return api.call("GET", "/v1/admin/audit")[1]["chain"]

    api.registry.records = {place: stored for place, stored in api.registry.records.items() if place == (TENANT, f"SKILL#{SKILL}")}
    target = f"SKILL#{SKILL}"
    enter(target, 1)
    for version in (2, 3):
        api.call("PUT", HERE, {"description": f"edition {version}"})
        enter(target, version)
    api.services = replace(api.services, clock=lambda: NOW + timedelta(hours=1))
    assert chain() == {"intact": True, "length": 3, "fault": None}
    whole = api.audit.chains[TENANT]
    api.audit.chains[TENANT] = whole[:2]
    assert chain() == {"intact": False, "length": None, "fault": f"{target} is not what the audit says: a change of it has no entry"}
    append_change(
        RegistryChange(**{name: getattr(whole[2], name) for name in RegistryChange.model_fields} | {"before_version": 9}), api.audit
    )
    assert "version 9" in chain()["fault"]
    api.audit.chains[TENANT] = whole
    stored = api.registry.records[TENANT, target]
    api.registry.records[TENANT, target] = replace(stored, record=stored.record.model_copy(update={"description": "by hand"}))
    assert chain()["intact"] is False
    del api.registry.records[TENANT, target]
    assert chain()["fault"] == f"{target} is gone, and the audit does not say so"
