"""Mirrored requests on SQS and DynamoDB: the queue they wait in, and the ledger of those that have no output yet.

A request is entered into the ledger before it is sent, and struck out when its output is stored. A request in the
ledger is therefore under way, dead, or lost: sampled = outputs + entries. An entry is kept as long as a dead letter.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, cast

from rlaas.adapters.aws.clients import client, dependency
from rlaas.adapters.aws.dynamodb_items import to_item
from rlaas.adapters.aws.item_keys import shadow_key, shadow_partitions
from rlaas.adapters.aws.pages import read_pages
from rlaas.clock import rfc3339
from rlaas.errors import DependencyUnavailable
from rlaas.inference.shadow import ShadowTask

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient
    from types_boto3_dynamodb.type_defs import QueryInputTypeDef, WriteRequestTypeDef
    from types_boto3_sqs import SQSClient
    from types_boto3_sqs.type_defs import SendMessageBatchRequestEntryTypeDef

_WRITTEN_TOGETHER, _SENT_TOGETHER, _ATTEMPTS = 25, 10, 5
KEPT = timedelta(days=14)
"""How long a dead letter and its entry are kept."""


class DynamoShadowLedger:
    """The mirrored requests that have no output yet."""

    def __init__(self, table: str, dynamodb: "DynamoDBClient | None" = None) -> None:
        self._table = table
        self._dynamodb = dynamodb or client("dynamodb")

    def enter(self, tasks: Iterable[ShadowTask], *, at: datetime) -> None:
        """Enter `tasks`, 25 in a write; a task that is in the ledger is entered anew. Raises: DependencyUnavailable."""
        values = to_item({"at": rfc3339(at), "expires_at": int((at + KEPT).timestamp())})
        writes: list[WriteRequestTypeDef] = [
            {"PutRequest": {"Item": {**shadow_key(tenant_id, shadow_id), **values}}}
            for tenant_id, shadow_id in dict.fromkeys((task.tenant_id, task.shadow_id) for task in tasks)
        ]
        for start in range(0, len(writes), _WRITTEN_TOGETHER):
            self._write(writes[start : start + _WRITTEN_TOGETHER])

    def _write(self, writes: "Sequence[WriteRequestTypeDef]") -> None:
        for _ in range(_ATTEMPTS):
            with dependency("DynamoDB"):
                answer = self._dynamodb.batch_write_item(RequestItems={self._table: writes})
            unprocessed = answer.get("UnprocessedItems", {}).get(self._table, [])
            if not unprocessed:
                return
            writes = cast("Sequence[WriteRequestTypeDef]", unprocessed)
        raise DependencyUnavailable("DynamoDB left items unwritten")

    def strike(self, task: ShadowTask) -> None:
        """Strike out `task`, whose output is stored. Raises: DependencyUnavailable."""
        with dependency("DynamoDB"):
            self._dynamodb.delete_item(TableName=self._table, Key=shadow_key(task.tenant_id, task.shadow_id))

    def entries(self, *, before: datetime) -> int:
        """How many requests entered before `before` have no output, strongly consistent. Raises:
        DependencyUnavailable."""
        return sum(self._count(partition, before) for partition in shadow_partitions())

    def _count(self, partition: str, before: datetime) -> int:
        query: QueryInputTypeDef = {
            "TableName": self._table,
            "KeyConditionExpression": "pk = :partition",
            "FilterExpression": "#at < :before AND expires_at > :now",
            "ExpressionAttributeNames": {"#at": "at"},
            "ExpressionAttributeValues": to_item({":partition": partition, ":before": rfc3339(before), ":now": int(before.timestamp())}),
            "Select": "COUNT",
            "ConsistentRead": True,
        }
        return sum(page["Count"] for page in read_pages(self._dynamodb, "query", query))


@dataclass(frozen=True, slots=True)
class Depth:
    """About how many messages of a queue wait, and how many are handed out and not yet deleted."""

    waiting: int
    handed_out: int

    @property
    def total(self) -> int:
        """About how many messages the queue holds."""
        return self.waiting + self.handed_out


class ShadowQueue:
    """A queue of shadow tasks; SQS hands out first the tasks of tenants that have few under way."""

    def __init__(self, url: str, sqs: "SQSClient | None" = None) -> None:
        self._url = url
        self._sqs = sqs or client("sqs")

    def send(self, tasks: Sequence[ShadowTask]) -> set[int]:
        """Send `tasks`, ten in a call; the positions of those that SQS refused. Raises: DependencyUnavailable."""
        refused: set[int] = set()
        for start in range(0, len(tasks), _SENT_TOGETHER):
            entries: list[SendMessageBatchRequestEntryTypeDef] = [
                {"Id": str(start + place), "MessageBody": task.model_dump_json(), "MessageGroupId": task.tenant_id}
                for place, task in enumerate(tasks[start : start + _SENT_TOGETHER])
            ]
            with dependency("SQS"):
                answer = self._sqs.send_message_batch(QueueUrl=self._url, Entries=entries)
            refused |= {int(failure["Id"]) for failure in answer.get("Failed", [])}
        return refused

    def measure_depth(self) -> Depth:
        """About how many messages there are. Raises: DependencyUnavailable."""
        with dependency("SQS"):
            counts = self._sqs.get_queue_attributes(
                QueueUrl=self._url,
                AttributeNames=[
                    "ApproximateNumberOfMessages",
                    "ApproximateNumberOfMessagesDelayed",
                    "ApproximateNumberOfMessagesNotVisible",
                ],
            )["Attributes"]
        waiting = int(counts["ApproximateNumberOfMessages"]) + int(counts["ApproximateNumberOfMessagesDelayed"])
        return Depth(waiting=waiting, handed_out=int(counts["ApproximateNumberOfMessagesNotVisible"]))
