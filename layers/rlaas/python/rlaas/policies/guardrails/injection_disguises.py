"""Undoes what disguises an attempt to overrule the prompt.

Disguises are invisible and look-alike characters, digits for letters, spaced-out letters, and one layer of base64,
hexadecimal, percent and entity encoding, ROT13 and reversal.
"""

import base64
import binascii
import codecs
import html
import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import islice
from urllib.parse import unquote

from rlaas.policies.guardrails.injection_vocabulary import Signal, load_vocabulary
from rlaas.policies.guardrails.terms import Word, split_words
from rlaas.text_folding import INVISIBLE, SHAPING

DECODED = 16
"""The most pieces of one text that are decoded, for each encoding."""


def uncover_words(text: str, visible_words: list[Word]) -> tuple[list[str], list[Signal]]:
    """The words of `text` without disguises, and signals for the disguises. `visible_words` are the words as
    written."""
    signals: list[Signal] = []
    if text.isascii() and not _DIGIT_IN_WORD.search(text):
        plain = [word.text for word in visible_words]
    else:
        plain, signals = _undo_disguises(text, visible_words)
    for run in _join_letters(visible_words):
        plain += run
        together = "".join(run)
        if sum(root in together for root in load_vocabulary().roots) > 1:
            signals.append(("letters_set_apart", 0.6))
    return plain, signals


def _undo_disguises(text: str, visible_words: list[Word]) -> tuple[list[str], list[Signal]]:
    vocabulary = load_vocabulary().all_words
    signals: list[Signal] = []
    if not text.isascii():
        tags = "".join(chr(ord(character) - 0xE0000) for character in _TAGS.findall(text))
        if tags:
            signals.append(("invisible_text", 0.6))
            visible_words += split_words(tags)
        if _SPLIT.search(text):
            signals.append(("invisible_characters", 0.3))
    plain: list[str] = []
    look_alikes = with_digits = 0
    for word in visible_words:
        spelling = word.text
        if not spelling.isascii():
            spelling = spelling.translate(_BASE)
            if not spelling.isascii() and _LATIN.search(spelling):
                spelling, before = spelling.translate(_LOOK_ALIKES), spelling
                look_alikes += spelling.isascii() and spelling != before
        if not spelling.isalpha() and spelling.isascii() and len(spelling) <= _LONGEST_WORD:
            for table in _LEET:
                if (word_meant := spelling.translate(table)) in vocabulary:
                    spelling, with_digits = word_meant, with_digits + (len(word_meant) > 3)
                    break
        plain.append(spelling)
    if look_alikes > 1:
        signals.append(("look_alike_letters", 0.5 if look_alikes > 3 else 0.3))
    if with_digits > 1:
        signals.append(("digits_for_letters", 0.5 if with_digits > 3 else 0.3))
    return plain, signals


def _join_letters(all_words: Sequence[Word]) -> Iterator[list[str]]:
    """The words that runs of at least eight single letters spell; a wider gap between letters separates words."""
    run: list[Word] = []
    for word in [*all_words, Word("", -1, -1)]:
        if len(word.text) == 1 and word.text.isalpha():
            run.append(word)
        elif run:
            if len(run) >= 8:
                spelling, last = [""], run[0].start - 1
                for letter in run:
                    if letter.start - last > 1:
                        spelling.append("")
                    spelling[-1] += letter.text
                    last = letter.end
                yield [part for part in spelling if part]
            run = []


def decode_pieces(text: str, plain: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The decoded texts of `text`, each with its encoding's name. `plain` are the words of `text` without disguises."""
    if _LONG_RUN.search(text):
        for match in islice(_BASE64.finditer(text), DECODED):
            piece = match[0].rstrip("=").replace("-", "+").replace("_", "/")
            try:
                yield "base64", base64.b64decode(piece + "=" * (-len(piece) % 4), validate=True).decode()
            except (binascii.Error, UnicodeDecodeError):
                continue
    if _HEX_START.search(text):
        for match in islice(_HEX.finditer(text), DECODED):
            try:
                yield "hex", bytes.fromhex(re.sub(r"0x|\\x|[\s,:]", "", match[0])).decode()
            except (ValueError, UnicodeDecodeError):
                continue
    if "%" in text and _PERCENT.search(text):
        yield "percent_encoding", unquote(text)
    if "&#" in text and _ENTITY.search(text):
        yield "entities", html.unescape(text)
    if "\\" in text and _ESCAPE.search(text):
        yield "escapes", _ESCAPE_ONE.sub(lambda match: chr(int(match[1] or match[2], 16)), text)
    words_seen = set(plain)
    if len(words_seen & _turn_vocabulary("rot13")) > 1:
        yield "rot13", codecs.encode(" ".join(plain), "rot13")
    if len(words_seen & _turn_vocabulary("reversed")) > 1:
        yield "reversal", " ".join(plain)[::-1]


@cache
def _turn_vocabulary(way: str) -> frozenset[str]:
    """The longer words of the vocabulary, in ROT13 or reversed."""
    kinds = load_vocabulary().kinds
    long = [word for word in kinds if len(word) > 3 and word.isascii()]
    return frozenset(codecs.encode(word, "rot13") if way == "rot13" else word[::-1] for word in long) - kinds.keys()


class _Bases(dict[int, str]):
    """Letters of Latin, Greek and Cyrillic without their accents; looked up when first needed."""

    def __missing__(self, code: int) -> str:
        if code >= 0x2000:
            return chr(code)
        self[code] = base = "".join(part for part in unicodedata.normalize("NFKD", chr(code)) if not unicodedata.combining(part)).lower()
        return base


_LONGEST_WORD = 32
_BASE = _Bases({ord("й"): "й", ord("ё"): "е"})
_LOOK_ALIKES = str.maketrans(
    "авеёікмнорстухѕјԛԝһԁɡɩοαεικμνρτυχϲսոօցհ\u0261ıƅьгѵӏ",
    "abeeikmhopctyxsjqwhdgioaeikuvptuxcunogh" + "gibbrvl",
)
_LEET = (str.maketrans("0134579", "oieastg"), str.maketrans("0134579", "oleastg"))
_DIGIT_IN_WORD = re.compile("[A-Za-z][0-9]|[0-9][A-Za-z]")
_LATIN = re.compile("[a-z]")
_TAGS = re.compile("[\U000e0020-\U000e007e]")
_SPLIT = re.compile(f"[^\\W\\d_](?![{SHAPING}])[{INVISIBLE}][^\\W\\d_]")
_LONG_RUN = re.compile(r"[A-Za-z0-9+/_-]{16}")
_BASE64 = re.compile(r"(?<![A-Za-z0-9+/_-])[A-Za-z0-9+/_-]{16,65536}={0,2}")
_HEX_START = re.compile(r"(?:[0-9A-Fa-f]{2}[ ,:]?){4}|[0\\]x[0-9A-Fa-f]{2}")
_HEX = re.compile(r"(?<![0-9A-Fa-f])(?:(?:0x|\\x)?[0-9A-Fa-f]{2}[ ,:]?){10,65536}")
_PERCENT = re.compile(r"(?:%[2-7][0-9A-Fa-f][^%]{0,3}){4}")
_ENTITY = re.compile(r"(?:&#x?[0-9A-Fa-f]{2,6};[^&]{0,3}){4}")
_ESCAPE = re.compile(r"(?:\\u00[2-7][0-9A-Fa-f]|\\x[2-7][0-9A-Fa-f]){4}")
_ESCAPE_ONE = re.compile(r"\\u([0-9A-Fa-f]{4})|\\x([0-9A-Fa-f]{2})")
