"""The base of every model that crosses a wire: unknown fields refused by name, nothing coerced, no NaN; and what bounds a loop of wires."""

import math
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, JsonValue

HOPS = "x-rlaas-hops"
"""The header that every call of a server outside carries: how many gateways the request has passed, this one included."""
MAX_HOPS = 1
"""How many gateways a request may have passed before it comes here. Each may ask several models in turn, so that loops multiply."""


class WireModel(BaseModel):
    """A frozen, strict value. Parse requests with `model_validate_json`; read stored ones with `stored`."""

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
