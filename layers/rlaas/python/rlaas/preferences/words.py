"""Texts measured and compared whatever their script: words are not what stands between blanks everywhere."""

import re
import unicodedata
from math import ceil

_IDEOGRAPHS = "\u3041-\u30ff\u3105-\u312f\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
_LETTERS = (
    "\u0e01-\u0e3a\u0e40-\u0e4e\u0e80-\u0eff\u0f40-\u0fbc\u1000-\u109f\u1780-\u17d3\u1950-\u19df\u1a20-\u1aad\u1b00-\u1b4b\ua980-\ua9c0"
)
_WITHOUT_BLANKS = (
    (re.compile(f"[{_IDEOGRAPHS}]"), 2),  # Chinese, Japanese
    (re.compile(f"[{_LETTERS}]"), 4),  # Thai, Lao, Tibetan, Burmese, Khmer, Tai scripts, Balinese, Javanese
)
"""Scripts that are written without blanks, and how many of their characters make about a word."""
_UNSEEN = dict.fromkeys(map(ord, "\u200b\u2060\ufeff"))
"""Blanks of no width."""


def count_words(text: str) -> int:
    """How many words `text` has: what stands between blanks and holds a letter or digit; where a script has no blanks,
    about as many as a reader finds. Signs and emoji are none."""
    words = 0
    if not text.isascii():
        for script, characters in _WITHOUT_BLANKS:
            text, found = script.subn(" ", text)
            words += ceil(found / characters)
    return words + sum(any(map(str.isalnum, part)) for part in text.split())


def evenly_spaced(text: str) -> str:
    """`text` as it compares with others: one blank for any run of blanks and line ends, none at its ends, letters and
    their marks composed (NFC). Texts that differ in nothing a reader sees but spacing are the same."""
    if not text.isascii():
        text = unicodedata.normalize("NFC", text).translate(_UNSEEN)
    return " ".join(text.split())
