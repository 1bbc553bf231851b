"""The states of the `rollout` state machine: one step per call, each safe to repeat."""

from collections.abc import Mapping
from functools import cache
from typing import Literal

from aws_lambda_powertools.utilities.typing import LambdaContext
from pydantic import BaseModel, JsonValue

from rlaas.adapters.aws.events import DynamoEventStore
from rlaas.adapters.aws.executions import stopped_execution
from rlaas.adapters.aws.metrics_alarms import CloudWatchGuards
from rlaas.adapters.aws.registry import DynamoRegistry
from rlaas.adapters.aws.trials import DynamoTrials
from rlaas.clock import utc_now
from rlaas.rollout.conduct import Conductor
from rlaas.rollout.request import request_rollout
from rlaas.rollout.steps import RolloutSettings
from rlaas.runtime.environment import RolloutEnvironment, environment
from rlaas.runtime.harm_metric import emit_harm
from rlaas.runtime.state_machines import Failure, settings_of


class Step(BaseModel):
    """What a state asks. `rollout_id` is the execution's name unless its input names another."""

    step: Literal["begin", "set_weight", "analyse", "promote", "roll_back", "finish", "abort", "rebuild"]
    tenant_id: str
    skill: str
    rollout_id: str
    policy_id: str = ""
    settings: dict[str, JsonValue] = {}
    reason: str = "started as an execution"
    index: int = 0
    error: Failure | None = None


@cache
def stores() -> tuple[DynamoRegistry, DynamoEventStore, DynamoTrials, CloudWatchGuards]:
    """The registry, the events, the trials and the guards, made on first use."""
    settings = environment(RolloutEnvironment)
    events = DynamoEventStore(settings.events_table, ttl_days=settings.event_ttl_days)
    trials = DynamoTrials(settings.counters_table)
    return DynamoRegistry(settings.registry_table), events, trials, CloudWatchGuards(settings.stage)


def handler(event: Mapping[str, object], _: LambdaContext) -> dict[str, JsonValue]:
    """Do one step; an execution stopped from outside is aborted. Raises: `RlaasError`s by name, for Retry and Catch."""
    stopped = stopped_execution(event)
    if stopped is not None:
        error = Failure(Error="ExecutionStopped", Cause=stopped.reason)
        step = Step.model_validate({"rollout_id": stopped.name, **stopped.input, "step": "abort", "error": error})
    else:
        step = Step.model_validate(event)
    registry, events, trials, guards = stores()
    conductor = Conductor(
        records=registry,
        events=events,
        trials=trials,
        guards=guards,
        clock=utc_now,
        tenant_id=step.tenant_id,
        skill=step.skill,
        rollout_id=step.rollout_id,
    )
    match step.step:
        case "begin":
            request_rollout(
                registry,
                events,
                tenant_id=step.tenant_id,
                skill=step.skill,
                rollout_id=step.rollout_id,
                candidate=step.policy_id,
                settings=settings_of(RolloutSettings, environment(RolloutEnvironment).rollout_settings, step.settings),
                actor=f"execution:{step.rollout_id}",
                reason=step.reason,
                now=utc_now(),
            )
            rollout = conductor.begin()
            return {
                "rollout_id": step.rollout_id,
                "steps": len(rollout.settings.planned),
                "poll_seconds": rollout.settings.poll_seconds,
            }
        case "set_weight":
            return {"state": conductor.set_weight(step.index)}
        case "analyse":
            outcome, state = conductor.analyse(step.index)
            if state is not None:
                emit_harm(state, conductor.rollout().candidate, stage=environment(RolloutEnvironment).stage, at=utc_now())
            return {"outcome": outcome}
        case "promote":
            return {"state": conductor.promote()}
        case "roll_back":
            return {"state": conductor.roll_back()}
        case "finish":
            ended = conductor.finish()
            return {"status": ended.status, "reason": ended.reason}
        case "rebuild":  # no state asks it: for operators, by lambda:Invoke
            return {"version": conductor.watch_anew().version}
        case "abort":
            aborted = conductor.abort(step.error.told if step.error else "no error was given")
            return {"status": aborted.status if aborted else "failed"}
