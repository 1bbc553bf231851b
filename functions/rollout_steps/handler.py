"""The states of the `rollout` state machine: one step per call, each safe to repeat."""

from collections.abc import Mapping
from typing import Literal

from aws_lambda_powertools.utilities.typing import LambdaContext
from pydantic import BaseModel, JsonValue

from rlaas.adapters.aws.executions import read_stopped_execution
from rlaas.clock import utc_now
from rlaas.rollout.conduct import Conductor
from rlaas.rollout.request import request_rollout
from rlaas.rollout.steps import RolloutSettings
from rlaas.runtime.environment import RolloutEnvironment
from rlaas.runtime.harm_metric import emit_harm
from rlaas.runtime.stage import Stage, current_stage
from rlaas.runtime.state_machines import Failure, merge_settings


class RolloutInput(BaseModel):
    """The input of a state. `rollout_id` is the execution's name unless its input names another."""

    step: Literal["begin", "set_weight", "analyse", "promote", "roll_back", "finish", "abort", "rebuild"]
    tenant_id: str
    skill: str
    rollout_id: str
    policy_id: str = ""
    settings: dict[str, JsonValue] = {}
    reason: str = "started as an execution"
    index: int = 0
    error: Failure | None = None


def read_step(event: Mapping[str, object]) -> RolloutInput:
    """The step in `event`; for an execution that was stopped from outside, the step `abort`."""
    stopped = read_stopped_execution(event)
    if stopped is None:
        return RolloutInput.model_validate(event)
    error = Failure(Error="ExecutionStopped", Cause=stopped.reason)
    return RolloutInput.model_validate({"rollout_id": stopped.name, **stopped.input, "step": "abort", "error": error})


def handler(event: Mapping[str, object], _: LambdaContext) -> dict[str, JsonValue]:
    """Do one step. Raises: `RlaasError`s by name, for Retry and Catch."""
    stage, step = current_stage(), read_step(event)
    conductor = Conductor(stage.registry, stage.events, stage.trials, stage.guards, utc_now, step.tenant_id, step.skill, step.rollout_id)
    match step.step:
        case "begin":
            return begin(step, conductor, stage)
        case "set_weight":
            return {"state": conductor.set_weight(step.index)}
        case "analyse":
            outcome, state = conductor.analyse(step.index)
            if state is not None:
                emit_harm(state, conductor.read_rollout().candidate, stage=stage.name, at=utc_now())
            return {"outcome": outcome}
        case "promote":
            return {"state": conductor.promote()}
        case "roll_back":
            return {"state": conductor.roll_back()}
        case "finish":
            rollout = conductor.finish()
            return {"status": rollout.status, "reason": rollout.reason}
        case "rebuild":  # in no state machine: operators invoke it
            return {"version": conductor.watch_anew().version}
        case "abort":
            aborted_rollout = conductor.abort(step.error.message if step.error else "no error was given")
            return {"status": aborted_rollout.status if aborted_rollout else "failed"}


def begin(step: RolloutInput, conductor: Conductor, stage: Stage) -> dict[str, JsonValue]:
    """Record the rollout and start it. Raises: InvalidInput, Conflict, NotFound, DependencyUnavailable."""
    request_rollout(
        stage.registry,
        stage.events,
        tenant_id=step.tenant_id,
        skill=step.skill,
        rollout_id=step.rollout_id,
        candidate=step.policy_id,
        settings=merge_settings(RolloutSettings, stage.settings(RolloutEnvironment).rollout_settings, step.settings),
        actor=f"execution:{step.rollout_id}",
        reason=step.reason,
        now=utc_now(),
    )
    settings = conductor.begin().settings
    return {"rollout_id": step.rollout_id, "steps": len(settings.planned), "poll_seconds": settings.poll_seconds}
