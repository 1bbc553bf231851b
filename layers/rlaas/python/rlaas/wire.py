"""The base class of models that are sent or stored (unknown fields are refused by name, nothing is coerced, no NaN),
and the limit of gateways in a row."""

import math
import re
from collections.abc import Sequence
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


_MOST_FAULTS = 10
_LONGEST_REASON = 500
"""In characters."""
_TAGS = re.compile(r" found using \S+ does not match any of the expected tags")


def make_invalid_input(error: ValidationError, body: object) -> InvalidInput:
    """A pydantic error about a parsed `body` as an InvalidInput with paths and reasons, but without values.

    It names every cause, ten at most: of a union what each branch wants, but of a branch that reads the value's parts
    what is wrong in them. `param` is the first one's path.
    """
    all_faults = [
        (_find_path(fault["loc"], body, missing=fault["type"] == "missing"), fault["type"], fault["msg"])
        for fault in error.errors(include_url=False, include_context=False, include_input=False)
    ]
    outer = {path[:length] for path, _, _ in all_faults for length in range(len(path))}
    faults: dict[tuple[str, ...], list[str]] = {}
    for path, kind, text in all_faults:
        if path in outer and (kind.endswith("_type") or kind == "too_short"):
            continue  # another branch reads the parts; and what is wrong in all items leaves a list without any
        reason = _TAGS.sub(" is none of", text.removeprefix("Value error, "))[:_LONGEST_REASON]
        reasons = faults.setdefault(path, [])
        if reason not in reasons:
            reasons.append(reason)
    causes = [(".".join(path), ", or ".join(reasons[:_MOST_FAULTS])) for path, reasons in faults.items()]
    message = "; ".join(f"{path}: {reason}" if path else reason for path, reason in causes[:_MOST_FAULTS])
    if len(causes) > _MOST_FAULTS:
        message += f"; and {len(causes) - _MOST_FAULTS} more"
    return InvalidInput(message, param=causes[0][0] or None)


def _find_path(places: Sequence[int | str], body: object, *, missing: bool) -> tuple[str, ...]:
    """The path of a fault in `body`, from pydantic's `places`. Of a `missing` field the last place is not in the body.

    pydantic's places also name branches of unions, which are not in the body either, though a field there may have the
    name of a branch: the path is the one that takes most of the places in.
    """
    if missing:
        return (*_find_path(places[:-1], body, missing=False), str(places[-1]))
    children = body if isinstance(body, dict) else dict(enumerate(body)) if isinstance(body, list) else {}
    for number, place in enumerate(places):
        if place in children:
            path = (str(place), *_find_path(places[number + 1 :], children[place], missing=False))
            if isinstance(place, int) or len(path) == len(places) - number:
                return path
            return max(_find_path(places[number + 1 :], body, missing=False), path, key=len)
    return ()


def check_idempotency_key(key: str) -> None:
    """Check that a key has 1 to 255 visible ASCII characters. Raises: InvalidInput."""
    if not re.fullmatch(r"[\x21-\x7e]{1,255}", key):
        raise InvalidInput("an Idempotency-Key has 1 to 255 visible ASCII characters", param="Idempotency-Key")
