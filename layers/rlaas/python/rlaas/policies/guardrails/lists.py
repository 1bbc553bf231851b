"""Guardrails by lists of terms and patterns: what must not be sent, what must be, and what must not be answered."""

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import ConfigDict, Field, ValidationInfo, field_validator, model_validator

from rlaas.policies.guardrails.guardrail import AnswerGuardrail, AnswerTexts, Find, RequestGuardrail, RequestTexts, Term
from rlaas.privacy.settings import Work, compiled
from rlaas.wire import WireModel

if TYPE_CHECKING:
    import re2

    from rlaas.policies.guardrails.terms import Hit

Pattern = Annotated[str, Field(min_length=1, max_length=500)]


class _Terms(WireModel):
    """Terms are whole words or phrases: case, width, invisible characters and punctuation do not count, accents do.
    Patterns are RE2's, and see the text as it is."""

    model_config = ConfigDict(defer_build=True)

    terms: tuple[Term, ...] = Field(default=(), max_length=1000)
    patterns: tuple[Pattern, ...] = Field(default=(), max_length=50)

    @field_validator("terms", "excuses", check_fields=False)
    @classmethod
    def _have_words(cls, terms: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        from rlaas.policies.guardrails.terms import words  # its expressions take 3 ms to compile, and only policies with terms need them

        empty = next((term for term in terms if not words(term)), None)
        if empty is not None:
            raise ValueError(f"{info.field_name} are made of words, {empty!r} has none; use a pattern")
        return terms

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.terms and not self.patterns:
            raise ValueError("needs terms or patterns")
        for pattern in self.patterns:
            _expression(pattern)
        return self

    def hits(self, text: str) -> "list[Hit]":
        """What of the list stands in `text`; patterns count on from the terms."""
        from rlaas.policies.guardrails.terms import Hit, term_tree

        hits = list(term_tree(self.terms).hits(text)) if self.terms else []
        work = Work()
        for position, pattern in enumerate(self.patterns, start=len(self.terms)):
            hits += [Hit(position, start, end) for start, end in work.finds(_expression(pattern), text)]
        return hits


class BlockList(RequestGuardrail, _Terms):
    """Terms and patterns that must not be sent; a find within one of `excuses` is none (`kill` in `kill switch`)."""

    kind: Literal["block_list"] = "block_list"
    action: Literal["block", "redact", "flag"] = "block"
    excuses: tuple[Term, ...] = Field(default=(), max_length=1000)

    def look_at(self, request: RequestTexts) -> Find | None:
        """Which of the list's entries stand in the request, by their numbers."""
        return _find_listed(self, self.excuses, request.texts)


class AllowList(RequestGuardrail, _Terms):
    """Holds when what the caller sent has none of the terms and patterns."""

    kind: Literal["allow_list"] = "allow_list"
    action: Literal["block", "flag"] = "block"

    def look_at(self, request: RequestTexts) -> Find | None:
        """Whether nothing of the list is there; documents do not speak for the request."""
        return None if any(map(self.hits, request.without_documents)) else Find("none of the allowed terms")


class AnswerBlockList(AnswerGuardrail, _Terms):
    """Terms and patterns that must not be answered; a find within one of `excuses` is none."""

    kind: Literal["block_list"] = "block_list"
    action: Literal["block", "redact", "regenerate", "flag"] = "block"
    excuses: tuple[Term, ...] = Field(default=(), max_length=1000)

    def look_at(self, answer: AnswerTexts) -> Find | None:
        """Which of the list's entries stand in the answer, by their numbers."""
        return _find_listed(self, self.excuses, answer.texts)


@lru_cache(maxsize=512)
def _expression(pattern: str) -> "re2._Regexp":
    return compiled(pattern)


def _find_listed(listed: _Terms, excuses: tuple[str, ...], texts: Sequence[str]) -> Find | None:
    from rlaas.policies.guardrails.redaction import put_labels
    from rlaas.privacy.patterns import Span
    from rlaas.privacy.reading import read

    readings = [*map(read, texts)]
    hits = [_without_excused(listed.hits(reading.text), excuses, reading.text) for reading in readings]
    entries = sorted({hit.term for in_text in hits for hit in in_text})
    if not entries:
        return None
    terms = len(listed.terms)
    return Find(
        ", ".join(f"term {entry + 1}" if entry < terms else f"pattern {entry - terms + 1}" for entry in entries[:8]),
        without=lambda: put_labels(readings, [[Span(hit.start, hit.end, "BLOCKED") for hit in in_text] for in_text in hits]),
    )


def _without_excused(hits: "list[Hit]", excuses: tuple[str, ...], text: str) -> "list[Hit]":
    """The hits that do not lie within excuses."""
    if not hits or not excuses:
        return hits
    from rlaas.policies.guardrails.terms import term_tree

    excused = bytearray(len(text))
    for excuse in term_tree(excuses).hits(text):
        excused[excuse.start : excuse.end] = b"\x01" * (excuse.end - excuse.start)
    return [hit for hit in hits if excused.find(0, hit.start, hit.end) >= 0]
