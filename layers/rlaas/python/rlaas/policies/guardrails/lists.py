"""Guardrails with lists of terms and patterns: those that requests may not have or must have, and that answers may not
have."""

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import ConfigDict, Field, ValidationInfo, field_validator, model_validator

from rlaas.policies.guardrails.guardrail import AnswerGuardrail, AnswerTexts, Find, RequestGuardrail, RequestTexts, Term
from rlaas.privacy.settings import SearchBudget, compile_pattern
from rlaas.wire import WireModel

if TYPE_CHECKING:
    import re2

    from rlaas.policies.guardrails.terms import Hit

Pattern = Annotated[str, Field(min_length=1, max_length=500)]


class _Terms(WireModel):
    """Terms are whole words or phrases, compared without case, width, invisible characters and punctuation, but with
    accents. Patterns are RE2's, and are matched with the text as it is."""

    model_config = ConfigDict(defer_build=True)

    terms: tuple[Term, ...] = Field(default=(), max_length=1000)
    patterns: tuple[Pattern, ...] = Field(default=(), max_length=50)

    @field_validator("terms", "excuses", check_fields=False)
    @classmethod
    def _have_words(cls, terms: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        from rlaas.policies.guardrails.terms import split_words  # takes 3 ms, and only policies with terms need it

        empty = next((term for term in terms if not split_words(term)), None)
        if empty is not None:
            raise ValueError(f"{info.field_name} are made of words, and {empty!r} has none; use a pattern")
        return terms

    @model_validator(mode="after")
    def _has_entries(self) -> Self:
        if not self.terms and not self.patterns:
            raise ValueError("needs terms or patterns")
        for pattern in self.patterns:
            _compile(pattern)
        return self

    def find_hits(self, text: str) -> "list[Hit]":
        """Where terms and patterns occur in `text`; patterns are numbered after the terms."""
        from rlaas.policies.guardrails.terms import Hit, build_term_tree

        hits = list(build_term_tree(self.terms).find_hits(text)) if self.terms else []
        work = SearchBudget()
        for position, pattern in enumerate(self.patterns, start=len(self.terms)):
            hits += [Hit(position, start, end) for start, end in work.find_all(_compile(pattern), text)]
        return hits


class BlockList(RequestGuardrail, _Terms):
    """Terms and patterns that requests may not have; within one of `excuses` they are allowed (`kill` in `kill
    switch`)."""

    kind: Literal["block_list"] = "block_list"
    action: Literal["block", "redact", "flag"] = "block"
    excuses: tuple[Term, ...] = Field(default=(), max_length=1000)

    def look_at(self, request: RequestTexts) -> Find | None:
        """The numbers of the terms and patterns that occur in the request."""
        return _find_listed(self, self.excuses, request.texts)


class AllowList(RequestGuardrail, _Terms):
    """Acts when a request has none of the terms and patterns."""

    kind: Literal["allow_list"] = "allow_list"
    action: Literal["block", "flag"] = "block"

    def look_at(self, request: RequestTexts) -> Find | None:
        """Whether no term or pattern occurs in the request; its documents do not count."""
        return None if any(map(self.find_hits, request.without_documents)) else Find("none of the allowed terms")


class AnswerBlockList(AnswerGuardrail, _Terms):
    """Terms and patterns that answers may not have; within one of `excuses` they are allowed."""

    kind: Literal["block_list"] = "block_list"
    action: Literal["block", "redact", "regenerate", "flag"] = "block"
    excuses: tuple[Term, ...] = Field(default=(), max_length=1000)

    def look_at(self, answer: AnswerTexts) -> Find | None:
        """The numbers of the terms and patterns that occur in the answer."""
        return _find_listed(self, self.excuses, answer.texts)


@lru_cache(maxsize=512)
def _compile(pattern: str) -> "re2._Regexp":
    return compile_pattern(pattern)


def _find_listed(term_list: _Terms, excuses: tuple[str, ...], texts: Sequence[str]) -> Find | None:
    from rlaas.policies.guardrails.redaction import put_labels
    from rlaas.privacy.patterns import Span
    from rlaas.privacy.reading import read_text

    readings = [*map(read_text, texts)]
    hits = [_drop_excused(term_list.find_hits(reading.text), excuses, reading.text) for reading in readings]
    entries = sorted({hit.term for hits_in_text in hits for hit in hits_in_text})
    if not entries:
        return None
    terms = len(term_list.terms)
    return Find(
        ", ".join(f"term {entry + 1}" if entry < terms else f"pattern {entry - terms + 1}" for entry in entries[:8]),
        without=lambda: put_labels(readings, [[Span(hit.start, hit.end, "BLOCKED") for hit in hits_in_text] for hits_in_text in hits]),
    )


def _drop_excused(hits: "list[Hit]", excuses: tuple[str, ...], text: str) -> "list[Hit]":
    """The hits that are not within excuses."""
    if not hits or not excuses:
        return hits
    from rlaas.policies.guardrails.terms import build_term_tree

    mask = bytearray(len(text))
    for excuse in build_term_tree(excuses).find_hits(text):
        mask[excuse.start : excuse.end] = b"\x01" * (excuse.end - excuse.start)
    return [hit for hit in hits if mask.find(0, hit.start, hit.end) >= 0]
