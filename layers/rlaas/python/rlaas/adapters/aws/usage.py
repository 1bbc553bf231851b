"""Usage on DynamoDB: a tally a day and account, each output added exactly once.

A stream delivers at least once, and in other batches the second time. So a mark holds the ids of the outputs that were
counted, and one transaction writes the marks and the tallies: all of it is stored, or nothing. Outputs that came in one
request share a mark, since a write of a few ids costs what a write of one does. Marks expire after 15 days. No stream
delivers an output that late; an output that a redrive delivers later than `COUNTABLE` is not counted, because its mark
may be gone.
"""

import random
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from datetime import date, timedelta
from typing import TYPE_CHECKING, NamedTuple, cast

from botocore.exceptions import ClientError

from rlaas.adapters.aws.clients import client, dependency
from rlaas.adapters.aws.dynamodb_items import from_item, to_item
from rlaas.adapters.aws.item_keys import (
    item_key,
    parse_usage_sort_key,
    tenant_partition,
    usage_mark_key,
    usage_mark_partition,
    usage_range,
    usage_sort_key,
)
from rlaas.adapters.aws.pages import read_items
from rlaas.clock import Clock, utc_now
from rlaas.errors import DependencyUnavailable
from rlaas.telemetry.store import StoredEvent
from rlaas.telemetry.usage import Account, Tally, count_usage

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient
    from types_boto3_dynamodb.type_defs import QueryInputTypeDef, TransactWriteItemTypeDef

_MARK_LIFETIME = timedelta(days=15)
COUNTABLE = timedelta(days=14)
"""How long after it was received an output may be counted: less than its mark is kept."""
_ACTIONS = 100
"""Actions that one transaction takes."""
_IDS = 100
"""Ids that one mark's condition names: an expression takes 4 KB."""
_ATTEMPTS = 6
_CONDITION_FAILED = "ConditionalCheckFailed"


class _Output(NamedTuple):
    """An output and the mark of the request that it came in: its tenant and the millisecond, which two requests may
    share."""

    mark: str
    output_id: str


_New = dict[_Output, tuple[Account, Tally]]


class DynamoUsage:
    """`UsageStore` on the counters table."""

    def __init__(self, table: str, dynamodb: "DynamoDBClient | None" = None, clock: Clock = utc_now) -> None:
        self._table = table
        self._dynamodb = dynamodb or client("dynamodb")
        self._clock = clock

    def count(self, outputs: Sequence[StoredEvent]) -> None:
        """Add each output to its tally once, those of one account together.

        Raises: DependencyUnavailable; counting all of them again then misses none and doubles none.
        """
        new = {
            _Output(usage_mark_partition(output.tenant_id, output.received_at), output.event_id): usage
            for output in outputs
            if (usage := count_usage(output)) is not None
        }
        pending = list(new.items())
        while pending:
            batch, pending = _split_by_transaction(pending)
            self._count_once(dict(batch))

    def iterate_between(self, tenant_id: str, first: date, last: date) -> Iterator[tuple[Account, Tally]]:
        """The tenant's tallies from the day `first` to `last`, by day; may lag a write by a moment. Raises:
        DependencyUnavailable."""
        lowest, highest = usage_range(first, last)
        query: QueryInputTypeDef = {
            "TableName": self._table,
            "KeyConditionExpression": "pk = :pk AND sk BETWEEN :lowest AND :highest",
            "ExpressionAttributeValues": to_item({":pk": tenant_partition(tenant_id), ":lowest": lowest, ":highest": highest}),
        }
        for item in read_items(self._dynamodb, "query", query):
            yield _read_account(tenant_id, cast(dict[str, str], from_item(item)))

    def _count_once(self, new: _New) -> None:
        """Count `new` in one transaction, tried again without the outputs that were counted before, or when another
        writer of a tally was faster. Raises: DependencyUnavailable after six tries."""
        for attempt in range(_ATTEMPTS):
            if not new:
                return
            marks = list(_group_by_mark(new))
            try:
                with dependency("DynamoDB"):
                    self._dynamodb.transact_write_items(TransactItems=self._transaction(new))
                return
            except ClientError as error:
                reasons = cast("list[Mapping[str, object]]", error.response.get("CancellationReasons", []))
            ids = {mark: _read_ids(reason) for mark, reason in zip(marks, reasons, strict=False) if reason.get("Code") == _CONDITION_FAILED}
            duplicates = {output for output in new if output.output_id in ids.get(output.mark, ())}
            new = {output: usage for output, usage in new.items() if output not in duplicates}
            if not duplicates:
                time.sleep(0.02 * 2**attempt * random.random())
        raise DependencyUnavailable("the usage of the tenant is being counted by others")

    def _transaction(self, new: _New) -> "list[TransactWriteItemTypeDef]":
        expires_at = int((self._clock() + _MARK_LIFETIME).timestamp())
        sums: dict[Account, Tally] = defaultdict(Tally)
        for account, tally in new.values():
            sums[account] += tally
        marks: list[TransactWriteItemTypeDef] = [
            {
                "Update": {
                    "TableName": self._table,
                    "Key": usage_mark_key(mark),
                    "UpdateExpression": "SET expires_at = :expires_at ADD outputs :outputs",
                    "ConditionExpression": " AND ".join(f"NOT contains(outputs, :o{number})" for number in range(len(ids))),
                    "ExpressionAttributeValues": {
                        **to_item({":expires_at": expires_at, **{f":o{number}": id for number, id in enumerate(ids)}}),
                        ":outputs": {"SS": ids},
                    },
                    "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
                }
            }
            for mark, ids in _group_by_mark(new).items()
        ]
        additions: list[TransactWriteItemTypeDef] = [
            {
                "Update": {
                    "TableName": self._table,
                    "Key": item_key(
                        tenant_partition(account.tenant_id),
                        usage_sort_key(account.day, account.skill, account.policy_id, account.key_id),
                    ),
                    "UpdateExpression": "ADD " + ", ".join(f"#{name} :{name}" for name in asdict(tally)),
                    "ExpressionAttributeNames": {f"#{name}": name for name in asdict(tally)},
                    "ExpressionAttributeValues": to_item({f":{name}": amount for name, amount in asdict(tally).items()}),
                }
            }
            for account, tally in sums.items()
        ]
        return [*marks, *additions]


def _group_by_mark(new: _New) -> dict[str, list[str]]:
    marks: dict[str, list[str]] = defaultdict(list)
    for output in new:
        marks[output.mark].append(output.output_id)
    return marks


def _read_ids(reason: Mapping[str, object]) -> list[str]:
    """The ids in the mark whose condition failed."""
    return cast("Mapping[str, Mapping[str, list[str]]]", reason["Item"])["outputs"]["SS"]


_Pending = list[tuple[_Output, tuple[Account, Tally]]]


def _split_by_transaction(pending: _Pending) -> tuple[_Pending, _Pending]:
    """The outputs that one transaction takes, and the rest."""
    accounts: set[Account] = set()
    marks: Counter[str] = Counter()
    for number, (output, (account, _)) in enumerate(pending):
        accounts.add(account)
        marks[output.mark] += 1
        if len(marks) + len(accounts) > _ACTIONS or marks[output.mark] > _IDS:
            return pending[:number], pending[number:]
    return pending, []


def _read_account(tenant_id: str, item: Mapping[str, str]) -> tuple[Account, Tally]:
    day, skill, policy_id, key_id = parse_usage_sort_key(item["sk"])
    tally = Tally(**{field.name: int(item.get(field.name, 0)) for field in fields(Tally)})
    return Account(tenant_id, day, skill, policy_id, key_id), tally
