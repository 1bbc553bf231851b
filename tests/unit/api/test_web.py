"""What a function behind Lambda Web Adapter does with the adapter's HTTP requests."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from typing import Any

import pytest

from rlaas.api import web
from rlaas.api.http import Body, GatewayEvent, caller, header, parse
from rlaas.errors import DependencyUnavailable, QuotaExceeded
from rlaas.wire import WireModel
from tests.fakes.gateway import make_proxy_event

CONTEXT = make_proxy_event("/v1/say", {})["requestContext"]


class Say(WireModel):
    text: str


class Speaker:
    """Streams, and keeps what happened to the stream."""

    def __init__(self) -> None:
        self.closed = threading.Event()
        self.said_first = threading.Event()
        self.go_on = threading.Event()
        self.events: list[GatewayEvent] = []

    def whole(self, event: GatewayEvent) -> Body:
        self.events.append(event)
        return {"text": parse(Say, event).text, "tenant": caller(event).tenant_id, "origin": header(event, "Origin")}

    def parts(self, event: GatewayEvent) -> web.Stream:
        text = parse(Say, event).text
        return self._speak(text)

    def _speak(self, text: str) -> web.Stream:
        try:
            if text == "refused":
                raise DependencyUnavailable("the model is down")
            yield {"text": text}
            self.said_first.set()
            assert self.go_on.wait(10)
            if text == "breaks":
                raise DependencyUnavailable("the model went away")
            if text == "fails":
                raise ZeroDivisionError("secret")
            yield {"text": "é\ud83d"}
        finally:
            self.closed.set()

    def named(self, event: GatewayEvent) -> web.Stream:
        text = parse(Say, event).text
        yield {"type": "begun"}
        if text == "breaks":
            raise DependencyUnavailable("the model went away")
        yield {"type": "ended"}

    def limited(self, event: GatewayEvent) -> Body:
        error = QuotaExceeded("spent")
        error.retry_after_s = 1.2
        raise error


@contextmanager
def served(speaker: Speaker) -> Iterator[int]:
    doors = {"/v1/say": web.Door(speaker.whole), "/v1/stream": web.Door(speaker.parts), "/v1/limited": web.Door(speaker.limited)}
    doors["/v1/named"] = web.Door(speaker.named, failure=lambda error, identifier: {"type": "error", "id": identifier}, named_parts=True)
    doors["/v1/numbered"] = web.Door(speaker.parts, failure_part=lambda body, parts: {**body, "after": parts})
    with web.server(doors, port=0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.fixture
def speaker() -> Speaker:
    return Speaker()


@pytest.fixture
def port(speaker: Speaker) -> Iterator[int]:
    with served(speaker) as number:
        yield number


def post(port: int, path: str, body: object, **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    all_headers = {"Content-Type": "application/json", web.CONTEXT_HEADER: json.dumps(CONTEXT), **headers}
    connection.request("POST", path, body=json.dumps(body), headers=all_headers)
    answer = connection.getresponse()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()


def data(body: bytes) -> list[str]:
    """The data of a stream's events."""
    assert body.endswith(b"\n\n")
    return [event.removeprefix("data: ") for event in body.decode().split("\n\n")[:-1]]


def test_the_adapter_finds_it_ready(port: int) -> None:
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", web.READY_PATH)
    assert connection.getresponse().status == 200


def test_a_request_is_the_event_that_every_function_gets(port: int) -> None:
    status, headers, body = post(port, "/v1/say?x=1", {"text": "hé"}, origin="https://a.test")
    assert (status, json.loads(body)) == (200, {"text": "hé", "tenant": "acme", "origin": "https://a.test"})
    assert (headers["content-type"], headers["x-request-id"]) == ("application/json", "req-1")


@pytest.mark.parametrize("path", ["/v1/say/", "//v1/say", "/v1//say//?x=1"])
def test_slashes_too_many_do_not_matter(port: int, path: str) -> None:
    assert post(port, path, {"text": "hi"})[0] == 200


def test_every_answer_has_its_id_and_pages_may_read_it(port: int, speaker: Speaker) -> None:
    speaker.go_on.set()
    for path, body in (("/v1/say", {"text": "hi"}), ("/v1/say", {}), ("/v1/none", {}), ("/v1/stream", {"text": "hi"})):
        headers = post(port, path, body)[1]
        assert headers["x-request-id"] == headers["request-id"] == "req-1"
        assert headers["access-control-allow-origin"] == "*"
        assert {"X-Request-Id", "Retry-After"} <= set(headers["access-control-expose-headers"].split(", "))


def test_a_connection_may_be_kept_and_a_refusal_leaves_nothing_of_its_request_on_it(port: int) -> None:
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    for context, status in ((None, 401), (CONTEXT, 200), (None, 401), (CONTEXT, 200)):
        headers = {"Content-Type": "application/json"} | ({web.CONTEXT_HEADER: json.dumps(context)} if context else {})
        connection.request("POST", "/v1/say", body='{"text": "POST /v1/say HTTP/1.1"}', headers=headers)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == status


def test_what_the_authorizer_said_is_read_as_utf_8(port: int, speaker: Speaker) -> None:
    context = {**CONTEXT, "identity": {"userAgent": "Ünïcode"}}
    raw = json.dumps(context, ensure_ascii=False).encode().decode("latin-1")
    assert post(port, "/v1/say", {"text": "x"}, **{web.CONTEXT_HEADER: raw})[0] == 200
    assert speaker.events[0]["requestContext"] == context


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        ("/v1/say", {"text": 1}, 400, "text"),
        ("/v1/say", [], 400, None),
        ("/v1/say", {"text": "x" * 300_000}, 413, None),
        ("/v1/other", {}, 404, None),
    ],
)
def test_refusals_have_the_services_error_body(port: int, path: str, body: object, status: int, param: str | None) -> None:
    got, _, answer = post(port, path, body)
    error = json.loads(answer)["error"]
    assert (got, error["param"], error["request_id"]) == (status, param, "req-1")
    assert set(error) == {"type", "code", "message", "param", "request_id"}


def test_a_limit_says_when_to_come_back(port: int) -> None:
    status, headers, _ = post(port, "/v1/limited", {})
    assert (status, headers["retry-after"]) == (429, "2")


def test_a_request_without_the_adapters_context_or_with_a_second_one_is_nobodys(port: int) -> None:
    head = "POST /v1/say HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 14\r\n"
    context = f"{web.CONTEXT_HEADER}: {json.dumps(CONTEXT)}\r\n"
    for contexts in ("", context * 2, context.replace("-", "_", 3)):
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(f'{head}{contexts}\r\n{{"text": "hi!"}}'.encode())
            assert connection.recv(1 << 16).startswith(b"HTTP/1.1 401 ")


def test_a_stream_is_events_and_done_and_each_is_sent_when_it_is_made(port: int, speaker: Speaker) -> None:
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    headers = {"Content-Type": "application/json", web.CONTEXT_HEADER: json.dumps(CONTEXT)}
    connection.request("POST", "/v1/stream", body=json.dumps({"text": "one"}), headers=headers)
    answer = connection.getresponse()
    assert answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert answer.readline() == b'data: {"text":"one"}\n'
    assert answer.readline() == b"\n"
    assert not speaker.go_on.is_set()
    speaker.go_on.set()
    assert data(answer.read()) == ['{"text":"é\\ud83d"}', "[DONE]"]
    assert speaker.closed.wait(10)


def test_a_stream_that_cannot_begin_is_an_ordinary_refusal(port: int) -> None:
    status, headers, body = post(port, "/v1/stream", {"text": "refused"})
    assert (status, json.loads(body)["error"]["code"]) == (503, "dependency_unavailable")
    assert headers["content-type"] == "application/json"


@pytest.mark.parametrize(("text", "code"), [("breaks", "dependency_unavailable"), ("fails", "internal_error")])
def test_a_failure_in_the_middle_is_the_last_event(port: int, speaker: Speaker, text: str, code: str) -> None:
    speaker.go_on.set()
    status, _, body = post(port, "/v1/stream", {"text": text})
    first, last = data(body)
    error: dict[str, Any] = json.loads(last)["error"]
    assert (status, json.loads(first), error["code"], error["request_id"]) == (200, {"text": text}, code, "req-1")
    assert "secret" not in last
    assert speaker.closed.is_set()


def test_an_api_may_name_its_events_and_write_failures_its_own_way(port: int) -> None:
    begun = b'event: begun\ndata: {"type":"begun"}\n\n'
    assert post(port, "/v1/named", {"text": "one"})[2] == begun + b'event: ended\ndata: {"type":"ended"}\n\n'
    assert post(port, "/v1/named", {"text": "breaks"})[2] == begun + b'event: error\ndata: {"type":"error","id":"req-1"}\n\n'
    status, _, body = post(port, "/v1/named", {"wrong": 1})
    assert (status, json.loads(body)) == (400, {"type": "error", "id": "req-1"})


def test_a_failure_in_the_middle_may_say_how_many_parts_went_before(port: int, speaker: Speaker) -> None:
    speaker.go_on.set()
    last = json.loads(data(post(port, "/v1/numbered", {"text": "breaks"})[2])[-1])
    assert (last["error"]["code"], last["after"]) == ("dependency_unavailable", 1)


def test_a_client_that_leaves_closes_the_stream(port: int, speaker: Speaker) -> None:
    body = json.dumps({"text": "one"})
    connection = socket.create_connection(("127.0.0.1", port), timeout=10)
    head = f"POST /v1/stream HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    connection.sendall(f"{head}{web.CONTEXT_HEADER}: {json.dumps(CONTEXT)}\r\n\r\n{body}".encode())
    assert speaker.said_first.wait(10)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")  # close with a reset
    connection.close()
    speaker.go_on.set()
    assert speaker.closed.wait(10)


def exchange(port: int, request: str) -> bytes:
    """All that comes back for `request`, after which nothing is sent, until the server ends the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(request.encode())
        connection.shutdown(socket.SHUT_WR)
        content = b""
        while piece := connection.recv(1 << 16):
            content += piece
    return content


BODY = '{"text": "hi"}'
HEAD = f"POST /v1/say HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{web.CONTEXT_HEADER}: {json.dumps(CONTEXT)}\r\n"


@pytest.mark.parametrize(
    "length",
    [
        "Content-Length: -1",
        "Content-Length: +14",
        "Content-Length: 0x0e",
        "Content-Length: 14, 14",
        "Content-Length: 14\r\nContent-Length: 15",
        "Content-Length: 99999999999999999999999999",
        "Transfer-Encoding: chunked",
        "Content-Length: 14\r\nTransfer-Encoding: chunked",
    ],
)
def test_a_body_whose_length_nobody_knows_is_refused_and_ends_the_connection(port: int, speaker: Speaker, length: str) -> None:
    answer = exchange(port, f"{HEAD}{length}\r\n\r\n{BODY}" + f"{HEAD}Content-Length: {len(BODY)}\r\n\r\n{BODY}")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1") == 1
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["param"] == "Content-Length"
    assert speaker.events == []


def test_a_body_larger_than_lambda_hands_over_is_refused_unread(port: int, speaker: Speaker) -> None:
    assert exchange(port, f"{HEAD}Content-Length: 7000000\r\n\r\n{BODY}").startswith(b"HTTP/1.1 413 ")
    assert speaker.events == []


def test_a_body_that_ends_before_its_length_is_a_client_that_left(port: int, speaker: Speaker) -> None:
    assert exchange(port, f"{HEAD}Content-Length: 1000\r\n\r\n{BODY}") == b""
    assert speaker.events == []
    assert post(port, "/v1/say", {"text": "hi"})[0] == 200


def test_a_body_that_is_longer_than_its_length_is_read_so_far(port: int) -> None:
    answer = exchange(port, f"{HEAD}Content-Length: 5\r\n\r\n{BODY}")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"200 OK" not in answer
