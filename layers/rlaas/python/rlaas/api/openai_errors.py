"""Failures as OpenAI's API writes them."""

from collections.abc import Mapping

from rlaas.api.http import Body, error_body, find_status, internal_error_body
from rlaas.errors import RlaasError

_TYPES: Mapping[int, str] = {
    401: "authentication_error",
    403: "permission_error",
    424: "upstream_error",
    429: "rate_limit_error",
    503: "service_unavailable_error",
}


def openai_failure(error: Exception, request_id: str) -> Body:
    """OpenAI's error body: RLaaS's own, but for the type, which OpenAI's clients know by its names."""
    if not isinstance(error, RlaasError):
        return _name_type(internal_error_body(request_id), "server_error")
    status = find_status(error)
    return _name_type(error_body(error, request_id), _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error"))


def _name_type(body: Body, name: str) -> Body:
    fields = body["error"]
    assert isinstance(fields, dict)
    return {"error": {**fields, "type": name}}
