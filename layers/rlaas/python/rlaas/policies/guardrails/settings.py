"""What a policy lets in and out: its guardrails, each with what it does about a find, and when it cannot look.

`action`: `block` answers with the policy's `safe_answer` instead; `redact` takes the find out and goes on; `regenerate` asks the backend
once more and then does what `then` says; `flag` changes nothing. Each is recorded as an event. `on_failure`: `closed` blocks when the
guardrail itself fails, `open` lets the text pass; unless it is stated, a guardrail that only flags fails open and any other closed.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import ConfigDict, Field, JsonValue, StringConstraints, ValidationInfo, field_validator, model_validator

from rlaas.ids import canonical_json
from rlaas.policies.hosts import OPENAI, BaseUrl, SecretName
from rlaas.policies.json_schema import schema_validator
from rlaas.privacy.settings import PatternEntity, compiled
from rlaas.wire import Json, WireModel

if TYPE_CHECKING:
    import re2

GuardrailName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+([-_][a-z0-9]+)*$", max_length=40)]
Term = Annotated[str, Field(min_length=1, max_length=200)]
Pattern = Annotated[str, Field(min_length=1, max_length=500)]
Share = Annotated[float, Field(ge=0, le=1)]
PERSONAL: tuple[PatternEntity, ...] = (
    "EMAIL_ADDRESS",
    "CREDIT_CARD",
    "IBAN_CODE",
    "US_SSN",
    "IP_ADDRESS",
    "PHONE_NUMBER",
    "MAC_ADDRESS",
    "CRYPTO",
    "UK_NHS",
    "STREET_ADDRESS",
)
"""What counts as personal data unless a guardrail says otherwise: every kind that a pattern finds but URLs, which answers quote."""


class _Guardrail(WireModel):
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


class _Regenerating(_Guardrail):
    """What every guardrail of answers has besides: what happens when the second answer is no better."""

    then: Literal["block", "flag"] | None = None

    @model_validator(mode="after")
    def _then_follows_regenerate(self) -> Self:
        if self.then is not None and self.action != "regenerate":
            raise ValueError("'then' says what happens after action 'regenerate', and this action is another one")
        return self


class _Terms(WireModel):
    """Terms are whole words or phrases: case, width, invisible characters and punctuation do not count, accents do. Patterns are RE2's, and
    see the text as it is."""

    model_config = ConfigDict(defer_build=True)

    terms: tuple[Term, ...] = Field(default=(), max_length=1000)
    patterns: tuple[Pattern, ...] = Field(default=(), max_length=50)

    @field_validator("terms", "excuses", check_fields=False)
    @classmethod
    def _have_words(cls, terms: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        from rlaas.policies.guardrails.terms import words  # its expressions take 3 ms to compile, and only policies with terms need them

        empty = next((term for term in terms if not words(term)), None)
        if empty is not None:
            raise ValueError(f"{info.field_name} are made of words, {empty!r} has none; use a pattern")
        return terms

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.terms and not self.patterns:
            raise ValueError("needs terms or patterns")
        for pattern in self.patterns:
            pattern_of(pattern)
        return self


class SizeLimit(_Guardrail):
    """Holds when what the caller sent is longer than one of the limits. Tokens are estimated as for
    budgets (`estimated_tokens`): about the most that any tokenizer makes of it, English has about two thirds of it."""

    kind: Literal["size"] = "size"
    action: Literal["block", "flag"] = "block"
    max_characters: int | None = Field(default=None, ge=1)
    max_tokens: int | None = Field(default=None, ge=1)
    max_messages: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _limits_something(self) -> Self:
        if self.max_characters is None and self.max_tokens is None and self.max_messages is None:
            raise ValueError("needs max_characters, max_tokens or max_messages")
        return self


class PersonalData(_Guardrail):
    """Personal data in what the caller sent: `redact` puts `<EMAIL_ADDRESS>` in its place before the backend sees it. `allow` lists texts
    that look like it and are none, such as the company's own address."""

    kind: Literal["pii"] = "pii"
    action: Literal["block", "redact", "flag"] = "redact"
    entities: tuple[PatternEntity, ...] = Field(default=PERSONAL, min_length=1)
    allow: tuple[Term, ...] = Field(default=(), max_length=1000)


class BlockList(_Guardrail, _Terms):
    """Terms and patterns that must not be sent; a find within one of `excuses` is none (`kill` in `kill switch`)."""

    kind: Literal["block_list"] = "block_list"
    action: Literal["block", "redact", "flag"] = "block"
    excuses: tuple[Term, ...] = Field(default=(), max_length=1000)


class AllowList(_Guardrail, _Terms):
    """Holds when what the caller sent has none of the terms and patterns."""

    kind: Literal["allow_list"] = "allow_list"
    action: Literal["block", "flag"] = "block"


class Injection(_Guardrail):
    """Attempts to overrule the prompt: injections, jailbreaks, attempts to read it. By rules; docs/guardrails.md has their figures.

    Looks at what users, tools, inputs and documents say, not at system and assistant messages. `threshold` is on the rules' score.
    """

    kind: Literal["injection"] = "injection"
    action: Literal["block", "flag"] = "block"
    threshold: Share = 0.5


class Topic(WireModel):
    """A topic by its words: it is spoken of when at least `at_least` different ones of its terms occur."""

    model_config = ConfigDict(defer_build=True)

    name: GuardrailName
    terms: tuple[Term, ...] = Field(min_length=1, max_length=500)
    at_least: int = Field(default=1, ge=1, le=20)

    @model_validator(mode="after")
    def _can_be_met(self) -> Self:
        from rlaas.policies.guardrails.terms import words

        if len({tuple(words(term)) for term in self.terms if words(term)}) < max(self.at_least, 1):
            raise ValueError("has fewer terms than at_least")
        return self


class Topics(_Guardrail):
    """Holds when a denied topic is spoken of, or topics are allowed and none of them is. Keywords, not understanding."""

    kind: Literal["topics"] = "topics"
    action: Literal["block", "flag"] = "flag"
    allowed: tuple[Topic, ...] = Field(default=(), max_length=20)
    denied: tuple[Topic, ...] = Field(default=(), max_length=20)

    @model_validator(mode="after")
    def _names_topics(self) -> Self:
        if not self.allowed and not self.denied:
            raise ValueError("needs allowed or denied topics")
        return self


class PersonalDataLeak(_Regenerating):
    """Personal data in the answer that stands neither in the request nor in its documents."""

    kind: Literal["pii_leak"] = "pii_leak"
    action: Literal["block", "redact", "regenerate", "flag"] = "redact"
    entities: tuple[PatternEntity, ...] = Field(default=PERSONAL, min_length=1)
    allow: tuple[Term, ...] = Field(default=(), max_length=1000)


class AnswerBlockList(_Regenerating, _Terms):
    """Terms and patterns that must not be answered; a find within one of `excuses` is none."""

    kind: Literal["block_list"] = "block_list"
    action: Literal["block", "redact", "regenerate", "flag"] = "block"
    excuses: tuple[Term, ...] = Field(default=(), max_length=1000)


class Refusal(_Regenerating):
    """The model declines to answer, by rules in eight languages, or by the backend's own word."""

    kind: Literal["refusal"] = "refusal"
    action: Literal["block", "regenerate", "flag"] = "flag"


class StructuredOutput(_Regenerating):
    """The answer must be JSON that fits `json_schema` (draft 2020-12; patterns without lookaround, references by `#/...` only, recursion
    along one path).

    `fences`: an answer that is one code fence around its JSON is taken without the fence (`unwrap`), or does not fit (`refuse`). An answer
    without text that calls tools is not looked at.
    """

    kind: Literal["json_schema"] = "json_schema"
    action: Literal["block", "regenerate", "flag"] = "regenerate"
    json_schema: dict[str, Json]
    fences: Literal["unwrap", "refuse"] = "unwrap"

    @field_validator("json_schema")
    @classmethod
    def _is_a_schema(cls, value: dict[str, JsonValue]) -> dict[str, JsonValue]:
        schema_validator(canonical_json(value))
        return value


class Groundedness(_Regenerating):
    """Holds when `scorer` gives the answer less than `min_score` against the request's documents; without documents the score is 0.

    `lexical` is the share of the answer's content words and numbers that stand in the documents: a floor, blind to negation and paraphrase.
    """

    kind: Literal["groundedness"] = "groundedness"
    action: Literal["block", "regenerate", "flag"] = "flag"
    scorer: GuardrailName = "lexical"
    min_score: Share = 0.5


class Service(WireModel):
    """What a guardrail has that a service judges by. It gets the texts as those before it left them."""

    model_config = ConfigDict(defer_build=True)

    timeout_s: float = Field(default=2.0, gt=0, le=5)
    """How long it may take, in seconds; then the guardrail has failed."""


class BedrockService(Service):
    """A guardrail of Amazon Bedrock in the stage's own account, by ApplyGuardrail; `region` None is the stage's."""

    guardrail_id: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]{1,64}$")]
    version: Annotated[str, StringConstraints(pattern=r"^([1-9][0-9]{0,7}|DRAFT)$")] = "DRAFT"
    region: Annotated[str, StringConstraints(pattern=r"^[a-z]{2}(-[a-z]+)+-\d$")] | None = None


class ModerationService(Service):
    """A server that speaks OpenAI's moderation API, `base_url` up to and with `/v1`. `secret` is the tenant's, as a backend's.

    Without `thresholds` (a category's score, from 0 to 1) the server's own flag decides.
    """

    OWN_HOST: ClassVar[str] = OPENAI

    model: Annotated[str, Field(min_length=1, max_length=256)] = "omni-moderation-latest"
    base_url: BaseUrl = "https://api.openai.com/v1"
    secret: SecretName | None = None
    thresholds: dict[Annotated[str, Field(min_length=1, max_length=64)], Share] = Field(default_factory=dict, max_length=64)


class BedrockGuardrail(_Guardrail, BedrockService):
    """Holds when the guardrail intervenes on what users, tools, inputs and documents say.

    `redact` takes out the personal data that it masks, and blocks where it blocks.
    """

    kind: Literal["bedrock_guardrail"] = "bedrock_guardrail"
    action: Literal["block", "redact", "flag"] = "block"


class AnswerBedrockGuardrail(_Regenerating, BedrockService):
    """Holds when the guardrail intervenes on the answer or the arguments of its calls; `redact` as for inputs."""

    kind: Literal["bedrock_guardrail"] = "bedrock_guardrail"
    action: Literal["block", "redact", "regenerate", "flag"] = "block"


class Moderation(_Guardrail, ModerationService):
    """Holds when the server objects to what users, tools, inputs and documents say."""

    kind: Literal["moderation"] = "moderation"
    action: Literal["block", "flag"] = "block"


class AnswerModeration(_Regenerating, ModerationService):
    """Holds when the server objects to the answer or the arguments of its calls."""

    kind: Literal["moderation"] = "moderation"
    action: Literal["block", "regenerate", "flag"] = "block"


InputRule = SizeLimit | PersonalData | BlockList | AllowList | Injection | Topics
OutputRule = PersonalDataLeak | AnswerBlockList | Refusal | StructuredOutput | Groundedness
InputGuardrail = Annotated[InputRule | BedrockGuardrail | Moderation, Field(discriminator="kind")]
OutputGuardrail = Annotated[OutputRule | AnswerBedrockGuardrail | AnswerModeration, Field(discriminator="kind")]
MOST_WAITED_S = 10.0
"""The most that the services of a policy's input, or of its output, may take together, in seconds."""


class Guardrails(WireModel):
    """A policy's guardrails, in the order they look: each sees what those before it left. `safe_answer` is what a block answers."""

    input: tuple[InputGuardrail, ...] = Field(default=(), max_length=16)
    output: tuple[OutputGuardrail, ...] = Field(default=(), max_length=16)
    safe_answer: str = Field(default="I'm sorry, but I can't help with that.", min_length=1, max_length=4000)

    @property
    def answer_wait_s(self) -> float:
        """How long the services that judge the answer may take, and the second answer where one may be asked for, in seconds."""
        times = 2 if any(guardrail.action == "regenerate" for guardrail in self.output) else 1
        return times * _waited_s(self.output)

    @field_validator("input", "output")
    @classmethod
    def _wait_no_longer_than_requests_can(cls, guardrails: tuple[_Guardrail, ...]) -> tuple[_Guardrail, ...]:
        if (waited := _waited_s(guardrails)) > MOST_WAITED_S:
            raise ValueError(f"the time-outs come to {waited:g} s together, and at most {MOST_WAITED_S:g} are let")
        return guardrails

    @field_validator("input", "output")
    @classmethod
    def _have_names_of_their_own(cls, guardrails: tuple[_Guardrail, ...]) -> tuple[_Guardrail, ...]:
        labels = [guardrail.label for guardrail in guardrails]
        twice = next((label for label in labels if labels.count(label) > 1), None)
        if twice is not None:
            raise ValueError(f"two guardrails are called {twice!r}; give them names of their own")
        return guardrails


def _waited_s(guardrails: Iterable[object]) -> float:
    return sum(guardrail.timeout_s for guardrail in guardrails if isinstance(guardrail, Service))


@lru_cache(maxsize=512)
def pattern_of(pattern: str) -> "re2._Regexp":
    """`pattern` compiled by RE2. Raises: ValueError."""
    return compiled(pattern)
