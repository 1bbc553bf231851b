"""API Gateway's proxy event, as functions get it."""

import json
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from tests.fakes.worlds import TENANT

_PARAMETERS = {"/v1/models/": "model", "/ofrep/v1/evaluate/flags/": "key"}
"""The parameter at the end of the paths below each folder."""


def make_proxy_event(
    path: str,
    body: object,
    *,
    scopes: str = "infer telemetry",
    tenant_id: str = TENANT,
    headers: dict[str, str] | None = None,
    method: str = "POST",
    origins: str = "",
    key_id: str = "key1",
) -> dict[str, Any]:
    """A request that passed the authorizer. `body` is sent as it is when it is text, else as JSON."""
    resource, parameters = path, None
    for folder, name in _PARAMETERS.items():
        if path.startswith(folder):
            resource, parameters = f"{folder}{{{name}}}", {name: path.removeprefix(folder)}
    return {
        "httpMethod": method,
        "path": path,
        "resource": resource,
        "headers": {"content-type": "application/json", **(headers or {})},
        "multiValueHeaders": {},
        "queryStringParameters": None,
        "multiValueQueryStringParameters": None,
        "pathParameters": parameters,
        "stageVariables": None,
        "requestContext": {
            "requestId": "req-1",
            "stage": "v1",
            "authorizer": {"tenant_id": tenant_id, "key_id": key_id, "scopes": scopes, "origins": origins},
        },
        "body": body if isinstance(body, str) else json.dumps(body),
        "isBase64Encoded": False,
    }


class TimeLeft(LambdaContext):
    """A context with `milliseconds` left."""

    def __init__(self, milliseconds: int) -> None:
        self._milliseconds = milliseconds

    def get_remaining_time_in_millis(self) -> int:  # type: ignore[override]  # powertools says static
        return self._milliseconds


def make_lambda_context(function: str = "consumer") -> LambdaContext:
    """The context of a call of `function`."""
    context = LambdaContext()
    context._invoked_function_arn = f"arn:aws:lambda:us-east-1:123456789012:function:{function}"
    return context
