"""JSON Schemas (draft 2020-12) that a tenant may have answers checked by: nothing is fetched, and no answer takes more
than linear time."""

import json
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import unquote

from pydantic import JsonValue

if TYPE_CHECKING:
    import jsonschema_rs

MAX_BYTES = 64 * 1024
"""The largest schema, as JSON."""
MAX_LOOKS = 4_000_000
"""Looks of an answer's values at a schema's parts and options; one takes 0.6 us."""
MAX_PARTS = 2_000
"""Subschemas of a schema whose references are written out, each recursion once."""

_SAME_VALUE = ("allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas")
_OTHER_PROPERTIES = ("patternProperties", "unevaluatedProperties", "propertyNames")
_OTHER_ITEMS = ("contains", "unevaluatedItems")
_MAPS = ("properties", "patternProperties", "dependentSchemas")
_REFUSED = ("$dynamicRef", "$dynamicAnchor", "$anchor", "$id", "$recursiveRef")


@lru_cache(maxsize=128)
def schema_validator(schema: str) -> "jsonschema_rs.Validator":
    """The validator of a schema given as JSON. Raises: ValueError."""
    import jsonschema_rs  # 15 MB, and only policies with structured output need it

    if len(schema.encode()) > MAX_BYTES:
        raise ValueError(f"the schema is larger than {MAX_BYTES} bytes")
    parsed = json.loads(schema)
    linear = jsonschema_rs.RegexOptions(size_limit=1 << 20, dfa_size_limit=1 << 20)
    try:
        validator = jsonschema_rs.Draft202012Validator(parsed, offline=True, pattern_options=linear)
    except jsonschema_rs.ValidationError as error:
        raise ValueError(f"not a JSON Schema of draft 2020-12: {error.message}") from None
    except jsonschema_rs.ReferencingError as error:
        raise ValueError(f"not a JSON Schema of draft 2020-12: {error}") from None
    try:
        _Unfolding(parsed).recursions(parsed, ())
    except (LookupError, RecursionError):
        raise ValueError("the schema's references lead too deep, or nowhere") from None
    return validator


@lru_cache(maxsize=128)
def looks(schema: str) -> int:
    """How often a validator may look at one value of an answer: once for each part that may hold of it, and for each
    option of an enum."""
    parsed: JsonValue = json.loads(schema)
    unfolding = _Unfolding(parsed)
    unfolding.recursions(parsed, ())
    return unfolding.looks[id(parsed)] if isinstance(parsed, dict) else 1


def values_in(text: str) -> int:
    """At most how many values the JSON `text` has."""
    return 1 + sum(map(text.count, ",[{"))


class _Unfolding:
    """A schema with its references written out, counted.

    A validator looks at one value once per path through the schema that leads to it. Without recursion there are at
    most `MAX_PARTS` of them; with recursion their number stays the same from level to level as long as every part leads
    back to itself or to a part around it along one path at most. Two, as in `anyOf: [{items: $ref}, {items: $ref}]`,
    double it with every level of the answer.
    """

    def __init__(self, root: JsonValue) -> None:
        self._root = root
        self._parts = 0
        self.looks: dict[int, int] = {}

    def recursions(self, schema: JsonValue, around: tuple[int, ...]) -> tuple[int, int]:
        """Along how many paths one object, and along how many one array, leads back to the parts `around`. Raises:
        ValueError."""
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise ValueError(f"the schema has more than {MAX_PARTS} parts once its references are written out")
        if not isinstance(schema, dict):
            return 0, 0
        if id(schema) in around:
            return 1, 1
        unknown = next((name for name in _REFUSED if name in schema), None)
        if unknown is not None:
            raise ValueError(f"the schema uses {unknown}; refer to parts by $ref and a JSON pointer")
        around = (*around, id(schema))

        looked: dict[str, list[int]] = {}

        def of(*keywords: str) -> list[tuple[int, int]]:
            parts = [(keyword, part) for keyword in keywords for part in _parts(keyword, schema.get(keyword))]
            paths = [self.recursions(part, around) for _, part in parts]
            for keyword, part in parts:
                looked.setdefault(keyword, []).append(self.looks.get(id(part), 1))
            return paths

        same = of(*_SAME_VALUE)
        if "$ref" in schema:
            target = self._target(schema["$ref"])
            same.append(self.recursions(target, around))
            looked["$ref"] = [self.looks.get(id(target), 1)]
        # Of these one property, or one item, is looked at by one.
        one_property, one_item = (
            max([0, *(max(paths) for paths in of(*keywords))])
            for keywords in (("properties", "additionalProperties"), ("prefixItems", "items"))
        )
        objects = sum(paths[0] for paths in same) + one_property + sum(max(paths) for paths in of(*_OTHER_PROPERTIES))
        arrays = sum(paths[1] for paths in same) + one_item + sum(max(paths) for paths in of(*_OTHER_ITEMS))
        if max(objects, arrays) > 1:
            raise ValueError("the schema leads back to itself along more than one path, which can take exponential time")
        alone = max(
            (max(looked.pop(keyword, [0])) for keyword in ("properties", "additionalProperties", "prefixItems", "items")), default=0
        )
        self.looks[id(schema)] = 1 + _options(schema) + alone + sum(map(sum, looked.values()))
        return objects, arrays

    def _target(self, reference: JsonValue) -> JsonValue:
        if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
            raise ValueError("the schema refers to something by other than # and a JSON pointer")
        at = self._root
        for step in unquote(reference).split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            at = at[int(name)] if isinstance(at, list) else at[name] if isinstance(at, dict) else None
        return at


def _options(schema: dict[str, JsonValue]) -> int:
    """How many comparisons an enum or a constant takes; strings are found by their hash."""
    enum = schema.get("enum")
    options = [one for one in enum if not isinstance(one, str)] if isinstance(enum, list) else []
    return sum(1 + len(json.dumps(one)) // 16 for one in (*options, schema.get("const")))


def _parts(keyword: str, value: JsonValue) -> Iterator[JsonValue]:
    """The schemas that the value of a keyword holds: a list of them, a map to them, or one."""
    if isinstance(value, list):
        yield from value
    elif isinstance(value, dict):
        yield from value.values() if keyword in _MAPS else (value,)
