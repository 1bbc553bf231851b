"""The marks of a prompt's cache on the wire of OpenRouter, which takes them, and of other servers, which might refuse
them."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest

from rlaas.adapters.aws.secrets import VendorKeys
from rlaas.adapters.models.backends import Backends
from rlaas.chat import ChatCall, Message, Usage
from rlaas.policies.backend import OpenAIBackend
from rlaas.prompt_cache import CacheMark, CacheTtl
from tests.fakes.loopback import QuietHandler, serve_handler

COUNTS = {
    "prompt_tokens": 1000,
    "completion_tokens": 2,
    "total_tokens": 1002,
    "prompt_tokens_details": {"cached_tokens": 600, "cache_write_tokens": 300},
}
WHOLE = {"choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "ok"}}], "usage": COUNTS}
PIECES = [{"choices": [{"index": 0, "finish_reason": "stop", "delta": {"content": "ok"}}]}, {"choices": [], "usage": COUNTS}]


@contextmanager
def answering() -> Iterator[tuple[int, list[Any]]]:
    """The port of a server on the loopback, and the bodies that it got."""
    bodies: list[Any] = []

    class Answers(QuietHandler):
        def do_POST(self) -> None:
            bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            events = "".join(f"data: {json.dumps(piece)}\n\n" for piece in PIECES) + "data: [DONE]\n\n"
            is_stream = bodies[-1].get("stream", False)
            content = (events if is_stream else json.dumps(WHOLE)).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream" if is_stream else "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    with serve_handler(Answers) as url:
        port = urlsplit(url).port
        assert port is not None
        yield port, bodies


@pytest.mark.parametrize(
    ("host", "ttl", "marked", "for_an_hour"),
    [
        ("openrouter.ai", "5m", {"type": "ephemeral"}, 0),
        ("openrouter.ai", "1h", {"type": "ephemeral", "ttl": "1h"}, 300),
        ("models.example", "1h", None, 0),
    ],
)
def test_marks_reach_a_server_that_takes_them_and_what_it_writes_is_counted(
    host: str, ttl: CacheTtl, marked: object, for_an_hour: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda name, *rest, **more: resolve("127.0.0.1", *rest, **more))
    user = Message(role="user", content="A long text. So?", cache_marks=(CacheMark(ttl=ttl, at=12),))
    tool: Any = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    call = ChatCall((user,), {"max_tokens": 20, "tools": [tool]}, "acme", tool_marks={0: ttl})
    with answering() as (port, bodies):
        backends, spec = Backends(VendorKeys(None), private_addresses=True), OpenAIBackend(model="m", base_url=f"http://{host}:{port}/v1")
        answer = backends.complete(spec, call, timeout_s=5)
        [*_, last] = backends.stream(spec, call, timeout_s=5)
    expected = Usage(input_tokens=1000, output_tokens=2, cached_tokens=600, cache_write_tokens=300, cache_write_1h_tokens=for_an_hour)
    assert answer.usage == last.usage == expected
    pieces = [{"type": "text", "text": "A long text.", "cache_control": marked}, {"type": "text", "text": " So?"}]
    for body in bodies:
        assert body["messages"] == [{"role": "user", "content": pieces if marked else "A long text. So?"}]
        assert body["tools"] == [{**tool, "cache_control": marked} if marked else tool]
