"""The vocabulary of `injection_rules.json`: what words do in an attempt to overrule the prompt, and phrases that are
one."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from rlaas.policies.guardrails.terms import Terms, words

Signal = tuple[str, float]
"""What was seen, and its weight."""


@dataclass(frozen=True)
class Vocabulary:
    """Several languages together and without accents: words by what they do, phrases with their weights."""

    words: dict[str, frozenset[str]]
    kinds: dict[str, frozenset[str]]
    phrases: tuple[tuple[str, float], ...]
    tree: Terms
    roots: tuple[str, ...]
    known: frozenset[str]


@cache
def load_vocabulary() -> Vocabulary:
    """The vocabulary, read once."""
    given = json.loads(Path(__file__).with_name("injection_rules.json").read_text(encoding="utf-8"))
    by_kind = {kind: frozenset(listed) for kind, listed in given["words"].items()}
    kinds: dict[str, set[str]] = {}
    for kind, listed in by_kind.items():
        for word in listed:
            kinds.setdefault(word, set()).add(kind)
    phrases = tuple((phrase, float(weight)) for weight, listed in given["phrases"].items() for phrase in listed)
    return Vocabulary(
        words=by_kind,
        kinds={word: frozenset(kind) for word, kind in kinds.items()},
        phrases=phrases,
        tree=Terms(phrase for phrase, _ in phrases),
        roots=tuple(given["roots"]),
        known=frozenset(kinds) | {word.text for phrase, _ in phrases for word in words(phrase)},
    )
