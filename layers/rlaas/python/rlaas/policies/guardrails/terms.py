"""Finds many terms in a text at once, in time linear in the text."""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple, Self

from rlaas.text_folding import INVISIBLE

LONGEST_TERM = 16
"""How many words of a term are compared; the rest is ignored, so that the search from each word of a text is
bounded."""

_MARKS = "\u0300-\u036f\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f"
_UNSEEN = INVISIBLE + r"\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f"
"""Invisible characters: also control characters, except those that are white space."""
_UNSEEN_ONE = re.compile(f"[{_UNSEEN}]")
# At most four marks at a time: putting a long run of them into canonical order takes quadratic time.
_CLUSTER = re.compile(f"[^{_UNSEEN}][{_MARKS}]{{0,4}}[{_UNSEEN}]*|[{_UNSEEN}]+", re.DOTALL)
# In scripts without spaces each character is a word.
_WORD = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff]|[^\\W_]+")


class Word(NamedTuple):
    """A word of a text in the form in which terms are compared, and its start and end (exclusive) in the text."""

    text: str
    start: int
    end: int


class Hit(NamedTuple):
    """An occurrence of a term, which `term` names by its position in the list, from `start` to `end` (exclusive)."""

    term: int
    start: int
    end: int


def split_words(text: str) -> list[Word]:
    """The words of `text`: runs of letters and digits, in lower case and compatibility form (NFKC), without invisible
    and control characters."""
    lower = text.lower()
    as_it_is = text.isascii() or (len(lower) == len(text) and unicodedata.is_normalized("NFKC", lower))
    if as_it_is and not _UNSEEN_ONE.search(lower):
        return [Word(match[0], match.start(), match.end()) for match in _WORD.finditer(lower)]
    characters: list[str] = []
    places: list[tuple[int, int]] = []
    for match in _CLUSTER.finditer(text):
        for character in _fold(match[0]):
            characters.append(character)
            places.append(match.span())
    return [Word(match[0], places[match.start()][0], places[match.end() - 1][1]) for match in _WORD.finditer("".join(characters))]


@lru_cache(maxsize=4096)
def _fold(cluster: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", _UNSEEN_ONE.sub("", cluster)).lower())


@dataclass(slots=True)
class _Node:
    """The terms that end at this word, and the words that may follow."""

    ends: list[int] = field(default_factory=list)
    next: dict[str, Self] = field(default_factory=dict)


class Terms:
    """Terms in a tree by their words: a search takes O(words of the text x LONGEST_TERM), however many terms there
    are."""

    def __init__(self, terms: Iterable[str]) -> None:
        self._root = _Node()
        for position, term in enumerate(terms):
            node = self._root
            for word in split_words(term)[:LONGEST_TERM]:
                node = node.next.setdefault(word.text, _Node())
            if node is not self._root:
                node.ends.append(position)

    def find_hits(self, text: str) -> Iterator[Hit]:
        """Every occurrence of a term, overlapping ones too, in the order of their starts."""
        text_words = split_words(text)
        for term, first, last in self.find_places([word.text for word in text_words]):
            yield Hit(term, text_words[first].start, text_words[last].end)

    def find_places(self, text_words: Sequence[str]) -> Iterator[tuple[int, int, int]]:
        """The same in a text's words: the term's position in the list, and the positions of its first and last word."""
        root = self._root.next
        for first, word in enumerate(text_words):
            if word not in root:
                continue
            node: _Node | None = root[word]
            last = first
            while node is not None:
                for term in node.ends:
                    yield term, first, last
                last += 1
                node = node.next.get(text_words[last]) if last < len(text_words) else None


@lru_cache(maxsize=256)
def build_term_tree(terms: tuple[str, ...]) -> Terms:
    """The tree of a guardrail's terms, built once."""
    return Terms(terms)
