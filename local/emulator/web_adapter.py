"""Lambda Web Adapter's part in an environment: the function's script is a web server, each invocation one HTTP request
to it.

Runs in the environment's process, standard library only. Does what the adapter's layer does on AWS: wait until the
readiness path answers, replace the client's `x-amzn-request-context` by the request context, and pass the answer on as
it arrives. Two differences, since many environments and a browser share the laptop: each server has a free port, and it
answers only requests with the adapter's key. The request context says who calls, and on AWS only the adapter can send
one.
"""

import base64
import hmac
import http.client
import http.server
import json
import os
import secrets
import socket
import socketserver
import threading
import time
import urllib.parse
from collections.abc import Callable
from typing import Any

PROBE_SECONDS = 0.01
KEY_HEADER = "x-rlaas-adapter-key"
HOP_BY_HOP = {"connection", "content-length", "host", "keep-alive", "transfer-encoding", "upgrade"}


class WebServerFailed(Exception):
    """The web server's answer broke off."""


class WebServer:
    """The server of the function's script, in a thread of the environment that this is called in."""

    def __init__(self, server: socketserver.TCPServer, serve_forever: Callable[[socketserver.TCPServer], None]) -> None:
        """Start it on a port of its own, and wait until it is ready."""
        server.socket.close()
        server.socket = socket.socket(server.address_family, server.socket_type)
        server.server_address = ("127.0.0.1", 0)
        server.server_bind()
        server.server_activate()
        self._port = server.server_address[1]
        self._key = {KEY_HEADER: secrets.token_urlsafe(24)}
        _answer_only(self._key[KEY_HEADER])
        threading.Thread(target=serve_forever, args=(server,), daemon=True, name="web-server").start()
        while not self._ready():
            time.sleep(PROBE_SECONDS)

    def _ready(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=5)
        try:
            connection.request("GET", os.environ.get("AWS_LWA_READINESS_CHECK_PATH", "/"), headers=self._key)
            return bool(connection.getresponse().status < 400)
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def __call__(self, event: Any, context: Any) -> dict[str, Any]:
        """The whole answer, as a proxy integration takes it. Raises: WebServerFailed."""
        parts: list[dict[str, Any]] = []
        self.stream(event, context, parts.append)
        head, *chunks = parts
        body = b"".join(base64.b64decode(chunk["data"]) for chunk in chunks)
        answer = {"statusCode": head["statusCode"], "multiValueHeaders": head["headers"]}
        try:
            return {**answer, "body": body.decode(), "isBase64Encoded": False}
        except UnicodeDecodeError:
            return {**answer, "body": base64.b64encode(body).decode(), "isBase64Encoded": True}

    def stream(self, event: Any, context: Any, send: Callable[[dict[str, Any]], None]) -> None:
        """Send the answer's head (status and headers), then its chunks as they come. Raises: WebServerFailed."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port)
        try:
            method, path, headers, body = _request(event, context)
            connection.request(method, path, body=body, headers={**headers, **self._key})
            answer = connection.getresponse()
            headers_by_name: dict[str, list[str]] = {}
            for name, value in answer.getheaders():
                if name.lower() not in HOP_BY_HOP:
                    headers_by_name.setdefault(name.lower(), []).append(value)
            send({"status": "head", "statusCode": answer.status, "headers": headers_by_name})
            while chunk := answer.read1():
                send({"status": "chunk", "data": base64.b64encode(chunk).decode()})
        except (OSError, http.client.HTTPException) as problem:
            raise WebServerFailed(f"{type(problem).__name__}: {problem}") from problem
        finally:
            connection.close()


def _answer_only(key: str) -> None:
    """Have http.server answer only requests with the adapter's key, which handlers do not see."""
    parse = http.server.BaseHTTPRequestHandler.parse_request

    def parse_request(self: http.server.BaseHTTPRequestHandler) -> bool:
        if not parse(self):
            return False
        if not hmac.compare_digest(self.headers.get(KEY_HEADER, "").encode(), key.encode()):
            self.send_error(403)
            return False
        del self.headers[KEY_HEADER]
        return True

    # The handler's class belongs to the function's own code, so the base class is what can be changed.
    http.server.BaseHTTPRequestHandler.parse_request = parse_request  # type: ignore[method-assign]


def _request(event: Any, context: Any) -> tuple[str, str, dict[str, str], bytes]:
    """(method, path, headers, body); an event that is no HTTP request is posted to the pass-through path."""
    if not isinstance(event, dict) or "httpMethod" not in event:
        path = os.environ.get("AWS_LWA_PASS_THROUGH_PATH", "/events")
        return "POST", path, {"content-type": "application/json", "x-amzn-request-context": "{}"}, json.dumps(event).encode()
    sent_headers = event.get("multiValueHeaders") or {name: [value] for name, value in (event.get("headers") or {}).items()}
    headers = {name.lower(): ",".join(values) for name, values in sent_headers.items() if name.lower() not in HOP_BY_HOP}
    headers["x-amzn-request-context"] = _latin(event.get("requestContext") or {})
    headers["x-amzn-lambda-context"] = _latin(
        {
            "request_id": context.aws_request_id,
            "deadline": int(time.time() * 1000) + context.get_remaining_time_in_millis(),
            "invoked_function_arn": context.invoked_function_arn,
        }
    )
    query = urllib.parse.urlencode(event.get("multiValueQueryStringParameters") or {}, doseq=True)
    body = event.get("body") or ""
    content = base64.b64decode(body) if event.get("isBase64Encoded") else body.encode()
    path = urllib.parse.quote(event["path"], safe="/%:@!$&'()*+,;=~-._")
    return event["httpMethod"], f"{path}?{query}" if query else path, headers, content


def _latin(value: Any) -> str:
    """`value` in JSON, whose UTF-8 bytes http.client sends when it takes this text for Latin-1."""
    return json.dumps(value, ensure_ascii=False).encode().decode("latin-1")
