"""The base of every model that crosses a wire: unknown fields refused by name, nothing coerced, no NaN; and what bounds
a loop of wires."""

import math
import re
from collections.abc import Iterator, Sequence
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, JsonValue, ValidationError

from rlaas.errors import InvalidInput

HOPS = "x-rlaas-hops"
"""The header that every call of a server outside carries: how many gateways the request has passed, this one
included."""
MAX_HOPS = 1
"""How many gateways a request may have passed before it comes here. Each may ask several models in turn, so that loops
multiply."""


class WireModel(BaseModel):
    """A frozen, strict value. Parse requests with `model_validate_json`; read what is stored with `extra="ignore"`,
    since a later release may have written it."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, defer_build=True)


def _finite(value: JsonValue) -> JsonValue:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("numbers must be finite")
    if isinstance(value, dict):
        for item in value.values():
            _finite(item)
    elif isinstance(value, list):
        for item in value:
            _finite(item)
    return value


Json = Annotated[JsonValue, AfterValidator(_finite)]
"""Any JSON value with finite numbers."""


def invalid_input(error: ValidationError, given: object) -> InvalidInput:
    """A pydantic error over `given` (a parsed body) as ours: paths and reasons, never the values."""
    faults: dict[str, str] = {}
    for fault in error.errors(include_url=False, include_context=False, include_input=False):
        path = ".".join(_path(fault["loc"], given, missing=fault["type"] == "missing"))
        faults.setdefault(path, fault["msg"].removeprefix("Value error, "))
    message = "; ".join(f"{path}: {reason}" if path else reason for path, reason in faults.items())
    return InvalidInput(message, param=next(iter(faults)) or None)


def _path(places: Sequence[int | str], given: object, *, missing: bool) -> Iterator[str]:
    """Where in `given` a fault is; its last place is in no body where a field is `missing`.

    pydantic's places also name the branches of unions, which are in no body either.
    """
    for place in places:
        if (isinstance(given, dict) and place in given) or (isinstance(given, list) and isinstance(place, int) and place < len(given)):
            yield str(place)
            given = given[place]  # type: ignore[index]
    if missing:
        yield str(places[-1])


def check_idempotency_key(key: str) -> None:
    """Raises: InvalidInput for anything but 1 to 255 visible ASCII characters."""
    if not re.fullmatch(r"[\x21-\x7e]{1,255}", key):
        raise InvalidInput("an Idempotency-Key has 1 to 255 visible ASCII characters", param="Idempotency-Key")
