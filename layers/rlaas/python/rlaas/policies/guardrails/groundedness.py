"""How much of an answer stands in the documents it was given. The seam for scorers that understand; the one here counts words."""

from collections.abc import Sequence
from typing import Protocol

from rlaas.policies.guardrails.terms import words

SHORTEST_WORD = 4
"""Letters of a content word; numbers count whatever their length."""


class GroundednessScorer(Protocol):
    """Judges an answer against documents."""

    def score(self, answer: str, documents: Sequence[str]) -> float:
        """From 0, nothing in `answer` is supported by `documents`, to 1, all of it is. Raises: DependencyUnavailable."""
        ...


class LexicalOverlap:
    """The share of the answer's different content words and numbers that stand in some document. O(words).

    It sees invented names and numbers, and not a claim made of the documents' own words.
    """

    def score(self, answer: str, documents: Sequence[str]) -> float:
        """1.0 for an answer without content words; 0.0 for any other without documents."""
        said = _content(answer)
        if not said:
            return 1.0
        given = set[str]().union(*map(_content, documents))
        return len(said & given) / len(said)


def _content(text: str) -> set[str]:
    return {word.text for word in words(text) if len(word.text) >= SHORTEST_WORD or word.text.isdigit() or not word.text.isascii()}
