"""Takes personal data out of texts, and puts in its place what the tenant's settings say."""

import hmac
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Protocol

from rlaas.errors import DependencyUnavailable
from rlaas.privacy.patterns import Span, find_pattern_spans
from rlaas.privacy.reading import Reading, read_text
from rlaas.privacy.settings import (
    MODEL_ENTITIES,
    PATTERN_ENTITIES,
    EntityAction,
    ModelEntity,
    PatternEntity,
    PrivacySettings,
    SearchBudget,
    compile_pattern,
)
from rlaas.text_folding import find_positions, fold

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
"""Characters that people write within data of a kind, and that carry no meaning there."""


Digest = Callable[[str], str]
"""A keyed digest of a text, in hex."""


class EntityFinder(Protocol):
    """Finds names of people and places, and other kinds of data without a recognisable shape. Spans count code
    points."""

    def find(self, texts: Sequence[str], entities: Sequence[ModelEntity]) -> list[list[Span]]:
        """The spans in each of `texts`. Raises: DependencyUnavailable."""
        ...


@dataclass(frozen=True)
class Scrubber:
    """Applies one tenant's settings. `salt` (32 random bytes, the tenant's own) keeps other tenants from comparing its
    hashes with theirs."""

    settings: PrivacySettings
    salt: bytes
    finder: EntityFinder | None = None

    @cached_property
    def by_patterns(self) -> "Scrubber":
        """The same settings, but without the kinds that only a model can find."""
        actions: dict[PatternEntity | ModelEntity, EntityAction] = {**self.settings.actions, **dict.fromkeys(MODEL_ENTITIES, "keep")}
        return Scrubber(self.settings.model_copy(update={"actions": actions}), self.salt)

    @cached_property
    def model_entities(self) -> tuple[ModelEntity, ...]:
        """The kinds that a model has to be asked for."""
        return self.settings.model_entities

    def scrub(self, texts: Sequence[str]) -> list[str]:
        """`texts` with personal data masked, hashed, dropped or kept as the settings say; JSON stays JSON.

        Raises: DependencyUnavailable.
        """
        readings = [*map(read_text, texts)]
        spans_by_text = self.find_spans([reading.text for reading in readings])
        return [
            reading.replace_spans(spans, self._replacement_for) if spans else reading.original
            for reading, spans in zip(readings, spans_by_text, strict=True)
        ]

    def find_spans(self, texts: Sequence[str]) -> list[list[Span]]:
        """The spans to replace in each of `texts`, in order and without overlaps. Raises: DependencyUnavailable."""
        visible_texts = [fold(text) for text in texts]
        work = SearchBudget()
        by_pattern = [[*self._find_by_patterns(text, work)] for text in visible_texts]
        by_model: list[list[Span]] = [[] for _ in texts]
        entities = self.model_entities
        if entities and texts:
            if self.finder is None:
                raise DependencyUnavailable("the privacy settings ask for names to be found, and no service here finds names")
            by_model = self.finder.find(visible_texts, entities)
        return [
            self._resolve_overlaps(text, [*map(_map_back(text, visible), pattern_spans)], [*map(_map_back(text, visible), model_spans)])
            if pattern_spans or model_spans
            else []
            for text, visible, pattern_spans, model_spans in zip(texts, visible_texts, by_pattern, by_model, strict=True)
        ]

    def find_by_patterns(self, text: str) -> list[Span]:
        """What patterns find in `text`, except kinds that the settings keep and allowed texts. Spans may overlap."""
        visible = fold(text)
        spans = map(_map_back(text, visible), self._find_by_patterns(visible, SearchBudget()))
        return [span for span in spans if text[span.start : span.end] not in self._allowed]

    def replace_spans(self, reading: Reading, spans: Iterable[Span]) -> str:
        """The original text of `reading` with each of `spans` replaced as the settings say."""
        return reading.replace_spans(self._resolve_overlaps(reading.text, spans, ()), self._replacement_for)

    def digest(self, text: str) -> str:
        """HMAC-SHA256 (hex) of `text` under the salt: equal texts have equal digests, and nobody without the salt can
        find a text by trying likely ones."""
        return _hmac(self.salt, text).hex()

    def digest_for(self, purpose: str) -> "Digest":
        """A `digest` under a key of its own, derived from the salt and `purpose`, so that a digest made for one purpose
        is worthless for another."""
        key = _derive_key(self.salt, purpose)
        return lambda text: _hmac(key, text).hex()

    @cached_property
    def _custom(self) -> list[tuple[str, "re2._Regexp"]]:
        return [(custom.name, compile_pattern(custom.pattern)) for custom in self.settings.custom]

    @cached_property
    def _actions(self) -> dict[str, EntityAction]:
        actions: dict[str, EntityAction] = {entity: self.settings.action(entity) for entity in (*PATTERN_ENTITIES, *self.model_entities)}
        return actions | {custom.name: custom.action for custom in self.settings.custom}

    @cached_property
    def _pattern_entities(self) -> list[PatternEntity]:
        return [entity for entity in PATTERN_ENTITIES if self._actions[entity] != "keep"]

    @cached_property
    def _allowed(self) -> frozenset[str]:
        return frozenset(self.settings.allow)

    def _find_by_patterns(self, text: str, work: SearchBudget) -> Iterator[Span]:
        yield from find_pattern_spans(text, self._pattern_entities, self.settings.phone_regions)
        for name, expression in self._custom:
            yield from (Span(start, end, name) for start, end in work.find_all(expression, text))

    def _resolve_overlaps(self, text: str, by_pattern: Iterable[Span], by_model: Iterable[Span]) -> list[Span]:
        """The spans in order and without overlaps: patterns win over the model, then longer spans, then earlier ones.

        The rest of a span that another one overlaps stays a span, unless it is only punctuation. Linear in the text and
        the number of spans.
        """
        result: list[Span] = []
        mask = bytearray(len(text))
        for spans in (by_pattern, by_model):
            for span in sorted(spans, key=lambda span: (span.start - span.end, span.start)):
                if text[span.start : span.end] in self._allowed:
                    continue
                for start, end in _find_gaps(mask, span):
                    if (start, end) == (span.start, span.end) or any(map(str.isalnum, text[start:end])):
                        mask[start:end] = b"\x01" * (end - start)
                        result.append(Span(start, end, span.entity))
        return sorted(result, key=lambda span: span.start)

    def _replacement_for(self, text: str, entity: str) -> str:
        match self._actions[entity]:
            case "mask":
                return f"<{entity}>"
            case "hash":
                return f"<{entity}:{self.digest(canonicalize(text, entity))[:16]}>"
            case "drop":
                return ""
            case "keep":
                return text


@lru_cache(maxsize=256)
def _derive_key(salt: bytes, purpose: str) -> bytes:
    return _hmac(salt, f"\0{purpose}")


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(errors="surrogatepass"), "sha256")


def _map_back(text: str, visible: str) -> Callable[[Span], Span]:
    """A function that turns a span of `visible` into one of `text`, which may have invisible characters too."""
    if len(visible) == len(text):
        return lambda span: span
    positions = find_positions(text)
    return lambda span: Span(positions[span.start], positions[span.end - 1] + 1, span.entity)


def _find_gaps(mask: bytearray, span: Span) -> Iterator[tuple[int, int]]:
    """The parts of `span` (start, end) that are not covered yet."""
    end = span.start
    while (start := mask.find(0, end, span.end)) >= 0:
        end = mask.find(1, start, span.end)
        end = span.end if end < 0 else end
        yield start, end


def canonicalize(text: str, entity: str) -> str:
    """One text for all ways to write the same: `4111 1111...` and `4111-1111...` get one hash, and so does an e-mail
    address in any case."""
    plain = fold(text)
    if entity == "URL":
        return plain
    if entity in MODEL_ENTITIES:
        plain = " ".join(plain.split())
    return plain.translate(dict.fromkeys(map(ord, _GROUPING.get(entity, "")))).casefold()
