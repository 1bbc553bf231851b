"""What every guardrail has, what it looks at, and what it finds.

`action`: `block` answers with the policy's `safe_answer` instead; `redact` takes the find out and goes on; `regenerate`
asks the backend once more and then does what `then` says; `flag` changes nothing. Each is recorded as an event.
`on_failure`: `closed` blocks when the guardrail itself fails, `open` lets the text pass; unless it is stated, a
guardrail that only flags fails open and any other closed.

Every policy loads the families' files. What takes long to load (expressions, vocabularies, RE2, jsonschema) is imported
where a guardrail looks at a text or checks its own settings; values are NamedTuples, which are made in a fifth of the
time that dataclasses take.
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
Stage = Literal["input", "output"]
GuardrailName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+([-_][a-z0-9]+)*$", max_length=40)]
Term = Annotated[str, Field(min_length=1, max_length=200)]
Share = Annotated[float, Field(ge=0, le=1)]
MAX_CHARACTERS = 512 * 1024
"""The longest text that guardrails look at, twice the largest prompt; a longer one is a guardrail's failure."""
Judge = Callable[["Service", Sequence[str]], "Judgement | None"]
"""Asks a service about texts. Raises: RlaasError where it does not answer, ValueError where nothing here asks
services."""


class Find(NamedTuple):
    """Why a guardrail acts, and the texts as they are without what it found, where it can take that out."""

    reason: str
    score: float | None = None
    without: Callable[[], list[str]] | None = None
    must_block: bool = False
    """Where it is asked to take out what it found, that is not enough."""


class RequestTexts(NamedTuple):
    """A request as the guardrails before left it: all `texts` of its inputs, messages and documents, in this order."""

    texts: list[str]
    without_documents: Sequence[str]
    untrusted: Sequence[str]
    """Those that someone else than the application and its model wrote: users, tools, inputs and documents."""
    messages: int
    judge: Judge


class AnswerTexts(NamedTuple):
    """An answer as the guardrails before left it, and what it is judged by: the request's texts before they were
    redacted, and documents.

    `texts` are the answer, the arguments of its calls and, where the backend gave one, its `refusal`.
    """

    texts: list[str]
    refusal: str | None
    calls_tools: bool
    request: Sequence[str]
    documents: Sequence[str]
    scorers: "Mapping[str, GroundednessScorer]"
    judge: Judge


class Guardrail(WireModel):
    """What every guardrail has. `name` stands in its events; two of one kind need names."""

    model_config = ConfigDict(defer_build=True)  # built once, within Guardrails

    kind: str
    action: str
    name: GuardrailName | None = None
    on_failure: Literal["open", "closed"] | None = None

    @property
    def label(self) -> str:
        """What events call it."""
        return self.name or self.kind

    @property
    def fails_closed(self) -> bool:
        """Whether nothing passes when the guardrail itself fails."""
        return self.on_failure == "closed" or (self.on_failure is None and self.action != "flag")


class RequestGuardrail(Guardrail):
    """A guardrail of what comes in."""

    @abstractmethod
    def look_at(self, request: RequestTexts) -> Find | None:
        """What it finds. Raises: any error, which is then the guardrail's failure."""


class AnswerGuardrail(Guardrail):
    """A guardrail of what goes out; `then` is what happens when the second answer is no better."""

    then: Literal["block", "flag"] | None = None

    @abstractmethod
    def look_at(self, answer: AnswerTexts) -> Find | None:
        """What it finds. Raises: any error, which is then the guardrail's failure."""

    @model_validator(mode="after")
    def _then_follows_regenerate(self) -> Self:
        if self.then is not None and self.action != "regenerate":
            raise ValueError("'then' says what happens after action 'regenerate', and this action is another one")
        return self
