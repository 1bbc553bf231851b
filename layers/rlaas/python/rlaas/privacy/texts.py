"""Scrubs every text in pydantic values. The types of a model's fields say where texts are, so new fields are
covered."""

import json
import math
import operator
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, JsonValue
from pydantic.fields import FieldInfo

from rlaas.privacy.scrub import Scrubber

Model = TypeVar("Model", bound=BaseModel)
TextChange = Callable[[str], str]
_READ_WHOLE = frozenset({"metadata", "parameters"})
"""Fields that hold any JSON: scrubbed as one text, because the name beside a value may say what the value is."""
_PLACEHOLDER = "-"
"""What replaces a text that must not be empty when nothing is left of it."""


def scrub_models(values: Sequence[Model], scrubber: Scrubber, *, exempt: Collection[str]) -> list[Model]:
    """`values` without personal data; the scrubber gets all their texts in one call. Raises: DependencyUnavailable.

    It gets all strings and names of entries, and numbers where a string would be allowed, at any depth. It does not get
    the fields `exempt`, words of a fixed list, and fields whose types allow only numbers or times. A text that becomes
    longer than its field allows is cut.
    """
    texts: list[str] = []

    def collect(text: str) -> str:
        texts.append(text)
        return text

    for value in values:
        _change_texts(value, collect, exempt)
    clean = scrubber.scrub(texts)
    if clean == texts:
        return [*values]
    rest = iter(clean)
    return [_change_texts(value, lambda _: next(rest), exempt) for value in values]


@dataclass(frozen=True, slots=True)
class _Bounds:
    """The fewest and the most characters that a text may have."""

    fewest: int = 0
    most: float = math.inf

    def fit(self, text: str) -> str:
        return text[: int(self.most)] if len(text) > self.most else text or _PLACEHOLDER * min(self.fewest, 1)


def _change_texts(model: Model, change: TextChange, exempt: Collection[str]) -> Model:
    """`model` with `change` applied to each text, always in the same order for the same model."""
    updates: dict[str, object] = {}
    for name, bounds in _find_text_fields(type(model)):
        value = getattr(model, name)
        if name in exempt or value is None or value == () or value == {}:
            continue
        changed = _change_json(value, change) if name in _READ_WHOLE else _change_value(value, change, exempt, bounds)
        if changed is not value:
            updates[name] = changed
    return model.model_copy(update=updates) if updates else model


def _change_json(value: Any, change: TextChange) -> Any:
    text = json.dumps(value, ensure_ascii=False)
    changed = change(text)
    return value if changed == text else json.loads(changed)


def _change_value(value: Any, change: TextChange, exempt: Collection[str], bounds: _Bounds) -> Any:
    """`value` with its texts changed; `value` itself where none is."""
    match value:
        case str():
            return bounds.fit(change(value))
        case BaseModel():
            return _change_texts(value, change, exempt)
        case list() | tuple():
            items = [_change_value(item, change, exempt, bounds) for item in value]
            return value if all(map(operator.is_, items, value)) else type(value)(items)
        case dict():
            return _change_entries(value, change, exempt, bounds)
        case bool() | None:
            return value
        case int() | float():
            return _change_number(value, change)
        case _:
            return value


def _change_entries(value: Mapping[str, Any], change: TextChange, exempt: Collection[str], bounds: _Bounds) -> dict[str, Any]:
    """The entries with their names changed too; names that become equal are numbered."""
    result: dict[str, Any] = {}
    for name, item in value.items():
        plain = name = change(name)
        number = 1
        while name in result:
            number += 1
            name = f"{plain} ({number})"
        result[name] = _change_value(item, change, exempt, bounds)
    return result


def _change_number(value: float, change: TextChange) -> float | str:
    """The number, or the text that replaces it."""
    text = json.dumps([value])
    [result] = json.loads(change(text))
    return result if isinstance(result, str) else value


@cache
def _find_text_fields(model: type[BaseModel]) -> tuple[tuple[str, _Bounds], ...]:
    """The model's fields that may hold a text, and the bounds of that text."""
    fields = ((name, _find_bounds(field.annotation, [field])) for name, field in model.model_fields.items())
    return tuple((name, bounds) for name, bounds in fields if bounds is not None)


def _find_bounds(annotation: Any, constraints: Sequence[object] = ()) -> _Bounds | None:
    """The bounds of the texts that a value of this type may hold; None when it cannot hold a text."""
    if annotation is JsonValue:
        return _Bounds()
    if annotation is str:
        metadata = [part for one in constraints for part in (one.metadata if isinstance(one, FieldInfo) else [one])]
        fewest = max((getattr(part, "min_length", None) or 0 for part in metadata), default=0)
        most = min((getattr(part, "max_length", None) or math.inf for part in metadata), default=math.inf)
        return _Bounds(fewest, most)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return _Bounds()
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _find_bounds(inner[0], inner[1:])
    if origin is Literal:
        return None
    parts = [_find_bounds(part, constraints if origin in (Union, UnionType) else ()) for part in inner]
    bounds = [part for part in parts if part is not None]
    return _Bounds(max(part.fewest for part in bounds), min(part.most for part in bounds)) if bounds else None
