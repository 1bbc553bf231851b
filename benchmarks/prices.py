"""AWS's list prices, from prices.json: each with what it is for, where it stands and when it was read."""

import json
from pathlib import Path

_LISTED = json.loads((Path(__file__).parent / "prices.json").read_text())["prices"]


def usd(name: str) -> float:
    """The price `name` of one unit, in USD. Raises: KeyError for one that is not listed."""
    return float(_LISTED[name]["usd"])
