"""Names found without a model, and the function `find_entities` over real HTTP, answering Invoke as Lambda does."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from rlaas.errors import DependencyUnavailable
from rlaas.privacy.patterns import Span
from rlaas.privacy.settings import ModelEntity


@dataclass
class WordFinder:
    """`EntityFinder` that knows its words, wherever they stand. `down` makes it fail."""

    words: Mapping[str, ModelEntity] = field(default_factory=lambda: {"Ada Park": "PERSON", "Zabrze": "LOCATION"})
    down: bool = False
    asked: list[tuple[list[str], list[ModelEntity]]] = field(default_factory=list)

    def find(self, texts: Sequence[str], entities: Sequence[ModelEntity]) -> list[list[Span]]:
        self.asked.append((list(texts), list(entities)))
        if self.down:
            raise DependencyUnavailable("the function that finds names failed")
        return [
            [span for word, entity in self.words.items() if entity in entities for span in _places(text, word, entity)] for text in texts
        ]


def _places(text: str, word: str, entity: ModelEntity) -> Iterator[Span]:
    start = text.find(word)
    while start >= 0:
        yield Span(start, start + len(word), entity)
        start = text.find(word, start + 1)


@dataclass
class LambdaServer:
    """What was asked of which function, and what to do in place of answering."""

    url: str
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    failing: bool = False
    throttling: bool = False
    nonsense: str | None = None
    silent: threading.Event | None = None


@contextmanager
def lambda_server(handler: Callable[[dict[str, Any]], object]) -> Iterator[LambdaServer]:
    """Serve Invoke by `handler` on a free port of the loopback until the block ends."""
    state = LambdaServer(url="")

    class Invocations(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            event = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            state.asked.append((self.path.split("/")[3], event))
            if state.silent is not None:
                state.silent.wait()
            if state.throttling:
                self._answer(
                    429, '{"Reason": "ReservedFunctionConcurrentInvocationLimitExceeded"}', {"x-amzn-ErrorType": "TooManyRequestsException"}
                )
            elif state.failing:
                self._answer(200, '{"errorType": "MemoryError", "errorMessage": ""}', {"X-Amz-Function-Error": "Unhandled"})
            else:
                self._answer(200, state.nonsense or json.dumps(handler(event)), {})

        def _answer(self, status: int, body: str, headers: Mapping[str, str]) -> None:
            content = body.encode()
            self.send_response(status)
            for name, value in {**headers, "Content-Type": "application/json", "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
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
