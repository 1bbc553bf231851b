"""A function behind Lambda Web Adapter: HTTP on the loopback in; the events, limits and error bodies of every other
function; streams out.

The adapter turns each invocation into one HTTP request and puts API Gateway's request context, with what the authorizer
found, in the header `x-amzn-request-context`, in place of whatever the client sent under that name. On AWS one
environment gets one request at a time.
"""

import base64
import json
import re
import socketserver
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from itertools import chain

from rlaas.api.http import Body, GatewayEvent, common_headers, failure_headers, find_status, request_id
from rlaas.api.openai_errors import openai_failure
from rlaas.errors import InvalidInput, NotFound, PayloadTooLarge, RlaasError, Unauthorized
from rlaas.runtime.log import list_frames, log_refusal, logger
from rlaas.runtime.paths import tidy_path

READY_PATH = "/ready"
"""Where the adapter asks whether the function is up (AWS_LWA_READINESS_CHECK_PATH)."""
CONTEXT_HEADER = "x-amzn-request-context"
_MOST_BYTES = 6 * 1024 * 1024
"""The most that Lambda hands to a function."""

Stream = Generator[Body, None, None]
"""The parts of a streamed answer. An error before its first part becomes an ordinary error answer. It is closed when
the client has left, so that it can account for what was produced."""
Responder = Callable[[GatewayEvent], Body | Stream]
"""Answers one request, whole or in parts. Raises: any RlaasError."""


@dataclass(frozen=True, slots=True)
class Door:
    """One API at one path: who answers, and how it writes failures and the parts of a stream."""

    respond: Responder
    failure: Callable[[Exception, str], Body] = openai_failure
    """The body of a failure, with the request's id."""
    failure_part: Callable[[Body, int], Body] = lambda body, _: body
    """A stream's last part where it fails in the middle: from the body of the failure, and how many parts went before.
    """
    named_parts: bool = False
    """Each part is an event named by the `type` in its body, and none marks the end; otherwise parts have no names, and
    the end is `[DONE]`."""


class ClientLeft(Exception):
    """Nobody reads the answer any more."""


def server(doors: Mapping[str, Door], *, port: int) -> socketserver.ThreadingTCPServer:
    """A server of POST requests, by path, on `port` of the loopback (0: any free one), listening already."""

    class Routed(_Exchange):
        doors_by_path = doors

    return _Server(("127.0.0.1", port), Routed)


class _Server(socketserver.ThreadingTCPServer):
    """Threads, so that a request whose client has left while its model is still silent does not hold up the next
    one."""

    allow_reuse_address = True
    daemon_threads = True


class _Exchange(BaseHTTPRequestHandler):
    """The requests of one connection, which the adapter may keep. It ends from this side only when an answer was cut
    off."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    doors_by_path: Mapping[str, Door]
    door: Door

    def do_GET(self) -> None:
        """Say that the function is up."""
        self._send_whole(200 if self.path == READY_PATH else 404, {}, "")

    def do_POST(self) -> None:
        """Answer a request of the API."""
        identifier = ""
        self.door = self.doors_by_path.get(tidy_path(self.path.partition("?")[0]), _NOWHERE)
        try:
            event = self._read_event()
            identifier = request_id(event)
            answer = self.door.respond(event)
            if isinstance(answer, dict):
                self._send_whole(200, answer, identifier)
            else:
                self._send_parts(next(answer, None), answer, identifier)
        except ClientLeft:
            self.close_connection = True
            logger.info("client left", request_id=identifier)
        except Exception as error:
            self._refuse(error, identifier)

    def _read_event(self) -> GatewayEvent:
        """The request as API Gateway's proxy event. Raises: Unauthorized without exactly one context, which only the
        adapter gives; as `_read_body`."""
        body = self._read_body()  # in any case: unread bytes would be taken for the next request
        contexts = self.headers.get_all(CONTEXT_HEADER) or []
        if len(contexts) != 1:
            raise Unauthorized("the request passed no authorizer")
        return {
            "httpMethod": self.command,
            "path": self.path.partition("?")[0],
            "headers": dict(self.headers.items()),
            # The header holds UTF-8, and http.server reads headers as Latin-1.
            "requestContext": json.loads(contexts[0].encode("latin-1")),
            "body": base64.b64encode(body).decode(),
            "isBase64Encoded": True,
        }

    def _read_body(self) -> bytes:
        """The bytes of the body; the connection ends where nobody knows how many there are.

        Raises: InvalidInput where no one Content-Length says it, PayloadTooLarge, ClientLeft when fewer came.
        """
        lengths = self.headers.get_all("Content-Length") or ["0"]
        if "Transfer-Encoding" in self.headers or len(lengths) > 1 or not re.fullmatch("[0-9]{1,18}", lengths[0]):
            self.close_connection = True
            raise InvalidInput("the length of a body is said by one Content-Length", param="Content-Length")
        if int(lengths[0]) > _MOST_BYTES:
            self.close_connection = True
            raise PayloadTooLarge(f"the body has {lengths[0]} bytes; at most {_MOST_BYTES} are read")
        body = self.rfile.read(int(lengths[0]))
        if len(body) < int(lengths[0]):
            raise ClientLeft
        return body

    def _send_whole(self, status: int, body: Body, identifier: str, headers: Mapping[str, str] | None = None) -> None:
        content = _dump_json(body)
        self._send_head(status, "application/json", identifier, {**(headers or {}), "Content-Length": str(len(content))})
        self._send(content)

    def _send_parts(self, first: Body | None, rest: Stream, identifier: str) -> None:
        """Send the parts as server-sent events. A failure in the middle is an event of its own and the last."""
        parts = 0
        try:
            self._send_head(
                200, "text/event-stream; charset=utf-8", identifier, {"Cache-Control": "no-cache", "Transfer-Encoding": "chunked"}
            )
            for body in chain(() if first is None else (first,), rest):
                self._send_part(body)
                parts += 1
            if not self.door.named_parts:
                self._send_chunk(b"data: [DONE]\n\n")
        except ClientLeft:
            raise
        except Exception as error:
            self._send_part(self.door.failure_part(self._log_failure(error, identifier), parts))
        finally:
            rest.close()
        self._send(b"0\r\n\r\n")

    def _refuse(self, error: Exception, identifier: str) -> None:
        body = self._log_failure(error, identifier)
        try:
            self._send_whole(find_status(error) if isinstance(error, RlaasError) else 500, body, identifier, failure_headers(error))
        except ClientLeft:
            self.close_connection = True
            logger.info("client left", request_id=identifier)

    def _send_head(self, status: int, content_type: str, identifier: str, headers: Mapping[str, str]) -> None:
        self.send_response_only(status)
        for name, value in {"Content-Type": content_type, **common_headers(identifier), **headers}.items():
            self.send_header(name, value)
        try:
            self.end_headers()
        except OSError:
            raise ClientLeft from None

    def _log_failure(self, error: Exception, identifier: str) -> Body:
        """Write the error to the log; its body, as the API writes it."""
        if isinstance(error, RlaasError):
            log_refusal(error, identifier, status=find_status(error))
        else:
            logger.error("failed", request_id=identifier, error=type(error).__name__, where=list_frames(error))
        return self.door.failure(error, identifier)

    def _send_part(self, body: Body) -> None:
        name = f"event: {body['type']}\n".encode() if self.door.named_parts else b""
        self._send_chunk(name + b"data: " + _dump_json(body) + b"\n\n")

    def _send_chunk(self, content: bytes) -> None:
        self._send(b"%x\r\n%s\r\n" % (len(content), content))

    def _send(self, content: bytes) -> None:
        try:
            self.wfile.write(content)
        except OSError:
            raise ClientLeft from None

    def log_message(self, format: str, *args: object) -> None:
        """API Gateway keeps the access log."""


def _answer_nothing(event: GatewayEvent) -> Body:
    raise NotFound("there is nothing at this path")


_NOWHERE = Door(_answer_nothing)


def _dump_json(body: Body) -> bytes:
    """`body` in UTF-8; half of a surrogate pair, which a piece of a text may end in, stays an escape."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode(errors="backslashreplace")
