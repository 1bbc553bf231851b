"""The Lambda states of the `learning` state machine: begin, decide, fail; each safe to repeat."""

from collections.abc import Mapping
from functools import cache
from typing import Literal

from aws_lambda_powertools.utilities.typing import LambdaContext
from pydantic import BaseModel, JsonValue

from rlaas.adapters.aws.artifact_store import S3Artifacts
from rlaas.adapters.aws.executions import stopped_execution
from rlaas.adapters.aws.registry import DynamoRegistry
from rlaas.clock import utc_now
from rlaas.learning.runs import LearningSettings, Place, RunConductor
from rlaas.learning.start_run import request_run
from rlaas.runtime.environment import LearningEnvironment, environment
from rlaas.runtime.state_machines import Failure, settings_of


class Step(BaseModel):
    """What a state asks. `run_id` is the execution's name unless its input names another."""

    step: Literal["begin", "decide", "fail"]
    tenant_id: str
    skill: str
    run_id: str
    settings: dict[str, JsonValue] = {}
    reason: str = "started as an execution"
    error: Failure | None = None


@cache
def stores() -> tuple[DynamoRegistry, S3Artifacts]:
    """The registry and the artifacts, made on first use."""
    return DynamoRegistry(environment(LearningEnvironment).registry_table), S3Artifacts()


def handler(event: Mapping[str, object], _: LambdaContext) -> dict[str, JsonValue]:
    """Do one step; an execution stopped from outside has failed. Raises: `RlaasError`s by name, for Retry and Catch."""
    stopped = stopped_execution(event)
    if stopped is not None:
        error = Failure(Error="ExecutionStopped", Cause=stopped.reason)
        step = Step.model_validate({"run_id": stopped.name, **stopped.input, "step": "fail", "error": error})
    else:
        step = Step.model_validate(event)
    stage = environment(LearningEnvironment)
    registry, artifacts = stores()
    conductor = RunConductor(
        records=registry,
        artifacts=artifacts,
        clock=utc_now,
        place=Place(
            stage=stage.stage,
            lake=stage.lake_bucket,
            bucket=stage.artifacts_bucket,
            endpoint=stage.endpoint_name,
            base_model=stage.base_model,
        ),
        tenant_id=step.tenant_id,
        skill=step.skill,
        run_id=step.run_id,
    )
    match step.step:
        case "begin":
            request_run(
                registry,
                tenant_id=step.tenant_id,
                skill=step.skill,
                run_id=step.run_id,
                settings=settings_of(LearningSettings, stage.learning_settings, step.settings),
                actor=f"execution:{step.run_id}",
                reason=step.reason,
                clock=utc_now,
            )
            return conductor.begin()
        case "decide":
            run = conductor.decide()
            return {"status": run.status, "reason": run.reason, "release": conductor.to_release()}
        case "fail":
            told = step.error.told if step.error else "no error was given"
            conductor.fail(told)
            return {"status": "failed", "reason": told, "release": conductor.to_release()}
