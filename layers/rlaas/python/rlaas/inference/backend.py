"""What inference asks of a model backend: OpenAI's chat request and answer, whoever answers."""

from collections.abc import Iterator
from typing import Protocol

from rlaas.chat import ChatCall, Completion, Delta
from rlaas.routing.policy import BackendSpec


class Backend(Protocol):
    """Where policies' models answer. Both raise BackendFailed, and InvalidInput naming the parameter that the backend does not take or
    that it refuses; `stream` raises before its first delta or in the middle, and closes its connection when it is closed."""

    def complete(self, backend: BackendSpec, call: ChatCall, *, timeout_s: float) -> Completion:
        """The whole answer within `timeout_s` seconds."""
        ...

    def stream(self, backend: BackendSpec, call: ChatCall, *, timeout_s: float) -> Iterator[Delta]:
        """The answer piece by piece; `timeout_s` bounds the wait for each piece."""
        ...
