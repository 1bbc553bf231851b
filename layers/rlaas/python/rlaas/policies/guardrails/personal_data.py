"""Guardrails for personal data in requests, and for personal data that answers leak."""

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from rlaas.policies.guardrails.guardrail import AnswerGuardrail, AnswerTexts, Find, RequestGuardrail, RequestTexts, Term
from rlaas.privacy.settings import PATTERN_ENTITIES, PatternEntity, PrivacySettings

if TYPE_CHECKING:
    from rlaas.privacy.patterns import Span
    from rlaas.privacy.scrub import Scrubber

PERSONAL: tuple[PatternEntity, ...] = (
    "EMAIL_ADDRESS",
    "CREDIT_CARD",
    "IBAN_CODE",
    "US_SSN",
    "IP_ADDRESS",
    "PHONE_NUMBER",
    "MAC_ADDRESS",
    "CRYPTO",
    "UK_NHS",
    "STREET_ADDRESS",
)
"""What counts as personal data unless a guardrail says otherwise: every kind that patterns find, except URLs, which
answers often quote."""


class PersonalData(RequestGuardrail):
    """Acts on personal data in a request: `redact` replaces it, by `<EMAIL_ADDRESS>` for example, before the backend
    sees it. `allow` lists texts that look like personal data and are none, such as the company's own address."""

    kind: Literal["pii"] = "pii"
    action: Literal["block", "redact", "flag"] = "redact"
    entities: tuple[PatternEntity, ...] = Field(default=PERSONAL, min_length=1)
    allow: tuple[Term, ...] = Field(default=(), max_length=1000)

    def look_at(self, request: RequestTexts) -> Find | None:
        """How often each kind occurs in the request."""
        return _find_personal_data(_build_scrubber(self.entities, self.allow), request.texts)


class PersonalDataLeak(AnswerGuardrail):
    """Acts on personal data in an answer that is neither in the request nor in its documents."""

    kind: Literal["pii_leak"] = "pii_leak"
    action: Literal["block", "redact", "regenerate", "flag"] = "redact"
    entities: tuple[PatternEntity, ...] = Field(default=PERSONAL, min_length=1)
    allow: tuple[Term, ...] = Field(default=(), max_length=1000)

    def look_at(self, answer: AnswerTexts) -> Find | None:
        """How often each kind occurs in the answer but not in the request or its documents."""
        from rlaas.privacy.reading import read_text
        from rlaas.privacy.scrub import canonicalize

        scrubber = _build_scrubber(self.entities, self.allow)
        if not any(scrubber.find_by_patterns(read_text(text).text) for text in answer.texts):
            return None
        request_data = frozenset(
            (span.entity, canonicalize(text[span.start : span.end], span.entity))
            for text in (read_text(text).text for text in (*answer.request, *answer.documents))
            for span in scrubber.find_by_patterns(text)
        )
        return _find_personal_data(scrubber, answer.texts, request_data)


@lru_cache(maxsize=128)
def _build_scrubber(entities: tuple[PatternEntity, ...], allow: tuple[str, ...]) -> "Scrubber":
    from rlaas.privacy.scrub import Scrubber

    actions = {entity: "mask" if entity in entities else "keep" for entity in PATTERN_ENTITIES}
    return Scrubber(PrivacySettings.model_validate({"actions": actions, "allow": allow}), salt=b"")


def _find_personal_data(scrubber: "Scrubber", texts: Sequence[str], request_data: frozenset[tuple[str, str]] = frozenset()) -> Find | None:
    from rlaas.privacy.reading import read_text

    readings = [*map(read_text, texts)]
    spans = [_find_leaks(reading.text, scrubber.find_by_patterns(reading.text), request_data) for reading in readings]
    kinds = Counter(span.entity for leaks in spans for span in leaks)
    if not kinds:
        return None
    return Find(
        ", ".join(f"{entity} x{times}" for entity, times in sorted(kinds.items())),
        without=lambda: [scrubber.replace_spans(reading, leaks) for reading, leaks in zip(readings, spans, strict=True)],
    )


def _find_leaks(text: str, spans: "list[Span]", request_data: frozenset[tuple[str, str]]) -> "list[Span]":
    """The spans that are not within data of the request (entity and canonical text)."""
    if not request_data or not spans:
        return spans
    from rlaas.privacy.scrub import canonicalize

    mask = bytearray(len(text))
    for span in spans:
        if (span.entity, canonicalize(text[span.start : span.end], span.entity)) in request_data:
            mask[span.start : span.end] = b"\x01" * (span.end - span.start)
    return [span for span in spans if mask.find(0, span.start, span.end) >= 0]
