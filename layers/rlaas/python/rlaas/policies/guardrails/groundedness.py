"""The guardrail of answers that must stand in their documents. `GroundednessScorer` is the seam for scorers that
understand; the one here counts words."""

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

from rlaas.policies.guardrails.guardrail import AnswerGuardrail, AnswerTexts, Find, GuardrailName, Share

SHORTEST_WORD = 4
"""Letters of a content word; numbers count whatever their length."""


class Groundedness(AnswerGuardrail):
    """Holds when `scorer` gives the answer less than `min_score` against the request's documents; without documents the
    score is 0.

    `lexical` is the share of the answer's content words and numbers that stand in the documents: a floor, blind to
    negation and paraphrase.
    """

    kind: Literal["groundedness"] = "groundedness"
    action: Literal["block", "regenerate", "flag"] = "flag"
    scorer: GuardrailName = "lexical"
    min_score: Share = 0.5

    def look_at(self, answer: AnswerTexts) -> Find | None:
        """A score that is too low. Raises: LookupError where nothing here has the scorer's name, and what the scorer
        raises."""
        score = answer.scorers[self.scorer].score(answer.texts[0], answer.documents)
        if not 0 <= score <= 1:
            raise ValueError("a score lies between 0 and 1")
        return Find("too little of it stands in the documents", score=score) if score < self.min_score else None


class GroundednessScorer(Protocol):
    """Judges an answer against documents."""

    def score(self, answer: str, documents: Sequence[str]) -> float:
        """From 0, nothing in `answer` is supported by `documents`, to 1, all of it is. Raises:
        DependencyUnavailable."""
        ...


class LexicalOverlap:
    """The share of the answer's different content words and numbers that stand in some document. O(words).

    It sees invented names and numbers, and not a claim made of the documents' own words.
    """

    def score(self, answer: str, documents: Sequence[str]) -> float:
        """1.0 for an answer without content words; 0.0 for any other without documents."""
        content = _content(answer)
        if not content:
            return 1.0
        documented = set[str]().union(*map(_content, documents))
        return len(content & documented) / len(content)


SCORERS: Mapping[str, GroundednessScorer] = {"lexical": LexicalOverlap()}
"""The scorers that a policy can name."""


def _content(text: str) -> set[str]:
    from rlaas.policies.guardrails.terms import words

    return {word.text for word in words(text) if len(word.text) >= SHORTEST_WORD or word.text.isdigit() or not word.text.isascii()}
