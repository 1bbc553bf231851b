"""JSON values to DynamoDB attribute values and back; numbers stay Python's `int` and `float`."""

from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, cast

from pydantic import JsonValue

from rlaas.errors import InvalidInput

if TYPE_CHECKING:
    from types_boto3_dynamodb.type_defs import AttributeValueTypeDef

AttributeValue = Mapping[str, object]


_SMALLEST, _LARGEST = Decimal("1E-130"), Decimal("9.9999999999999999999999999999999999999E+125")
_DIGITS = 38
_LEVELS = 30


def to_attribute(value: JsonValue, path: tuple[str, ...] = ()) -> "AttributeValueTypeDef":
    """The attribute value of a JSON value; `path` is its place in the client's request.

    Raises: InvalidInput for a number, a field name or a nesting that DynamoDB cannot hold.
    """
    if len(path) > _LEVELS:
        raise InvalidInput(f"values nest at most {_LEVELS} deep here", param=path[0])
    if value is None:
        return {"NULL": True}
    if isinstance(value, bool):
        return {"BOOL": value}
    if isinstance(value, int | float):
        return {"N": _number(value, path)}
    if isinstance(value, str):
        return {"S": value}
    if isinstance(value, list):
        return {"L": [to_attribute(item, (*path, str(place))) for place, item in enumerate(value)]}
    if "" in value:
        raise InvalidInput("a field's name cannot be empty here", param=".".join(path) or None)
    return {"M": {name: to_attribute(item, (*path, name)) for name, item in value.items()}}


def _number(value: float, path: tuple[str, ...]) -> str:
    exact = Decimal(repr(value))
    digits = "".join(map(str, exact.as_tuple().digits)).strip("0")
    if exact and not (_SMALLEST <= abs(exact) <= _LARGEST and len(digits) <= _DIGITS):
        raise InvalidInput("numbers here have at most 38 digits and lie between 1e-130 and 1e126, or are 0", param=".".join(path) or None)
    return repr(value)


def from_attribute(attribute: AttributeValue) -> JsonValue:
    """The JSON value of an attribute value. Whole numbers come back as `int`."""
    ((kind, value),) = attribute.items()
    if kind == "N":
        text = cast(str, value)
        return int(text) if text.lstrip("-").isdigit() else float(text)
    if kind == "NULL":
        return None
    if kind == "L":
        return [from_attribute(item) for item in cast(list[AttributeValue], value)]
    if kind == "M":
        return from_item(cast(dict[str, AttributeValue], value))
    return cast(JsonValue, value)


def to_item(values: Mapping[str, JsonValue]) -> "dict[str, AttributeValueTypeDef]":
    """An item; values that are `None` are left out. Raises: InvalidInput as `to_attribute`."""
    return {name: to_attribute(value, (name,)) for name, value in values.items() if value is not None}


def from_item(item: Mapping[str, AttributeValue]) -> dict[str, JsonValue]:
    """The JSON values of an item."""
    return {name: from_attribute(attribute) for name, attribute in item.items()}
