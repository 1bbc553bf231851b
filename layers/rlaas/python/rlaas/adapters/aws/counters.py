"""Budgets' items on DynamoDB: each write is one conditional UpdateItem that answers with the item."""

import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

from botocore.exceptions import ClientError

from rlaas.adapters.aws.clients import client, dependency, is_throttled, read_failed_item
from rlaas.adapters.aws.item_keys import item_key, tenant_partition
from rlaas.errors import DependencyUnavailable
from rlaas.metering.budgets import BUDGETS
from rlaas.metering.counters import WHOLE, CounterItem, Overloaded, Write, Written, add_up
from rlaas.metering.shards import SHARDS, SHARED

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient
    from types_boto3_dynamodb.type_defs import AttributeValueTypeDef, TransactWriteItemTypeDef, UpdateTypeDef

    from rlaas.adapters.aws.item_keys import Key

_THROTTLED_RETRY_S = 1.0
"""Seconds that callers are asked to wait when DynamoDB throttles the item."""


class DynamoCounters:
    """`Counters` on one table. Each write answers with the item after it, or with the one that failed its condition."""

    def __init__(self, table: str, dynamodb: "DynamoDBClient | None" = None) -> None:
        self._table = table
        self._dynamodb = dynamodb or client("dynamodb")

    def write(self, tenant_id: str, write: Write, *, shard: int = WHOLE) -> Written:
        """Do `write` by one UpdateItem. Raises: Overloaded when DynamoDB throttles the item; DependencyUnavailable."""
        try:
            with _overload_noticed(), dependency("DynamoDB"):
                answer = self._dynamodb.update_item(**self._update(tenant_id, shard, write), ReturnValues="ALL_NEW")
        except ClientError as error:
            return Written(False, _read_item(read_failed_item(error)))
        return Written(True, _read_item(answer["Attributes"]))

    def move(self, tenant_id: str, writes: Mapping[int, Write]) -> bool:
        """Do `writes` in one transaction, once also where it is sent again. Raises: as `write`."""
        updates: list[TransactWriteItemTypeDef] = [{"Update": self._update(tenant_id, shard, write)} for shard, write in writes.items()]
        try:
            with _overload_noticed(), dependency("DynamoDB"):
                self._dynamodb.transact_write_items(TransactItems=updates, ClientRequestToken=secrets.token_hex(16))
        except ClientError:
            return False
        return True

    def read(self, tenant_id: str) -> CounterItem:
        """The tenant's items together: one GetItem, and one BatchGetItem where there are shards. Raises:
        DependencyUnavailable."""
        with dependency("DynamoDB"):
            answer = self._dynamodb.get_item(TableName=self._table, Key=_budgets_key(tenant_id, WHOLE))
        whole = _read_item(answer.get("Item", {}))
        if SHARED not in whole:
            return whole
        return add_up([whole, *self._read_batch(tenant_id, range(1, SHARDS + 1), consistent=False).values()])

    def read_shards(self, tenant_id: str) -> dict[int, CounterItem]:
        """The items by shard, consistent, by one BatchGetItem. Raises: DependencyUnavailable."""
        return self._read_batch(tenant_id, range(SHARDS + 1), consistent=True)

    def _read_batch(self, tenant_id: str, shards: Iterable[int], *, consistent: bool) -> dict[int, CounterItem]:
        keys = {shard: _budgets_key(tenant_id, shard) for shard in shards}
        with dependency("DynamoDB"):
            answer = self._dynamodb.batch_get_item(RequestItems={self._table: {"Keys": [*keys.values()], "ConsistentRead": consistent}})
        if answer.get("UnprocessedKeys"):
            raise Overloaded("DynamoDB could not read the tenant's budgets just now", retry_after_s=_THROTTLED_RETRY_S)
        items = {item["pk"]["S"]: _read_item(item) for item in answer["Responses"][self._table]}
        return {shard: items[pk] for shard, key in keys.items() if (pk := key["pk"]["S"]) in items}

    def _update(self, tenant_id: str, shard: int, write: Write) -> "UpdateTypeDef":
        expression = _Expression()
        conditions = expression.conditions(write)
        update: UpdateTypeDef = {
            "TableName": self._table,
            "Key": _budgets_key(tenant_id, shard),
            "UpdateExpression": expression.changes(write),
            "ExpressionAttributeNames": expression.names,
            "ExpressionAttributeValues": expression.values,
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }
        return {**update, "ConditionExpression": conditions} if conditions else update


@contextmanager
def _overload_noticed() -> Iterator[None]:
    """Raises: Overloaded in place of DependencyUnavailable where DynamoDB throttles."""
    try:
        yield
    except DependencyUnavailable as error:
        cause = error.__cause__
        if isinstance(cause, ClientError) and is_throttled(cause):
            raise Overloaded(error.detail, retry_after_s=_THROTTLED_RETRY_S) from cause
        raise


class _Expression:
    """Placeholders for the names and values of one request."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}
        self.values: dict[str, AttributeValueTypeDef] = {}
        self._placeholders: dict[str, str] = {}

    def conditions(self, write: Write) -> str:
        """The condition of `write`."""
        conditions = [
            f"(attribute_not_exists({self._name(name)}) OR {self._name(name)} <= {self._value(n)})"
            if n >= 0
            else f"{self._name(name)} <= {self._value(n)}"
            for name, n in write.at_most.items()
        ]
        if write.has is not None:
            conditions.append(f"contains({self._name(write.has.attribute)}, {self._value(write.has.id)})")
        if write.lacks is not None:
            conditions.append(f"NOT contains({self._name(write.lacks.attribute)}, {self._value(write.lacks.id)})")
        for name, value in write.unchanged.items():
            attribute = self._name(name)
            conditions.append(f"attribute_not_exists({attribute})" if value is None else f"{attribute} = {self._value(value)}")
        return " AND ".join(conditions)

    def changes(self, write: Write) -> str:
        """The update of `write`."""
        additions = [f"{self._name(name)} {self._value(amount)}" for name, amount in write.add.items()]
        if write.mark is not None:
            additions.append(f"{self._name(write.mark.attribute)} {self._value(frozenset({write.mark.id}))}")
        deletions = [f"{self._name(write.unmark.attribute)} {self._value(frozenset({write.unmark.id}))}"] if write.unmark else []
        clauses = {
            "SET": [f"{self._name(name)} = {self._value(value)}" for name, value in write.put.items()],
            "ADD": additions,
            "DELETE": deletions,
            "REMOVE": [self._name(name) for name in write.remove],
        }
        return " ".join(f"{verb} {', '.join(changes)}" for verb, changes in clauses.items() if changes)

    def _name(self, attribute: str) -> str:
        placeholder = self._placeholders.setdefault(attribute, f"#{len(self._placeholders)}")
        self.names[placeholder] = attribute
        return placeholder

    def _value(self, value: int | str | frozenset[str]) -> str:
        placeholder = f":{len(self.values)}"
        self.values[placeholder] = (
            {"N": str(value)} if isinstance(value, int) else {"S": value} if isinstance(value, str) else {"SS": [*value]}
        )
        return placeholder


def _read_item(attributes: Mapping[str, Mapping[str, object]]) -> CounterItem:
    values: dict[str, int | frozenset[str]] = {}
    for name, value in attributes.items():
        if "N" in value:
            values[name] = int(cast(str, value["N"]))
        elif "SS" in value:
            values[name] = frozenset(cast("list[str]", value["SS"]))
    return values


def _budgets_key(tenant_id: str, shard: int) -> "Key":
    """Shards have partitions of their own, of which each bears a thousand writes a second."""
    return item_key(tenant_partition(tenant_id) + (f"#SHARD#{shard}" if shard else ""), BUDGETS)
