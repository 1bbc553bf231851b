"""What inference asks of a model backend."""

from dataclasses import dataclass
from typing import Protocol

from rlaas.routing.policy import SageMakerBackend, Sampling
from rlaas.telemetry.events import Message, Usage


@dataclass(frozen=True, slots=True)
class Completion:
    """What a model answered."""

    text: str
    usage: Usage
    finish_reason: str | None


class Backend(Protocol):
    """Where policies' models answer."""

    def complete(self, backend: SageMakerBackend, messages: tuple[Message, ...], sampling: Sampling, *, timeout_s: float) -> Completion:
        """The answer to `messages` within `timeout_s` seconds. Raises: DependencyUnavailable."""
        ...
