"""Lambda Web Adapter's part in a worker: the function's script is a web server, each invocation one HTTP request to it.

Runs in the worker's process, standard library only. Does what the adapter's layer does on AWS: start the script, wait
until the readiness path answers, replace the client's `x-amzn-request-context` by the request context, and pass the
answer on as it arrives. Two differences, since many environments and a browser share the laptop: AWS_LWA_PORT is a free
port, and the server answers only requests with the adapter's key. The request context says who calls, and on AWS only
the adapter can send one.
"""

import base64
import contextlib
import ctypes
import http.client
import json
import os
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any

PROBE_SECONDS = 0.01
END_SECONDS = 0.5
"""How long to wait for the exit status of a server whose connection broke."""
PR_SET_PDEATHSIG = 1
PYTHON = Path(__file__).with_name("web_python.py")
KEY, KEY_HEADER = "RLAAS_ADAPTER_KEY", "x-rlaas-adapter-key"
HOP_BY_HOP = {"connection", "content-length", "host", "keep-alive", "transfer-encoding", "upgrade"}


class WebServerFailed(Exception):
    """The web server ended before it was ready, or before its answer was whole."""


class WebServer:
    """The script's process, ready for requests."""

    def __init__(self, init: dict[str, Any]) -> None:
        """Start it and wait until it is ready. Raises: WebServerFailed when it ends first."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._key = {KEY_HEADER: secrets.token_urlsafe(24)}
        programs = Path(tempfile.mkdtemp())
        for name in ("python", "python3"):
            command = shlex.join([sys.executable, "-I", "-S", str(PYTHON), json.dumps(init["layers"])])
            (programs / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
            (programs / name).chmod(0o755)
        library = ctypes.CDLL(None)
        self.process = subprocess.Popen(
            [str(Path(init["code"], init["handler"]))],
            cwd=init["code"],
            env=os.environ
            | {"AWS_LWA_PORT": str(self.port), KEY: self._key[KEY_HEADER], "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"},
            stdin=subprocess.DEVNULL,
            preexec_fn=lambda: library.prctl(PR_SET_PDEATHSIG, signal.SIGKILL),  # no server outlives its worker, however that ended
        )
        while not self._ready():
            if self.process.poll() is not None:
                raise WebServerFailed(f"Runtime exited with error: exit status {self.process.returncode}")
            time.sleep(PROBE_SECONDS)

    def _ready(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
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
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
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
            with contextlib.suppress(subprocess.TimeoutExpired):
                os._exit(self.process.wait(END_SECONDS) & 0xFF)  # with its runtime the whole environment ends
            raise WebServerFailed(f"{type(problem).__name__}: {problem}") from problem
        finally:
            connection.close()


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
