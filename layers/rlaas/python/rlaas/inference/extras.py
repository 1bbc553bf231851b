"""What a request of another vendor's API says to RLaaS: a skill in the place of a model, and fields under `rlaas::`."""

import re
from typing import Annotated, Self

from pydantic import ConfigDict, Field, model_validator

from rlaas.chat import Document
from rlaas.errors import NotFound
from rlaas.ids import ExternalId, PolicyId, SkillName, UserId
from rlaas.wire import WireModel

PREFIX = "rlaas::"
_MODEL = re.compile(rf"{PREFIX}(([a-z0-9]+(?:-[a-z0-9]+)*)(?:@v[1-9][0-9]{{0,7}})?)")
_LONGEST_SKILL = 28


class Extras(WireModel):
    """RLaaS's own fields. Other fields are allowed, but none of the prefix that RLaaS does not know."""

    model_config = ConfigDict(extra="allow")

    thread_id: ExternalId | None = Field(default=None, alias="rlaas::thread_id")
    user_id: UserId = Field(default=None, alias="rlaas::user_id")
    interaction_id: ExternalId | None = Field(default=None, alias="rlaas::interaction_id")
    inputs: dict[str, str] | None = Field(default=None, alias="rlaas::inputs")
    documents: tuple[Document, ...] = Field(default=(), alias="rlaas::documents", max_length=100)
    tags: tuple[Annotated[str, Field(min_length=1, max_length=64)], ...] = Field(default=(), alias="rlaas::tags", max_length=32)

    @model_validator(mode="after")
    def _extras_are_known(self) -> Self:
        unknown = next((name for name in self.model_extra or () if name.startswith(PREFIX)), None)
        if unknown is not None:
            raise ValueError(f"{unknown} is none of RLaaS's extras")
        return self


def skill_of(model: str) -> tuple[SkillName, PolicyId | None]:
    """The skill that a request names in the place of a model, and the one policy of it that is to answer, if any.

    Raises: NotFound for anything but `rlaas::<skill>` and `rlaas::<skill>@v<N>`.
    """
    match = _MODEL.fullmatch(model)
    if match is None or len(match[2]) > _LONGEST_SKILL:
        raise NotFound(f"there is no such model: name a skill, {PREFIX}<skill>, or one policy of it, {PREFIX}<skill>@v<N>", param="model")
    return match[2], match[1] if "@" in match[1] else None
