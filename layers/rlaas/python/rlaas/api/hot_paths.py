"""A function behind API Gateway: each route's handle, and every failure as the one error body.

API Gateway has found the route already and names it in the event, so looking it up is all the routing there is to do.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from aws_lambda_powertools.utilities.typing import LambdaContext
from pydantic import JsonValue

from rlaas.api.http import GatewayEvent, common_headers, error_body, failure_headers, find_status, internal_error_body, request_id
from rlaas.errors import MethodNotAllowed, NotFound, RlaasError
from rlaas.runtime.log import list_frames, log_refusal, logger
from rlaas.runtime.paths import METHODS, find_methods


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer in JSON."""

    status: int
    body: Mapping[str, JsonValue]


Handle = Callable[[GatewayEvent], Reply]
"""Answers one request. Raises: any RlaasError."""


def make_handler(routes: Mapping[str, Handle]) -> Callable[[GatewayEvent, LambdaContext], dict[str, object]]:
    """The Lambda entry point of a function with these `routes`: method and resource, as in `POST /v1/infer`, to
    handle."""

    def handler(event: GatewayEvent, _: LambdaContext) -> dict[str, object]:
        identifier, method = request_id(event), event.get("httpMethod")
        try:
            handle = routes.get(f"{'GET' if method == 'HEAD' else method} {event.get('resource')}")
            if handle is None:
                raise _build_refusal(event)
            answer = _answer(handle(event), identifier)
            return {**answer, "body": ""} if method == "HEAD" else answer
        except RlaasError as error:
            status = find_status(error)
            log_refusal(error, identifier, status=status)
            return _answer(Reply(status, error_body(error, identifier)), identifier, failure_headers(error))
        except Exception as error:
            logger.error("failed", request_id=identifier, error=type(error).__name__, where=list_frames(error))
            return _answer(Reply(500, internal_error_body(identifier)), identifier)

    return handler


def _build_refusal(event: GatewayEvent) -> RlaasError:
    """Why no function answers: the path has other methods, or nothing is there."""
    path, method = str(event.get("path")), event.get("httpMethod")
    methods = find_methods(path)
    if methods and method not in methods:
        return MethodNotAllowed(methods)
    return NotFound(f"there is nothing at this path, but at {', '.join((*METHODS, '/v1/admin/...'))}")


def _answer(reply: Reply, identifier: str, headers: Mapping[str, str] | None = None) -> dict[str, object]:
    """What API Gateway sends."""
    return {
        "statusCode": reply.status,
        "headers": {
            "Content-Type": "application/json",
            **common_headers(identifier),
            **(headers or {}),
        },
        "body": json.dumps(reply.body, ensure_ascii=False),
        "isBase64Encoded": False,
    }
