"""Step Functions -> SageMaker: `createTrainingJob[.sync]`, `createProcessingJob[.sync]` and `aws-sdk:sagemaker:*`; ->
Athena: `startQueryExecution[.sync]`; and tasks that end when they time out.

Stock ministack (services/stepfunctions.py) has none of these integrations, and leaves a task's job or query running
when its TimeoutSeconds have passed or its execution is stopped. Step Functions stops it, and so does this.
"""

from __future__ import annotations

import contextvars
import json
import re
import threading
import time
from typing import Any

from ministack.services import athena
from ministack.services import stepfunctions as states

from local.emulator.sagemaker import api, jobs
from local.emulator.sagemaker.errors import ApiError
from local.emulator.sagemaker.job import Job

JsonObject = dict[str, Any]
JOB = re.compile(r"^arn:aws:states:::sagemaker:create(Training|Processing)Job(\.sync)?$")
WATCH_SECONDS = 0.2
# Errors SageMaker's model names; the SDK raises its base class for every other (ValidationException,
# ThrottlingException).
MODELLED = {
    "ResourceInUse": "ResourceInUseException",
    "ResourceNotFound": "ResourceNotFoundException",
    "ResourceLimitExceeded": "ResourceLimitExceededException",
}

_execution: contextvars.ContextVar[JsonObject | None] = contextvars.ContextVar("rlaas_execution", default=None)
_out_of_time: contextvars.ContextVar[threading.Event | None] = contextvars.ContextVar("rlaas_out_of_time", default=None)
"""Set when the task's TimeoutSeconds have passed: its thread goes on, but nobody waits for it."""


def _make_error(problem: ApiError, base_class: str) -> Exception:
    cause = f"{problem.message} (Service: AmazonSageMaker; Status Code: {problem.status}; Error Code: {problem.code})"
    error: Exception = states._ExecutionError(f"SageMaker.{MODELLED.get(problem.code, base_class)}", cause)
    return error


def _milliseconds(value: Any) -> Any:
    """Times as the optimized integration gives them: epoch milliseconds."""
    if isinstance(value, dict):
        return {
            key: int(inner * 1000) if key.endswith("Time") and isinstance(inner, int | float) else _milliseconds(inner)
            for key, inner in value.items()
        }
    return [_milliseconds(inner) for inner in value] if isinstance(value, list) else value


def _create_job(resource: str, data: JsonObject) -> JsonObject:
    match = JOB.match(resource)
    if match is None:
        raise states._ExecutionError("States.Runtime", f"{resource} is not an integration of SageMaker jobs")
    kind, sync = match.groups()
    try:
        answer = api.call(f"Create{kind}Job", data)
    except ApiError as problem:
        raise _make_error(problem, "AmazonSageMakerException") from problem
    if not sync:
        return answer
    job = jobs.find(kind, data[f"{kind}JobName"])
    while not job.ended.wait(WATCH_SECONDS):
        if _is_abandoned():
            _stop(job)
            raise states._ExecutionError("States.TaskFailed", "nobody waits for the job any more")
    description: JsonObject = _milliseconds(api.call(f"Describe{kind}Job", {f"{kind}JobName": job.name}))
    if job.status != "Completed":
        raise states._ExecutionError("States.TaskFailed", json.dumps(description))
    return description


def _stop(job: Job) -> None:
    try:
        job.stop()
    except ApiError:
        return  # it ended meanwhile


def _start_query(resource: str, data: JsonObject) -> JsonObject:
    query: JsonObject = states._dispatch_aws_sdk_json(states._AWS_SDK_SERVICE_MAP["athena"], "athena", "startQueryExecution", data)
    if not resource.endswith(".sync"):
        return query
    while True:
        description: JsonObject = json.loads(athena._get_query_execution(query)[2])
        state = description["QueryExecution"]["Status"]["State"]
        if state not in ("QUEUED", "RUNNING"):
            break
        if _is_abandoned():
            athena._stop_query_execution(query)
            raise states._ExecutionError("States.TaskFailed", "nobody waits for the query any more")
        time.sleep(WATCH_SECONDS)
    description = _milliseconds(description)
    if state != "SUCCEEDED":
        raise states._ExecutionError("States.TaskFailed", json.dumps(description))
    return description


def _is_abandoned() -> bool:
    """Whether the execution was stopped, or the task timed out."""
    execution, out_of_time = _execution.get(), _out_of_time.get()
    return bool(execution and execution["status"] != "RUNNING") or bool(out_of_time and out_of_time.is_set())


def _with_timeout(resource: str, data: JsonObject, timeout: float) -> Any:
    out_of_time = threading.Event()
    token = _out_of_time.set(out_of_time)
    try:
        return _stock_with_timeout(resource, data, timeout)
    except states._ExecutionError as problem:
        if problem.error == "States.Timeout":
            out_of_time.set()
        raise
    finally:
        _out_of_time.reset(token)


def _execute_task(definition: JsonObject, data: Any, execution: JsonObject, context: JsonObject) -> Any:
    token = _execution.set(execution)
    try:
        return _stock_execute_task(definition, data, execution, context)
    finally:
        _execution.reset(token)


def _aws_sdk(resource: str, data: JsonObject) -> Any:
    *_, service, action = resource.split(":")
    if service.lower() != "sagemaker":
        return _stock_aws_sdk(resource, data)
    operation = action[:1].upper() + action[1:]
    try:
        result = api.call(operation, data)
    except ApiError as problem:
        raise _make_error(problem, "SageMakerException") from problem
    return states._sdk_json_result("sagemaker", operation, result)


_stock_with_timeout = states._invoke_resource_with_timeout
_stock_execute_task = states._execute_task
_stock_aws_sdk = states._invoke_aws_sdk_integration


def install() -> None:
    """Hook in."""
    for kind in ("Training", "Processing"):
        states._SERVICE_DISPATCH[f"arn:aws:states:::sagemaker:create{kind}Job"] = _create_job
    states._SERVICE_DISPATCH["arn:aws:states:::athena:startQueryExecution"] = _start_query
    states._invoke_resource_with_timeout = _with_timeout
    states._execute_task = _execute_task
    states._invoke_aws_sdk_integration = _aws_sdk
