"""A model backend that answers by the component asked."""

from dataclasses import dataclass, field

from rlaas.errors import DependencyUnavailable
from rlaas.inference.backend import Completion
from rlaas.routing.policy import SageMakerBackend, Sampling
from rlaas.telemetry.events import Message, Usage


@dataclass
class EchoBackend:
    """Answers `<component>: <last message>`; components in `down` do not answer."""

    down: set[str] = field(default_factory=set)
    asked: list[tuple[str, tuple[Message, ...], float]] = field(default_factory=list)

    def complete(self, backend: SageMakerBackend, messages: tuple[Message, ...], sampling: Sampling, *, timeout_s: float) -> Completion:
        component = backend.component or backend.endpoint
        self.asked.append((component, messages, timeout_s))
        if component in self.down:
            raise DependencyUnavailable("the model endpoint answered ModelError")
        text = f"{component}: {messages[-1].content}"
        return Completion(text=text, usage=Usage(input_tokens=7, output_tokens=len(text.split())), finish_reason="stop")
