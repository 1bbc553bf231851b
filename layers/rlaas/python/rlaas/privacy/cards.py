"""Numbers of payment cards: 12 to 19 digits, of which the last is a check digit, even with other numbers beside
them."""

import re
from collections.abc import Iterator, Sequence

_RUN = re.compile(r"\d+(?:[ \t]?[ \t\n./_-][ \t]?\d+)*")
"""Numbers with so little between them that they may be one number."""
_GROUP = re.compile(r"\d+")
_NETWORKS = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|5[1-5]\d{14}|2(?:2[2-9]|[3-6]\d|7[01]|720)\d{12,13}|3[47]\d{13}|3(?:0[0-5]|[689]\d)\d{11}(?:\d\d)?"
    r"|35\d{14}|(?:2131|1800)\d{11}|6(?:011|5\d\d|4[4-9]\d)\d{12}(?:\d{3})?|62\d{14,17}|(?:5[06-8]|6[37])\d{10,17}|0604\d{8}"
    r"|220[0-5]\d{12,15}|(?:60|8[12])\d{14}|(?:9792|9860|8600|9704)\d{12}"
)
"""Visa; Mastercard, old and new; American Express; Diners; JCB; Discover; UnionPay; Maestro; Mir; RuPay; Troy, Humo,
Uzcard and Napas."""
_USUAL = ((4, 4, 4, 4), (4, 6, 5))
"""Sizes of the groups in which only card numbers are written."""
_CARD_BEFORE = re.compile(
    r"(?i)(?:\b(?:visa|master ?card|maestro|amex|american express|diners|jcb|unionpay|carta|carte|karte|kort|tarjeta|cart[aã]o)\b|card)"
    r"(?:(?!account|order|invoice|iban)[^\d\n]){0,40}$"
)
_ACCOUNT_BEFORE = re.compile(r"(?i)\baccount\b[^\d\n]{0,25}$")
_MOST_GROUPS = 5


def find_card_numbers(text: str) -> Iterator[tuple[int, int]]:
    """The start and end (code points) of whatever in `text` can be a card number; they may overlap. O(text)."""
    for run in _RUN.finditer(text):
        if run.end() - run.start() < 12:
            continue
        groups = [match.span() for match in _GROUP.finditer(text, run.start(), run.end())]
        for first, last in _find_candidates([end - start for start, end in groups]):
            start, end = groups[first][0], groups[last][1]
            if text.count("\n", start, end) < 2 and not _is_fraction(text, start) and _is_card(text, groups[first : last + 1]):
                yield start, end


def _find_candidates(sizes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The first and last of the groups of digits that may form one number, given the `sizes` of all groups.

    That is one group, up to five of usual sizes, or all of them where they are small and alike.
    """
    for first in range(len(sizes)):
        digits = 0
        for last in range(first, min(first + _MOST_GROUPS, len(sizes))):
            digits += sizes[last]
            if digits > 19 or (last > first and sizes[last] > 8):
                break
            if digits >= 12:
                yield first, last
            if not 3 <= sizes[last] <= 8:
                break
    if 12 <= sum(sizes) <= 19 and sizes[-1] <= sizes[0] < 3 and len({*sizes[:-1]}) == 1:
        yield 0, len(sizes) - 1


def _is_fraction(text: str, start: int) -> bool:
    return text[start - 1 : start] == "." and not text[max(0, start - 2) : start - 1].isalpha()


def _is_card(text: str, groups: Sequence[tuple[int, int]]) -> bool:
    """Whether the check digit is right (Luhn), and the network, the grouping or a word before the number says that it
    is a card's."""
    number = "".join(text[start:end] for start, end in groups)
    digits = [*map(int, number)]
    doubles = (digit * 2 - 9 if digit > 4 else digit * 2 for digit in digits[-2::-2])
    if (sum(digits[-1::-2]) + sum(doubles)) % 10 or len({*digits}) == 1:
        return False
    beginning = groups[0][0]
    if len(number) == 12 and _ACCOUNT_BEFORE.search(text, max(0, beginning - 40), beginning):
        return False  # one in ten account numbers would pass for a Maestro card
    return (
        _NETWORKS.fullmatch(number) is not None
        or tuple(end - start for start, end in groups) in _USUAL
        or _CARD_BEFORE.search(text, max(0, beginning - 60), beginning) is not None
    )
