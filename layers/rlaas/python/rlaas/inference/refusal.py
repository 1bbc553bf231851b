"""Whether an answer declines to answer, by rules in English, German, French, Spanish, Italian, Portuguese, Dutch and Polish."""

import json
from functools import cache
from pathlib import Path

from rlaas.routing.terms import Terms, words

OPENING_WORDS = 60
"""A refusal stands in the first words of an answer; what comes later is an answer with a caveat."""


@cache
def _phrases() -> tuple[Terms, tuple[float, ...]]:
    given = json.loads(Path(__file__).with_name("refusal_phrases.json").read_text(encoding="utf-8"))
    listed = [(phrase, float(weight)) for weight, phrases in given.items() for phrase in phrases]
    return Terms(phrase for phrase, _ in listed), tuple(weight for _, weight in listed)


def refusal_score(text: str) -> float:
    """How much `text` looks like a refusal, from 0 to 1; from 0.5 on it is taken for one."""
    opening = [word.text for word in words(text[: OPENING_WORDS * 40])[:OPENING_WORDS]]
    tree, weights = _phrases()
    passed = 1.0
    for weight in {weights[term] for term, _, _ in tree.places(opening)}:
        passed *= 1.0 - weight
    return 1.0 - passed
