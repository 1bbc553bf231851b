"""What the function `find_entities` is asked, and what it answers."""

from rlaas.privacy.patterns import Span
from rlaas.privacy.settings import ModelEntity
from rlaas.wire import WireModel


class FindEntities(WireModel):
    """Find `entities` in each of `texts`."""

    texts: tuple[str, ...]
    entities: tuple[ModelEntity, ...]


class FoundEntities(WireModel):
    """For each text the finds: first code point, the one behind the last, kind."""

    spans: tuple[tuple[tuple[int, int, ModelEntity], ...], ...]

    @classmethod
    def of(cls, found: list[list[Span]]) -> "FoundEntities":
        """The answer that holds `found`."""
        return cls.model_validate({"spans": [[(span.start, span.end, span.entity) for span in spans] for spans in found]}, strict=False)
