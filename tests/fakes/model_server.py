"""A SageMaker endpoint over real HTTP, answering InvokeEndpoint as `EchoBackend` does."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Asked:
    """One InvokeEndpoint."""

    endpoint: str
    component: str | None
    body: dict[str, Any]


@dataclass
class ModelServer:
    """What was asked, which components are down, and what to answer in place of a completion."""

    url: str
    asked: list[Asked] = field(default_factory=list)
    down: set[str] = field(default_factory=set)
    nonsense: str | None = None
    silent: threading.Event | None = None


@contextmanager
def model_server() -> Iterator[ModelServer]:
    """Serve on a free port of the loopback until the block ends."""
    state = ModelServer(url="")

    class Invocations(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            component = self.headers.get("X-Amzn-SageMaker-Inference-Component")
            state.asked.append(Asked(self.path.split("/")[2], component, body))
            if state.silent is not None:
                state.silent.wait()
            if component in state.down:
                self._answer(424, {"Message": "no such adapter"}, error="ModelError")
                return
            text = f"{component}: {body['messages'][-1]['content']}"
            usage = {"prompt_tokens": 7, "completion_tokens": len(text.split()), "total_tokens": 7 + len(text.split())}
            choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            self._answer(200, {"id": "chatcmpl-1", "choices": [choice], "usage": usage})

        def _answer(self, status: int, body: dict[str, Any], *, error: str | None = None) -> None:
            content = (state.nonsense or json.dumps(body)).encode()
            self.send_response(status)
            if error:
                self.send_header("x-amzn-ErrorType", error)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Invocations)
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        if state.silent is not None:
            state.silent.set()
        server.shutdown()
        server.server_close()
        thread.join()
