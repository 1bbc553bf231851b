"""What DynamoDB bills for a call, in write and read request units: by the items' sizes, a write once more for each
index it is in."""

import math
from collections.abc import Mapping
from typing import Any

_INDEX_PARTITIONS = ("gsi_day", "gsi_trial", "gsi_unit")
Item = Mapping[str, Mapping[str, Any]]


def item_bytes(item: Item) -> int:
    """Bytes as DynamoDB counts them: names and values."""
    return sum(len(name) + sum(len(str(value).encode()) for value in attribute.values()) for name, attribute in item.items())


def units(operation: str, request: Mapping[str, Any], answer: Mapping[str, Any]) -> tuple[float, float]:
    """(write units, read units) of one call; updates and transactions are taken to be of items up to 1 KB, in no index.

    Raises: ValueError for an operation that is not counted here.
    """
    match operation:
        case "PutItem":
            return _writes(request["Item"]), 0.0
        case "UpdateItem" | "DeleteItem":
            return 1.0, 0.0
        case "TransactWriteItems":
            return 2.0 * len(request["TransactItems"]), 0.0
        case "GetItem":
            return 0.0, _reads(item_bytes(answer.get("Item", {})), consistent=request.get("ConsistentRead", False))
        case "Query":
            return 0.0, _reads(sum(map(item_bytes, answer["Items"])), consistent=request.get("ConsistentRead", False))
        case "BatchGetItem":
            keys = sum(len(table["Keys"]) for table in request["RequestItems"].values())
            return 0.0, float(keys)
        case _:
            raise ValueError(f"{operation} has no price here")


def _writes(item: Item) -> float:
    return math.ceil(item_bytes(item) / 1024) * (1 + sum(name in item for name in _INDEX_PARTITIONS))


def _reads(read_bytes: int, *, consistent: bool) -> float:
    return max(1, math.ceil(read_bytes / 4096)) * (1.0 if consistent else 0.5)
