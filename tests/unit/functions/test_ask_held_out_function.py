"""The function that asks held-out prompts, on moto and a model server: its session, its questions, and the answers it
stores."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import boto3
import pytest
from moto import mock_aws
from pydantic import ValidationError

from functions.ask_held_out import handler as ask_held_out
from rlaas.adapters.aws import lent_sessions
from rlaas.chat import Message
from rlaas.errors import DependencyUnavailable, InvalidInput, NotFound
from rlaas.evaluation.asking import SystemAnswer
from rlaas.preferences.dataset import HeldOutPrompt
from rlaas.runtime.stage import Stage, replace_stage
from tests.fakes.gateway import TimeLeft
from tests.fakes.model_server import ModelServer, serve_model

ROLE = "arn:aws:iam::123456789012:role/asking"
DATASET, ANSWERS = "tenants/acme/mail/datasets/v1/", "tenants/acme/mail/runs/run_1/answers/"
COMPONENTS = {"baseline": "rlaas-test--base", "candidate": "rlaas-test--acme--mail--v1", "sft_only": "rlaas-test--acme--mail--v1--sft"}
EVENT: dict[str, Any] = {
    "tenant_id": "acme",
    "dataset_version": "v1",
    "dataset_uri": f"s3://artifacts/{DATASET}",
    "answers_uri": f"s3://artifacts/{ANSWERS}",
    "endpoint": "rlaas-test",
    "components": COMPONENTS,
    "max_tokens": 48.0,  # as JSONata may have it
}
TOOLS = [{"type": "function", "function": {"name": "find_order"}}]
PROMPTS = [
    HeldOutPrompt(interaction_id=f"int_{row}", prompt=(Message(role="user", content=f"Where is {row}?"),), tools=tools)
    for row, tools in enumerate((None, json.dumps(TOOLS), None))
]


@dataclass
class World:
    s3: Any
    models: ModelServer
    sessions: list[dict[str, Any]] = field(default_factory=list)
    """The requests to STS."""

    def dataset(self, prompts: list[HeldOutPrompt]) -> None:
        lines = "".join(f"{prompt.model_dump_json()}\n" for prompt in prompts)
        self.s3.put_object(Bucket="artifacts", Key=f"{DATASET}test_prompts.jsonl", Body=lines.encode())

    def files(self) -> dict[str, list[SystemAnswer]]:
        """The answers kept, by file."""
        entries = self.s3.list_objects_v2(Bucket="artifacts", Prefix=ANSWERS).get("Contents", [])
        return {
            entry["Key"].removeprefix(ANSWERS): [
                SystemAnswer.model_validate_json(line)
                for line in self.s3.get_object(Bucket="artifacts", Key=entry["Key"])["Body"].read().splitlines()
            ]
            for entry in entries
        }


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    variables = {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "RLAAS_STAGE": "test",
        "ASKING_ROLE_ARN": ROLE,
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with serve_model() as models, mock_aws(), replace_stage(Stage(os.environ)):
        monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", models.url)
        lent_sessions.sts_client.cache_clear()
        world = World(boto3.client("s3"), models)
        world.s3.create_bucket(Bucket="artifacts")
        world.dataset(PROMPTS)
        sts = lent_sessions.sts_client().meta.events
        sts.register("provide-client-params.sts.AssumeRole", lambda params, **_: world.sessions.append(params))
        yield world
    lent_sessions.sts_client.cache_clear()


def call(milliseconds: int = 600_000, **event: Any) -> dict[str, object]:
    return ask_held_out.handler({**EVENT, **event}, TimeLeft(milliseconds))


def test_each_system_is_asked_greedily_and_tools_are_shown_and_not_to_be_called(world: World) -> None:
    assert call() == {"done": True, "answered": 9, "questions": 9}
    assert sorted((request.endpoint, request.component) for request in world.models.requests) == sorted(
        ("rlaas-test", component) for component in COMPONENTS.values() for _ in PROMPTS
    )
    for request in world.models.requests:
        row = int(request.body["messages"][0]["content"][len("Where is ")])
        greedy = {"messages": [{"role": "user", "content": f"Where is {row}?"}], "temperature": 0.0, "max_tokens": 48}
        assert request.body == {**greedy, **({"tools": TOOLS, "tool_choice": "none"} if row == 1 else {})}


def test_answers_are_kept_a_file_a_call_and_a_repeated_call_asks_nothing(world: World) -> None:
    world.models.down.add(COMPONENTS["sft_only"])
    with pytest.raises(DependencyUnavailable, match=r"^the model endpoint answered ModelError$"):
        call()
    first = world.files()["000000.jsonl"]
    assert {answer.system for answer in first} <= {"baseline", "candidate"}
    world.models.down.clear()
    assert call()["done"] is True
    files = world.files()
    assert files.keys() == {"000000.jsonl", "000001.jsonl"}
    answers = [answer for file in files.values() for answer in file]
    assert sorted((answer.row, answer.system) for answer in answers) == sorted((row, system) for row in range(3) for system in COMPONENTS)
    assert {answer.text for answer in answers if (answer.interaction_id, answer.system) == ("int_2", "baseline")} == {
        "rlaas-test--base: Where is 2?"
    }
    count = len(world.models.requests)
    assert call() == {"done": True, "answered": 9, "questions": 9}
    assert len(world.models.requests) == count
    assert world.files().keys() == files.keys()


def test_without_time_for_an_answer_nothing_is_asked(world: World) -> None:
    with pytest.raises(DependencyUnavailable, match="9 held-out answers are missing"):
        call(milliseconds=149_000)
    assert world.models.requests == []


def test_each_call_has_a_session_for_the_one_run(world: World) -> None:
    call()
    call()
    assert len(world.sessions) == 2
    request = world.sessions[0]
    assert (request["RoleArn"], request["RoleSessionName"], request["DurationSeconds"]) == (ROLE, "ask-acme", 900)
    assert len(request["Policy"]) <= 2_048
    models = "arn:aws:sagemaker:us-east-1:123456789012"
    allowed = {
        (action, resource): statement.get("Condition")
        for statement in json.loads(request["Policy"])["Statement"]
        for action in ([statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"])
        for resource in ([statement["Resource"]] if isinstance(statement["Resource"], str) else statement["Resource"])
    }
    assert allowed == {
        ("s3:GetObject", f"arn:aws:s3:::artifacts/{DATASET}*"): None,
        ("s3:GetObject", f"arn:aws:s3:::artifacts/{ANSWERS}*"): None,
        ("s3:PutObject", f"arn:aws:s3:::artifacts/{ANSWERS}*"): None,
        ("s3:ListBucket", "arn:aws:s3:::artifacts"): {"StringEquals": {"s3:prefix": ANSWERS}},
        ("sagemaker:InvokeEndpoint", f"{models}:endpoint/rlaas-test"): None,
        **{("sagemaker:InvokeEndpoint", f"{models}:inference-component/{name}"): None for name in COMPONENTS.values()},
    }


def test_the_longest_names_fit_into_a_sessions_policy(world: World) -> None:
    tenant, skill, run, bucket = "t" * 20, "s" * 28, "r" * 80, "b" * 63
    adapter = f"rlaas-{'s' * 8}--".ljust(63, "a")
    with pytest.raises(DependencyUnavailable, match="NoSuchBucket"):
        call(
            tenant_id=tenant,
            dataset_uri=f"s3://{bucket}/tenants/{tenant}/{skill}/datasets/v99999999/",
            answers_uri=f"s3://{bucket}/tenants/{tenant}/{skill}/runs/{run}/answers/",
            components=dict.fromkeys(COMPONENTS, adapter),
        )
    assert len(world.sessions[0]["Policy"]) <= 2_048


@pytest.mark.parametrize(
    "names",
    [
        {"answers_uri": "s3://artifacts/tenants/acme/mail/runs/*/answers/"},
        {"dataset_uri": "s3://artifacts/tenants/acme/mail/datasets/v?/"},
        {"answers_uri": "s3://artifacts/tenants/${aws:username}/answers/"},
        {"components": {**COMPONENTS, "candidate": "rlaas-test--*--v1"}},
    ],
)
def test_a_name_that_would_match_others_gets_no_session(names: dict[str, Any], world: World) -> None:
    with pytest.raises(InvalidInput):
        call(**names)
    assert world.sessions == []


def test_what_is_no_whole_prefix_gets_no_session(world: World) -> None:
    with pytest.raises(ValidationError, match="dataset_uri"):
        call(dataset_uri="s3://artifacts/tenants/acme/mail/datasets/v1")
    assert world.sessions == []


def test_a_dataset_without_held_out_interactions_says_what_to_do(world: World) -> None:
    world.dataset([])
    with pytest.raises(NotFound, match="dataset v1 has no held-out interactions: collect more threads or raise the run's test_share"):
        call()


def test_a_dataset_of_an_older_image_says_what_to_do(world: World) -> None:
    world.s3.delete_object(Bucket="artifacts", Key=f"{DATASET}test_prompts.jsonl")
    with pytest.raises(NotFound, match=r"no test_prompts.jsonl: push this release"):
        call()


def test_an_error_shows_nobodys_words(world: World) -> None:
    text = "Dear Ms Weber, your sister's diagnosis"
    line = json.dumps({"interaction_id": "int_0", "prompt": [{"role": "user", "content": [text]}]})
    world.s3.put_object(Bucket="artifacts", Key=f"{DATASET}test_prompts.jsonl", Body=line.encode())
    with pytest.raises(ValidationError, match=r"prompt\.0\.content") as failed:
        call()
    assert text not in str(failed.value)
