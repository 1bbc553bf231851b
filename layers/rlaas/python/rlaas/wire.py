"""The base class of models that are sent or stored (unknown fields are refused by name, nothing is coerced, no NaN),
and the limit of gateways in a row."""

import math
import re
from collections.abc import Iterator, Sequence
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, JsonValue, ValidationError

from rlaas.errors import InvalidInput

HOPS = "x-rlaas-hops"
"""The header of every call to an outside server: the number of gateways that the request has passed, including this
one."""
MAX_HOPS = 1
"""The most gateways that a request may have passed before it comes here. Each gateway may ask several models in turn,
so the calls of a loop would multiply."""


class WireModel(BaseModel):
    """A frozen, strict value. Parse requests with `model_validate_json`; read stored values with `extra="ignore"`,
    because a later release may have written them."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, defer_build=True)


def _check_finite(value: JsonValue) -> JsonValue:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("numbers must be finite")
    if isinstance(value, dict):
        for item in value.values():
            _check_finite(item)
    elif isinstance(value, list):
        for item in value:
            _check_finite(item)
    return value


Json = Annotated[JsonValue, AfterValidator(_check_finite)]
"""Any JSON value with finite numbers."""


def invalid_input(error: ValidationError, body: object) -> InvalidInput:
    """A pydantic error about a parsed `body` as an InvalidInput with paths and reasons, but without values."""
    faults: dict[str, str] = {}
    for fault in error.errors(include_url=False, include_context=False, include_input=False):
        path = ".".join(_find_path(fault["loc"], body, missing=fault["type"] == "missing"))
        faults.setdefault(path, fault["msg"].removeprefix("Value error, "))
    message = "; ".join(f"{path}: {reason}" if path else reason for path, reason in faults.items())
    return InvalidInput(message, param=next(iter(faults)) or None)


def _find_path(places: Sequence[int | str], body: object, *, missing: bool) -> Iterator[str]:
    """The path of a fault in `body`, from pydantic's `places`. Of a `missing` field the last place is not in the body.

    pydantic's places also name branches of unions, which are not in the body either.
    """
    for place in places:
        if (isinstance(body, dict) and place in body) or (isinstance(body, list) and isinstance(place, int) and place < len(body)):
            yield str(place)
            body = body[place]  # type: ignore[index]
    if missing:
        yield str(places[-1])


def check_idempotency_key(key: str) -> None:
    """Check that a key has 1 to 255 visible ASCII characters. Raises: InvalidInput."""
    if not re.fullmatch(r"[\x21-\x7e]{1,255}", key):
        raise InvalidInput("an Idempotency-Key has 1 to 255 visible ASCII characters", param="Idempotency-Key")
