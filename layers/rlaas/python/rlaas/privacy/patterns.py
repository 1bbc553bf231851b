"""Personal data with a recognisable shape; where a kind has a checksum, the checksum must be right.

Each expression takes time linear in the text: no nested or adjacent repetitions that could match the same characters. A
quick look at the text first (is there an `@`, are there enough digits) avoids most expressions for most texts.
"""

import hashlib
import ipaddress
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rlaas.privacy.addresses import find_street_addresses
from rlaas.privacy.cards import find_card_numbers
from rlaas.privacy.phones import find_phone_numbers
from rlaas.privacy.settings import PatternEntity


@dataclass(frozen=True, slots=True)
class Span:
    """Code points `start` to `end` (exclusive) of a text are an `entity`."""

    start: int
    end: int
    entity: str


_EMAIL = re.compile(r"[\w.!#$%&'*+/=?^`{|}~-]{1,64}@(?:[\w-]{1,63}\.){1,8}[^\W\d_][\w-]{1,62}")
_URL = re.compile(r"(?:https?|ftp)://[^\s<>\"'`]{3,2000}|www\.[\w-]{1,63}\.[^\s<>\"'`]{2,2000}", re.IGNORECASE)
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}\d{2}(?:[ -]?[A-Za-z0-9]){11,30}(?![A-Za-z0-9])")
_SSN = re.compile(r"(?<![\d.-])(?!000|666|9)\d{3}([-. ])(?!00)\d{2}\1(?!0000)\d{4}(?![\d-]|\.\d)")
_SSN_BARE = re.compile(r"(?:\bssn\b|social security)[^\d\n]{0,30}(?!000|666|9)(\d{3}(?!00)\d{2}(?!0000)\d{4})(?!\d)", re.IGNORECASE)
_IPV4 = re.compile(r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?!\d|\.\d)")
_IPV6 = re.compile(r"(?<![\w:.])[0-9A-Fa-f]{0,4}:[0-9A-Fa-f:.]{0,60}[0-9A-Fa-f:](?![\w:])")
_MAC = re.compile(r"(?<![\w:-])[0-9A-Fa-f]{2}([:-])(?:[0-9A-Fa-f]{2}\1){4}[0-9A-Fa-f]{2}(?![\w:-])")
_MAC_DOTTED = re.compile(r"(?<![\w.])(?:[0-9A-Fa-f]{4}\.){2}[0-9A-Fa-f]{4}(?![\w.])")
_NHS = re.compile(r"(?<![\d+] )(?<![\d+])\d{3} \d{3} \d{4}(?!\d)")
_NHS_NAMED = re.compile(r"\bnhs\b[^\d\n]{0,30}(\d{3}-?\d{3}-?\d{4})(?!\d)", re.IGNORECASE)
_BITCOIN = re.compile(r"(?<![A-Za-z0-9])(?:[13][1-9A-HJ-NP-Za-km-z]{25,34}|bc1[02-9ac-hj-np-z]{11,71}|0x[0-9a-fA-F]{40})(?![A-Za-z0-9])")
_SOME_DIGITS = re.compile(r"\d(?:[^\d\n]{0,3}\d){6}")
_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def find_pattern_spans(text: str, entities: Sequence[PatternEntity], phone_regions: Sequence[str]) -> Iterator[Span]:
    """Every occurrence of `entities` in `text`, in no particular order; they may overlap.

    `phone_regions` are the countries (ISO 3166) whose national notation of phone numbers is recognised.
    """
    kinds = set(entities)
    digits = _SOME_DIGITS.search(text) is not None
    for pattern in _PATTERNS:
        if pattern.entity in kinds and (digits or not pattern.of_digits) and pattern.may_be_in(text):
            yield from pattern.find_spans(text)
    cards = [*find_card_numbers(text)] if digits and kinds & {"CREDIT_CARD", "PHONE_NUMBER"} else []
    if "CREDIT_CARD" in kinds:
        yield from (Span(start, end, "CREDIT_CARD") for start, end in cards)
    if digits and "PHONE_NUMBER" in kinds:
        yield from (Span(start, end, "PHONE_NUMBER") for start, end in find_phone_numbers(text, phone_regions, cards))
    if "STREET_ADDRESS" in kinds:
        yield from (Span(start, end, "STREET_ADDRESS") for start, end in find_street_addresses(text))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pattern:
    """An expression for one kind of data: `trim` cuts what its `group` matches, and the rest counts if it is
    `valid`."""

    entity: PatternEntity
    expression: re.Pattern[str]
    group: int = 0
    of_digits: bool = False
    """Whether it can only match a text with `_SOME_DIGITS`."""
    may_be_in: Callable[[str], bool] = lambda _: True
    """A quick check whether it can match a text at all."""
    trim: Callable[[str], str] = str
    valid: Callable[[str], bool] = bool

    def find_spans(self, text: str) -> Iterator[Span]:
        for match in self.expression.finditer(text):
            value = self.trim(match[self.group])
            if self.valid(value):
                yield Span(match.start(self.group), match.start(self.group) + len(value), self.entity)


def _digits(text: str) -> list[int]:
    return [int(character) for character in text if character.isdecimal()]


def _trim_to_iban(text: str) -> str:
    """The IBAN at the start of `text`; empty when there is none.

    Words after it may look like a part of it, so the length of its country's IBANs decides where it ends.
    """
    plain = [(place, character) for place, character in enumerate(text) if character not in " -"]
    length = _IBAN_LENGTHS.get("".join(character for _, character in plain[:2]).upper(), 0)
    if not length or len(plain) < length:
        return ""
    code = "".join(character for _, character in plain[:length]).upper()
    end = plain[length - 1][0] + 1
    if end < len(text) and text[end].isalnum():
        return ""
    return text[:end] if int("".join(str(int(character, 36)) for character in code[4:] + code[:4])) % 97 == 1 else ""


def _is_ip(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return not address.is_unspecified


def _is_nhs(text: str) -> bool:
    digits = _digits(text)
    return len(set(digits)) > 1 and sum(digit * weight for digit, weight in zip(digits, range(10, 0, -1), strict=True)) % 11 == 0


def _is_crypto(text: str) -> bool:
    """Whether an old Bitcoin address passes Base58Check; newer ones have a prefix that nothing else has."""
    if text.startswith(("bc1", "0x")):
        return True
    number = 0
    for character in text:
        number = number * 58 + _BASE58.index(character)
    if number >= 1 << 200:
        return False
    raw = number.to_bytes(25, "big")
    return hashlib.sha256(hashlib.sha256(raw[:-4]).digest()).digest()[:4] == raw[-4:]


_IBAN_LENGTHS = {
    **dict.fromkeys(("NO",), 15),
    **dict.fromkeys(("BE",), 16),
    **dict.fromkeys(("DK", "FK", "FO", "FI", "GL", "NL", "SD"), 18),
    **dict.fromkeys(("MK", "SI"), 19),
    **dict.fromkeys(("AT", "BA", "EE", "KZ", "LT", "LU", "MN", "XK"), 20),
    **dict.fromkeys(("HR", "LI", "LV", "CH"), 21),
    **dict.fromkeys(("BG", "BH", "CR", "GE", "DE", "IE", "ME", "RS", "GB", "VA"), 22),
    **dict.fromkeys(("TL", "GI", "IQ", "IL", "OM", "SO", "AE"), 23),
    **dict.fromkeys(("AD", "CZ", "MD", "PK", "RO", "SA", "SK", "ES", "SE", "TN", "VG"), 24),
    **dict.fromkeys(("LY", "PT", "ST"), 25),
    **dict.fromkeys(("IS", "TR"), 26),
    **dict.fromkeys(("BI", "DJ", "FR", "GR", "IT", "MR", "MC", "SM"), 27),
    **dict.fromkeys(("AL", "AZ", "BY", "CY", "DO", "SV", "GT", "HN", "HU", "LB", "NI", "PL"), 28),
    **dict.fromkeys(("BR", "EG", "PS", "QA", "UA"), 29),
    **dict.fromkeys(("JO", "KW", "MU", "YE"), 30),
    **dict.fromkeys(("MT", "SC"), 31),
    **dict.fromkeys(("LC",), 32),
    **dict.fromkeys(("RU",), 33),
}
"""Characters of an IBAN by country (SWIFT IBAN Registry)."""
_PATTERNS = (
    _Pattern(entity="EMAIL_ADDRESS", expression=_EMAIL, may_be_in=lambda text: "@" in text),
    _Pattern(
        entity="URL",
        expression=_URL,
        may_be_in=lambda text: "://" in text or "www." in text.lower(),
        trim=lambda value: value.rstrip(".,;:!?)]}"),
    ),
    _Pattern(entity="US_SSN", expression=_SSN, of_digits=True),
    _Pattern(entity="US_SSN", expression=_SSN_BARE, of_digits=True, group=1),
    _Pattern(entity="UK_NHS", expression=_NHS, of_digits=True, valid=_is_nhs),
    _Pattern(entity="UK_NHS", expression=_NHS_NAMED, of_digits=True, valid=_is_nhs, group=1),
    _Pattern(entity="IBAN_CODE", expression=_IBAN, of_digits=True, trim=_trim_to_iban),
    _Pattern(entity="IP_ADDRESS", expression=_IPV4, may_be_in=lambda text: text.count(".") >= 3, valid=_is_ip),
    _Pattern(entity="IP_ADDRESS", expression=_IPV6, may_be_in=lambda text: text.count(":") >= 2, valid=_is_ip),
    _Pattern(entity="MAC_ADDRESS", expression=_MAC, may_be_in=lambda text: text.count(":") >= 5 or text.count("-") >= 5),
    _Pattern(
        entity="MAC_ADDRESS",
        expression=_MAC_DOTTED,
        may_be_in=lambda text: text.count(".") >= 2,
        valid=lambda value: not value.replace(".", "").isdecimal(),
    ),
    _Pattern(entity="CRYPTO", expression=_BITCOIN, may_be_in=lambda text: any(digit in text for digit in "013"), valid=_is_crypto),
)
