"""The guardrail against answers that their documents do not support. The scorer here counts words;
`GroundednessScorer` is the protocol for scorers that understand texts."""

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

from rlaas.policies.guardrails.guardrail import AnswerGuardrail, AnswerTexts, Find, GuardrailName, Score

SHORTEST_WORD = 4
"""The fewest letters of a content word; numbers count whatever their length."""


class Groundedness(AnswerGuardrail):
    """Acts when the score of the answer against the request's documents is below `min_score`; without documents the
    score is 0.

    The scorer `lexical` is the share of the answer's content words and numbers that occur in the documents: a crude
    check that sees neither negation nor paraphrase.
    """

    kind: Literal["groundedness"] = "groundedness"
    action: Literal["block", "regenerate", "flag"] = "flag"
    scorer: GuardrailName = "lexical"
    min_score: Score = 0.5

    def look_at(self, answer: AnswerTexts) -> Find | None:
        """A score that is too low. Raises: LookupError for an unknown scorer, ValueError for a score outside [0, 1],
        and what the scorer raises."""
        score = answer.scorers[self.scorer].score(answer.texts[0], answer.documents)
        if not 0 <= score <= 1:
            raise ValueError("a score must be from 0 to 1")
        return Find("the documents support too little of it", score=score) if score < self.min_score else None


class GroundednessScorer(Protocol):
    """Rates how well documents support an answer."""

    def score(self, answer: str, documents: Sequence[str]) -> float:
        """From 0 (`documents` support nothing in `answer`) to 1 (they support all of it). Raises:
        DependencyUnavailable."""
        ...


class LexicalOverlap:
    """The share of the answer's different content words and numbers that occur in some document. O(words).

    It notices invented names and numbers, but not a false claim in the documents' own words.
    """

    def score(self, answer: str, documents: Sequence[str]) -> float:
        """The share, in [0, 1]; 1.0 for an answer without content words, 0.0 for any other without documents."""
        answer_words = _find_content_words(answer)
        if not answer_words:
            return 1.0
        document_words = set[str]().union(*map(_find_content_words, documents))
        return len(answer_words & document_words) / len(answer_words)


SCORERS: Mapping[str, GroundednessScorer] = {"lexical": LexicalOverlap()}
"""The scorers that a policy can name."""


def _find_content_words(text: str) -> set[str]:
    from rlaas.policies.guardrails.terms import split_words

    return {word.text for word in split_words(text) if len(word.text) >= SHORTEST_WORD or word.text.isdigit() or not word.text.isascii()}
