"""Many terms looked for in a text at once, in time linear in the text."""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple, Self

from rlaas.text_folding import INVISIBLE

LONGEST_TERM = 16
"""Words of a term that count; what comes after them is not looked at, so that each word of a text begins a bounded
search."""

_MARKS = "\u0300-\u036f\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f"
_UNSEEN = INVISIBLE + r"\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f"
"""What stands between letters and shows nothing: control characters, too, but for those that are white space."""
_UNSEEN_ONE = re.compile(f"[{_UNSEEN}]")
# Marks are taken four at a time: putting a long run of them into canonical order takes quadratic time.
_CLUSTER = re.compile(f"[^{_UNSEEN}][{_MARKS}]{{0,4}}[{_UNSEEN}]*|[{_UNSEEN}]+", re.DOTALL)
# Scripts written without spaces: each character is a word.
_WORD = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff]|[^\\W_]+")


class Word(NamedTuple):
    """A word of a text as terms are compared by, and the characters of the text that are it."""

    text: str
    start: int
    end: int


class Hit(NamedTuple):
    """Characters `start` to `end` of a text are the `term`, by its position in the list."""

    term: int
    start: int
    end: int


def words(text: str) -> list[Word]:
    """The words of `text`, runs of letters and digits: case, compatibility forms, invisible and control characters are
    folded away."""
    lower = text.lower()
    as_it_is = text.isascii() or (len(lower) == len(text) and unicodedata.is_normalized("NFKC", lower))
    if as_it_is and not _UNSEEN_ONE.search(lower):
        return [Word(match[0], match.start(), match.end()) for match in _WORD.finditer(lower)]
    folded: list[str] = []
    places: list[tuple[int, int]] = []
    for match in _CLUSTER.finditer(text):
        for character in _folded(match[0]):
            folded.append(character)
            places.append(match.span())
    return [Word(match[0], places[match.start()][0], places[match.end() - 1][1]) for match in _WORD.finditer("".join(folded))]


@lru_cache(maxsize=4096)
def _folded(cluster: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", _UNSEEN_ONE.sub("", cluster)).lower())


@dataclass(slots=True)
class _Node:
    """The terms that end here, and what may follow."""

    ends: list[int] = field(default_factory=list)
    next: dict[str, Self] = field(default_factory=dict)


class Terms:
    """Terms in a tree by their words: looking takes O(words of the text x LONGEST_TERM), however many terms there
    are."""

    def __init__(self, terms: Iterable[str]) -> None:
        self._root = _Node()
        for position, term in enumerate(terms):
            node = self._root
            for word in words(term)[:LONGEST_TERM]:
                node = node.next.setdefault(word.text, _Node())
            if node is not self._root:
                node.ends.append(position)

    def hits(self, text: str) -> Iterator[Hit]:
        """Every occurrence, overlapping ones too, by where they begin."""
        given = words(text)
        for term, first, last in self.places([word.text for word in given]):
            yield Hit(term, given[first].start, given[last].end)

    def places(self, given: Sequence[str]) -> Iterator[tuple[int, int, int]]:
        """The same for a text that is taken apart: the term, and its first and its last word."""
        root = self._root.next
        for first, word in enumerate(given):
            if word not in root:
                continue
            node: _Node | None = root[word]
            last = first
            while node is not None:
                for term in node.ends:
                    yield term, first, last
                last += 1
                node = node.next.get(given[last]) if last < len(given) else None


@lru_cache(maxsize=256)
def term_tree(terms: tuple[str, ...]) -> Terms:
    """The tree of a guardrail's terms, made once."""
    return Terms(terms)
