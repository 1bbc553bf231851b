"""Checks every request to the cloud's port on the loopback: only a holder of its key may call it.

Stock ministack trusts everybody who reaches the port: it needs no key, takes any Host and any Origin, and lets any page
read its answers (`Access-Control-Allow-Origin: *`). But every page in the developer's browser reaches the loopback,
too. Here a request must pass these checks before ministack gets it:

- The cloud has one access key, made when it starts (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in this process's
  environment). A request must have AWS's signature, so the secret is never sent, by that key or by credentials that STS
  lent to its holder. On S3 and the model endpoints, lent credentials may do what their role and session allow; other
  services do not check that.
- Host must be a name that every resolver leads to the loopback, with this port, so that a page cannot give the cloud
  its own name (DNS rebinding).
- Origin, where there is one, must be the cloud's own, and no header lets another page read an answer.
- WebSockets are refused: nothing that is deployed has any.

API Gateway's own path is open to everyone, as on AWS: the deployed API decides who may call it and which page may read.
OpenAI's path of the model endpoints takes a token in place of a signature (see sagemaker/api.py). The health check
reveals only that a cloud is here.
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
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

Message = dict[str, Any]
AsgiScope = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[AsgiScope, Receive, Send], Awaitable[None]]

HEALTH = "/_ministack/health"
API = re.compile(r"/_aws/execute-api/[^/]+/[^/]+(?:/(?!@connections/).*)?", re.DOTALL)
"""A deployed API's address. The paths below `@connections` are AWS's API for open WebSockets, and need the key."""
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
VIRTUAL = re.compile(r"(?:[a-z0-9-]+\.)+localhost")
"""The host of a bucket or a service, as AWS's clients write it where the endpoint is `localhost`; every resolver leads
it to the loopback."""
logger = logging.getLogger("rlaas.door")


class Refused(Exception):
    """The request is not let in; carries AWS's error code and message."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


def find_secret(access_key_id: str, session_token: str) -> str:
    """The secret that belongs to an access key, if it may be used now.

    Raises: Refused for any key but the cloud's own and those that IAM and STS made for its holder.
    """
    is_root = iam_evaluator.is_root_access_key(access_key_id)  # also true of no key, `test`, and an account's number
    if is_root and access_key_id != os.environ["AWS_ACCESS_KEY_ID"]:
        raise Refused("UnrecognizedClientException", "The security token included in the request is invalid.")
    credential = iam_evaluator.resolve_credential(access_key_id, session_token=session_token)
    if isinstance(credential, iam_evaluator.CredentialResolutionError):
        raise Refused(credential.code, credential.message)
    return str(credential.secret_access_key)


def check_allowed(access_key_id: str, action: str, resources: Iterable[str], context: Mapping[str, object] | None = None) -> None:
    """Check that the holder of an access key may do `action` on every one of `resources` (ARNs). The cloud's own key
    may do everything; credentials that STS lent may do what their role allows and, where the session has a policy of
    its own, that policy allows too. `context` has the values that conditions read.

    Raises: Refused.
    """
    principal = iam_evaluator.resolve_principal(access_key_id, responses.get_account_id())
    if isinstance(principal, iam_evaluator.AuthError):
        raise Refused(principal.code, principal.message)
    if principal.policies is None:
        return
    read = {name.lower(): value for name, value in (context or {}).items()}
    for resource in resources:
        action_context = iam_evaluator.EvalContext(
            principal.arn, principal.type, principal.account, action, resource, responses.get_region(), service_context=read
        )
        verdict = iam_evaluator.evaluate(action_context, principal.policies, *principal.limits)
        if verdict.decision != "Allow":
            message = iam_actions.identity_denial_message(action, principal.arn, resource, verdict.decision == "Deny")
            raise Refused("AccessDeniedException", message)


def check_s3(access_key_id: str, method: str, path: str, query: Mapping[str, list[str]], headers: dict[str, str]) -> None:
    """Check that the holder of an access key may send this request to S3; `path` has the bucket in it. Raises:
    Refused."""
    if access_key_id == os.environ["AWS_ACCESS_KEY_ID"]:
        return
    action = f"s3:{iam_actions._s3_action(method, path, query)}"
    resource = iam_actions.extract_resource_arn("s3", method, path, headers, b"", query, "", "")
    check_allowed(access_key_id, action, [resource], iam_actions.s3_service_context(action, query, path, headers))
    for other_action, other_resource in iam_actions.s3_additional_checks(method, path, headers, b"", query):  # what a copy reads
        check_allowed(access_key_id, other_action, [other_resource])


class Connection(HttpToolsProtocol):  # type: ignore[misc]  # uvicorn is in the emulator's environment only
    """An HTTP connection. A target that names a host, as proxies are sent, ends it with 400: uvicorn would read that
    target's path alone, and the host from the header."""

    def on_headers_complete(self) -> None:
        """HttpToolsProtocol.on_headers_complete."""
        if not self.url.startswith(b"/"):
            raise ValueError("the target is not a path")
        super().on_headers_complete()


class EmulatorDoor:
    """ASGI middleware before ministack, which it serves on `port`."""

    def __init__(self, inside: App, *, port: int, tokens: re.Pattern[str]) -> None:
        """`tokens` matches the paths whose handler checks a token itself."""
        self._inside, self._port, self._tokens = inside, port, tokens

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
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

    def _to_the_api(self, scope: AsgiScope) -> AsgiScope:
        """The request with a host name of the cloud: by a client's own name ministack could take it for another
        service."""
        headers = [(name, value) for name, value in scope["headers"] if name.lower() != b"host"]
        name = _read_host(scope)
        if name not in self._names():
            name = f"{LOOPBACK[0]}:{self._port}"
        return {**scope, "headers": [(b"host", name.encode()), *headers]}

    async def _guard(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
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

    def _check_where_from(self, scope: AsgiScope, headers: dict[str, str]) -> str:
        """The request's host, in lower case. Raises: Refused for a host that is not the cloud's, and for another
        page's origin."""
        host = _read_host(scope)
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


def _read_host(scope: AsgiScope) -> str:
    """The Host header in lower case; empty unless there is exactly one."""
    hosts = [value for name, value in scope["headers"] if name.lower() == b"host"]
    return str(hosts[0].decode("latin-1").lower()) if len(hosts) == 1 else ""


def _headers(scope: AsgiScope) -> dict[str, str]:
    """The headers by name in lower case; values of a repeated header are joined, so that no single one counts."""
    values: dict[str, str] = {}
    for name, value in scope["headers"]:
        key, text = name.decode("latin-1").lower(), sigv4.decode_header_value(value)
        values[key] = f"{values[key]}, {text}" if key in values else text
    return values


async def _check_signature(scope: AsgiScope, headers: dict[str, str], receive: Receive, *, by_path: bool) -> Receive:
    """Check the request's signature; returns the callable that ministack receives the request from. `by_path` says that
    a bucket, if there is one, is named in the path and not by the host.

    Raises: Refused unless the header or the query is signed by SigV4; on S3 also unless the signer may do this.
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
    secret = find_secret(signature.access_key_id, token)
    _check_time(signature, query.get("X-Amz-Expires", [""])[0] if presigned else None)
    if "host" not in signature.signed_headers.split(";"):
        raise Refused("SignatureDoesNotMatch", "'host' must be a signed header")
    body = b""
    # A request that states its body's hash, and a presigned link, are signed without the body, which may be large.
    body_hash = "UNSIGNED-PAYLOAD" if presigned and signature.service == "s3" else headers.get("x-amz-content-sha256", "")
    if not body_hash or body_hash.startswith("STREAMING-AWS4"):
        body, receive = await _read(receive)
    path = scope["raw_path"].decode("latin-1")
    failure = sigv4.header_signature_failure(signature, secret, scope["method"], path, query, headers, body, presigned=presigned)
    if failure is not None:
        raise Refused(*failure)
    if signature.service == "s3":
        path_with_bucket = scope["path"] if by_path else f"/{_read_host(scope).partition('.')[0]}{scope['path']}"
        check_s3(signature.access_key_id, scope["method"], path_with_bucket, query, headers)
    return receive


def _check_time(signature: Any, expires: str | None) -> None:
    """Raises: Refused for a signature that is too old or from the future, and for a link that has expired."""
    if expires is None:
        failure = sigv4.request_time_failure(signature)
        if failure is not None:
            raise Refused(*failure)
        return
    try:
        is_expired = sigv4.presigned_request_is_expired(signature.amz_date, expires)
    except ValueError:
        is_expired = True
    if is_expired:
        raise Refused("RequestExpired", "Request has expired")


async def _read(receive: Receive) -> tuple[bytes, Receive]:
    """The request's body, and a `receive` that gives its messages once more and then those that follow."""
    messages = [await receive()]
    while messages[-1].get("more_body"):
        messages.append(await receive())
    again = iter(messages)

    async def receive_again() -> Message:
        return next(again, None) or await receive()

    return b"".join(message.get("body", b"") for message in messages), receive_again


def _refusal(scope: AsgiScope, headers: dict[str, str], refusal: Refused) -> tuple[int, dict[str, str], bytes]:
    """The refusal in the form of the service that the request is for."""
    service = app.detect_service(scope["method"], scope["path"], headers, {})
    code = refusal.code if refusal.code in iam_actions._AUTH_FAILURES else ""  # empty: the service's own code
    _, answer_headers, body = iam_actions.access_denied_response(
        service, "", "", str(uuid.uuid4()), error_code=code, message=refusal.message, headers=headers
    )
    return 403, answer_headers, body


async def _answer(send: Send, status: int, headers: dict[str, str], body: bytes) -> None:
    """Answer and close the connection, which cannot be used again while the request's body is unread."""
    answer_headers = {**headers, "Content-Length": str(len(body)), "Connection": "close"}
    await send({"type": "http.response.start", "status": status, "headers": [(k.encode(), v.encode()) for k, v in answer_headers.items()]})
    await send({"type": "http.response.body", "body": body})


def _unreadable(send: Send) -> Send:
    """`send` without the headers that let another page's script read an answer."""

    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = [(name, value) for name, value in message["headers"] if not name.lower().startswith(b"access-control-")]
            message = {**message, "headers": headers}
        await send(message)

    return sent
