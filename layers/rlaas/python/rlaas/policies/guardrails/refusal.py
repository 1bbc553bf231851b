"""The guardrail of answers that decline to answer, by rules in English, German, French, Spanish, Italian, Portuguese,
Dutch and Polish.

A refusal is the writer's own (`I`, or nobody in front of the verb) being unable, unwilling or not allowed, and a verb
of what was asked of an assistant: helping, complying, promoting, or giving an answer, a text or this. What a business
declines in an ordinary letter is none: an order, a refund, a date, something that has to wait for something else.
Phrases of policy, of belittling itself and of moral judgement count beside it, each a little. The vocabulary is
`refusal_phrases.json`; all of it looks at the first words alone, so it takes constant time.
"""

import json
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from rlaas.policies.guardrails.guardrail import AnswerGuardrail, AnswerTexts, Find

if TYPE_CHECKING:
    from rlaas.policies.guardrails.terms import Terms, Word

REFUSED = 0.5
"""From this score on an answer is a refusal."""
OPENING_WORDS = 60
"""A refusal stands in the first words of an answer; what comes later is an answer with a caveat."""
REACH = 14
"""How many words after its verb a sentence says what is declined."""

_SENTENCE_ENDS = frozenset(".!?\n")
_DECLINES, _DECLINES_TO_GIVE = 0.9, 0.7


class Refusal(AnswerGuardrail):
    """The model declines to answer, by rules in eight languages, or by the backend's own word."""

    kind: Literal["refusal"] = "refusal"
    action: Literal["block", "regenerate", "flag"] = "flag"

    def look_at(self, answer: AnswerTexts) -> Find | None:
        """How surely the answer is a refusal."""
        score = 1.0 if answer.refusal else refusal_score(answer.texts[0])
        return Find("declines to answer", score=score) if score >= REFUSED else None


class _Rules(NamedTuple):
    """The vocabulary, all languages together: words by what they do, ways of being unable, phrases with their weights.

    The first `names_nobody` of the ways say nothing of who is unable (cannot), the others do (no puedo)."""

    words: dict[str, frozenset[str]]
    unable: "Terms"
    names_nobody: int
    declining: "Terms"
    phrases: "Terms"
    weights: tuple[float, ...]


@cache
def _rules() -> _Rules:
    from rlaas.policies.guardrails.terms import Terms

    given = json.loads(Path(__file__).with_name("refusal_phrases.json").read_text(encoding="utf-8"))
    listed = [(phrase, float(weight)) for weight, phrases in given["phrases"].items() for phrase in phrases]
    return _Rules(
        words={kind: frozenset(kinds) for kind, kinds in given["words"].items()},
        unable=Terms([*given["unable"], *given["i_am_unable"]]),
        names_nobody=len(given["unable"]),
        declining=Terms(given["declining"]),
        phrases=Terms(phrase for phrase, _ in listed),
        weights=tuple(weight for _, weight in listed),
    )


def refusal_score(text: str) -> float:
    """How much `text` looks like a refusal, from 0 to 1; from `REFUSED` on it is taken for one."""
    from rlaas.policies.guardrails.terms import words

    rules = _rules()
    given = words(text[: OPENING_WORDS * 40])[:OPENING_WORDS]
    opening = [word.text for word in given]
    passed = 1.0
    for term in {term for term, _, _ in rules.phrases.places(opening)}:
        passed *= 1.0 - rules.weights[term]
    for sentence in _sentences(text, given):
        passed *= 1.0 - max(_declines(sentence), default=0.0)
    return 1.0 - passed


def _sentences(text: str, given: "Sequence[Word]") -> Iterator[list[str]]:
    sentence: list[str] = []
    for word, after in zip_longest(given, given[1:]):
        sentence.append(word.text)
        if after is None or not _SENTENCE_ENDS.isdisjoint(text[word.end : after.start]):
            yield sentence
            sentence = []


def _declines(sentence: Sequence[str]) -> Iterator[float]:
    """How surely the writer says to decline what an assistant is asked, at each place where the sentence might say
    so."""
    kinds = _rules().words
    for way, first, last in _rules().unable.places(sentence):
        verb = next((place for place in range(last + 1, min(len(sentence), last + 10)) if not _is_passed(sentence[place])), None)
        if verb is None or not (way >= _rules().names_nobody or _is_the_writers(sentence[:first])):
            continue
        after = sentence[verb + 1 : verb + 1 + REACH]
        if sentence[verb] in kinds["declines"] and not kinds["not_helping"].isdisjoint(after[:1]):
            continue
        harms = not kinds["harm"].isdisjoint(after)
        if not harms and not (kinds["business"] | kinds["waits"]).isdisjoint(after):
            continue
        if sentence[verb] in kinds["declines"]:
            yield _DECLINES
        elif sentence[verb] in kinds["gives"] and (harms or _is_an_answer(sentence[verb], after)):
            yield _DECLINES_TO_GIVE
    for _, _, last in _rules().declining.places(sentence):
        if _is_an_answer("", sentence[last + 1 :]) and kinds["business"].isdisjoint(sentence):
            yield _DECLINES
    for place, word in enumerate(sentence):
        # German and Dutch put the verb last: ich kann dir dabei nicht helfen
        if word in kinds["not"] and not kinds["declines_last"].isdisjoint(rest := sentence[place + 1 : place + 1 + REACH]):
            before = sentence[max(0, place - 8) : place]
            if not kinds["may"].isdisjoint(before) and not kinds["i"].isdisjoint(before) and kinds["business"].isdisjoint([*before, *rest]):
                yield _DECLINES_TO_GIVE


def _is_passed(word: str) -> bool:
    kinds = _rules().words
    return word in kinds["light"] and word not in kinds["declines"] and word not in kinds["gives"]


def _is_the_writers(before: Sequence[str]) -> bool:
    """Whether `I` is unable, or nobody is named: sorry, can't help with that."""
    for word in reversed(before):
        if word in _rules().words["i"]:
            return True
        if word not in _rules().words["leads_in"]:
            return False
    return True


def _is_an_answer(verb: str, after: Sequence[str]) -> bool:
    """Whether what is not given is what an assistant gives: an answer, a text, or just this."""
    kinds = _rules().words
    if not after or not kinds["matter"].isdisjoint(after) or (verb in kinds["makes"] and not kinds["made"].isdisjoint(after)):
        return True
    for place, word in enumerate(after[:5]):
        if word in kinds["asked"] or (word in kinds["this"] and (place + 1 == len(after) or after[place + 1] in kinds["this_goes_on"])):
            return True
    return False
