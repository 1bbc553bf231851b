"""Guardrails of personal data: what a caller sends, and what an answer lets out."""

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
"""What counts as personal data unless a guardrail says otherwise: every kind that a pattern finds but URLs, which
answers quote."""


class PersonalData(RequestGuardrail):
    """Personal data in what the caller sent: `redact` puts `<EMAIL_ADDRESS>` in its place before the backend sees it.
    `allow` lists texts that look like it and are none, such as the company's own address."""

    kind: Literal["pii"] = "pii"
    action: Literal["block", "redact", "flag"] = "redact"
    entities: tuple[PatternEntity, ...] = Field(default=PERSONAL, min_length=1)
    allow: tuple[Term, ...] = Field(default=(), max_length=1000)

    def look_at(self, request: RequestTexts) -> Find | None:
        """How often each kind stands in the request."""
        return _find_personal_data(_scrubber(self.entities, self.allow), request.texts)


class PersonalDataLeak(AnswerGuardrail):
    """Personal data in the answer that stands neither in the request nor in its documents."""

    kind: Literal["pii_leak"] = "pii_leak"
    action: Literal["block", "redact", "regenerate", "flag"] = "redact"
    entities: tuple[PatternEntity, ...] = Field(default=PERSONAL, min_length=1)
    allow: tuple[Term, ...] = Field(default=(), max_length=1000)

    def look_at(self, answer: AnswerTexts) -> Find | None:
        """How often each kind stands in the answer alone."""
        from rlaas.privacy.reading import read
        from rlaas.privacy.scrub import canonical

        scrubber = _scrubber(self.entities, self.allow)
        if not any(scrubber.found(read(text).text) for text in answer.texts):
            return None
        known = frozenset(
            (span.entity, canonical(text[span.start : span.end], span.entity))
            for text in (read(text).text for text in (*answer.request, *answer.documents))
            for span in scrubber.found(text)
        )
        return _find_personal_data(scrubber, answer.texts, known)


@lru_cache(maxsize=128)
def _scrubber(entities: tuple[PatternEntity, ...], allow: tuple[str, ...]) -> "Scrubber":
    from rlaas.privacy.scrub import Scrubber

    actions = {entity: "mask" if entity in entities else "keep" for entity in PATTERN_ENTITIES}
    return Scrubber(PrivacySettings.model_validate({"actions": actions, "allow": allow}), salt=b"")


def _find_personal_data(scrubber: "Scrubber", texts: Sequence[str], known: frozenset[tuple[str, str]] = frozenset()) -> Find | None:
    from rlaas.privacy.reading import read

    readings = [*map(read, texts)]
    spans = [_unknown(reading.text, scrubber.found(reading.text), known) for reading in readings]
    kinds = Counter(span.entity for unknown in spans for span in unknown)
    if not kinds:
        return None
    return Find(
        ", ".join(f"{entity} x{times}" for entity, times in sorted(kinds.items())),
        without=lambda: [scrubber.replaced(*each) for each in zip(readings, spans, strict=True)],
    )


def _unknown(text: str, spans: "list[Span]", known: frozenset[tuple[str, str]]) -> "list[Span]":
    """The spans that do not lie within known ones."""
    if not known or not spans:
        return spans
    from rlaas.privacy.scrub import canonical

    covered = bytearray(len(text))
    for span in spans:
        if (span.entity, canonical(text[span.start : span.end], span.entity)) in known:
            covered[span.start : span.end] = b"\x01" * (span.end - span.start)
    return [span for span in spans if covered.find(0, span.start, span.end) >= 0]
