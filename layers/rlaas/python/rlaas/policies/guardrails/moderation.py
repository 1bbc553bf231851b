"""Guardrails that ask a service, which is a guardrail of Amazon Bedrock or a moderation server."""

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, NamedTuple, Protocol

from pydantic import ConfigDict, Field, StringConstraints

from rlaas.policies.guardrails.guardrail import (
    AnswerGuardrail,
    AnswerTexts,
    Find,
    GuardrailStage,
    Judge,
    RequestGuardrail,
    RequestTexts,
    Score,
)
from rlaas.policies.hosts import OPENAI, BaseUrl, SecretName
from rlaas.wire import WireModel

if TYPE_CHECKING:
    from rlaas.privacy.patterns import Span


class Service(WireModel):
    """What every guardrail that asks a service has. The service gets the texts as the guardrails before left them."""

    model_config = ConfigDict(defer_build=True)

    timeout_s: float = Field(default=2.0, gt=0, le=5)
    """How long the service may take, in seconds; after that the guardrail has failed."""


class BedrockService(Service):
    """A guardrail of Amazon Bedrock in the stage's own account, by ApplyGuardrail; without `region`, in the stage's
    region."""

    guardrail_id: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]{1,64}$")]
    version: Annotated[str, StringConstraints(pattern=r"^([1-9][0-9]{0,7}|DRAFT)$")] = "DRAFT"
    region: Annotated[str, StringConstraints(pattern=r"^[a-z]{2}(-[a-z]+)+-\d$")] | None = None


class ModerationService(Service):
    """A server that speaks OpenAI's moderation API, `base_url` up to and including `/v1`. `secret` is one of the
    tenant's, as for a backend.

    `thresholds` are scores by category, from 0 to 1; without them the server's own flag decides.
    """

    OWN_HOST: ClassVar[str] = OPENAI

    model: Annotated[str, Field(min_length=1, max_length=256)] = "omni-moderation-latest"
    base_url: BaseUrl = "https://api.openai.com/v1"
    secret: SecretName | None = None
    thresholds: dict[Annotated[str, Field(min_length=1, max_length=64)], Score] = Field(default_factory=dict, max_length=64)


class Judgement(NamedTuple):
    """Why a service objects, in its own terms, without any of the text. `found` are the parts of the texts
    that it would take out, each with a label; `must_block` says that taking them out is not enough."""

    reasons: tuple[str, ...]
    score: float | None = None
    found: tuple[tuple[str, str], ...] = ()
    must_block: bool = True


class Moderator(Protocol):
    """Asks the services that guardrails name."""

    def judge(self, guardrail: Service, texts: Sequence[str], *, source: GuardrailStage, tenant_id: str) -> Judgement | None:
        """Why the service objects to `texts`, in one judgement of all; None when it does not object. Raises: RlaasError
        when it does not answer."""
        ...


class BedrockGuardrail(RequestGuardrail, BedrockService):
    """Acts when the guardrail intervenes on what users, tools, inputs and documents say.

    `redact` takes out the personal data that the guardrail masks, and blocks where the guardrail blocks.
    """

    kind: Literal["bedrock_guardrail"] = "bedrock_guardrail"
    action: Literal["block", "redact", "flag"] = "block"

    def look_at(self, request: RequestTexts) -> Find | None:
        """What the guardrail objects to."""
        return _ask_service(self, request.judge, request.untrusted, request.texts)


class AnswerBedrockGuardrail(AnswerGuardrail, BedrockService):
    """Acts when the guardrail intervenes on the answer or the arguments of its tool calls; `redact` as for inputs."""

    kind: Literal["bedrock_guardrail"] = "bedrock_guardrail"
    action: Literal["block", "redact", "regenerate", "flag"] = "block"

    def look_at(self, answer: AnswerTexts) -> Find | None:
        """What the guardrail objects to."""
        return _ask_service(self, answer.judge, answer.texts, answer.texts)


class Moderation(RequestGuardrail, ModerationService):
    """Acts when the server objects to what users, tools, inputs and documents say."""

    kind: Literal["moderation"] = "moderation"
    action: Literal["block", "flag"] = "block"

    def look_at(self, request: RequestTexts) -> Find | None:
        """What the server objects to."""
        return _ask_service(self, request.judge, request.untrusted, request.texts)


class AnswerModeration(AnswerGuardrail, ModerationService):
    """Acts when the server objects to the answer or the arguments of its tool calls."""

    kind: Literal["moderation"] = "moderation"
    action: Literal["block", "regenerate", "flag"] = "block"

    def look_at(self, answer: AnswerTexts) -> Find | None:
        """What the server objects to."""
        return _ask_service(self, answer.judge, answer.texts, answer.texts)


def _ask_service(service: Service, judge: Judge, judged_texts: Sequence[str], texts: Sequence[str]) -> Find | None:
    """What `service` finds in `judged_texts`; it can be taken out of all `texts`."""
    not_blank = [text for text in judged_texts if text.strip()]
    judgement = judge(service, not_blank) if not_blank else None
    if judgement is None:
        return None

    def without() -> list[str]:
        from rlaas.policies.guardrails.redaction import put_labels
        from rlaas.privacy.reading import read_text

        readings = [*map(read_text, texts)]
        return put_labels(readings, [_find_occurrences(reading.text, judgement.found) for reading in readings])

    return Find(", ".join(judgement.reasons[:4]), score=judgement.score, without=without, must_block=judgement.must_block)


def _find_occurrences(text: str, stretches: Sequence[tuple[str, str]]) -> "Iterator[Span]":
    from rlaas.privacy.patterns import Span

    for stretch, label in dict.fromkeys(stretches):
        for match in re.finditer(re.escape(stretch), text):
            yield Span(match.start(), match.end(), label)


def shorten_name(name: str) -> str:
    """A name from a service or its operators as one short word (at most 40 characters) that is safe in events and
    logs."""
    return re.sub(r"[^A-Za-z0-9/_-]+", "_", name)[:40]
