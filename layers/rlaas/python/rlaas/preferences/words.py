"""Counts words and compares texts in any script: some scripts have no blanks between words."""

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
"""Scripts without blanks between words, and about how many of their characters make a word."""
_UNSEEN = dict.fromkeys(map(ord, "\u200b\u2060\ufeff"))
"""Blanks without width."""


def count_words(text: str) -> int:
    """How many words `text` has: the parts between blanks that have a letter or digit. In scripts without blanks, about
    as many as a reader would count. Punctuation and emoji do not count."""
    words = 0
    if not text.isascii():
        for script, characters in _WITHOUT_BLANKS:
            text, count = script.subn(" ", text)
            words += ceil(count / characters)
    return words + sum(any(map(str.isalnum, part)) for part in text.split())


def normalize_spacing(text: str) -> str:
    """`text` in a form for comparison: one blank for each run of blanks and line ends, none at its ends, and letters
    composed with their marks (NFC). Texts that differ only in spacing, as a reader sees them, become equal."""
    if not text.isascii():
        text = unicodedata.normalize("NFC", text).translate(_UNSEEN)
    return " ".join(text.split())
