"""A model backend whose answers name the model."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from rlaas.chat import BackendFailed, ChatCall, Choice, Completion, Delta, Message, Usage
from rlaas.errors import InvalidInput
from rlaas.policies.backend import BackendSpec


@dataclass
class EchoBackend:
    """Answers `<model>: <last message>`, a word at a time where it streams; models in `down` fail, parameters in
    `refuses` are refused."""

    down: set[str] = field(default_factory=set)
    refuses: set[str] = field(default_factory=set)
    requests: list[tuple[str, tuple[Message, ...], float]] = field(default_factory=list)
    calls: list[ChatCall] = field(default_factory=list)

    def complete(self, backend: BackendSpec, call: ChatCall, *, timeout_s: float) -> Completion:
        text = self._text(backend, call, timeout_s)
        return Completion((Choice(text, "stop"),), count_usage(text), model=backend.model)

    def stream(self, backend: BackendSpec, call: ChatCall, *, timeout_s: float) -> Iterator[Delta]:
        text = self._text(backend, call, timeout_s)
        for word in split_words(text):
            yield Delta(text=word, model=backend.model)
        yield Delta(finish_reason="stop", model=backend.model)
        yield Delta(usage=count_usage(text), model=backend.model)

    def _text(self, backend: BackendSpec, call: ChatCall, timeout_s: float) -> str:
        for name in sorted(self.refuses & call.parameters.keys()):
            raise InvalidInput(f"the model does not take {name!r}", param=name)
        self.requests.append((backend.model, call.messages, timeout_s))
        self.calls.append(call)
        if backend.model in self.down:
            raise BackendFailed("the model endpoint answered ModelError")
        return f"{backend.model}: {call.messages[-1].content}"


def count_usage(text: str) -> Usage:
    """Seven input tokens, and an output token for each word."""
    return Usage(input_tokens=7, output_tokens=len(text.split()))


def split_words(text: str) -> list[str]:
    """`text` in pieces that end with a space, but for the last."""
    return [word + " " for word in text.split(" ")[:-1]] + [text.rpartition(" ")[2]]
