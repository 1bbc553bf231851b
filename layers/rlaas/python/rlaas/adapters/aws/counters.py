"""Budgets' items on DynamoDB: one item a tenant, each write one conditional UpdateItem that answers with the item."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from botocore.exceptions import ClientError

from rlaas.adapters.aws.clients import client, dependency, held_item
from rlaas.adapters.aws.item_keys import item_key, tenant_partition
from rlaas.errors import DependencyUnavailable
from rlaas.metering.budgets import BUDGETS
from rlaas.metering.ledger import Item, Write, Written

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient
    from types_boto3_dynamodb.type_defs import AttributeValueTypeDef

_THROTTLED_RETRY_S = 1.0
"""Seconds that callers are asked to wait when DynamoDB throttles the item."""


class DynamoCounters:
    """`Counters` on one table. Each write answers with the item after it, or with the one that failed its condition."""

    def __init__(self, table: str, dynamodb: "DynamoDBClient | None" = None) -> None:
        self._table = table
        self._dynamodb = dynamodb or client("dynamodb")

    def write(self, tenant_id: str, write: Write) -> Written:
        """Do `write` by one UpdateItem. Raises: DependencyUnavailable, also when DynamoDB throttles the item."""
        expression = _Expression()
        conditions = expression.conditions(write)
        try:
            with dependency("DynamoDB"):
                answer = self._dynamodb.update_item(
                    TableName=self._table,
                    Key=item_key(tenant_partition(tenant_id), BUDGETS),
                    ConditionExpression=conditions,
                    UpdateExpression=expression.changes(write),
                    ExpressionAttributeNames=expression.names,
                    ExpressionAttributeValues=expression.values,
                    ReturnValues="ALL_NEW",
                    ReturnValuesOnConditionCheckFailure="ALL_OLD",
                )
        except ClientError as error:
            return Written(False, _item(held_item(error)))
        except DependencyUnavailable as error:
            error.retry_after_s = _THROTTLED_RETRY_S
            raise
        return Written(True, _item(answer["Attributes"]))

    def read(self, tenant_id: str) -> Item:
        """The item by one eventually consistent GetItem. Raises: DependencyUnavailable."""
        with dependency("DynamoDB"):
            answer = self._dynamodb.get_item(TableName=self._table, Key=item_key(tenant_partition(tenant_id), BUDGETS))
        return _item(answer.get("Item", {}))


class _Expression:
    """Placeholders for the names and values of one request."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}
        self.values: dict[str, AttributeValueTypeDef] = {}
        self._placeholders: dict[str, str] = {}

    def conditions(self, write: Write) -> str:
        """The condition of `write`."""
        conditions = [
            f"(attribute_not_exists({self._name(name)}) OR {self._name(name)} <= {self._value(n)})" for name, n in write.at_most.items()
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


def _item(attributes: Mapping[str, Mapping[str, object]]) -> Item:
    values: dict[str, int | frozenset[str]] = {}
    for name, value in attributes.items():
        if "N" in value:
            values[name] = int(cast(str, value["N"]))
        elif "SS" in value:
            values[name] = frozenset(cast("list[str]", value["SS"]))
    return values
