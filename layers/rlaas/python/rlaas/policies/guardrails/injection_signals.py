"""How much a text looks like an attempt to overrule the prompt: prompt injection, jailbreak, reading the system prompt.

It works by rules. The text is split into words (`terms`), and disguises are undone (`injection_disguises`). Then it is
searched for signals: markup of chats, phrases, and verbs with their objects within a few words (`injection_phrases`),
with the vocabulary of `injection_rules.json`. Each signal has a weight in (0, 1), set by hand; the score is
1 - prod(1 - weight) over the different signals.

The search takes time linear in the text: phrases are found in a tree, objects within `REACH` words of a verb, and at
most `DECODED` pieces are decoded for each encoding, once.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rlaas.policies.guardrails.guardrail import MAX_CHARACTERS
from rlaas.policies.guardrails.injection_disguises import decode_pieces, uncover_words
from rlaas.policies.guardrails.injection_phrases import find_phrases, find_sentences
from rlaas.policies.guardrails.injection_vocabulary import Signal
from rlaas.policies.guardrails.terms import split_words


@dataclass(frozen=True, slots=True)
class Suspicion:
    """How much a text looks like an attack, from 0 to 1, and the signals of it, the strongest first."""

    score: float
    signals: tuple[str, ...]


def rate_suspicion(text: str) -> Suspicion:
    """How much `text` looks like an attack. Raises: ValueError when it is longer than `MAX_CHARACTERS`."""
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"texts of more than {MAX_CHARACTERS} characters are not checked")
    weights = _keep_strongest(_find_signals(text))
    return Suspicion(score=_combine(weights), signals=tuple(sorted(weights, key=lambda signal: -weights[signal])))


def _keep_strongest(signals: Iterable[Signal]) -> dict[str, float]:
    weights: dict[str, float] = {}
    for signal, weight in signals:
        weights[signal] = max(weight, weights.get(signal, 0.0))
    return weights


def _combine(weights: dict[str, float]) -> float:
    remainder = 1.0
    for weight in weights.values():
        remainder *= 1.0 - weight
    return 1.0 - remainder


def _find_signals(text: str) -> Iterator[Signal]:
    visible_words = split_words(text)
    plain, disguises = uncover_words(text, [*visible_words])
    yield from disguises
    yield from find_phrases(plain, find_sentences(text, visible_words, len(plain)))
    yield from _find_markup(text.lower())
    for name, inner in decode_pieces(text, plain):
        inner_words = split_words(inner[:MAX_CHARACTERS])
        sentences = find_sentences(inner, inner_words, len(inner_words))
        inside = _combine(_keep_strongest(find_phrases([word.text for word in inner_words], sentences)))
        if inside >= 0.2:
            yield f"hidden_by_{name}", min(0.95, inside + 0.3)


def _find_markup(lower: str) -> Iterator[Signal]:
    for name, weight, glances, expression in _MARKUP:
        if any(glance in lower for glance in glances) and expression.search(lower):
            yield name, weight


_ROLES = "(?:message|prompt|override|note|instructions?|command|notice)"
_MARKUP = (
    (
        "chat_markup",
        0.7,
        ("<|", "<<sys", "[inst", "[/inst"),
        re.compile(r"<\|(?:im_start|im_end|system|user|assistant|endoftext|start_header_id|eot_id|begin_of_text)\|>|<<sys>>|\[/?inst\]"),
    ),
    (
        "system_markup",
        0.5,
        ("<system", "</system", "[system", "[/system", "[admin", "[/admin"),
        re.compile(r"</?(?:system|system_prompt)>|\[/?(?:system|admin)\]"),
    ),
    (
        "speaks_as_the_system",
        0.35,
        ("system:", "admin:", "developer:", "system ", "admin ", "developer ", "system*", "system]"),
        re.compile(rf"(?:^|\n)[ \t#>*\"'`\[]{{0,8}}(?:system|admin|developer)(?: {_ROLES})?[\]*\"'`]{{0,3}} ?:"),
    ),
    (
        "speaks_as_the_assistant",
        0.2,
        ("assistant:", "chatgpt:", "ai:", "gpt:"),
        re.compile(r"(?:^|\n)[ \t#>*]{0,8}(?:assistant|chatgpt|ai|gpt):"),
    ),
    (
        "new_instructions",
        0.5,
        ("instruction", "prompt", "directive", "task"),
        re.compile(
            r"\b(?:new|updated|revised|real|actual|hidden|important) (?:system )?(?:instructions?|prompt|directives?|task)[*\"]{0,2} ?:"
        ),
    ),
    (
        "instructions_in_a_comment",
        0.5,
        ("<!--",),
        re.compile(r"<!--[^>]{0,100}\b(?:ignore|instructions?|assistant|system|prompt|ai|llm)\b"),
    ),
    (
        "image_that_sends",
        0.5,
        ("](http",),
        re.compile(r"!\[[^\]\[]{0,200}\]\(https?://[^)\s?]{1,300}\?[^)\s=]{1,60}=[^)\s]{0,300}(?:\{|\[|<|%7b)"),
    ),
)
"""Name, weight, strings of which a matching text has one, and the expression, for texts in lower case."""
