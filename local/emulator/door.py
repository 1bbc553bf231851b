"""Who may speak to the cloud that stands on a port of the loopback: whoever signs with its key.

Stock ministack takes everybody who reaches the port for the developer: no key, any Host, any Origin, and any page may
read its answers (`Access-Control-Allow-Origin: *`). But whatever page the developer's browser shows reaches the
loopback, too. Here, before a request is ministack's:

- the cloud has one access key, made when it starts (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in this process's
  environment). A request must be signed with it, or with credentials that STS lent to whoever had it; AWS's own
  signature, so the secret is never sent. What was lent does on S3 and asks of models what its role and its session
  allow; other services do not look.
- Host must be a name that leads to the loopback whoever asks, with this port: a page cannot make its own name the
  cloud's (DNS rebinding).
- Origin, where there is one, must be the cloud's own, and nothing lets another page read an answer.
- WebSockets are refused: nothing that is deployed has any.

API Gateway's own path is for everyone, as on AWS: who may call is the deployed API's to say, and which page may read.
OpenAI's path of the model endpoints takes a token in place of a signature (see sagemaker/api.py), and the health check
tells nothing but that somebody is here.
"""

from __future__ import annotations

import logging
import os
import re
import urllib.parse
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from ministack import app
from ministack.core import iam_actions, iam_evaluator, responses, sigv4

Message = dict[str, Any]
Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

HEALTH = "/_ministack/health"
API = re.compile(r"/_aws/execute-api/[^/]+/[^/]+(?:/(?!@connections/).*)?", re.DOTALL)
"""A deployed API's address. What is below `@connections` is AWS's API for open WebSockets, and asks for the key."""
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
VIRTUAL = re.compile(r"(?:[a-z0-9-]+\.)+localhost")
"""A bucket or a service by its name, as AWS's clients address them where the endpoint is `localhost`; no resolver leads
it elsewhere."""
logger = logging.getLogger("rlaas.door")


class Refused(Exception):
    """The request is not let in; carries AWS's error code and message."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


def secret_of(access_key_id: str, session_token: str) -> str:
    """The secret that belongs to an access key, if it may be used now.

    Raises: Refused for any but the cloud's own, and what IAM and STS made for whoever had it.
    """
    taken_for_the_owner = iam_evaluator.is_root_access_key(access_key_id)  # no key at all, `test`, and every account's number
    if taken_for_the_owner and access_key_id != os.environ["AWS_ACCESS_KEY_ID"]:
        raise Refused("UnrecognizedClientException", "The security token included in the request is invalid.")
    found = iam_evaluator.resolve_credential(access_key_id, session_token=session_token)
    if isinstance(found, iam_evaluator.CredentialResolutionError):
        raise Refused(found.code, found.message)
    return str(found.secret_access_key)


def check_allowed(access_key_id: str, action: str, resources: Iterable[str], context: Mapping[str, object] | None = None) -> None:
    """Whether the holder of an access key may do `action` on every one of `resources` (ARNs). The cloud's own key may
    do everything; what STS lent may do what its role allows and, where the session has a policy of its own, that allows
    too. `context` is what conditions read.

    Raises: Refused.
    """
    principal = iam_evaluator.resolve_principal(access_key_id, responses.get_account_id())
    if isinstance(principal, iam_evaluator.AuthError):
        raise Refused(principal.code, principal.message)
    if principal.policies is None:
        return
    read = {name.lower(): value for name, value in (context or {}).items()}
    for resource in resources:
        asked = iam_evaluator.EvalContext(
            principal.arn, principal.type, principal.account, action, resource, responses.get_region(), service_context=read
        )
        found = iam_evaluator.evaluate(asked, principal.policies, *principal.limits)
        if found.decision != "Allow":
            message = iam_actions.identity_denial_message(action, principal.arn, resource, found.decision == "Deny")
            raise Refused("AccessDeniedException", message)


def check_s3(access_key_id: str, method: str, path: str, query: Mapping[str, list[str]], headers: dict[str, str]) -> None:
    """Whether the holder of an access key may do what a request asks of S3, where `path` has the bucket in it. Raises:
    Refused."""
    if access_key_id == os.environ["AWS_ACCESS_KEY_ID"]:
        return
    action = f"s3:{iam_actions._s3_action(method, path, query)}"
    resource = iam_actions.extract_resource_arn("s3", method, path, headers, b"", query, "", "")
    check_allowed(access_key_id, action, [resource], iam_actions.s3_service_context(action, query, path, headers))
    for besides, other in iam_actions.s3_additional_checks(method, path, headers, b"", query):  # what a copy reads
        check_allowed(access_key_id, besides, [other])


class Door:
    """ASGI middleware before ministack, which it serves on `port`."""

    def __init__(self, inside: App, *, port: int, tokens: re.Pattern[str]) -> None:
        """`tokens` matches the paths whose handler checks a token itself."""
        self._inside, self._port, self._tokens = inside, port, tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or answer it with 403."""
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
        elif scope["type"] != "http":
            await self._inside(scope, receive, send)
        elif API.fullmatch(scope["path"]):
            await self._inside(self._to_the_api(scope), receive, send)
        else:
            await self._guard(scope, receive, _unreadable(send))

    def _to_the_api(self, scope: Scope) -> Scope:
        """The request with the name that the API has here: behind the name that a client gives, ministack would look
        for other services."""
        headers = [(name, value) for name, value in scope["headers"] if name.lower() != b"host"]
        name = _host_of(scope)
        if name not in self._names():
            name = f"{LOOPBACK[0]}:{self._port}"
        return {**scope, "headers": [(b"host", name.encode()), *headers]}

    async def _guard(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = _headers(scope)
        try:
            host = self._check_where_from(scope, headers)
            if host in self._names() and scope["method"] == "GET" and scope["path"] == HEALTH:
                await _answer(send, 200, {}, b"")
                return
            if not (host in self._names() and self._tokens.match(scope["path"])):
                receive = await _check_signature(scope, headers, receive, by_path=host in self._names())
        except Refused as refusal:
            logger.info("refused %s %r: %s: %s", scope["method"], scope["path"], refusal.code, refusal.message)
            await _answer(send, *_refusal(scope, headers, refusal))
            return
        await self._inside(scope, receive, send)

    def _check_where_from(self, scope: Scope, headers: dict[str, str]) -> str:
        """The request's host, in lower case. Raises: Refused for one that is not the cloud's, and for another page."""
        host = _host_of(scope)
        if not self._is_ours(host) or not scope["path"].startswith("/"):
            raise Refused("AccessDenied", f"this cloud is at {LOOPBACK[0]}:{self._port} and has no other name")
        if "origin" in headers and not self._is_ours(headers["origin"].lower().removeprefix("http://")):
            raise Refused("AccessDenied", "pages of other origins may call the deployed API only")
        return host

    def _is_ours(self, host: str) -> bool:
        name, _, port = host.rpartition(":")
        return host in self._names() or (port == str(self._port) and VIRTUAL.fullmatch(name) is not None)

    def _names(self) -> tuple[str, ...]:
        return tuple(f"{name}:{self._port}" for name in LOOPBACK)


def _host_of(scope: Scope) -> str:
    """The Host header in lower case; empty unless there is exactly one."""
    found = [value for name, value in scope["headers"] if name.lower() == b"host"]
    return str(found[0].decode("latin-1").lower()) if len(found) == 1 else ""


def _headers(scope: Scope) -> dict[str, str]:
    """By name in lower case; one that is repeated is joined, so that none of its values counts for itself."""
    found: dict[str, str] = {}
    for name, value in scope["headers"]:
        key, text = name.decode("latin-1").lower(), sigv4.decode_header_value(value)
        found[key] = f"{found[key]}, {text}" if key in found else text
    return found


async def _check_signature(scope: Scope, headers: dict[str, str], receive: Receive, *, by_path: bool) -> Receive:
    """What ministack receives the request from. `by_path` says that a bucket, if it is asked for one, is named there
    and not by the host.

    Raises: Refused unless its header, or its query, is signed by SigV4, and by whoever may do on S3 what it asks there.
    """
    query = urllib.parse.parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    presigned = "authorization" not in headers
    if presigned and query.get("X-Amz-Algorithm") != ["AWS4-HMAC-SHA256"]:
        raise Refused("MissingAuthenticationToken", "Request is missing Authentication Token")
    if not presigned and not headers["authorization"].startswith("AWS4-HMAC-SHA256 "):
        raise Refused("IncompleteSignature", "the Authorization header is no AWS4-HMAC-SHA256 signature")
    signature = sigv4.parse_query_signature(query) if presigned else sigv4.parse_header_signature(headers)
    if isinstance(signature, tuple):
        raise Refused("IncompleteSignature", signature[1])
    if not signature.signature.isascii():
        raise Refused("SignatureDoesNotMatch", sigv4.SIGNATURE_MISMATCH)
    token = query.get("X-Amz-Security-Token", [""])[0] if presigned else headers.get("x-amz-security-token", "")
    secret = secret_of(signature.access_key_id, token)
    _check_time(signature, query.get("X-Amz-Expires", [""])[0] if presigned else None)
    if "host" not in signature.signed_headers.split(";"):
        raise Refused("SignatureDoesNotMatch", "'host' must be a signed header")
    body = b""
    # What states the hash of its body, or is a link to a file, is signed without it; it may be big.
    declared = "UNSIGNED-PAYLOAD" if presigned and signature.service == "s3" else headers.get("x-amz-content-sha256", "")
    if not declared or declared.startswith("STREAMING-AWS4"):
        body, receive = await _read(receive)
    path = scope["raw_path"].decode("latin-1")
    failure = sigv4.header_signature_failure(signature, secret, scope["method"], path, query, headers, body, presigned=presigned)
    if failure is not None:
        raise Refused(*failure)
    if signature.service == "s3":
        named = scope["path"] if by_path else f"/{_host_of(scope).partition('.')[0]}{scope['path']}"
        check_s3(signature.access_key_id, scope["method"], named, query, headers)
    return receive


def _check_time(signature: Any, expires: str | None) -> None:
    """Raises: Refused for a signature that is not of now, or of a link that has expired."""
    if expires is None:
        failure = sigv4.request_time_failure(signature)
        if failure is not None:
            raise Refused(*failure)
        return
    try:
        expired = sigv4.presigned_request_is_expired(signature.amz_date, expires)
    except ValueError:
        expired = True
    if expired:
        raise Refused("RequestExpired", "Request has expired")


async def _read(receive: Receive) -> tuple[bytes, Receive]:
    """The request's body, and what gives the same messages once more and then what comes after them."""
    messages = [await receive()]
    while messages[-1].get("more_body"):
        messages.append(await receive())
    again = iter(messages)

    async def received() -> Message:
        return next(again, None) or await receive()

    return b"".join(message.get("body", b"") for message in messages), received


def _refusal(scope: Scope, headers: dict[str, str], refusal: Refused) -> tuple[int, dict[str, str], bytes]:
    """The refusal as the service would put it that the request is for."""
    service = app.detect_service(scope["method"], scope["path"], headers, {})
    code = refusal.code if refusal.code in iam_actions._AUTH_FAILURES else ""  # else what the service calls a denial
    _, answered, body = iam_actions.access_denied_response(
        service, "", "", str(uuid.uuid4()), error_code=code, message=refusal.message, headers=headers
    )
    return 403, answered, body


async def _answer(send: Send, status: int, headers: dict[str, str], body: bytes) -> None:
    """Without the body of a request that was refused, the connection cannot go on."""
    given = {**headers, "Content-Length": str(len(body)), "Connection": "close"}
    await send({"type": "http.response.start", "status": status, "headers": [(k.encode(), v.encode()) for k, v in given.items()]})
    await send({"type": "http.response.body", "body": body})


def _unreadable(send: Send) -> Send:
    """`send` without the headers that let another page's script read an answer."""

    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            kept = [(name, value) for name, value in message["headers"] if not name.lower().startswith(b"access-control-")]
            message = {**message, "headers": kept}
        await send(message)

    return sent
