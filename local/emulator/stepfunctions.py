"""Step Functions -> SageMaker: `createTrainingJob[.sync]`, `createProcessingJob[.sync]` and `aws-sdk:sagemaker:*`; times out for good.

Stock ministack (services/stepfunctions.py) knows no SageMaker, and leaves a task's work running when its TimeoutSeconds passed or its
execution was stopped. Step Functions stops the job then, and so does this.
"""

from __future__ import annotations

import contextvars
import json
import re
from typing import Any

from ministack.services import stepfunctions as states

from local.emulator.sagemaker import api, jobs
from local.emulator.sagemaker.errors import ApiError

Record = dict[str, Any]
JOB = re.compile(r"^arn:aws:states:::sagemaker:create(Training|Processing)Job(\.sync)?$")
WATCH_SECONDS = 0.2
# Errors SageMaker's model names; the SDK raises its base class for every other (ValidationException, ThrottlingException).
MODELLED = {
    "ResourceInUse": "ResourceInUseException",
    "ResourceNotFound": "ResourceNotFoundException",
    "ResourceLimitExceeded": "ResourceLimitExceededException",
}

_execution: contextvars.ContextVar[Record | None] = contextvars.ContextVar("rlaas_execution", default=None)


def _failed(problem: ApiError, base_class: str) -> Exception:
    cause = f"{problem.message} (Service: AmazonSageMaker; Status Code: {problem.status}; Error Code: {problem.code})"
    error: Exception = states._ExecutionError(f"SageMaker.{MODELLED.get(problem.code, base_class)}", cause)
    return error


def _milliseconds(value: Any) -> Any:
    """Times as the optimized integration gives them: epoch milliseconds."""
    if isinstance(value, dict):
        return {
            key: int(inner * 1000) if key.endswith("Time") and isinstance(inner, float) else _milliseconds(inner)
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
        execution = _execution.get()
        if execution and execution["status"] != "RUNNING":
            _stop(job)
            raise states._ExecutionError("States.TaskFailed", "the execution was stopped")
    described: Record = _milliseconds(api.call(f"Describe{kind}Job", {f"{kind}JobName": job.name}))
    if job.status != "Completed":
        raise states._ExecutionError("States.TaskFailed", json.dumps(described))
    return described


def _stop(job: jobs.Job) -> None:
    try:
        job.stop()
    except ApiError:
        return  # it ended meanwhile


def _with_timeout(resource: str, data: Record, timeout: float) -> Any:
    try:
        return _stock_with_timeout(resource, data, timeout)
    except states._ExecutionError as problem:
        matched = JOB.match(resource)
        if problem.error == "States.Timeout" and matched and matched[2]:
            _stop(jobs.find(matched[1], data[f"{matched[1]}JobName"]))
        raise


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
    states._invoke_resource_with_timeout = _with_timeout
    states._execute_task = _execute_task
    states._invoke_aws_sdk_integration = _aws_sdk
