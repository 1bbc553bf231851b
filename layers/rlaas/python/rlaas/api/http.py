"""HTTP in and out: bodies to models, errors to answers. No framework, so that every function can share it."""

import base64
import binascii
import codecs
import json
import math
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar, cast
from urllib.parse import unquote

from pydantic import BaseModel, JsonValue, ValidationError

from rlaas.chat import Misconfigured, RateLimited
from rlaas.errors import (
    Conflict,
    DependencyUnavailable,
    Forbidden,
    InvalidInput,
    MethodNotAllowed,
    NotFound,
    PayloadTooLarge,
    QuotaExceeded,
    RlaasError,
    Unauthorized,
    UnsupportedEncoding,
)
from rlaas.runtime.paths import EXPOSED_HEADERS
from rlaas.wire import HOPS, make_invalid_input

MAX_BODY_BYTES = 256 * 1024
"""The largest body, and the largest event of a batch, in bytes."""
MAX_BATCH_BYTES = 4 * 1024 * 1024
"""The largest batch, in bytes. API Gateway hands bodies to functions in base64, and Lambda takes 6 MiB with the
headers."""
MAX_CHAT_BYTES = MAX_BATCH_BYTES
"""The largest conversation, in bytes."""


_STATUS: dict[type[RlaasError], int] = {
    PayloadTooLarge: 413,
    UnsupportedEncoding: 415,
    InvalidInput: 400,
    Unauthorized: 401,
    Forbidden: 403,
    MethodNotAllowed: 405,
    NotFound: 404,
    Conflict: 409,
    QuotaExceeded: 429,
    RateLimited: 429,
    Misconfigured: 424,
    DependencyUnavailable: 503,
}

Model = TypeVar("Model", bound=BaseModel)
GatewayEvent = Mapping[str, object]
Body = dict[str, JsonValue]
"""What an answer says, in JSON."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, as the authorizer found out."""

    tenant_id: str
    key_id: str
    scopes: tuple[str, ...]
    origins: tuple[str, ...] = ()
    hops: int = 0
    """How many gateways the request has passed before this one."""

    @property
    def publishable(self) -> bool:
        """Whether the key may stand in a page, so that anyone may have sent the request."""
        return bool(self.origins)


def find_status(error: RlaasError) -> int:
    """The HTTP status of an error; 500 for one without a mapping."""
    return next((status for kind, status in _STATUS.items() if isinstance(error, kind)), 500)


def error_body(error: RlaasError, request_id: str) -> Body:
    """The one shape of every error answer."""
    return {
        "error": {
            "type": type(error).__name__,
            "code": error.code,
            "message": error.message,
            "param": error.param,
            "request_id": request_id,
        }
    }


def failure_headers(error: Exception) -> dict[str, str]:
    """The headers that HTTP has for what would help: `Retry-After` in whole seconds, `Allow`, `Accept-Encoding`."""
    headers = {}
    if isinstance(error, RlaasError) and error.retry_after_s is not None:
        headers["Retry-After"] = str(math.ceil(error.retry_after_s))
    if isinstance(error, MethodNotAllowed):
        headers["Allow"] = ", ".join((*error.methods, "OPTIONS"))
    if isinstance(error, UnsupportedEncoding):
        headers["Accept-Encoding"] = "gzip"
    return headers


def common_headers(identifier: str) -> dict[str, str]:
    """The headers of every answer, which a page of any origin may read: the caller's key decides, and a publishable one
    names its origins. Anthropic's clients look for `Request-Id`."""
    return {
        "X-Request-Id": identifier,
        "Request-Id": identifier,
        "Access-Control-Allow-Origin": "*",
        "Access-Control-Expose-Headers": EXPOSED_HEADERS,
    }


def internal_error_body(request_id: str) -> Body:
    """The answer to a failure nobody foresaw: nothing of it is shown, the id finds it in the log."""
    return {
        "error": {
            "type": "InternalError",
            "code": "internal_error",
            "message": "something went wrong on our side; the request id finds it in the log",
            "param": None,
            "request_id": request_id,
        }
    }


def request_id(event: GatewayEvent) -> str:
    """API Gateway's id of the request."""
    context = event.get("requestContext")
    return str(context.get("requestId", "")) if isinstance(context, Mapping) else ""


def caller(event: GatewayEvent) -> Caller:
    """The caller, from the authorizer's context.

    Raises: Unauthorized when the request passed no authorizer; Forbidden when the key is a publishable one and the
    request does not come from a page of its origins. That is checked here, since API Gateway remembers the authorizer's
    answer per key, not per origin.
    """
    context = event.get("requestContext")
    authorizer = context.get("authorizer") if isinstance(context, Mapping) else None
    if not isinstance(authorizer, Mapping) or not all(authorizer.get(name) for name in ("tenant_id", "key_id", "scopes")):
        raise Unauthorized("the request passed no authorizer")
    who = Caller(
        tenant_id=str(authorizer["tenant_id"]),
        key_id=str(authorizer["key_id"]),
        scopes=tuple(str(authorizer["scopes"]).split()),
        origins=tuple(str(authorizer.get("origins") or "").split()),
        hops=_read_hops(event),
    )
    if who.publishable and header(event, "Origin") not in who.origins:
        raise Forbidden("the publishable key is not for pages of this origin")
    return who


def _read_hops(event: GatewayEvent) -> int:
    """How many gateways the request has passed, as the last of them says (`rlaas.adapters.models.trace_context`).
    Raises: InvalidInput where that is no number."""
    value = header(event, HOPS) or "0"
    if not re.fullmatch(r"[0-9]{1,3}", value):
        raise InvalidInput(f"{HOPS} is a whole number", param=HOPS)
    return int(value)


def header(event: GatewayEvent, name: str) -> str | None:
    """A request header, whatever its case."""
    headers, name = event.get("headers"), name.lower()
    if not isinstance(headers, Mapping):
        return None
    return next((str(value) for key, value in headers.items() if str(key).lower() == name), None)


def path_parameter(event: GatewayEvent, parameter: str) -> str:
    """The value of `{parameter}` in the path, decoded; empty where there is none."""
    parameters = event.get("pathParameters")
    value = parameters.get(parameter) if isinstance(parameters, Mapping) else None
    return unquote(str(value or ""))


def parse(model: type[Model], event: GatewayEvent, *, most_bytes: int = MAX_BODY_BYTES) -> Model:
    """The request's body as `model`, strictly.

    Raises: as `read_body`; InvalidInput for malformed JSON, something else than an object, or fields that do not fit:
    `param` is the first one's path, the message names them all.
    """
    body = read_body(event, most_bytes)
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise make_invalid_input(error, _load_for_paths(body)) from None


def parse_batch(
    models: Mapping[str, type[Model]], event: GatewayEvent, *, limit: int, most_bytes: int = MAX_BATCH_BYTES
) -> "list[Model | InvalidInput]":
    """The body's `events`: each as the model that its `type` names, or the error that says why it is not one.

    Raises: as `read_body`; InvalidInput when the body is no object with a list of 1 to `limit` events.
    """
    body = load_json(read_body(event, most_bytes))
    if not isinstance(body, dict):
        raise InvalidInput("the body must be an object")
    unknown = next((name for name in body if name != "events"), None)
    if unknown is not None:
        raise InvalidInput("Extra inputs are not permitted", param=unknown)
    events = body.get("events")
    if not isinstance(events, list) or not 1 <= len(events) <= limit:
        count = f"{len(events)} events" if isinstance(events, list) else "no list"
        raise InvalidInput(f"a batch holds 1 to {limit} events, and {count} were given", param="events")
    return [_parse_item(models, item) for item in events]


def _parse_item(models: Mapping[str, type[Model]], item: object) -> "Model | InvalidInput":
    event_type = item.get("type") if isinstance(item, dict) else None
    if not isinstance(item, dict) or not isinstance(event_type, str) or event_type not in models:
        return InvalidInput(f"an event is an object whose type is one of {', '.join(models)}", param="type")
    try:
        fields = {name: value for name, value in item.items() if name != "type"}
        text = json.dumps(fields, ensure_ascii=False).encode(errors="surrogatepass")
    except RecursionError:
        return InvalidInput("the event nests too deep")
    if len(text) > MAX_BODY_BYTES:
        return PayloadTooLarge(f"the event has {len(text)} bytes; at most {MAX_BODY_BYTES} are taken")
    try:
        return models[event_type].model_validate_json(text)
    except ValidationError as error:
        return make_invalid_input(error, item)


def _load_for_paths(body: bytes) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def load_json(body: bytes) -> JsonValue:
    """The JSON in `body`. Raises: InvalidInput where it is none, has numbers that are not finite, or nests too deep."""
    try:
        value: JsonValue = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise InvalidInput("the body is not valid JSON") from None
    return value


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def read_body(event: GatewayEvent, most_bytes: int = MAX_BODY_BYTES) -> bytes:
    """The request's body in UTF-8, unpacked and without a byte order mark.

    Raises: InvalidInput for another content type, an empty body, or one that is not UTF-8; UnsupportedEncoding for a
    `Content-Encoding` other than gzip; PayloadTooLarge when it has, unpacked, more than `most_bytes`.
    """
    content_type = (header(event, "Content-Type") or "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        raise InvalidInput("the content type must be application/json", param="Content-Type")
    encoding = (header(event, "Content-Encoding") or "identity").strip().lower()
    if encoding not in ("identity", "gzip"):
        raise UnsupportedEncoding("bodies are taken as they are or packed by gzip", param="Content-Encoding")
    body = _read_sent_bytes(event)
    if encoding == "gzip":
        body = _unpack_gzip(body, most_bytes)
    if len(body) > most_bytes:
        raise PayloadTooLarge(f"the body has {len(body)} bytes; at most {most_bytes} are taken")
    _check_utf8(body)
    body = body.removeprefix(codecs.BOM_UTF8)
    if not body.strip():
        raise InvalidInput("the body is empty; it must be a JSON object")
    return body


def _read_sent_bytes(event: GatewayEvent) -> bytes:
    body = cast("str | None", event.get("body")) or ""
    if not event.get("isBase64Encoded"):
        return body.encode(errors="surrogatepass")
    try:
        return base64.b64decode(body, validate=True)
    except binascii.Error:
        raise InvalidInput("the body is not base64") from None


def _unpack_gzip(body: bytes, most_bytes: int) -> bytes:
    """What `body` unpacks to; no more than `most_bytes` are ever unpacked."""
    unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        unpacked = unpacker.decompress(body, most_bytes + 1)
    except zlib.error:
        unpacked = b""
    if len(unpacked) > most_bytes:
        raise PayloadTooLarge(f"the body unpacks to more than {most_bytes} bytes, the most that are taken")
    if not unpacker.eof or unpacker.unused_data:
        raise InvalidInput("the body is not whole gzip, as its Content-Encoding says", param="Content-Encoding")
    return unpacked


def _check_utf8(body: bytes) -> None:
    if body.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in body[:4]:
        raise InvalidInput("the body is in UTF-16 or UTF-32; JSON is sent in UTF-8")
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise InvalidInput(f"the body is not UTF-8: byte 0x{body[error.start]:02x} at position {error.start}") from None
