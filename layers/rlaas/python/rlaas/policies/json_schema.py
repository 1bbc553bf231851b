"""JSON Schemas (draft 2020-12) of tenants for checking answers: nothing is fetched, and a check takes time linear in
the answer."""

import json
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import unquote

from pydantic import JsonValue

if TYPE_CHECKING:
    import jsonschema_rs

MAX_BYTES = 64 * 1024
"""The largest schema, in bytes of JSON."""
MAX_LOOKS = 4_000_000
"""How often a check may compare a value of the answer with a part or option of the schema; each takes 0.6 us."""
MAX_PARTS = 2_000
"""The most subschemas of a schema, when its references are replaced by what they refer to, each recursion once."""

_SAME_VALUE = ("allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas")
_OTHER_PROPERTIES = ("patternProperties", "unevaluatedProperties", "propertyNames")
_OTHER_ITEMS = ("contains", "unevaluatedItems")
_MAPS = ("properties", "patternProperties", "dependentSchemas")
_REFUSED = ("$dynamicRef", "$dynamicAnchor", "$anchor", "$id", "$recursiveRef")


@lru_cache(maxsize=128)
def compile_schema(schema: str) -> "jsonschema_rs.Validator":
    """The validator for a schema, which is given as JSON. Raises: ValueError."""
    import jsonschema_rs  # 15 MB, and only policies with structured output need it

    if len(schema.encode()) > MAX_BYTES:
        raise ValueError(f"the schema is larger than {MAX_BYTES} bytes")
    root = json.loads(schema)
    linear = jsonschema_rs.RegexOptions(size_limit=1 << 20, dfa_size_limit=1 << 20)
    try:
        validator = jsonschema_rs.Draft202012Validator(root, offline=True, pattern_options=linear)
    except jsonschema_rs.ValidationError as error:
        raise ValueError(f"not a JSON Schema of draft 2020-12: {error.message}") from None
    except jsonschema_rs.ReferencingError as error:
        raise ValueError(f"not a JSON Schema of draft 2020-12: {error}") from None
    try:
        _Unfolding(root).count_recursions(root, ())
    except (LookupError, RecursionError):
        raise ValueError("the schema has a reference to nothing, or references that nest too deep") from None
    return validator


@lru_cache(maxsize=128)
def count_looks(schema: str) -> int:
    """At most how often a validator looks at one value of an answer: once for each part of the schema that may apply to
    it, and once for each option of an enum."""
    root: JsonValue = json.loads(schema)
    unfolding = _Unfolding(root)
    unfolding.count_recursions(root, ())
    return unfolding.looks[id(root)] if isinstance(root, dict) else 1


def count_values(text: str) -> int:
    """An upper bound for the number of values in the JSON `text`."""
    return 1 + sum(map(text.count, ",[{"))


class _Unfolding:
    """Counts the parts of a schema whose references are replaced by what they refer to.

    A validator looks at a value once for each path through the schema that leads to it. Without recursion there are at
    most `MAX_PARTS` paths. With recursion their number stays the same from level to level as long as each part leads
    back to itself, or to a part around it, along one path at most. Two such paths, as in
    `anyOf: [{items: $ref}, {items: $ref}]`, double the number with every level of the answer.
    """

    def __init__(self, root: JsonValue) -> None:
        self._root = root
        self._count = 0
        self.looks: dict[int, int] = {}

    def count_recursions(self, schema: JsonValue, around: tuple[int, ...]) -> tuple[int, int]:
        """The number of paths by which one object, and one array, leads back to the parts `around` (ids of schemas).

        Raises: ValueError when there are too many parts or paths, or for a keyword that is refused.
        """
        self._count += 1
        if self._count > MAX_PARTS:
            raise ValueError(f"the schema has more than {MAX_PARTS} parts when its references are replaced by what they refer to")
        if not isinstance(schema, dict):
            return 0, 0
        if id(schema) in around:
            return 1, 1
        keyword = next((name for name in _REFUSED if name in schema), None)
        if keyword is not None:
            raise ValueError(f"the schema uses {keyword}; refer to parts by $ref and a JSON pointer")
        around = (*around, id(schema))

        looks_by_keyword: dict[str, list[int]] = {}

        def visit(*keywords: str) -> list[tuple[int, int]]:
            parts = [(keyword, part) for keyword in keywords for part in _list_parts(keyword, schema.get(keyword))]
            paths = [self.count_recursions(part, around) for _, part in parts]
            for keyword, part in parts:
                looks_by_keyword.setdefault(keyword, []).append(self.looks.get(id(part), 1))
            return paths

        same = visit(*_SAME_VALUE)
        if "$ref" in schema:
            target = self._find_target(schema["$ref"])
            same.append(self.count_recursions(target, around))
            looks_by_keyword["$ref"] = [self.looks.get(id(target), 1)]
        # Only one of these keywords looks at each property or item.
        one_property, one_item = (
            max([0, *(max(paths) for paths in visit(*keywords))])
            for keywords in (("properties", "additionalProperties"), ("prefixItems", "items"))
        )
        objects = sum(paths[0] for paths in same) + one_property + sum(max(paths) for paths in visit(*_OTHER_PROPERTIES))
        arrays = sum(paths[1] for paths in same) + one_item + sum(max(paths) for paths in visit(*_OTHER_ITEMS))
        if max(objects, arrays) > 1:
            raise ValueError("the schema leads back to itself along more than one path, which can take exponential time")
        alone = max(
            (max(looks_by_keyword.pop(keyword, [0])) for keyword in ("properties", "additionalProperties", "prefixItems", "items")),
            default=0,
        )
        self.looks[id(schema)] = 1 + _count_options(schema) + alone + sum(map(sum, looks_by_keyword.values()))
        return objects, arrays

    def _find_target(self, reference: JsonValue) -> JsonValue:
        if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
            raise ValueError("the schema has a reference that is not # and a JSON pointer")
        target = self._root
        for step in unquote(reference).split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            target = target[int(name)] if isinstance(target, list) else target[name] if isinstance(target, dict) else None
        return target


def _count_options(schema: dict[str, JsonValue]) -> int:
    """How many comparisons an enum or a constant takes; strings take none, they are looked up by their hash."""
    enum = schema.get("enum")
    options = [option for option in enum if not isinstance(option, str)] if isinstance(enum, list) else []
    return sum(1 + len(json.dumps(option)) // 16 for option in (*options, schema.get("const")))


def _list_parts(keyword: str, value: JsonValue) -> Iterator[JsonValue]:
    """The schemas in the value of a keyword: a list of schemas, an object of schemas, or one schema."""
    if isinstance(value, list):
        yield from value
    elif isinstance(value, dict):
        yield from value.values() if keyword in _MAPS else (value,)
