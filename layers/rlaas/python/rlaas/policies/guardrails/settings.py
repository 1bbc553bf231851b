"""What a policy lets in and out: its guardrails, in the order they look."""

from collections.abc import Iterable
from typing import Annotated

from pydantic import Field, field_validator

from rlaas.policies.guardrails.groundedness import Groundedness
from rlaas.policies.guardrails.guardrail import Guardrail
from rlaas.policies.guardrails.injection import Injection
from rlaas.policies.guardrails.lists import AllowList, AnswerBlockList, BlockList
from rlaas.policies.guardrails.moderation import AnswerBedrockGuardrail, AnswerModeration, BedrockGuardrail, Moderation, Service
from rlaas.policies.guardrails.personal_data import PersonalData, PersonalDataLeak
from rlaas.policies.guardrails.refusal import Refusal
from rlaas.policies.guardrails.size import SizeLimit
from rlaas.policies.guardrails.structured_output import StructuredOutput
from rlaas.policies.guardrails.topics import Topics
from rlaas.wire import WireModel

InputGuardrail = Annotated[
    SizeLimit | PersonalData | BlockList | AllowList | Injection | Topics | BedrockGuardrail | Moderation, Field(discriminator="kind")
]
OutputGuardrail = Annotated[
    PersonalDataLeak | AnswerBlockList | Refusal | StructuredOutput | Groundedness | AnswerBedrockGuardrail | AnswerModeration,
    Field(discriminator="kind"),
]
MOST_WAITED_S = 10.0
"""The most that the services of a policy's input, or of its output, may take together, in seconds."""


class Guardrails(WireModel):
    """A policy's guardrails, in the order they look: each sees what those before it left. `safe_answer` is what a block
    answers."""

    input: tuple[InputGuardrail, ...] = Field(default=(), max_length=16)
    output: tuple[OutputGuardrail, ...] = Field(default=(), max_length=16)
    safe_answer: str = Field(default="I'm sorry, but I can't help with that.", min_length=1, max_length=4000)

    @property
    def answer_wait_s(self) -> float:
        """How long the services that judge the answer may take, and the second answer where one may be asked for, in
        seconds."""
        times = 2 if any(guardrail.action == "regenerate" for guardrail in self.output) else 1
        return times * _waited_s(self.output)

    @field_validator("input", "output")
    @classmethod
    def _wait_no_longer_than_requests_can(cls, guardrails: tuple[Guardrail, ...]) -> tuple[Guardrail, ...]:
        if (waited := _waited_s(guardrails)) > MOST_WAITED_S:
            raise ValueError(f"the time-outs come to {waited:g} s together, and at most {MOST_WAITED_S:g} are let")
        return guardrails

    @field_validator("input", "output")
    @classmethod
    def _have_names_of_their_own(cls, guardrails: tuple[Guardrail, ...]) -> tuple[Guardrail, ...]:
        labels = [guardrail.label for guardrail in guardrails]
        twice = next((label for label in labels if labels.count(label) > 1), None)
        if twice is not None:
            raise ValueError(f"two guardrails are called {twice!r}; give them names of their own")
        return guardrails


def _waited_s(guardrails: Iterable[object]) -> float:
    return sum(guardrail.timeout_s for guardrail in guardrails if isinstance(guardrail, Service))
