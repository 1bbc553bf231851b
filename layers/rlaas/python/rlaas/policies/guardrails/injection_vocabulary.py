"""The vocabulary of `injection_rules.json`: kinds of words in attempts to overrule the prompt, and phrases of such
attempts."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from rlaas.policies.guardrails.terms import Terms, split_words

Signal = tuple[str, float]
"""The name of a signal, and its weight in (0, 1)."""


@dataclass(frozen=True)
class Vocabulary:
    """Several languages together, without accents: words by kind, kinds by word, and phrases with their weights."""

    words: dict[str, frozenset[str]]
    kinds: dict[str, frozenset[str]]
    phrases: tuple[tuple[str, float], ...]
    tree: Terms
    roots: tuple[str, ...]
    all_words: frozenset[str]


@cache
def load_vocabulary() -> Vocabulary:
    """The vocabulary, read once."""
    rules = json.loads(Path(__file__).with_name("injection_rules.json").read_text(encoding="utf-8"))
    by_kind = {kind: frozenset(entries) for kind, entries in rules["words"].items()}
    kinds: dict[str, set[str]] = {}
    for kind, entries in by_kind.items():
        for word in entries:
            kinds.setdefault(word, set()).add(kind)
    phrases = tuple((phrase, float(weight)) for weight, entries in rules["phrases"].items() for phrase in entries)
    return Vocabulary(
        words=by_kind,
        kinds={word: frozenset(kind) for word, kind in kinds.items()},
        phrases=phrases,
        tree=Terms(phrase for phrase, _ in phrases),
        roots=tuple(rules["roots"]),
        all_words=frozenset(kinds) | {word.text for phrase, _ in phrases for word in split_words(phrase)},
    )
