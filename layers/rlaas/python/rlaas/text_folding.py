"""Characters that are invisible or look like others: one table for every module that has to see through them."""

import re
import unicodedata

INVISIBLE = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
"""Invisible characters, as a class of `re`: Unicode's Default_Ignorable_Code_Point, and the anchors of annotations.
Among them are soft hyphens, zero-width spaces and joiners, marks of direction, Hangul fillers, variation selectors and
tags."""
SHAPING = "\u061c\u115f\u1160\u180b-\u180f\u200d-\u200f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef"
"""Those of `INVISIBLE` that ordinary texts have between letters, because scripts and emoji need them; a class of
`re`."""
_INVISIBLE_ONE = re.compile(f"[{INVISIBLE}]")
_CONTROLS = frozenset({*range(0x20), *range(0x7F, 0xA0)} - {*b"\t\n"})
"""Control characters except tabs and line feeds. A carriage return adds nothing to the line feed after it."""
_ASCII_CONTROLS = bytes(sorted(code for code in _CONTROLS if code < 0x80))
_HYPHENS = frozenset("\u02d7\u2043\u2212\u2796")
"""Hyphens and minus signs that are not in Unicode's category of dashes (Pd)."""
_BLANK = "\u2800"
"""The Braille pattern without dots."""
_KEYCAP = "\u20e3"
"""Draws a key around the digit before it."""


def fold(text: str) -> str:
    """`text` without invisible and control characters, and with an ASCII character for each one that stands for it.

    Spaces, dashes, digits of all scripts, and full-width, mathematical, circled and raised letters become ASCII. Halves
    of surrogate pairs, which UTF-8 cannot encode, become the replacement character.
    """
    if not text.isascii():
        return text.translate(_TABLE)
    visible = text.encode().translate(None, _ASCII_CONTROLS)
    return text if len(visible) == len(text) else visible.decode()


def find_positions(text: str) -> list[int]:
    """The position in `text` of each character of `fold(text)`."""
    return [place for place, character in enumerate(text) if _TABLE[ord(character)] is not None]


class _Table(dict[int, str | None]):
    """What a character folds to (None: to nothing), by its code point; looked up when it is first needed."""

    def __missing__(self, code: int) -> str | None:
        self[code] = plain = _fold_character(chr(code))
        return plain


def _fold_character(character: str) -> str | None:
    if character.isascii():
        return character
    if _INVISIBLE_ONE.match(character):
        return None
    category = unicodedata.category(character)
    if category == "Cs":
        return "\ufffd"
    if category == "Zs" or character == _BLANK:
        return " "
    digit = unicodedata.digit(character, None)
    if digit is not None:
        return str(digit)
    plain = unicodedata.normalize("NFKC", character)
    if plain in _HYPHENS or (len(plain) == 1 and unicodedata.category(plain) == "Pd"):
        return "-"
    return plain if len(plain) == 1 and plain.isascii() else character


_TABLE = _Table(dict.fromkeys([*map(ord, _KEYCAP), *_CONTROLS]))
