"""The guardrail against answers that decline to answer, by rules for English, German, French, Spanish, Italian,
Portuguese, Dutch and Polish.

In a refusal the writer (`I`, or no subject at all) is unable, unwilling or not allowed to do what assistants are asked
for: to help, comply, promote, or give an answer, a text or `this`. What a business declines in an ordinary letter is no
refusal: an order, a refund, a date, something that has to wait. Phrases about policies, about being only an AI, and of
moral judgement add a little each. The vocabulary is `refusal_phrases.json`. Only the first words of an answer are
checked, so it takes constant time.
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
"""An answer with at least this score is a refusal."""
OPENING_WORDS = 60
"""How many words are checked: a refusal is in an answer's first words; one that comes later is a caveat."""
REACH = 14
"""How far after the verb a sentence may say what is declined, in words."""

_SENTENCE_ENDS = frozenset(".!?\n")
_DECLINES, _DECLINES_TO_GIVE = 0.9, 0.7


class Refusal(AnswerGuardrail):
    """Acts when the model declines to answer, by rules for eight languages, or when the backend reports a refusal."""

    kind: Literal["refusal"] = "refusal"
    action: Literal["block", "regenerate", "flag"] = "flag"

    def look_at(self, answer: AnswerTexts) -> Find | None:
        """The score of an answer that is a refusal."""
        score = 1.0 if answer.refusal else rate_refusal(answer.texts[0])
        return Find("declines to answer", score=score) if score >= REFUSED else None


class _Rules(NamedTuple):
    """The vocabulary, all languages together: words by kind, ways of saying that one is unable, phrases with weights.

    The first `names_nobody` of the ways do not say who is unable (cannot); the others do (no puedo)."""

    words: dict[str, frozenset[str]]
    unable: "Terms"
    names_nobody: int
    declining: "Terms"
    phrases: "Terms"
    weights: tuple[float, ...]


@cache
def _load_rules() -> _Rules:
    from rlaas.policies.guardrails.terms import Terms

    rules = json.loads(Path(__file__).with_name("refusal_phrases.json").read_text(encoding="utf-8"))
    weighted_phrases = [(phrase, float(weight)) for weight, phrases in rules["phrases"].items() for phrase in phrases]
    return _Rules(
        words={kind: frozenset(kinds) for kind, kinds in rules["words"].items()},
        unable=Terms([*rules["unable"], *rules["i_am_unable"]]),
        names_nobody=len(rules["unable"]),
        declining=Terms(rules["declining"]),
        phrases=Terms(phrase for phrase, _ in weighted_phrases),
        weights=tuple(weight for _, weight in weighted_phrases),
    )


def rate_refusal(text: str) -> float:
    """How much `text` looks like a refusal, from 0 to 1; it is one from `REFUSED` on."""
    from rlaas.policies.guardrails.terms import split_words

    rules = _load_rules()
    opening_words = split_words(text[: OPENING_WORDS * 40])[:OPENING_WORDS]
    opening = [word.text for word in opening_words]
    remainder = 1.0
    for term in {term for term, _, _ in rules.phrases.find_places(opening)}:
        remainder *= 1.0 - rules.weights[term]
    for sentence in _split_sentences(text, opening_words):
        remainder *= 1.0 - max(_rate_refusals(sentence), default=0.0)
    return 1.0 - remainder


def _split_sentences(text: str, opening_words: "Sequence[Word]") -> Iterator[list[str]]:
    sentence: list[str] = []
    for word, next_word in zip_longest(opening_words, opening_words[1:]):
        sentence.append(word.text)
        if next_word is None or not _SENTENCE_ENDS.isdisjoint(text[word.end : next_word.start]):
            yield sentence
            sentence = []


def _rate_refusals(sentence: Sequence[str]) -> Iterator[float]:
    """A score in [0, 1] for each place where the writer of the sentence may decline what an assistant is asked."""
    kinds = _load_rules().words
    for way, first, last in _load_rules().unable.find_places(sentence):
        verb = next((place for place in range(last + 1, min(len(sentence), last + 10)) if not _is_passed(sentence[place])), None)
        if verb is None or not (way >= _load_rules().names_nobody or _is_the_writers(sentence[:first])):
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
    for _, _, last in _load_rules().declining.find_places(sentence):
        if _is_an_answer("", sentence[last + 1 :]) and kinds["business"].isdisjoint(sentence):
            yield _DECLINES
    for place, word in enumerate(sentence):
        # In German and Dutch the verb comes last: ich kann dir dabei nicht helfen
        if word in kinds["not"] and not kinds["declines_last"].isdisjoint(rest := sentence[place + 1 : place + 1 + REACH]):
            before = sentence[max(0, place - 8) : place]
            if not kinds["may"].isdisjoint(before) and not kinds["i"].isdisjoint(before) and kinds["business"].isdisjoint([*before, *rest]):
                yield _DECLINES_TO_GIVE


def _is_passed(word: str) -> bool:
    kinds = _load_rules().words
    return word in kinds["light"] and word not in kinds["declines"] and word not in kinds["gives"]


def _is_the_writers(before: Sequence[str]) -> bool:
    """Whether the subject is `I`, or there is none: sorry, can't help with that."""
    for word in reversed(before):
        if word in _load_rules().words["i"]:
            return True
        if word not in _load_rules().words["leads_in"]:
            return False
    return True


def _is_an_answer(verb: str, after: Sequence[str]) -> bool:
    """Whether what is declined is what assistants give: an answer, a text, or just `this`."""
    kinds = _load_rules().words
    if not after or not kinds["matter"].isdisjoint(after) or (verb in kinds["makes"] and not kinds["made"].isdisjoint(after)):
        return True
    for place, word in enumerate(after[:5]):
        if word in kinds["asked"] or (word in kinds["this"] and (place + 1 == len(after) or after[place + 1] in kinds["this_goes_on"])):
            return True
    return False
