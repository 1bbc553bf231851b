"""Step Functions -> SageMaker: `createTrainingJob[.sync]`, `createProcessingJob[.sync]` and `aws-sdk:sagemaker:*`; ->
Athena: `startQueryExecution[.sync]`; times out for good.

Stock ministack (services/stepfunctions.py) knows neither, and leaves a task's work running when its TimeoutSeconds
passed or its execution was stopped. Step Functions stops the job or the query then, and so does this.
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

Record = dict[str, Any]
JOB = re.compile(r"^arn:aws:states:::sagemaker:create(Training|Processing)Job(\.sync)?$")
WATCH_SECONDS = 0.2
# Errors SageMaker's model names; the SDK raises its base class for every other (ValidationException,
# ThrottlingException).
MODELLED = {
    "ResourceInUse": "ResourceInUseException",
    "ResourceNotFound": "ResourceNotFoundException",
    "ResourceLimitExceeded": "ResourceLimitExceededException",
}

_execution: contextvars.ContextVar[Record | None] = contextvars.ContextVar("rlaas_execution", default=None)
_out_of_time: contextvars.ContextVar[threading.Event | None] = contextvars.ContextVar("rlaas_out_of_time", default=None)
"""Set when the task's TimeoutSeconds have passed: its thread goes on and nobody waits for it."""


def _failed(problem: ApiError, base_class: str) -> Exception:
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


def _create_job(resource: str, data: Record) -> Record:
    matched = JOB.match(resource)
    if matched is None:
        raise states._ExecutionError("States.Runtime", f"{resource} is not an integration of SageMaker jobs")
    kind, sync = matched.groups()
    try:
        created = api.call(f"Create{kind}Job", data)
    except ApiError as problem:
        raise _failed(problem, "AmazonSageMakerException") from problem
    if not sync:
        return created
    job = jobs.find(kind, data[f"{kind}JobName"])
    while not job.ended.wait(WATCH_SECONDS):
        if _given_up():
            _stop(job)
            raise states._ExecutionError("States.TaskFailed", "nobody waits for the job any more")
    described: Record = _milliseconds(api.call(f"Describe{kind}Job", {f"{kind}JobName": job.name}))
    if job.status != "Completed":
        raise states._ExecutionError("States.TaskFailed", json.dumps(described))
    return described


def _stop(job: Job) -> None:
    try:
        job.stop()
    except ApiError:
        return  # it ended meanwhile


def _start_query(resource: str, data: Record) -> Record:
    started: Record = states._dispatch_aws_sdk_json(states._AWS_SDK_SERVICE_MAP["athena"], "athena", "startQueryExecution", data)
    if not resource.endswith(".sync"):
        return started
    while True:
        described: Record = json.loads(athena._get_query_execution(started)[2])
        state = described["QueryExecution"]["Status"]["State"]
        if state not in ("QUEUED", "RUNNING"):
            break
        if _given_up():
            athena._stop_query_execution(started)
            raise states._ExecutionError("States.TaskFailed", "nobody waits for the query any more")
        time.sleep(WATCH_SECONDS)
    described = _milliseconds(described)
    if state != "SUCCEEDED":
        raise states._ExecutionError("States.TaskFailed", json.dumps(described))
    return described


def _given_up() -> bool:
    """Whether the execution was stopped, or the task had its time."""
    execution, out_of_time = _execution.get(), _out_of_time.get()
    return bool(execution and execution["status"] != "RUNNING") or bool(out_of_time and out_of_time.is_set())


def _with_timeout(resource: str, data: Record, timeout: float) -> Any:
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


def _execute_task(definition: Record, given: Any, execution: Record, context: Record) -> Any:
    token = _execution.set(execution)
    try:
        return _stock_execute_task(definition, given, execution, context)
    finally:
        _execution.reset(token)


def _aws_sdk(resource: str, data: Record) -> Any:
    *_, service, action = resource.split(":")
    if service.lower() != "sagemaker":
        return _stock_aws_sdk(resource, data)
    operation = action[:1].upper() + action[1:]
    try:
        result = api.call(operation, data)
    except ApiError as problem:
        raise _failed(problem, "SageMakerException") from problem
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
