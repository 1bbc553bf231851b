"""Tenant A's attempts on tenant B's data are refused or find nothing, and nothing of B's changes. Over HTTP on the
laptop cloud.

Both tenants have a skill of one name, so that only the tenant tells their records apart. Everything that B makes
contains MARK, which no answer to A may contain.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from botocore.exceptions import ClientError

from rlaas.adapters.aws.held_out import HeldOutRun, open_session
from rlaas.adapters.aws.registry import DynamoRegistry
from rlaas.chat import Message
from rlaas.errors import RlaasError
from rlaas.evaluation.asking import HeldOutPlan, SystemAnswer
from rlaas.evaluation.comparison import SYSTEMS
from rlaas.learning.runs import LearningRun, LearningSettings
from rlaas.preferences.dataset import TEST_PROMPTS, HeldOutPrompt
from rlaas.tenancy.registry import Change, dataset_key, rollout_key, run_key
from tests.laptop_cloud import SKILL, LaptopCloud, Tenant

MARK = "zanzibar"
OTHER = "other-skill"
"""A skill that only B has."""
HERE = f"v1/admin/skills/{SKILL}"
POLICY = f"{SKILL}@v2"
"""A version that only B has."""


@dataclass(frozen=True)
class World:
    """A, and what B has."""

    a: Tenant
    b: Tenant
    key_id: str
    run_id: str
    rollout_id: str
    decision: dict[str, Any]
    cursors: dict[str, str]

    @property
    def adapter(self) -> str:
        return f"rlaas-local--{self.b.tenant_id}--{SKILL}--v1"


@pytest.fixture(scope="module")
def world(cloud: LaptopCloud) -> World:
    a, b = cloud.tenant(), cloud.tenant()
    a.make_skill()
    b.make_skill()
    for skill in (SKILL, OTHER):
        b.admin("PUT", f"skills/{skill}", {"description": MARK})
        b.admin("POST", f"skills/{skill}/policies", {"prompt": {"user": f"{MARK} {{{{ email }}}}"}})
    b.admin("PUT", f"skills/{OTHER}/route", {"expected_version": 0, "control": f"{OTHER}@v1"})
    b.admin("PUT", "budgets", {"expected_version": 0, "budgets": [{"name": MARK, "measure": "usd", "limit": 9.0, "window": "day"}]})
    cloud.client("secretsmanager").create_secret(
        Name=f"rlaas/local/{b.tenant_id}/{MARK}", SecretString=json.dumps({"api_key": MARK, "hosts": "127.0.0.1"})
    )
    key_id = b.admin("POST", "keys", {"scopes": ["infer"], "reason": MARK})["key_id"]
    registry = DynamoRegistry("rlaas-local-registry", cloud.client("dynamodb"))
    now = datetime.now(UTC)
    run = LearningRun(
        run_id="run_b", tenant_id=b.tenant_id, skill=SKILL, settings=LearningSettings(), baseline=POLICY, reason=MARK, created_at=now
    )
    for place in (run_key(SKILL, "run_b"), rollout_key(SKILL, "rol_b"), dataset_key(SKILL, 1)):
        registry.put(b.tenant_id, place, run, Change(actor="test", reason=MARK, at=now))
    decision = b.post("v1/decide", {"skill": SKILL, "inputs": {"name": MARK, "email": MARK}, "interaction_id": "shared"}).json()
    output = {**about(decision), "policy_id": decision["policy_id"], "text": MARK, "decision_token": decision["decision_token"]}
    assert b.post("v1/interaction.output", output).status_code == 201
    cursors = {path: b.admin("GET", f"{path}?limit=1")["next_cursor"] for path in ("skills", "keys", f"skills/{SKILL}/policies", "audit")}
    return World(a, b, key_id, "run_b", "rol_b", decision, cursors)


def about(decision: dict[str, Any]) -> dict[str, Any]:
    return {"skill": SKILL, "interaction_id": decision["interaction_id"], "output_id": decision["output_id"]}


def items_of(cloud: LaptopCloud, tenant_id: str) -> list[str]:
    """Everything of the tenant in the registry and among the events."""
    items = []
    for table in ("registry", "events"):
        for page in cloud.client("dynamodb").get_paginator("scan").paginate(TableName=f"rlaas-local-{table}", ConsistentRead=True):
            items += [json.dumps(item, sort_keys=True, default=str) for item in page["Items"] if tenant_id in json.dumps(item, default=str)]
    return sorted(items)


Attempt = tuple[str, str, object]
"""The documented operation, the path with its query, the body."""


def attempts(world: World) -> list[Attempt]:
    """A's attempts to read, change, use, delete or refer to what is B's."""
    b, prompt, today = world.b.tenant_id, {"user": "{{ email }}"}, datetime.now(UTC).date()
    request = {"skill": SKILL, "inputs": {"name": "?", "email": "?"}}
    admin: list[Attempt] = [
        ("GET tenants", "tenants", None),
        ("GET tenants/{tenant_id}/ceilings", f"tenants/{b}/ceilings", None),
        ("PUT tenants/{tenant_id}/ceilings", f"tenants/{b}/ceilings", {"expected_version": 0, "requests_per_second": 1}),
        ("POST tenants", "tenants", {"tenant_id": b}),
        ("POST redrives", "redrives", {}),
        ("POST keys", "keys", {"scopes": ["admin"], "tenant_id": b}),
        ("DELETE keys/{key_id}", f"keys/{world.key_id}", None),
        ("GET skills/{skill}", f"skills/{OTHER}", None),
        ("POST skills/{skill}/policies", f"skills/{OTHER}/policies", {"prompt": prompt}),
        *(
            ("POST skills/{skill}/policies", f"skills/{SKILL}/policies", {"prompt": prompt, "backend": backend})
            for backend in (
                {"endpoint": "rlaas-local", "component": world.adapter},
                {"kind": "openai", "model": "m", "secret": MARK, "base_url": "http://127.0.0.1:9/v1"},
                {"kind": "openai", "model": "m", "secret": f"../{b}/{MARK}", "base_url": "http://127.0.0.1:9/v1"},
            )
        ),
        ("GET skills/{skill}/policies", f"skills/{OTHER}/policies", None),
        ("GET skills/{skill}/policies", f"skills/{SKILL}%23..%23..%23T%23{b}/policies", None),
        ("GET skills/{skill}/policies/{policy_id}", f"skills/{SKILL}/policies/{POLICY}", None),
        ("GET skills/{skill}/policies/{policy_id}/diff", f"skills/{SKILL}/policies/{SKILL}@v1/diff?against={POLICY}", None),
        ("PUT skills/{skill}/policies/{policy_id}/archived", f"skills/{SKILL}/policies/{POLICY}/archived", {"archived": True}),
        ("GET skills/{skill}/route", f"skills/{OTHER}/route", None),
        ("PUT skills/{skill}/route", f"skills/{OTHER}/route", {"expected_version": 1, "control": f"{OTHER}@v1"}),
        ("PUT skills/{skill}/route", f"skills/{SKILL}/route", {"expected_version": 1, "control": POLICY}),
        (
            "PUT skills/{skill}/route",
            f"skills/{SKILL}/route",
            {
                "expected_version": 1,
                "control": f"{SKILL}@v1",
                "arms": [{"policy_id": POLICY, "mode": "bandit", "weight": 0.5}],
                "bandit": {},
            },
        ),
        ("POST skills/{skill}/rollback", f"skills/{OTHER}/rollback", {"reason": "theirs"}),
        ("POST skills/{skill}/learning-runs", f"skills/{OTHER}/learning-runs", {}),
        ("GET skills/{skill}/learning-runs", f"skills/{OTHER}/learning-runs", None),
        ("GET skills/{skill}/learning-runs/{run_id}", f"skills/{SKILL}/learning-runs/{world.run_id}", None),
        ("POST skills/{skill}/rollouts", f"skills/{SKILL}/rollouts", {"policy_id": POLICY}),
        ("GET skills/{skill}/rollouts", f"skills/{OTHER}/rollouts", None),
        ("GET skills/{skill}/rollouts/{rollout_id}", f"skills/{SKILL}/rollouts/{world.rollout_id}", None),
        ("GET skills/{skill}/rollouts/{rollout_id}/evidence", f"skills/{SKILL}/rollouts/{world.rollout_id}/evidence", None),
        ("GET skills/{skill}/datasets", f"skills/{SKILL}/datasets", None),
        ("GET skills/{skill}/pending", f"skills/{OTHER}/pending", None),
        ("GET skills/{skill}/rewards", f"skills/{OTHER}/rewards?date={today}", None),
        ("GET skills/{skill}/rewards/report", f"skills/{OTHER}/rewards/report?from={today}&to={today}", None),
    ]
    gateway: list[Attempt] = [
        ("GET /v1/models/{model}", f"v1/models/rlaas::{OTHER}", None),
        ("GET /v1/models/{model}", f"v1/models/rlaas::{POLICY}", None),
        ("POST /ofrep/v1/evaluate/flags/{key}", f"ofrep/v1/evaluate/flags/{OTHER}", {"context": {"targetingKey": "u"}}),
        ("POST /v1/infer", "v1/infer", {**request, "skill": OTHER}),
        ("POST /v1/infer", "v1/infer", {**request, "policy_id": POLICY}),
        ("POST /v1/decide", "v1/decide", {**request, "policy_id": POLICY}),
        (
            "POST /v1/chat/completions",
            "v1/chat/completions",
            {"model": f"rlaas::{OTHER}", "messages": [{"role": "user", "content": "?"}]},
        ),
        (
            "POST /v1/messages",
            "v1/messages",
            {"model": f"rlaas::{OTHER}", "max_tokens": 8, "messages": [{"role": "user", "content": "?"}]},
        ),
        (
            "POST /v1/responses",
            "v1/responses",
            {"model": f"rlaas::{SKILL}", "input": "?", "previous_response_id": world.decision["output_id"]},
        ),
        ("POST /v1/feedback.submit", "v1/feedback.submit", {**about(world.decision), "skill": OTHER, "kind": "action", "action": "sent"}),
        (
            "POST /v1/interaction.output",
            "v1/interaction.output",
            {
                **about(world.decision),
                "policy_id": world.decision["policy_id"],
                "text": "mine",
                "decision_token": world.decision["decision_token"],
            },
        ),
    ]
    return gateway + [(operation.replace(" ", " /v1/admin/", 1), f"v1/admin/{path}", body) for operation, path, body in admin]


def finds_nothing(answer: httpx.Response) -> bool:
    """Whether A was refused, or got a list without anything in it."""
    return answer.status_code in (400, 403, 404) or (answer.status_code == 200 and answer.json().get("data") == [])


def test_every_operation_that_takes_an_id_is_tried() -> None:
    document = json.loads((Path(__file__).parents[2] / "docs/reference/openapi.json").read_text())
    with_ids = {f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods if "{" in path}
    nobody = Tenant("a", httpx.Client())
    operations = {attempt[0] for attempt in attempts(World(nobody, nobody, "", "", "", dict.fromkeys(DECISION_FIELDS, ""), {}))}
    assert with_ids - operations == {"PUT /v1/admin/skills/{skill}"}  # makes A a skill of that name: below


DECISION_FIELDS = ("interaction_id", "output_id", "policy_id", "decision_token")


def test_a_tenant_gets_at_nothing_of_anothers(cloud: LaptopCloud, world: World) -> None:
    before = items_of(cloud, world.b.tenant_id)
    assert any(MARK in item for item in before)
    wrong = []
    for operation, path, body in attempts(world):
        method = operation.split(" ")[0]
        answer = world.a.http.request(method, path, json=body)
        if not finds_nothing(answer) or (MARK in answer.text and MARK not in json.dumps(body)):
            wrong.append(f"{method} {path}: {answer.status_code} {answer.text[:200]}")
    assert wrong == []
    assert items_of(cloud, world.b.tenant_id) == before


def test_the_names_and_ids_of_another_are_ones_own_in_ones_own_tenant(cloud: LaptopCloud, world: World) -> None:
    before = items_of(cloud, world.b.tenant_id)
    skill = world.a.admin("PUT", f"skills/{OTHER}", {})
    assert (skill["tenant_id"], skill["description"]) == (world.a.tenant_id, "")
    same = {"skill": SKILL, "inputs": {"name": MARK, "email": MARK}, "interaction_id": world.decision["interaction_id"]}
    decision = world.a.post("v1/decide", same).json()
    assert decision["idempotent_replay"] is False
    answer = world.a.post("v1/feedback.submit", {**about(world.decision), "kind": "action", "action": "sent"})
    assert answer.status_code in (201, 202)
    assert items_of(cloud, world.b.tenant_id) == before


def test_a_cursor_leads_to_nothing_of_the_tenant_that_it_was_given_to(world: World) -> None:
    for path, cursor in world.cursors.items():
        answer = world.a.http.get(f"v1/admin/{path}", params={"cursor": cursor, "limit": 1000})
        assert answer.status_code in (200, 400)
        assert MARK not in answer.text
        assert world.b.tenant_id not in answer.text


def test_what_is_told_of_a_whole_tenant_is_told_of_ones_own(world: World) -> None:
    today = datetime.now(UTC).date()
    for path in (
        "skills",
        "keys",
        "budgets",
        "budgets/usage",
        "privacy",
        "prices",
        f"usage?from={today}&to={today}&group_by=skill",
        "audit",
    ):
        answer = world.a.http.get(f"v1/admin/{path}")
        assert answer.status_code == 200, answer.text
        assert MARK not in answer.text
        assert world.b.tenant_id not in answer.text


def test_a_page_gives_no_feedback_by_the_token_of_another_tenants_answer(cloud: LaptopCloud, world: World) -> None:
    before = items_of(cloud, world.b.tenant_id)
    page = world.a.admin("POST", "keys", {"scopes": ["telemetry"], "origins": ["https://a.example"]})
    body = {"skill": SKILL, "feedback_token": world.decision["feedback_token"], "kind": "action", "action": "sent"}
    with cloud.connect(page["api_key"]) as http:
        answer = http.post("v1/feedback.submit", json=body, headers={"Origin": "https://a.example"})
    assert answer.status_code == 403, answer.text
    assert items_of(cloud, world.b.tenant_id) == before


def test_a_grant_does_not_reach_another_tenants_adapter(world: World) -> None:
    decision = world.a.post("v1/decide", {"skill": SKILL, "inputs": {"name": "?", "email": "?"}}).json()
    grant = decision["grant"]
    chat = {"model": "", "messages": [{"role": "user", "content": "?"}], "max_tokens": 1}
    own = f"{grant['base_url']}/chat/completions"
    theirs = re.sub(r"/inference-components/[^/]+/", f"/inference-components/{world.adapter}/", own)
    assert theirs != own
    headers = {"Authorization": f"Bearer {grant['api_key']}"}
    assert [httpx.post(url, json=chat, headers=headers, timeout=60).status_code for url in (own, theirs)] == [200, 403]


def test_the_session_for_one_run_reaches_neither_models_nor_files_of_another_tenant(
    cloud: LaptopCloud, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The session that ask_held_out lends itself, by its deployed role."""
    role = cloud.client("lambda").get_function_configuration(FunctionName="rlaas-local-ask_held_out")["Environment"]["Variables"]
    s3 = cloud.client("s3")
    [bucket] = [entry["Name"] for entry in s3.list_buckets()["Buckets"] if "-artifacts-" in entry["Name"]]

    def files(tenant: Tenant) -> list[str]:
        """The prefixes of a dataset and of a run's answers."""
        return [f"tenants/{tenant.tenant_id}/{SKILL}/{below}/" for below in ("datasets/v1", "runs/run_1/answers")]

    for tenant in (world.a, world.b):
        dataset, answers = files(tenant)
        held_out_prompt = HeldOutPrompt(interaction_id="int_1", prompt=(Message(role="user", content=MARK),))
        s3.put_object(Bucket=bucket, Key=f"{dataset}{TEST_PROMPTS}", Body=held_out_prompt.model_dump_json().encode())
        s3.put_object(Bucket=bucket, Key=f"{answers}000000.jsonl", Body=b"")
    dataset, answers = files(world.a)
    own = HeldOutPlan(
        tenant_id=world.a.tenant_id,
        dataset_version="v1",
        dataset_uri=f"s3://{bucket}/{dataset}",
        answers_uri=f"s3://{bucket}/{answers}",
        endpoint="rlaas-local",
        components=dict.fromkeys(SYSTEMS, "rlaas-local--base"),
        max_tokens=1,
    )
    monkeypatch.setenv("AWS_ENDPOINT_URL", cloud.endpoint)
    session = open_session(own, role["ASKING_ROLE_ARN"], sts=cloud.client("sts"))
    mine = HeldOutRun(own, session)
    [prompt] = mine.prompts()
    assert isinstance(mine.ask("baseline", prompt), str)
    mine.keep([SystemAnswer(row=0, interaction_id="int_1", system="baseline", text="x")])
    assert mine.list_answered() == {(0, "baseline")}

    dataset, answers = files(world.b)
    theirs = HeldOutRun(
        own.model_copy(
            update={
                "dataset_uri": f"s3://{bucket}/{dataset}",
                "answers_uri": f"s3://{bucket}/{answers}",
                "components": dict.fromkeys(SYSTEMS, world.adapter),
            }
        ),
        session,
    )
    calls: tuple[Callable[[], object], ...] = (
        theirs.prompts,
        theirs.list_answered,
        lambda: theirs.keep([]),
        lambda: theirs.ask("candidate", prompt),
    )
    for attempt in calls:
        with pytest.raises(RlaasError, match=r"AccessDenied|has no test_prompts"):
            attempt()
    with pytest.raises(ClientError, match="AccessDenied"):
        session.client("s3").put_object(Bucket=bucket, Key=f"{answers}000000.jsonl", Body=b"mine")
    with pytest.raises(ClientError, match="AccessDenied"):
        session.client("s3").put_object(Bucket=bucket, Key=f"{files(world.a)[0]}{TEST_PROMPTS}", Body=b"")
