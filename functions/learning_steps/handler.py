"""The Lambda states of the `learning` state machine: begin, decide, fail; each safe to repeat."""

from collections.abc import Mapping
from typing import Literal

from aws_lambda_powertools.utilities.typing import LambdaContext
from pydantic import BaseModel, JsonValue

from rlaas.adapters.aws.executions import read_stopped_execution
from rlaas.clock import utc_now
from rlaas.learning.runs import LearningSettings, RunConductor, RunSite
from rlaas.learning.start_run import request_run
from rlaas.runtime.environment import LearningEnvironment
from rlaas.runtime.stage import Stage, current_stage
from rlaas.runtime.state_machines import Failure, merge_settings


class LearningInput(BaseModel):
    """The input of a state. `run_id` is the execution's name unless its input names another."""

    step: Literal["begin", "decide", "fail"]
    tenant_id: str
    skill: str
    run_id: str
    settings: dict[str, JsonValue] = {}
    reason: str = "started as an execution"
    error: Failure | None = None


def read_step(event: Mapping[str, object]) -> LearningInput:
    """The step in `event`; for an execution that was stopped from outside, the step `fail`."""
    stopped = read_stopped_execution(event)
    if stopped is None:
        return LearningInput.model_validate(event)
    error = Failure(Error="ExecutionStopped", Cause=stopped.reason)
    return LearningInput.model_validate({"run_id": stopped.name, **stopped.input, "step": "fail", "error": error})


def handler(event: Mapping[str, object], _: LambdaContext) -> dict[str, JsonValue]:
    """Do one step. Raises: `RlaasError`s by name, for Retry and Catch."""
    stage, step = current_stage(), read_step(event)
    conductor = RunConductor(stage.registry, stage.artifacts, utc_now, find_site(stage), step.tenant_id, step.skill, step.run_id)
    match step.step:
        case "begin":
            request_run(
                stage.registry,
                tenant_id=step.tenant_id,
                skill=step.skill,
                run_id=step.run_id,
                settings=merge_settings(LearningSettings, stage.settings(LearningEnvironment).learning_settings, step.settings),
                actor=f"execution:{step.run_id}",
                reason=step.reason,
                clock=utc_now,
            )
            return conductor.begin()
        case "decide":
            run = conductor.decide()
            return {"status": run.status, "reason": run.reason, "release": conductor.list_unneeded_adapters()}
        case "fail":
            reason = step.error.message if step.error else "no error was given"
            conductor.fail(reason)
            return {"status": "failed", "reason": reason, "release": conductor.list_unneeded_adapters()}


def find_site(stage: Stage) -> RunSite:
    """Where the stage's learning runs read and write."""
    settings = stage.settings(LearningEnvironment)
    return RunSite(
        stage=stage.name,
        lake=settings.lake_bucket,
        bucket=settings.artifacts_bucket,
        endpoint=settings.endpoint_name,
        base_model=settings.base_model,
    )
