"""The request and the answer of the function `find_entities`."""

from rlaas.privacy.patterns import Span
from rlaas.privacy.settings import ModelEntity
from rlaas.wire import WireModel


class FindEntities(WireModel):
    """Find `entities` in each of `texts`."""

    texts: tuple[str, ...]
    entities: tuple[ModelEntity, ...]


class FoundEntities(WireModel):
    """The entities in each text: the first code point, the one after the last, and the kind."""

    spans: tuple[tuple[tuple[int, int, ModelEntity], ...], ...]

    @classmethod
    def of(cls, spans_by_text: list[list[Span]]) -> "FoundEntities":
        """The answer with the spans of each text."""
        rows = [[(span.start, span.end, span.entity) for span in spans] for spans in spans_by_text]
        return cls.model_validate({"spans": rows}, strict=False)
