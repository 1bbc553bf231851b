"""The guardrails of a policy, in the order in which they check texts."""

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
"""The most seconds that all services of a policy's input guardrails, or of its output guardrails, may take together."""


class Guardrails(WireModel):
    """A policy's guardrails, in their order: each gets the texts as the ones before left them. `safe_answer` is the
    answer when one blocks."""

    input: tuple[InputGuardrail, ...] = Field(default=(), max_length=16)
    output: tuple[OutputGuardrail, ...] = Field(default=(), max_length=16)
    safe_answer: str = Field(default="I'm sorry, but I can't help with that.", min_length=1, max_length=4000)

    @property
    def answer_wait_s(self) -> float:
        """How many seconds services may take to judge the answer, and the second answer if there may be one."""
        times = 2 if any(guardrail.action == "regenerate" for guardrail in self.output) else 1
        return times * _sum_timeouts(self.output)

    @field_validator("input", "output")
    @classmethod
    def _wait_no_longer_than_requests_can(cls, guardrails: tuple[Guardrail, ...]) -> tuple[Guardrail, ...]:
        if (total := _sum_timeouts(guardrails)) > MOST_WAITED_S:
            raise ValueError(f"the time-outs come to {total:g} s together, of at most {MOST_WAITED_S:g} s")
        return guardrails

    @field_validator("input", "output")
    @classmethod
    def _have_names_of_their_own(cls, guardrails: tuple[Guardrail, ...]) -> tuple[Guardrail, ...]:
        labels = [guardrail.label for guardrail in guardrails]
        duplicate = next((label for label in labels if labels.count(label) > 1), None)
        if duplicate is not None:
            raise ValueError(f"two guardrails are called {duplicate!r}; give them names of their own")
        return guardrails


def _sum_timeouts(guardrails: Iterable[object]) -> float:
    return sum(guardrail.timeout_s for guardrail in guardrails if isinstance(guardrail, Service))
