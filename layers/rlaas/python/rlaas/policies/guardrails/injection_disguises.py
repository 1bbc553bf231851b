"""What hides an attempt to overrule the prompt, undone.

Invisible and look-alike characters, digits for letters, letters set apart, and one layer of base64, hexadecimal,
percent and entity encoding, ROT13 and reversal.
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
from rlaas.policies.guardrails.terms import Word, words
from rlaas.text_folding import INVISIBLE, SHAPING

DECODED = 16
"""Encoded pieces of one text that are opened."""


def uncover_words(text: str, given: list[Word]) -> tuple[list[str], list[Signal]]:
    """The words of `text`, `given` as they stand there, without what disguises them, and the disguises found."""
    hidden: list[Signal] = []
    if text.isascii() and not _DIGIT_IN_WORD.search(text):
        plain = [word.text for word in given]
    else:
        plain, hidden = _undisguised(text, given)
    for run in _letters_set_apart(given):
        plain += run
        together = "".join(run)
        if sum(root in together for root in load_vocabulary().roots) > 1:
            hidden.append(("letters_set_apart", 0.6))
    return plain, hidden


def _undisguised(text: str, given: list[Word]) -> tuple[list[str], list[Signal]]:
    known = load_vocabulary().known
    hidden: list[Signal] = []
    if not text.isascii():
        tags = "".join(chr(ord(character) - 0xE0000) for character in _TAGS.findall(text))
        if tags:
            hidden.append(("invisible_text", 0.6))
            given += words(tags)
        if _SPLIT.search(text):
            hidden.append(("invisible_characters", 0.3))
    plain: list[str] = []
    looked_alike = numbered = 0
    for word in given:
        spelling = word.text
        if not spelling.isascii():
            spelling = spelling.translate(_BASE)
            if not spelling.isascii() and _LATIN.search(spelling):
                spelling, before = spelling.translate(_LOOK_ALIKES), spelling
                looked_alike += spelling.isascii() and spelling != before
        if not spelling.isalpha() and spelling.isascii() and len(spelling) <= _LONGEST_WORD:
            for table in _LEET:
                if (word_meant := spelling.translate(table)) in known:
                    spelling, numbered = word_meant, numbered + (len(word_meant) > 3)
                    break
        plain.append(spelling)
    if looked_alike > 1:
        hidden.append(("look_alike_letters", 0.5 if looked_alike > 3 else 0.3))
    if numbered > 1:
        hidden.append(("digits_for_letters", 0.5 if numbered > 3 else 0.3))
    return plain, hidden


def _letters_set_apart(given: Sequence[Word]) -> Iterator[list[str]]:
    """The words that runs of at least eight single letters spell; a wider gap is a space."""
    run: list[Word] = []
    for word in [*given, Word("", -1, -1)]:
        if len(word.text) == 1 and word.text.isalpha():
            run.append(word)
        elif run:
            if len(run) >= 8:
                spelled, last = [""], run[0].start - 1
                for letter in run:
                    if letter.start - last > 1:
                        spelled.append("")
                    spelled[-1] += letter.text
                    last = letter.end
                yield [part for part in spelled if part]
            run = []


def decode_pieces(text: str, plain: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Texts in `text` that one layer of encoding hides, each with the encoding's name."""
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
    known = set(plain)
    if len(known & _turned("rot13")) > 1:
        yield "rot13", codecs.encode(" ".join(plain), "rot13")
    if len(known & _turned("reversed")) > 1:
        yield "reversal", " ".join(plain)[::-1]


@cache
def _turned(how: str) -> frozenset[str]:
    """The longer words of the vocabulary as ROT13 or reversal writes them."""
    known = load_vocabulary().kinds
    long = [word for word in known if len(word) > 3 and word.isascii()]
    return frozenset(codecs.encode(word, "rot13") if how == "rot13" else word[::-1] for word in long) - known.keys()


class _Bases(dict[int, str]):
    """Letters of Latin, Greek and Cyrillic without their accents, made when first met."""

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
