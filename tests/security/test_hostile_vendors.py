"""Whatever a vendor's server sends is a failed backend: the next one answers, and nobody gets a 500. Over HTTP on the
laptop cloud."""

import gzip
import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from tests.fakes.loopback import QuietHandler, serve_handler
from tests.laptop_cloud import SKILL, LaptopCloud, Tenant

USAGE = {"prompt_tokens": 1, "completion_tokens": 1}
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def drips(*pieces: bytes) -> Callable[[Any], None]:
    """An answer that never ends, and never pauses for as long as a time-out."""

    def send(write: Any) -> None:
        write(pieces[0])
        for _ in range(300):
            write(pieces[1])
            time.sleep(0.1)

    return send


def whole(body: object, head: bytes = HEAD) -> Callable[[Any], None]:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return lambda write: write(head + b"Content-Length: %d\r\n\r\n" % len(content) + content)


def answer_with(**choice: object) -> Callable[[Any], None]:
    return whole({"choices": [{"index": 0, "message": {"content": "hi"}, "finish_reason": "stop", **choice}], "usage": USAGE})


ANSWERS: dict[str, Callable[[Any], None]] = {
    "no JSON": whole(b"\xff\xfe{]"),
    "another shape": whole([[["hello"]]]),
    "wrong types": answer_with(message={"content": {"text": "hi"}}),
    "nested without end": whole(b'{"choices": ' + b"[" * 200_000),
    "a number without end": whole(b'{"choices": [], "usage": {"prompt_tokens": ' + b"9" * 100_000 + b"}}"),
    "choices nobody asked for": whole({"choices": [{"index": at, "message": {"content": "x"}} for at in range(1_000)]}),
    "tools beyond measure": answer_with(message={"tool_calls": [{"id": "x" * 10_000, "function": {"name": "f", "arguments": ""}}]}),
    "a bomb": whole(gzip.compress(b" " * 50_000_000), HEAD + b"Content-Encoding: gzip\r\n"),
    "too much": whole(b" " * 40_000_000),
    "headers without end": drips(b"HTTP/1.1 200 OK\r\n", b"x-more: y\r\n"),
    "a line without end": drips(b"HTTP/1.1 200 OK\r\nx-more: ", b"y"),
    "a drip": drips(HEAD + b"Content-Length: 100000\r\n\r\n", b"{"),
    "goes on for ever": drips(b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "another protocol": lambda write: write(b"SSH-2.0-OpenSSH_9.6\r\n"),
    "a wait of years": lambda write: write(b"HTTP/1.1 429 No\r\nRetry-After: Mon, 01 Jan 0001 00:00:00 -2359\r\nContent-Length: 0\r\n\r\n"),
}
ODD: dict[str, tuple[bytes, str]] = {
    "half a surrogate": (b'{"choices": [{"message": {"content": "x\\ud800"}, "finish_reason": "stop"}]}', "x\ufffd"),
    "not a number": (b'{"choices": [{"message": {"content": "x"}, "logprobs": NaN, "finish_reason": "stop"}]}', "x"),
}
EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
STREAMS: dict[str, Callable[[Any], None]] = {
    "no JSON": lambda write: write(EVENTS + b"data: {]\n\n"),
    "an index beyond measure": lambda write: write(EVENTS + b'data: {"choices": [{"index": 1000000, "delta": {"content": "x"}}]}\n\n'),
    "a choice nobody asked for": lambda write: write(EVENTS + b'data: {"choices": [{"index": -7, "delta": {"content": "x"}}]}\n\n'),
    "pings for ever": drips(EVENTS, b": still here\n\n"),
    "nothing for ever": drips(EVENTS, b'data: {"choices": []}\n\n'),
    "a drip": drips(EVENTS, b"d"),
}


@dataclass
class Hostile:
    url: str = ""
    answer: Callable[[Any], None] = field(default=lambda write: None)


@pytest.fixture(scope="module")
def hostile() -> Iterator[Hostile]:
    """A vendor that sends the bytes of `Hostile.answer`, and a spare one beside it."""
    vendor = Hostile()

    class Handler(QuietHandler):
        def do_POST(self: BaseHTTPRequestHandler) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.close_connection = True
            with suppress(OSError):
                vendor.answer(lambda piece: (self.wfile.write(piece), self.wfile.flush()))

    class Spare(QuietHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            choice = {"index": 0, "message": {"content": "from the spare"}, "finish_reason": "stop"}
            if not request.get("stream"):
                self.answer(200, json.dumps({"choices": [choice], "usage": USAGE}).encode())
                return
            piece = {"choices": [{"index": 0, "delta": choice["message"], "finish_reason": "stop"}]}
            content = f"data: {json.dumps(piece)}\n\ndata: [DONE]\n\n".encode()
            self.answer(200, content, {"Content-Type": "text/event-stream"})

    with serve_handler(Handler) as url, serve_handler(Spare) as spare:
        vendor.url = f"{url} {spare}"
        yield vendor


@pytest.fixture(scope="module")
def bare_tenant(cloud: LaptopCloud, hostile: Hostile) -> Tenant:
    """A tenant whose policy asks the hostile vendor first; each kind of policy as often as needed, so that no circuit
    opens."""
    tenant = cloud.tenant()
    tenant.admin("PUT", f"skills/{SKILL}", {})
    return tenant


def policy(tenant: Tenant, hostile: Hostile, *, model: str, kind: str = "openai") -> str:
    """A policy of its own circuit; whatever may go wrong with the vendor, the spare answers."""
    url, spare = hostile.url.split()
    first = {"kind": kind, "model": model, "base_url": f"{url}/v1", "timeout_s": 1}
    body = {"prompt": {"user": "{{ email }}"}, "backend": first}
    answer = tenant.admin(
        "POST", f"skills/{SKILL}/policies", {**body, "fallbacks": [{"kind": "openai", "model": "spare", "base_url": f"{spare}/v1"}]}
    )
    return str(answer["policy_id"])


@pytest.fixture(scope="module")
def routed_tenant(bare_tenant: Tenant, hostile: Hostile) -> Tenant:
    control = policy(bare_tenant, hostile, model="control")
    bare_tenant.admin("PUT", f"skills/{SKILL}/route", {"expected_version": 0, "control": control})
    return bare_tenant


@pytest.mark.parametrize("kind", ANSWERS)
def test_the_next_backend_answers_for_a_vendor_that_sends(routed_tenant: Tenant, hostile: Hostile, kind: str) -> None:
    hostile.answer = ANSWERS[kind]
    policy_id = policy(routed_tenant, hostile, model=f"whole {kind}")
    answer = routed_tenant.post("v1/infer", {"skill": SKILL, "inputs": {"email": "?"}, "policy_id": policy_id})
    assert answer.status_code == 200, answer.text
    assert (answer.json()["text"], answer.json()["decision"]["fallback"]) == ("from the spare", True)


@pytest.mark.parametrize("kind", ODD)
def test_an_answer_that_was_paid_for_is_not_thrown_away_for_an_oddity(routed_tenant: Tenant, hostile: Hostile, kind: str) -> None:
    content, text = ODD[kind]
    hostile.answer = whole(content)
    policy_id = policy(routed_tenant, hostile, model=f"odd {kind}")
    answer = routed_tenant.post("v1/infer", {"skill": SKILL, "inputs": {"email": "?"}, "policy_id": policy_id}).json()
    assert (answer["text"], answer["decision"]["fallback"]) == (text, False)


@pytest.mark.parametrize("kind", STREAMS)
def test_the_next_backend_streams_for_a_vendor_that_streams(routed_tenant: Tenant, hostile: Hostile, kind: str) -> None:
    hostile.answer = STREAMS[kind]
    policy_id = policy(routed_tenant, hostile, model=f"stream {kind}")
    body = {"model": f"rlaas::{policy_id}", "messages": [{"role": "user", "content": "?"}], "stream": True}
    with routed_tenant.http.stream("POST", "v1/chat/completions", json=body) as answer:
        text = answer.read().decode()
    assert answer.status_code == 200, text
    assert "from the spare" in text
