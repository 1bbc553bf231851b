"""What every request of another vendor's client says the same way: the skill in the place of a model, whose request it
is, and RLaaS's extras under `rlaas::`; and RLaaS's own fields of the answers."""

import re
from typing import Annotated, Self

from pydantic import AfterValidator, Field, JsonValue, WithJsonSchema, model_validator

from rlaas.chat import Document
from rlaas.errors import NotFound
from rlaas.ids import MODEL_PREFIX, ExternalId, PolicyId, SkillName, UserId
from rlaas.inference.infer import AnswerStream
from rlaas.inference.record import Answer
from rlaas.wire import WireModel

_MODEL = re.compile(rf"{MODEL_PREFIX}(([a-z0-9]+(?:-[a-z0-9]+)*)(?:@v[1-9][0-9]{{0,7}})?)")
_LONGEST_SKILL = 28


def _refuse(value: JsonValue) -> JsonValue:
    if value is not None:
        raise ValueError("is not supported here: leave it out")
    return value


NotSupported = Annotated[JsonValue, AfterValidator(_refuse), WithJsonSchema({"type": "null"})]
"""A field of OpenAI's that is refused unless it is null."""


class Extras(WireModel):
    """RLaaS's own fields in a request, beside those of the other API."""

    thread_id: ExternalId | None = Field(default=None, alias="rlaas::thread_id")
    user_id: UserId = Field(default=None, alias="rlaas::user_id")
    interaction_id: ExternalId | None = Field(default=None, alias="rlaas::interaction_id")
    inputs: dict[str, str] | None = Field(default=None, alias="rlaas::inputs")
    documents: tuple[Document, ...] = Field(default=(), alias="rlaas::documents", max_length=100)
    tags: tuple[Annotated[str, Field(min_length=1, max_length=64)], ...] = Field(default=(), alias="rlaas::tags", max_length=32)

    @model_validator(mode="after")
    def _extras_are_known(self) -> Self:
        unknown = next((name for name in self.model_extra or () if name.startswith(MODEL_PREFIX)), None)
        if unknown is not None:
            raise ValueError(f"{unknown} is none of RLaaS's extras")
        return self


class OpenAIRequest(Extras):
    """A request to a skill by one of OpenAI's clients."""

    model: str = Field(description="`rlaas::<skill>`, or `rlaas::<skill>@v<N>` for one policy of it.", max_length=256)
    user: UserId = None
    safety_identifier: UserId = None

    @property
    def skill(self) -> SkillName:
        """The skill that answers. Raises: NotFound where the model's name is none of a skill."""
        return parse_model(self.model)[0]

    @property
    def policy_id(self) -> PolicyId | None:
        """The policy that is to answer whatever the route says. Raises: as `skill`."""
        return parse_model(self.model)[1]

    @property
    def whose(self) -> str | None:
        """The user's pseudonym, by the first field that says one."""
        return self.user_id or self.user or self.safety_identifier


def parse_model(model: str) -> tuple[SkillName, PolicyId | None]:
    """The skill that a request names in the place of a model, and the one policy of it that is to answer, if any.

    Raises: NotFound for anything but `rlaas::<skill>` and `rlaas::<skill>@v<N>`.
    """
    match = _MODEL.fullmatch(model)
    if match is None or len(match[2]) > _LONGEST_SKILL:
        raise NotFound(
            f"there is no such model: name a skill, {MODEL_PREFIX}<skill>, or one policy of it, {MODEL_PREFIX}<skill>@v<N>", param="model"
        )
    return match[2], match[1] if "@" in match[1] else None


def extras(answer: Answer | AnswerStream) -> dict[str, JsonValue]:
    """RLaaS's own fields of an answer, and of a stream's first part."""
    return {
        "rlaas::interaction_id": answer.interaction_id,
        "rlaas::policy_id": answer.policy_id,
        "rlaas::decision": answer.decision.model_dump(mode="json"),
        "rlaas::feedback_token": answer.feedback_token,
    }
