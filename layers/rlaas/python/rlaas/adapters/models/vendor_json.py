"""Vendors' JSON, read also where it is not quite that: halves of characters, bytes that are no UTF-8, a byte order
mark."""

import json
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, JsonValue, TypeAdapter, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

from rlaas.adapters.models.answer_repair import join_halves
from rlaas.wire import Json

Model = TypeVar("Model", bound=BaseModel)
_JSON: TypeAdapter[JsonValue] = TypeAdapter(Json, config=ConfigDict(defer_build=True))
_COME_IN_PIECES = frozenset({"content", "text", "thinking", "reasoning", "reasoning_content", "refusal", "arguments", "partial_json"})
"""The fields whose other half of a character may come with the next piece."""


def read_json(model: type[Model], content: bytes) -> Model:
    """The value in `content`. The fields that come in pieces may begin or end with half of a character. Raises:
    ValidationError."""
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        if error.errors(include_url=False, include_context=False, include_input=False)[0]["type"] != "json_invalid":
            raise
        try:
            value = json.loads(content.decode("utf-8", "replace").removeprefix("\ufeff"), object_hook=_join_halves_within)
        except (ValueError, RecursionError):
            raise error from None
    return model.model_validate(value)


def _join_halves_within(entries: dict[str, Any]) -> dict[str, Any]:
    return {
        join_halves(name): join_halves(value) if isinstance(value, str) and name not in _COME_IN_PIECES else value
        for name, value in entries.items()
    }


def _none_if_wrong(value: JsonValue, read: ValidatorFunctionWrapHandler) -> object:
    try:
        return read(value)
    except ValidationError:
        return None


OrNone = WrapValidator(_none_if_wrong)
"""Reads a value of another type than the field's as None: nobody's answer is thrown away over it."""


def _positive_or_none(value: JsonValue, read: ValidatorFunctionWrapHandler) -> int | None:
    count = _none_if_wrong(value, read)
    return count if isinstance(count, int) and count >= 0 else None


CountOrNone = Annotated[int | None, WrapValidator(_positive_or_none)]
"""A count beside the main ones; None where it cannot be true."""


def keep_finite(value: object) -> JsonValue:
    """The value; None if a number in it is not finite, since JSON parsers of clients refuse those."""
    try:
        return None if value is None else _JSON.validate_python(value)
    except ValidationError:
        return None
