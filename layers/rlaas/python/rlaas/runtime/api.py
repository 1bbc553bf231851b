"""A powertools resolver in which every failure becomes the one error body."""

import json
from collections.abc import Mapping

from aws_lambda_powertools.event_handler import APIGatewayRestResolver, Response
from aws_lambda_powertools.event_handler.exceptions import NotFoundError
from pydantic import JsonValue

from rlaas.errors import NotFound, RlaasError
from rlaas.runtime.http import error_body, internal_error_body, request_id, retry_after, status_of
from rlaas.runtime.log import logger, where


def api() -> APIGatewayRestResolver:
    """A resolver whose handlers may raise any `RlaasError`."""
    app = APIGatewayRestResolver()

    def refused(error: RlaasError) -> Response[str]:
        identifier = request_id(app.current_event.raw_event)
        status = status_of(error)
        logger.info("refused", request_id=identifier, error=type(error).__name__, param=error.param, status=status)
        return answer(status, error_body(error, identifier), headers=retry_after(error))

    def unknown_path(_: NotFoundError) -> Response[str]:
        return refused(NotFound("there is nothing at this path"))

    def failed(error: Exception) -> Response[str]:
        identifier = request_id(app.current_event.raw_event)
        logger.error("failed", request_id=identifier, error=type(error).__name__, where=where(error))
        return answer(500, internal_error_body(identifier))

    app.exception_handler(RlaasError)(refused)
    app.not_found(unknown_path)
    app.exception_handler(Exception)(failed)
    return app


def answer(status: int, body: dict[str, JsonValue], *, headers: Mapping[str, str] | None = None) -> Response[str]:
    """A JSON answer, which a page of any origin may read: the caller's key decides, and a publishable one names its origins."""
    return Response(
        status_code=status,
        content_type="application/json",
        headers={"Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": "Retry-After", **(headers or {})},
        body=json.dumps(body, ensure_ascii=False),
    )
