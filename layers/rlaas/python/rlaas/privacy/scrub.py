"""Texts without their personal data: what is found, and what each tenant wants in its place."""

import hmac
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from rlaas.errors import DependencyUnavailable
from rlaas.privacy.patterns import Span, pattern_spans
from rlaas.privacy.reading import Reading, read
from rlaas.privacy.settings import MODEL_ENTITIES, PATTERN_ENTITIES, Action, ModelEntity, PatternEntity, PrivacySettings, Work, compiled
from rlaas.text_folding import folded, places

if TYPE_CHECKING:
    import re2

_GROUPING: dict[str, str] = {
    "CREDIT_CARD": " -",
    "IBAN_CODE": " -",
    "MAC_ADDRESS": ":-.",
    "PHONE_NUMBER": " -().",
    "UK_NHS": " -",
    "US_SSN": " -",
}
"""What people put between the characters of a kind without meaning anything by it."""


Digest = Callable[[str], str]
"""A keyed digest of a text, in hex."""


class EntityFinder(Protocol):
    """Finds names of people and places, and what else has no shape of its own. Places in a text count its Unicode code
    points."""

    def find(self, texts: Sequence[str], entities: Sequence[ModelEntity]) -> list[list[Span]]:
        """The spans in each of `texts`. Raises: DependencyUnavailable."""
        ...


@dataclass(frozen=True)
class Scrubber:
    """One tenant's settings at work. `salt` (32 random bytes, the tenant's own) makes hashes that tell nothing to
    others."""

    settings: PrivacySettings
    salt: bytes
    finder: EntityFinder | None = None

    @cached_property
    def by_patterns(self) -> "Scrubber":
        """The same without the kinds that a model has to be asked for."""
        kept: dict[PatternEntity | ModelEntity, Action] = {**self.settings.actions, **dict.fromkeys(MODEL_ENTITIES, "keep")}
        return Scrubber(self.settings.model_copy(update={"actions": kept}), self.salt)

    def texts(self, texts: Sequence[str]) -> list[str]:
        """`texts` with personal data masked, hashed, dropped or kept as the settings say; what was JSON still is.

        Raises: DependencyUnavailable.
        """
        readings = [*map(read, texts)]
        found = self.spans([reading.text for reading in readings])
        return [
            reading.replaced(spans, self._in_place_of) if spans else reading.given for reading, spans in zip(readings, found, strict=True)
        ]

    def spans(self, texts: Sequence[str]) -> list[list[Span]]:
        """What is replaced in each of `texts`, in order and apart. Raises: DependencyUnavailable."""
        seen = [folded(text) for text in texts]
        work = Work()
        by_pattern = [[*self._by_pattern(text, work)] for text in seen]
        by_model: list[list[Span]] = [[] for _ in texts]
        entities = self.settings.model_entities
        if entities and texts:
            if self.finder is None:
                raise DependencyUnavailable("nothing here finds names, which the privacy settings ask for")
            by_model = self.finder.find(seen, entities)
        return [
            self._apart(text, [*map(_back_to(text, visible), found)], [*map(_back_to(text, visible), more)]) if found or more else []
            for text, visible, found, more in zip(texts, seen, by_pattern, by_model, strict=True)
        ]

    def found(self, text: str) -> list[Span]:
        """What patterns find in `text` and settings do not keep, overlapping ones too, without the allowed texts."""
        seen = folded(text)
        spans = map(_back_to(text, seen), self._by_pattern(seen, Work()))
        return [span for span in spans if text[span.start : span.end] not in self._allowed]

    def replaced(self, reading: Reading, spans: Iterable[Span]) -> str:
        """What was read with each of `spans` of the reading replaced as the settings say."""
        return reading.replaced(self._apart(reading.text, spans, ()), self._in_place_of)

    def digest(self, text: str) -> str:
        """HMAC-SHA256 (hex) of `text` under the salt: equal texts are known again, and nobody without the salt can
        guess them."""
        return _hmac(self.salt, text).hex()

    def digest_for(self, purpose: str) -> "Digest":
        """A `digest` under a key of its own, made of the salt and `purpose`: what is proven by one proves nothing to
        another."""
        key = _hmac(self.salt, f"\0{purpose}")
        return lambda text: _hmac(key, text).hex()

    @cached_property
    def _custom(self) -> list[tuple[str, "re2._Regexp"]]:
        return [(custom.name, compiled(custom.pattern)) for custom in self.settings.custom]

    @cached_property
    def _actions(self) -> dict[str, Action]:
        actions: dict[str, Action] = {entity: self.settings.action(entity) for entity in (*PATTERN_ENTITIES, *self.settings.model_entities)}
        return actions | {custom.name: custom.action for custom in self.settings.custom}

    @cached_property
    def _allowed(self) -> frozenset[str]:
        return frozenset(self.settings.allow)

    def _by_pattern(self, text: str, work: Work) -> Iterator[Span]:
        entities = [entity for entity in PATTERN_ENTITIES if self._actions[entity] != "keep"]
        yield from pattern_spans(text, entities, self.settings.phone_regions)
        for name, expression in self._custom:
            yield from (Span(start, end, name) for start, end in work.finds(expression, text))

    def _apart(self, text: str, by_pattern: Iterable[Span], by_model: Iterable[Span]) -> list[Span]:
        """The spans without overlaps: patterns go before the model, then the longest, then the first.

        What is left of a span that another one overlaps is a span as well, unless it is nothing but punctuation. Linear
        in the text and its finds.
        """
        taken: list[Span] = []
        covered = bytearray(len(text))
        for spans in (by_pattern, by_model):
            for span in sorted(spans, key=lambda span: (span.start - span.end, span.start)):
                if text[span.start : span.end] in self._allowed:
                    continue
                for start, end in _uncovered(covered, span):
                    if (start, end) == (span.start, span.end) or any(map(str.isalnum, text[start:end])):
                        covered[start:end] = b"\x01" * (end - start)
                        taken.append(Span(start, end, span.entity))
        return sorted(taken, key=lambda span: span.start)

    def _in_place_of(self, found: str, entity: str) -> str:
        match self._actions[entity]:
            case "mask":
                return f"<{entity}>"
            case "hash":
                return f"<{entity}:{self.digest(canonical(found, entity))[:16]}>"
            case "drop":
                return ""
            case "keep":
                return found


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(errors="surrogatepass"), "sha256")


def _back_to(text: str, seen: str) -> Callable[[Span], Span]:
    """What turns a span of `seen` into that of `text`, which may have invisible characters besides."""
    if len(seen) == len(text):
        return lambda span: span
    stands = places(text)
    return lambda span: Span(stands[span.start], stands[span.end - 1] + 1, span.entity)


def _uncovered(covered: bytearray, span: Span) -> Iterator[tuple[int, int]]:
    """The stretches of `span` that nothing covers yet."""
    end = span.start
    while (start := covered.find(0, end, span.end)) >= 0:
        end = covered.find(1, start, span.end)
        end = span.end if end < 0 else end
        yield start, end


def canonical(found: str, entity: str) -> str:
    """One text for all ways to write the same: hashes join `4111 1111...` with `4111-1111...`, and an address in
    whatever case."""
    plain = folded(found)
    if entity == "URL":
        return plain
    if entity in MODEL_ENTITIES:
        plain = " ".join(plain.split())
    return plain.translate(dict.fromkeys(map(ord, _GROUPING.get(entity, "")))).casefold()
