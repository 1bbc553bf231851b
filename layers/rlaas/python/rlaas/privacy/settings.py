"""A tenant's settings of privacy: what happens to each kind of personal data."""

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
"""Kinds that patterns and checksums find, in microseconds. The names are Presidio's, except STREET_ADDRESS, for which
Presidio has none."""
ModelEntity = Literal["PERSON", "LOCATION", "NRP", "US_ITIN", "US_PASSPORT", "US_DRIVER_LICENSE", "US_BANK_NUMBER", "UK_NINO"]
"""Kinds that only a language model, or the words around them, can find: each request calls the function
`find_entities`. `NRP` is a nationality, religion or political group."""

PATTERN_ENTITIES: tuple[PatternEntity, ...] = get_args(PatternEntity)
MODEL_ENTITIES: tuple[ModelEntity, ...] = get_args(ModelEntity)

EntityAction = Literal["mask", "hash", "drop", "keep"]
"""What replaces the text: `<EMAIL_ADDRESS>`; `<EMAIL_ADDRESS:1f2e3d4c5b6a7988>`, equal for equal texts of one tenant;
nothing; the text itself."""

_MOST_INSTRUCTIONS = 1000
_MOST_INSTRUCTIONS_TOGETHER = 3000
"""Instructions of RE2's programs. When RE2's automaton outgrows its memory, each instruction takes about 14 ns per
character of the text."""

EntityName = Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]{0,39}$")]


class CustomEntity(WireModel):
    """A kind of the tenant's own, such as its customer numbers, by a regular expression in RE2's syntax (linear time,
    so no lookaround)."""

    name: EntityName
    pattern: Annotated[str, Field(min_length=1, max_length=500)]
    action: EntityAction = "mask"

    @model_validator(mode="after")
    def _compiles_in_linear_time(self) -> Self:
        if self.name in (*PATTERN_ENTITIES, *MODEL_ENTITIES):
            raise ValueError(f"{self.name} is a built-in kind; choose its action under actions")
        compile_pattern(self.pattern)
        return self


class PrivacySettings(WireModel):
    """What happens to each kind of personal data. By default what patterns find is masked, and no model is asked.

    `allow` lists texts that look like personal data and are none, such as the company's own address. `phone_regions`
    are the countries (ISO 3166) whose national notation of phone numbers is recognised; numbers with `+` are found
    whatever their country.
    """

    actions: dict[PatternEntity | ModelEntity, EntityAction] = Field(default_factory=dict)
    allow: tuple[Annotated[str, Field(min_length=1, max_length=200)], ...] = Field(default=(), max_length=1000)
    custom: tuple[CustomEntity, ...] = Field(default=(), max_length=20)
    phone_regions: tuple[Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$")], ...] = Field(default=("US", "GB"), max_length=10)

    def action(self, entity: PatternEntity | ModelEntity) -> EntityAction:
        """The action for `entity`: masked by default if patterns find it, kept if only a model does."""
        return self.actions.get(entity, "mask" if entity in PATTERN_ENTITIES else "keep")

    @property
    def model_entities(self) -> tuple[ModelEntity, ...]:
        """The kinds to find that only a model can find."""
        return tuple(entity for entity in MODEL_ENTITIES if self.action(entity) != "keep")


@dataclass(slots=True)
class SearchBudget:
    """How many characters a tenant's own expressions may still look at. The search for one match takes time linear in
    the rest of the text, so many matches could take quadratic time."""

    left: int = 500_000_000

    def find_all(self, expression: "re2._Regexp", text: str) -> Iterator[tuple[int, int]]:
        """The start and end of each match of `expression` in `text`. When no work is left, the rest of the text counts
        as one match: nothing passes unchecked."""
        position = 0
        self.left -= len(text)
        for match in expression.finditer(text):
            yield match.span()
            position = match.end()
            self.left -= len(text) - position
            if self.left < 0:
                yield position, len(text)
                return


class TenantPrivacy(WireModel):
    """A tenant's settings, and the salt of its hashes: 32 random bytes in hexadecimal, drawn when the tenant is created
    and never shown."""

    settings: PrivacySettings = Field(default_factory=PrivacySettings)
    salt: Sha256 = Field(default_factory=lambda: secrets.token_hex(32))


def check_custom(settings: PrivacySettings) -> None:
    """Refuse expressions so large that RE2 would be slow. Expressions stored before there was a limit stay valid.

    Raises: InvalidInput.
    """
    sizes = [compile_pattern(custom.pattern).programsize for custom in settings.custom]
    for place, size in enumerate(sizes):
        if size > _MOST_INSTRUCTIONS:
            raise InvalidInput(
                f"the expression takes {size} instructions of at most {_MOST_INSTRUCTIONS}: use fewer or smaller repetitions",
                param=f"custom.{place}.pattern",
            )
    if sum(sizes) > _MOST_INSTRUCTIONS_TOGETHER:
        raise InvalidInput(
            f"the expressions take {sum(sizes)} instructions together, of at most {_MOST_INSTRUCTIONS_TOGETHER}", param="custom"
        )


def compile_pattern(pattern: str) -> "re2._Regexp":
    """`pattern` compiled by RE2, whose matching time is linear in the text whatever the pattern. Raises: ValueError."""
    import re2  # takes 10 ms, and only tenants with patterns of their own need it

    options = re2.Options()
    options.log_errors = False
    options.max_mem = 1 << 20
    try:
        expression = re2.compile(pattern, options)
    except re2.error:
        raise ValueError("not a regular expression of RE2 (which has no lookaround and no backreferences)") from None
    if expression.search("") is not None:
        raise ValueError("the pattern matches the empty text")
    return expression
