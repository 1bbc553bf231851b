"""The state machines' functions on moto: what Step Functions passes in and gets back."""

from __future__ import annotations

import json
from typing import Any

import boto3
import pytest

from functions.learning_steps import handler as learning_steps
from functions.rollout_steps import handler as rollout_steps
from rlaas.adapters.aws.executions import StateMachine
from rlaas.errors import Conflict, InvalidInput, NotFound
from rlaas.learning.runs import LearningRun
from rlaas.rollout.steps import Rollout
from rlaas.runtime.state_machines import Failure
from rlaas.skills.skill import Skill
from rlaas.tenancy.registry import rollout_key, run_key, skill_key
from tests.fakes.gateway import make_lambda_context
from tests.fakes.worlds import CHANGE, NOW, SKILL, TENANT, make_policy, make_route
from tests.unit.functions.conftest import Stage

WHO = {"tenant_id": TENANT, "skill": SKILL}


@pytest.fixture(autouse=True)
def settings(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROLLOUT_SETTINGS", json.dumps({"units_a_day": 5_000, "min_samples": 7}))
    monkeypatch.setenv("LEARNING_SETTINGS", json.dumps({"dpo_steps": 3}))
    for name, value in {
        "ARTIFACTS_BUCKET": "artifacts",
        "LAKE_BUCKET": "lake",
        "ENDPOINT_NAME": "rlaas-test",
        "BASE_MODEL": "tiny",
    }.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def ready(stage: Stage) -> Stage:
    """A stage with the skill, two policies, and a route of the first alone."""
    stage.registry.put(TENANT, skill_key(SKILL), Skill(tenant_id=TENANT, skill=SKILL, created_at=NOW), CHANGE)
    for version in (1, 2):
        stage.registry.put_policy(make_policy(version), CHANGE)
    stage.registry.write_route(make_route(), expected_version=0)
    return stage


def step(name: str, **more: Any) -> dict[str, Any]:
    return dict(rollout_steps.handler({"step": name, "rollout_id": "rol_1", **WHO, **more}, make_lambda_context()))


def learning_step(name: str, **more: Any) -> dict[str, Any]:
    return dict(learning_steps.handler({"step": name, "run_id": "run_1", **WHO, **more}, make_lambda_context()))


def stopped(name: str, payload: dict[str, Any]) -> dict[str, Any]:
    """As Step Functions sends it when an execution is stopped by hand."""
    detail = {"name": name, "status": "ABORTED", "input": json.dumps(payload), "error": "Stopped", "cause": "by an operator"}
    return {"source": "aws.states", "detail-type": "Step Functions Execution Status Change", "detail": detail}


def test_a_rollout_begins_with_the_stages_settings_under_its_own(ready: Stage) -> None:
    settings = {"steps": [{"weight": 0.2}], "poll_seconds": 1_000}
    answer = step("begin", policy_id=f"{SKILL}@v2", settings=settings)
    assert answer == {"rollout_id": "rol_1", "steps": 1, "poll_seconds": 1_000}
    rollout = ready.registry.get(Rollout, TENANT, rollout_key(SKILL, "rol_1")).record
    assert (rollout.status, rollout.settings.units_a_day, rollout.settings.min_samples) == ("running", 5_000, 7)
    (alarm,) = boto3.client("cloudwatch").describe_alarms()["MetricAlarms"]
    assert alarm["AlarmName"] == f"rlaas-test-guard--{TENANT}--{SKILL}"


def test_a_rollout_walks_its_states_and_is_superseded_by_its_guard(ready: Stage) -> None:
    step("begin", policy_id=f"{SKILL}@v2")
    assert step("set_weight", index=0) == {"state": "running"}
    assert step("analyse", index=0) == {"outcome": "continue"}
    ready.registry.roll_back(TENANT, SKILL, CHANGE, rollout_id="rol_1")
    assert step("analyse", index=0) == {"outcome": "superseded"}
    assert step("finish") == {"status": "rolled_back", "reason": "set up"}
    assert boto3.client("cloudwatch").describe_alarms()["MetricAlarms"] == []


def test_what_a_rollout_has_seen_is_made_again_on_demand(ready: Stage) -> None:
    step("begin", policy_id=f"{SKILL}@v2")
    step("set_weight", index=0)
    assert [step("rebuild"), step("rebuild")] == [{"version": 1}, {"version": 2}]
    assert step("analyse", index=0) == {"outcome": "continue"}


def test_errors_reach_the_state_machine_under_their_own_names(ready: Stage) -> None:
    with pytest.raises(NotFound):
        step("begin", policy_id=f"{SKILL}@v9")
    with pytest.raises(InvalidInput):
        step("begin", policy_id=f"{SKILL}@v2", settings={"alpha": 2})
    step("begin", policy_id=f"{SKILL}@v2")
    with pytest.raises(Conflict):
        step("begin", policy_id=f"{SKILL}@v2", settings={"alpha": 0.01})


@pytest.mark.parametrize("by_hand", [True, False], ids=["stopped by hand", "caught"])
def test_a_rollout_that_fails_or_is_stopped_goes_back_and_says_why(ready: Stage, by_hand: bool) -> None:
    step("begin", policy_id=f"{SKILL}@v2")
    step("set_weight", index=0)
    if by_hand:
        rollout_steps.handler(stopped("rol_1", WHO), make_lambda_context())
    else:
        cause = json.dumps({"errorType": "KeyError", "errorMessage": "nothing there"})
        assert step("abort", error={"Error": "KeyError", "Cause": cause}) == {"status": "failed"}
    rollout = ready.registry.get(Rollout, TENANT, rollout_key(SKILL, "rol_1")).record
    reason = "ExecutionStopped: the execution ended as ABORTED Stopped: by an operator" if by_hand else "KeyError: nothing there"
    assert (rollout.status, rollout.reason) == ("failed", reason)
    assert ready.registry.get_route(TENANT, SKILL).arms == ()


@pytest.mark.parametrize(
    ("job", "reason"),
    [
        ({"TrainingJobStatus": "Failed", "FailureReason": "AlgorithmError: out of memory"}, "AlgorithmError: out of memory"),
        (
            {"ProcessingJobStatus": "Failed", "FailureReason": "AlgorithmError: , exit code: 1", "ExitMessage": "3 pairs, 8 are needed"},
            "3 pairs, 8 are needed",
        ),
        (
            {"TrainingJobName": "j2", "TrainingJobStatus": "Stopped", "SecondaryStatus": "MaxRuntimeExceeded", "RoleArn": "arn:aws:iam::1"},
            "the job j2 ended as MaxRuntimeExceeded",
        ),
        ({"ProcessingJobName": "j1", "ProcessingJobStatus": "Stopped", "RoleArn": "arn:aws:iam::1"}, "the job j1 ended as Stopped"),
        (
            {"QueryExecution": {"Query": "UNLOAD ...", "Status": {"State": "FAILED", "StateChangeReason": "TABLE_NOT_FOUND: line 3:8"}}},
            "TABLE_NOT_FOUND: line 3:8",
        ),
        ({"QueryExecution": {"Status": {"State": "CANCELLED"}}}, ""),
        ({"Anything": "else"}, ""),
    ],
    ids=["training", "processing", "out of time", "stopped", "query", "query without words", "no words"],
)
def test_a_learning_run_begins_with_a_plan_and_fails_with_its_jobs_reason(ready: Stage, job: dict[str, Any], reason: str) -> None:
    plan = learning_step("begin", settings={"sft_steps": 2})
    assert (plan["train"]["hyperparameters"]["sft_steps"], plan["train"]["hyperparameters"]["dpo_steps"]) == ("2", "3")
    answer = learning_step("fail", error={"Error": "States.TaskFailed", "Cause": json.dumps(job)})
    assert answer["reason"] == f"States.TaskFailed: {reason}".removesuffix(": ")
    assert answer["release"] == [adapter["name"] for adapter in plan["adapters"]]
    run = ready.registry.get(LearningRun, TENANT, run_key(SKILL, "run_1")).record
    assert (run.status, run.reason) == ("failed", answer["reason"])


def test_a_learning_run_stopped_by_hand_has_failed(ready: Stage) -> None:
    learning_step("begin")
    learning_steps.handler(stopped("run_1", WHO), make_lambda_context())
    assert ready.registry.get(LearningRun, TENANT, run_key(SKILL, "run_1")).record.status == "failed"


def test_a_decision_without_a_report_is_not_found(ready: Stage) -> None:
    boto3.client("s3").create_bucket(Bucket="artifacts")
    learning_step("begin")
    with pytest.raises(NotFound, match="promotion_report"):
        learning_step("decide")


@pytest.mark.parametrize(
    ("cause", "message"),
    [("", "Boom"), ("plain words", "Boom: plain words"), ("[1]", "Boom: [1]"), ('{"errorMessage": "inside"}', "Boom: inside")],
)
def test_a_failure_is_told_by_what_its_cause_holds(cause: str, message: str) -> None:
    assert Failure(Error="Boom", Cause=cause).message == message


def test_an_execution_is_started_once_under_its_name(stage: Stage) -> None:
    states = boto3.client("stepfunctions")
    definition = json.dumps({"StartAt": "Done", "States": {"Done": {"Type": "Succeed"}}})
    arn = states.create_state_machine(name="m", definition=definition, roleArn="arn:aws:iam::123456789012:role/r")["stateMachineArn"]
    machine = StateMachine(arn, states)
    machine.start("run_1", {"tenant_id": TENANT})
    machine.start("run_1", {"tenant_id": TENANT, "other": True})
    assert [execution["name"] for execution in states.list_executions(stateMachineArn=arn)["executions"]] == ["run_1"]
