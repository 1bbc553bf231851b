"""What a tenant wants done with personal data, per kind of it."""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal, Self, get_args

from pydantic import Field, StringConstraints, model_validator

from rlaas.errors import InvalidInput
from rlaas.ids import Sha256
from rlaas.wire import WireModel

if TYPE_CHECKING:
    import re2

PatternEntity = Literal[
    "EMAIL_ADDRESS",
    "CREDIT_CARD",
    "IBAN_CODE",
    "US_SSN",
    "IP_ADDRESS",
    "PHONE_NUMBER",
    "URL",
    "MAC_ADDRESS",
    "CRYPTO",
    "UK_NHS",
    "STREET_ADDRESS",
]
"""Kinds found by pattern and checksum, in microseconds. The names are Presidio's, which has none for street
addresses."""
ModelEntity = Literal["PERSON", "LOCATION", "NRP", "US_ITIN", "US_PASSPORT", "US_DRIVER_LICENSE", "US_BANK_NUMBER", "UK_NINO"]
"""Kinds that take a language model, or the words around them, to find: a call of the function `find_entities` per
request. `NRP` is a nationality, religion or political group."""

PATTERN_ENTITIES: tuple[PatternEntity, ...] = get_args(PatternEntity)
MODEL_ENTITIES: tuple[ModelEntity, ...] = get_args(ModelEntity)

Action = Literal["mask", "hash", "drop", "keep"]
"""`<EMAIL_ADDRESS>`; `<EMAIL_ADDRESS:1f2e3d4c5b6a7988>`, the same for the same text in one tenant; nothing; the text as
it is."""

_MOST_INSTRUCTIONS = 1000
_MOST_INSTRUCTIONS_TOGETHER = 3000
"""Of RE2's programs: where its automaton outgrows its memory, each character costs some 14 ns for each."""

EntityName = Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]{0,39}$")]


class CustomEntity(WireModel):
    """A kind of the tenant's own, such as its customer numbers, by a regular expression in RE2's syntax (linear time,
    so no lookaround)."""

    name: EntityName
    pattern: Annotated[str, Field(min_length=1, max_length=500)]
    action: Action = "mask"

    @model_validator(mode="after")
    def _compiles_in_linear_time(self) -> Self:
        if self.name in (*PATTERN_ENTITIES, *MODEL_ENTITIES):
            raise ValueError(f"{self.name} is a kind that exists; choose its action under actions")
        compiled(self.pattern)
        return self


class PrivacySettings(WireModel):
    """What happens to each kind of personal data. By default what patterns find is masked, and no model is asked.

    `allow` lists texts that are no personal data though they look like it, such as the company's own address.
    `phone_regions` are the countries (ISO 3166) whose national notation of phone numbers is known; numbers with `+` are
    found whatever their country.
    """

    actions: dict[PatternEntity | ModelEntity, Action] = Field(default_factory=dict)
    allow: tuple[Annotated[str, Field(min_length=1, max_length=200)], ...] = Field(default=(), max_length=1000)
    custom: tuple[CustomEntity, ...] = Field(default=(), max_length=20)
    phone_regions: tuple[Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$")], ...] = Field(default=("US", "GB"), max_length=10)

    def action(self, entity: PatternEntity | ModelEntity) -> Action:
        """What happens to `entity`."""
        return self.actions.get(entity, "mask" if entity in PATTERN_ENTITIES else "keep")

    @property
    def model_entities(self) -> tuple[ModelEntity, ...]:
        """The kinds that a model has to be asked for."""
        return tuple(entity for entity in MODEL_ENTITIES if self.action(entity) != "keep")


@dataclass(slots=True)
class Work:
    """What a tenant's own expressions may look at in one go, in characters. One find is linear in what follows it, and
    many are not."""

    left: int = 500_000_000

    def finds(self, expression: "re2._Regexp", text: str) -> Iterator[tuple[int, int]]:
        """Where the finds of `expression` in `text` begin and end. When the work is done, all that is left of the text
        is one find: what could not be looked at is not let through."""
        at = 0
        self.left -= len(text)
        for match in expression.finditer(text):
            yield match.span()
            at = match.end()
            self.left -= len(text) - at
            if self.left < 0:
                yield at, len(text)
                return


class TenantPrivacy(WireModel):
    """A tenant's settings, and the salt of its hashes: 32 random bytes in hexadecimal, made with the tenant and never
    shown."""

    settings: PrivacySettings = Field(default_factory=PrivacySettings)
    salt: Sha256 = Field(default_factory=lambda: secrets.token_hex(32))


def check_custom(settings: PrivacySettings) -> None:
    """Whether the expressions are of a size that RE2 is quick with; those stored before it was bounded stay. Raises:
    InvalidInput."""
    sizes = [compiled(custom.pattern).programsize for custom in settings.custom]
    for place, size in enumerate(sizes):
        if size > _MOST_INSTRUCTIONS:
            raise InvalidInput(
                f"the expression takes {size} instructions, and at most {_MOST_INSTRUCTIONS} are taken: repeat less",
                param=f"custom.{place}.pattern",
            )
    if sum(sizes) > _MOST_INSTRUCTIONS_TOGETHER:
        raise InvalidInput(
            f"the expressions take {sum(sizes)} instructions together, and at most {_MOST_INSTRUCTIONS_TOGETHER}", param="custom"
        )


def compiled(pattern: str) -> "re2._Regexp":
    """`pattern` compiled by RE2, whose matching time is linear in the text whatever the pattern. Raises: ValueError."""
    import re2  # 10 ms, and only tenants with patterns of their own need it

    options = re2.Options()
    options.log_errors = False
    options.max_mem = 1 << 20
    try:
        expression = re2.compile(pattern, options)
    except re2.error:
        raise ValueError("not a regular expression that RE2 takes (no lookaround, no backreferences)") from None
    if expression.search("") is not None:
        raise ValueError("the pattern matches the empty text")
    return expression
