"""JSON schemas of structured answers, as Anthropic's models take them: objects that are closed, and no bounds.

What they refuse (400) stands in the description in its place, as Anthropic's own clients write it.
"""

from collections.abc import Mapping

from pydantic import JsonValue

from rlaas.chat import JsonObject

_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_MAPS = ("properties", "$defs", "definitions")
_SCHEMAS = ("items", "not")
"""The keywords that hold schemas: in a list, by name, or one."""
_REFUSED = frozenset(
    {
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
        *("minLength", "maxLength", "maxItems", "uniqueItems", "minContains", "maxContains"),
        *("minProperties", "maxProperties", "patternProperties", "propertyNames"),
    }
)
_FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"})


def close_schema(schema: JsonObject) -> JsonObject:
    """The schema with `additionalProperties: false` in each object, and without the bounds of numbers, texts and
    lists."""
    refused = {name: value for name, value in schema.items() if _is_refused(name, value)}
    closed: JsonObject = {}
    for name, value in schema.items():
        if name in refused:
            continue
        if name in _MAPS and isinstance(value, dict):
            closed[name] = {key: _close_any(one) for key, one in value.items()}
        elif name in _LISTS and isinstance(value, list):
            closed["anyOf" if name == "oneOf" else name] = [_close_any(one) for one in value]
        else:
            closed[name] = _close_any(value) if name in _SCHEMAS else value
    kind = schema.get("type")
    if kind == "object" or (isinstance(kind, list) and "object" in kind) or "properties" in schema:
        closed["additionalProperties"] = False
    return _describe(closed, refused)


def _is_refused(name: str, value: JsonValue) -> bool:
    return name in _REFUSED or (name == "minItems" and value not in (0, 1)) or (name == "format" and value not in _FORMATS)


def _close_any(schema: JsonValue) -> JsonValue:
    return close_schema(schema) if isinstance(schema, dict) else schema


def _describe(schema: JsonObject, refused: Mapping[str, JsonValue]) -> JsonObject:
    """The schema with what it may not say in its description."""
    if not refused:
        return schema
    words = "{" + ", ".join(f"{name}: {value}" for name, value in refused.items()) + "}"
    description = schema.get("description")
    return {**schema, "description": f"{description}\n\n{words}" if description else words}
