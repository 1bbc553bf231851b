"""SageMaker's errors."""

from __future__ import annotations


class ApiError(Exception):
    """An error answer: AWS's code, its message, the HTTP status, and for the runtime API further fields."""

    def __init__(self, code: str, message: str, status: int = 400, **fields: object) -> None:
        super().__init__(message)
        self.code, self.message, self.status, self.fields = code, message, status, fields


def not_found(kind: str, name: str) -> ApiError:
    """What Describe, Stop and Delete answer for a name that is not there."""
    return ApiError("ValidationException", f'Could not find {kind} "{name}".')


def in_use(kind: str, name: str) -> ApiError:
    """What Create answers for a name that is taken."""
    return ApiError("ResourceInUse", f"{kind} names must be unique within an AWS account and region: {name}")
