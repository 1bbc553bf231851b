"""Every text of a value, taken out to be scrubbed and put back: what a model has is found by its types, so that a new
field is covered."""

import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, JsonValue
from pydantic.fields import FieldInfo

from rlaas.privacy.scrub import Scrubber

Model = TypeVar("Model", bound=BaseModel)
Change = Callable[[str], str]
_READ_WHOLE = frozenset({"metadata", "parameters"})
"""Fields of any JSON, read as one text, so that a name tells what its value is."""
_EMPTIED = "-"
"""What stands where nothing is left of a text that must not be empty."""


def scrubbed(values: Sequence[Model], scrubber: Scrubber, *, kept: Collection[str]) -> list[Model]:
    """`values` without personal data, all their texts in one go. Raises: DependencyUnavailable.

    Looked at are all strings, names of entries, and numbers where a string might stand, at any depth: all but the
    fields `kept`, words of a fixed list, and numbers and times, whose types bound them. What a mask makes longer than
    its field may be is cut.
    """
    texts: list[str] = []

    def collect(text: str) -> str:
        texts.append(text)
        return text

    for value in values:
        _changed(value, collect, kept)
    clean = scrubber.texts(texts)
    if clean == texts:
        return [*values]
    rest = iter(clean)
    return [_changed(value, lambda _: next(rest), kept) for value in values]


@dataclass(frozen=True, slots=True)
class _Bounds:
    """How many characters a text may have."""

    fewest: int = 0
    most: float = math.inf

    def fitted(self, text: str) -> str:
        return text[: int(self.most)] if len(text) > self.most else text or _EMPTIED * min(self.fewest, 1)


def _changed(model: Model, change: Change, kept: Collection[str]) -> Model:
    """`model` with `change` made to each text, in an order that depends on nothing but the model."""
    updates: dict[str, object] = {}
    for name, bounds in _fields_with_texts(type(model)):
        value = getattr(model, name)
        if name in kept or value is None or value == () or value == {}:
            continue
        if name in _READ_WHOLE:
            updates[name] = json.loads(change(json.dumps(value, ensure_ascii=False)))
        else:
            updates[name] = _walked(value, change, kept, bounds)
    return model.model_copy(update=updates)


def _walked(value: Any, change: Change, kept: Collection[str], bounds: _Bounds) -> Any:
    match value:
        case str():
            return bounds.fitted(change(value))
        case BaseModel():
            return _changed(value, change, kept)
        case list() | tuple():
            return type(value)(_walked(item, change, kept, bounds) for item in value)
        case dict():
            return _entries(value, change, kept, bounds)
        case bool() | None:
            return value
        case int() | float():
            return _number(value, change)
        case _:
            return value


def _entries(value: Mapping[str, Any], change: Change, kept: Collection[str], bounds: _Bounds) -> dict[str, Any]:
    """The entries, their names changed too; names that become one another are numbered."""
    changed: dict[str, Any] = {}
    for name, item in value.items():
        plain = name = change(name)
        number = 1
        while name in changed:
            number += 1
            name = f"{plain} ({number})"
        changed[name] = _walked(item, change, kept, bounds)
    return changed


def _number(value: float, change: Change) -> float | str:
    """The number, or what stands for it as a text."""
    written = json.dumps([value])
    [changed] = json.loads(change(written))
    return changed if isinstance(changed, str) else value


@cache
def _fields_with_texts(model: type[BaseModel]) -> tuple[tuple[str, _Bounds], ...]:
    """The model's fields that may hold a text, and how long that may be."""
    found = ((name, _bounds(field.annotation, [field])) for name, field in model.model_fields.items())
    return tuple((name, bounds) for name, bounds in found if bounds is not None)


def _bounds(annotation: Any, constraints: Sequence[object] = ()) -> _Bounds | None:
    """The bounds of the texts that a value of this type may hold; None when it holds none."""
    if annotation is JsonValue:
        return _Bounds()
    if annotation is str:
        told = [part for one in constraints for part in ([*one.metadata] if isinstance(one, FieldInfo) else [one])]
        fewest = max((getattr(part, "min_length", None) or 0 for part in told), default=0)
        most = min((getattr(part, "max_length", None) or math.inf for part in told), default=math.inf)
        return _Bounds(fewest, most)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return _Bounds()
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _bounds(inner[0], inner[1:])
    if origin is Literal:
        return None
    parts = [_bounds(part, constraints if origin in (Union, UnionType) else ()) for part in inner]
    held = [part for part in parts if part is not None]
    return _Bounds(max(part.fewest for part in held), min(part.most for part in held)) if held else None
