"""What every guardrail has, the texts it checks, and what it finds.

`action`: `block` answers with the policy's `safe_answer` instead; `redact` takes out what was found; `regenerate` asks
the backend once more and then does what `then` says; `flag` changes nothing. Each is recorded as an event.
`on_failure`: `closed` blocks when the guardrail itself fails, `open` lets the text pass. Without it, a guardrail that
only flags fails open, and any other closed.

Loading a policy imports the modules of all guardrails. So what is slow to import (expressions, vocabularies, RE2,
jsonschema) is imported only when a guardrail checks a text or its own settings; and values are NamedTuples, which
Python defines in a fifth of the time that dataclasses take.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple, Self

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from rlaas.wire import WireModel

if TYPE_CHECKING:
    from rlaas.policies.guardrails.groundedness import GroundednessScorer
    from rlaas.policies.guardrails.moderation import Judgement, Service

Action = Literal["block", "redact", "regenerate", "flag"]
GuardrailStage = Literal["input", "output"]
GuardrailName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+([-_][a-z0-9]+)*$", max_length=40)]
Term = Annotated[str, Field(min_length=1, max_length=200)]
Score = Annotated[float, Field(ge=0, le=1)]
MAX_CHARACTERS = 512 * 1024
"""The longest text that guardrails check, in characters: twice the largest prompt. With a longer one a guardrail
fails."""
Judge = Callable[["Service", Sequence[str]], "Judgement | None"]
"""Asks a service about texts. Raises: RlaasError when it does not answer, ValueError without a moderator."""


class Find(NamedTuple):
    """Why a guardrail acts. `without` returns the texts without what it found; None if it cannot take that out."""

    reason: str
    score: float | None = None
    without: Callable[[], list[str]] | None = None
    must_block: bool = False
    """Whether redacting is not enough, so that `redact` has to block."""


class RequestTexts(NamedTuple):
    """A request as the guardrails before left it; `texts` are those of its inputs, messages and documents, in this
    order, and `messages` is the number of messages."""

    texts: list[str]
    without_documents: Sequence[str]
    untrusted: Sequence[str]
    """Those that somebody other than the application and its model wrote: of users, tools, inputs and documents."""
    messages: int
    judge: Judge


class AnswerTexts(NamedTuple):
    """An answer as the guardrails before left it, with what it is compared to: the request's texts before they were
    redacted, and the documents.

    `texts` are the answer, the arguments of its tool calls and, if the backend reports one, its `refusal`.
    """

    texts: list[str]
    refusal: str | None
    calls_tools: bool
    request: Sequence[str]
    documents: Sequence[str]
    scorers: "Mapping[str, GroundednessScorer]"
    judge: Judge


class Guardrail(WireModel):
    """What every guardrail has. Its events have its `name`; two guardrails of one kind need different names."""

    model_config = ConfigDict(defer_build=True)  # validators are built once, with Guardrails

    kind: str
    action: str
    name: GuardrailName | None = None
    on_failure: Literal["open", "closed"] | None = None

    @property
    def label(self) -> str:
        """Its name in events."""
        return self.name or self.kind

    @property
    def fails_closed(self) -> bool:
        """Whether a text is blocked when the guardrail itself fails."""
        return self.on_failure == "closed" or (self.on_failure is None and self.action != "flag")


class RequestGuardrail(Guardrail):
    """A guardrail that checks requests."""

    @abstractmethod
    def look_at(self, request: RequestTexts) -> Find | None:
        """What it finds. Raises: any error, which is then the guardrail's failure."""


class AnswerGuardrail(Guardrail):
    """A guardrail that checks answers; `then` is what it does after `regenerate` if the second answer is no better."""

    then: Literal["block", "flag"] | None = None

    @abstractmethod
    def look_at(self, answer: AnswerTexts) -> Find | None:
        """What it finds. Raises: any error, which is then the guardrail's failure."""

    @model_validator(mode="after")
    def _then_follows_regenerate(self) -> Self:
        if self.then is not None and self.action != "regenerate":
            raise ValueError("'then' says what happens after action 'regenerate', and this action is another one")
        return self
