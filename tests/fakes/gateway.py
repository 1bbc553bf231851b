"""API Gateway's proxy event, as functions get it."""

import json
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from tests.fakes.worlds import TENANT


def proxy_event(
    path: str,
    body: object,
    *,
    scopes: str = "infer telemetry",
    tenant_id: str = TENANT,
    headers: dict[str, str] | None = None,
    method: str = "POST",
    origins: str = "",
) -> dict[str, Any]:
    """A request that passed the authorizer. `body` is sent as it is when it is text, else as JSON."""
    return {
        "httpMethod": method,
        "path": path,
        "resource": path,
        "headers": {"content-type": "application/json", **(headers or {})},
        "multiValueHeaders": {},
        "queryStringParameters": None,
        "multiValueQueryStringParameters": None,
        "pathParameters": None,
        "stageVariables": None,
        "requestContext": {
            "requestId": "req-1",
            "stage": "v1",
            "authorizer": {"tenant_id": tenant_id, "key_id": "key1", "scopes": scopes, "origins": origins},
        },
        "body": body if isinstance(body, str) else json.dumps(body),
        "isBase64Encoded": False,
    }


def lambda_context() -> LambdaContext:
    """A context that names nothing."""
    return LambdaContext()
