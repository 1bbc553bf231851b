"""Names found without a model, and the function `find_entities` over real HTTP, answering Invoke as Lambda does."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rlaas.errors import DependencyUnavailable
from rlaas.privacy.patterns import Span
from rlaas.privacy.settings import ModelEntity
from tests.fakes.loopback import QuietHandler, serve_handler


@dataclass
class WordFinder:
    """`EntityFinder` that knows its words, wherever they stand. `down` makes it fail."""

    words: Mapping[str, ModelEntity] = field(default_factory=lambda: {"Ada Park": "PERSON", "Zabrze": "LOCATION"})
    down: bool = False
    requests: list[tuple[list[str], list[ModelEntity]]] = field(default_factory=list)

    def find(self, texts: Sequence[str], entities: Sequence[ModelEntity]) -> list[list[Span]]:
        self.requests.append((list(texts), list(entities)))
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
    """The calls so far (function, event), and what the server does in place of answering."""

    url: str
    requests: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    failing: bool = False
    throttling: bool = False
    nonsense: str | None = None
    silent: threading.Event | None = None


@contextmanager
def serve_lambda(handler: Callable[[dict[str, Any]], object]) -> Iterator[LambdaServer]:
    """Serve Invoke by `handler` on a free port of the loopback until the block ends."""
    state = LambdaServer(url="")

    class Invocations(QuietHandler):
        def do_POST(self) -> None:
            event = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            state.requests.append((self.path.split("/")[3], event))
            if state.silent is not None:
                state.silent.wait()
            if state.throttling:
                reason = b'{"Reason": "ReservedFunctionConcurrentInvocationLimitExceeded"}'
                self.answer(429, reason, {"x-amzn-ErrorType": "TooManyRequestsException"})
            elif state.failing:
                self.answer(200, b'{"errorType": "MemoryError", "errorMessage": ""}', {"X-Amz-Function-Error": "Unhandled"})
            else:
                self.answer(200, (state.nonsense or json.dumps(handler(event))).encode())

    with serve_handler(Invocations) as state.url:
        try:
            yield state
        finally:
            if state.silent is not None:
                state.silent.set()
