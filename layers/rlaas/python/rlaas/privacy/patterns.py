"""Personal data that its shape gives away, checked by its checksum where it has one.

Each expression is linear in the text: no nested or adjacent repetitions that could match the same characters. A glance at the text first
(is there an `@`, are there enough digits) spares most texts most expressions.
"""

import hashlib
import ipaddress
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rlaas.privacy.addresses import street_addresses
from rlaas.privacy.cards import card_numbers
from rlaas.privacy.phones import phone_numbers
from rlaas.privacy.settings import PatternEntity


@dataclass(frozen=True, slots=True)
class Span:
    """Characters `start` to `end` of a text are an `entity`."""

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


def pattern_spans(text: str, entities: Sequence[PatternEntity], phone_regions: Sequence[str]) -> Iterator[Span]:
    """Every occurrence of `entities` in `text`, in no order; they may overlap."""
    wanted = set(entities)
    digits = _SOME_DIGITS.search(text) is not None
    if "EMAIL_ADDRESS" in wanted and "@" in text:
        yield from _found(_EMAIL, text, "EMAIL_ADDRESS")
    if "URL" in wanted and ("://" in text or "www." in text.lower()):
        yield from _found(_URL, text, "URL", trim=".,;:!?)]}")
    cards = [*card_numbers(text)] if digits and wanted & {"CREDIT_CARD", "PHONE_NUMBER"} else []
    if "CREDIT_CARD" in wanted:
        yield from (Span(start, end, "CREDIT_CARD") for start, end in cards)
    if digits and "US_SSN" in wanted:
        yield from _found(_SSN, text, "US_SSN")
        yield from _found(_SSN_BARE, text, "US_SSN", group=1)
    if digits and "UK_NHS" in wanted:
        yield from _found(_NHS, text, "UK_NHS", valid=_nhs)
        yield from _found(_NHS_NAMED, text, "UK_NHS", valid=_nhs, group=1)
    if digits and "PHONE_NUMBER" in wanted:
        yield from (Span(start, end, "PHONE_NUMBER") for start, end in phone_numbers(text, phone_regions, cards))
    if "IBAN_CODE" in wanted and digits:
        for match in _IBAN.finditer(text):
            end = _iban_end(match[0])
            if end:
                yield Span(match.start(), match.start() + end, "IBAN_CODE")
    if "IP_ADDRESS" in wanted:
        if text.count(".") >= 3:
            yield from _found(_IPV4, text, "IP_ADDRESS", valid=_ip)
        if text.count(":") >= 2:
            yield from _found(_IPV6, text, "IP_ADDRESS", valid=_ip)
    if "MAC_ADDRESS" in wanted and (text.count(":") >= 5 or text.count("-") >= 5):
        yield from _found(_MAC, text, "MAC_ADDRESS")
    if "MAC_ADDRESS" in wanted and text.count(".") >= 2:
        yield from _found(_MAC_DOTTED, text, "MAC_ADDRESS", valid=lambda found: not found.replace(".", "").isdecimal())
    if "STREET_ADDRESS" in wanted:
        yield from (Span(start, end, "STREET_ADDRESS") for start, end in street_addresses(text))
    if "CRYPTO" in wanted:
        yield from _found(_BITCOIN, text, "CRYPTO", valid=_crypto)


def _found(
    expression: re.Pattern[str],
    text: str,
    entity: PatternEntity,
    *,
    valid: Callable[[str], bool] = lambda _: True,
    group: int = 0,
    trim: str = "",
) -> Iterator[Span]:
    for match in expression.finditer(text):
        found = match[group].rstrip(trim) if trim else match[group]
        if valid(found):
            yield Span(match.start(group), match.start(group) + len(found), entity)


def _digits(text: str) -> list[int]:
    return [int(character) for character in text if character.isdecimal()]


def _iban_end(text: str) -> int:
    """Where the IBAN that begins `text` ends; 0 when none does.

    Words behind it may look like a part of it, so its country's length decides.
    """
    plain = [(place, character) for place, character in enumerate(text) if character not in " -"]
    length = _IBAN_LENGTHS.get("".join(character for _, character in plain[:2]).upper(), 0)
    if not length or len(plain) < length:
        return 0
    code = "".join(character for _, character in plain[:length]).upper()
    end = plain[length - 1][0] + 1
    if end < len(text) and text[end].isalnum():
        return 0
    return end if int("".join(str(int(character, 36)) for character in code[4:] + code[:4])) % 97 == 1 else 0


def _ip(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return not address.is_unspecified


def _nhs(text: str) -> bool:
    digits = _digits(text)
    return len(set(digits)) > 1 and sum(digit * weight for digit, weight in zip(digits, range(10, 0, -1), strict=True)) % 11 == 0


def _crypto(text: str) -> bool:
    """Base58Check for old Bitcoin addresses; the others carry a prefix that nothing else has."""
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
