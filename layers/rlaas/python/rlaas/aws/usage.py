"""Usage on DynamoDB: a tally a day and account, each output added exactly once.

A stream delivers at least once, and in other batches the second time. So each output leaves a mark of its own, and a transaction puts up
to 99 new marks together with the sums that they make: all of it is stored, or nothing. Marks are forgotten after two days, when no stream
can deliver the output again.
"""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from datetime import date, timedelta
from typing import TYPE_CHECKING, cast

from botocore.exceptions import ClientError

from rlaas.aws.clients import client, dependency
from rlaas.aws.dynamodb_items import from_item, to_item
from rlaas.clock import Clock, utc_now
from rlaas.errors import DependencyUnavailable
from rlaas.telemetry.store import StoredEvent
from rlaas.telemetry.usage import Account, Tally, used

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient
    from types_boto3_dynamodb.type_defs import QueryInputTypeDef, TransactWriteItemTypeDef

_MARKED_FOR = timedelta(days=2)
_ACTIONS = 100
"""Actions that one transaction takes."""
_ATTEMPTS = 6
_COUNTED = "ConditionalCheckFailed"


class DynamoUsage:
    """`UsageStore` on the counters table."""

    def __init__(self, table: str, dynamodb: "DynamoDBClient | None" = None, clock: Clock = utc_now) -> None:
        self._table = table
        self._dynamodb = dynamodb or client("dynamodb")
        self._clock = clock

    def count(self, outputs: Sequence[StoredEvent]) -> None:
        """Add each output once, those of one account together.

        Raises: DependencyUnavailable; counting all of them again then misses none and doubles none.
        """
        new = {(output.tenant_id, output.event_id): found for output in outputs if (found := used(output)) is not None}
        pending = list(new.items())
        while pending:
            together, pending = _fitting(pending)
            self._counted(dict(together))

    def between(self, tenant_id: str, first: date, last: date) -> Iterator[tuple[Account, Tally]]:
        """The tenant's accounts by day, by a query; may lag a write by a moment."""
        query: QueryInputTypeDef = {
            "TableName": self._table,
            "KeyConditionExpression": "pk = :pk AND sk BETWEEN :first AND :last",
            "ExpressionAttributeValues": to_item(
                {":pk": f"T#{tenant_id}", ":first": f"USAGE#{first.isoformat()}#", ":last": f"USAGE#{last.isoformat()}#~"}
            ),
        }
        while True:
            with dependency("DynamoDB"):
                answer = self._dynamodb.query(**query)
            for item in answer["Items"]:
                yield _account(tenant_id, cast(dict[str, str], from_item(item)))
            if "LastEvaluatedKey" not in answer:
                return
            query["ExclusiveStartKey"] = to_item(from_item(answer["LastEvaluatedKey"]))

    def _counted(self, new: "dict[tuple[str, str], tuple[Account, Tally]]") -> None:
        """One transaction. Those counted before are left out and it is tried again, as it is when another writer of a sum was faster."""
        for attempt in range(_ATTEMPTS):
            if not new:
                return
            outputs = list(new)
            try:
                with dependency("DynamoDB"):
                    self._dynamodb.transact_write_items(TransactItems=self._transaction(new))
                return
            except ClientError as error:
                reasons = cast("list[Mapping[str, str]]", error.response.get("CancellationReasons", []))
            before = {output for output, reason in zip(outputs, reasons, strict=False) if reason.get("Code") == _COUNTED}
            new = {output: found for output, found in new.items() if output not in before}
            if not before:
                time.sleep(0.02 * 2**attempt)
        raise DependencyUnavailable("the usage of the tenant is being counted by others")

    def _transaction(self, new: "Mapping[tuple[str, str], tuple[Account, Tally]]") -> "list[TransactWriteItemTypeDef]":
        expires_at = int((self._clock() + _MARKED_FOR).timestamp())
        sums: dict[Account, Tally] = defaultdict(Tally)
        for account, tally in new.values():
            sums[account] += tally
        marks: list[TransactWriteItemTypeDef] = [
            {
                "Put": {
                    "TableName": self._table,
                    "Item": to_item({"pk": f"T#{tenant_id}#{output_id}", "sk": "COUNTED", "expires_at": expires_at}),
                    "ConditionExpression": "attribute_not_exists(pk)",
                }
            }
            for tenant_id, output_id in new
        ]
        added: list[TransactWriteItemTypeDef] = [
            {
                "Update": {
                    "TableName": self._table,
                    "Key": to_item({"pk": f"T#{account.tenant_id}", "sk": _sort_key(account)}),
                    "UpdateExpression": "ADD " + ", ".join(f"#{name} :{name}" for name in asdict(tally)),
                    "ExpressionAttributeNames": {f"#{name}": name for name in asdict(tally)},
                    "ExpressionAttributeValues": to_item({f":{name}": amount for name, amount in asdict(tally).items()}),
                }
            }
            for account, tally in sums.items()
        ]
        return [*marks, *added]


def _fitting(
    pending: "list[tuple[tuple[str, str], tuple[Account, Tally]]]",
) -> "tuple[list[tuple[tuple[str, str], tuple[Account, Tally]]], list[tuple[tuple[str, str], tuple[Account, Tally]]]]":
    """As many as one transaction takes, and the rest."""
    accounts: set[Account] = set()
    for number, (_, (account, _)) in enumerate(pending):
        accounts.add(account)
        if number + 1 + len(accounts) > _ACTIONS:
            return pending[:number], pending[number:]
    return pending, []


def _sort_key(account: Account) -> str:
    return f"USAGE#{account.day.isoformat()}#{account.skill}#{account.policy_id}#{account.key_id}"


def _account(tenant_id: str, item: Mapping[str, str]) -> tuple[Account, Tally]:
    _, day, skill, policy_id, key_id = item["sk"].split("#")
    tally = Tally(**{field.name: int(item[field.name]) for field in fields(Tally)})
    return Account(tenant_id, date.fromisoformat(day), skill, policy_id, key_id), tally
