"""SageMaker's errors."""

from __future__ import annotations

import logging
import os

REASON_CHARACTERS = 1024
"""The longest FailureReason."""
logger = logging.getLogger("rlaas.sagemaker")


class ApiError(Exception):
    """An error answer: AWS's code, its message, the HTTP status, and for the runtime API further fields."""

    def __init__(self, code: str, message: str, status: int = 400, **fields: object) -> None:
        super().__init__(message)
        self.code, self.message, self.status, self.fields = code, message, status, fields


def make_not_found(kind: str, name: str) -> ApiError:
    """What Describe, Stop and Delete answer for a name that is not there."""
    return ApiError("ValidationException", f'Could not find {kind} "{name}".')


def make_in_use(kind: str, name: str) -> ApiError:
    """What Create answers for a name that is taken."""
    return ApiError("ResourceInUse", f"{kind} names must be unique within an AWS account and region: {name}")


def describe_failure(work: str, problem: Exception) -> str:
    """What Describe answers as FailureReason when `problem` ended `work`; what is no ApiError is a fault of this
    emulator's own."""
    if isinstance(problem, ApiError):
        return problem.message[:REASON_CHARACTERS]
    logger.error("%s failed", work, exc_info=problem)
    log = f"; the trace is in {os.environ['RLAAS_LOG_DIR']}/faults.log"
    return f"InternalServerError: {type(problem).__name__}: {problem}"[: REASON_CHARACTERS - len(log)] + log
