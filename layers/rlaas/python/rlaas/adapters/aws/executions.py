"""Executions of the state machines on Step Functions, and the event of one that ended before its last state."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError
from pydantic import BaseModel, Field, JsonValue
from pydantic import Json as JsonText

from rlaas.adapters.aws.clients import client, dependency, read_error_code

if TYPE_CHECKING:
    from types_boto3_stepfunctions import SFNClient


class StateMachine:
    """One state machine."""

    def __init__(self, arn: str, stepfunctions: "SFNClient | None" = None) -> None:
        self._arn = arn
        self._stepfunctions = stepfunctions or client("stepfunctions")

    def start(self, name: str, payload: dict[str, JsonValue]) -> None:
        """Start the execution `name` once: a name that was used before is left as it is. Raises:
        DependencyUnavailable."""
        with dependency("Step Functions"):
            try:
                self._stepfunctions.start_execution(stateMachineArn=self._arn, name=name, input=json.dumps(payload))
            except ClientError as error:
                if read_error_code(error) != "ExecutionAlreadyExists":
                    raise

    def is_running(self) -> bool:
        """Whether an execution is running. Raises: DependencyUnavailable."""
        with dependency("Step Functions"):
            answer = self._stepfunctions.list_executions(stateMachineArn=self._arn, statusFilter="RUNNING", maxResults=1)
        return bool(answer["executions"])


class StoppedExecution(BaseModel):
    """An execution that failed, timed out or was stopped by hand: its name, its input, and in words how it ended."""

    name: str
    input: dict[str, JsonValue]
    reason: str


def read_stopped_execution(event: Mapping[str, object]) -> StoppedExecution | None:
    """Read an EventBridge event `Step Functions Execution Status Change`; `None` when it is another kind of event."""
    if event.get("detail-type") != "Step Functions Execution Status Change":
        return None
    detail = _StatusChange.model_validate(event).detail
    details = ": ".join(part for part in (detail.error, detail.cause) if part)
    return StoppedExecution(name=detail.name, input=detail.input or {}, reason=f"the execution ended as {detail.status} {details}".strip())


class _Detail(BaseModel):
    name: str
    status: str
    input: JsonText[dict[str, JsonValue]] | None = Field(default=None)
    error: str | None = None
    cause: str | None = None


class _StatusChange(BaseModel):
    detail: _Detail
