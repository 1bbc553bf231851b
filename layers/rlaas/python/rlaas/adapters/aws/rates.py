"""How much a tenant, and each of its pages' keys, has sent in this second, on DynamoDB: one conditional UpdateItem a
request."""

from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from rlaas.adapters.aws.clients import client, condition_failed, dependency, read_error_code
from rlaas.adapters.aws.item_keys import page_partition, rate_key, tenant_partition
from rlaas.clock import Clock
from rlaas.errors import QuotaExceeded

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

_ITEM_LIFETIME_S = 60
"""How long a second's item is needed, since clocks may differ; the table's TTL deletes it some time later."""
_PAGES_SHARE = 2
"""A page's key may send 1 / `_PAGES_SHARE` as many events as its tenant may send requests."""
_TOO_OFTEN = frozenset({"ThrottlingException", "ProvisionedThroughputExceededException", "RequestLimitExceeded"})


class DynamoRates:
    """At most `per_second` requests of each tenant in each second, over all processes, on the counters table; and half
    as many events of each publishable key. Anyone can read such a key, so it has items of its own: no page uses up what
    the tenant's servers need."""

    def __init__(self, table: str, *, per_second: int, clock: Clock, dynamodb: "DynamoDBClient | None" = None) -> None:
        self._table = table
        self._per_second = per_second
        self._clock = clock
        self._dynamodb = dynamodb or client("dynamodb")

    def take(self, tenant_id: str, *, at_most: int | None = None) -> None:
        """Count one request of the tenant's servers; `at_most` is the platform's ceiling for the tenant, in requests a
        second. Raises: QuotaExceeded when this second has no requests left, DependencyUnavailable."""
        most = self._most(at_most)
        limit = "the most that one tenant may" if most == self._per_second else "the platform's ceiling for it"
        self._count(tenant_partition(tenant_id), 1, most=most, message=f"the tenant sends more than {most} requests a second, {limit}")

    def take_page(self, tenant_id: str, key_id: str, *, events: int, at_most: int | None = None) -> None:
        """Count the events in a page's request; half as many pass as `take` lets requests pass. Raises: QuotaExceeded
        when this second has no events left, DependencyUnavailable."""
        most = max(1, self._most(at_most) // _PAGES_SHARE)
        message = f"the pages of this key send more than {most} events a second, the most that one publishable key may"
        self._count(page_partition(tenant_id, key_id), events, most=most, message=message)

    def _most(self, at_most: int | None) -> int:
        return self._per_second if at_most is None else min(at_most, self._per_second)

    def _count(self, partition: str, number: int, *, most: int, message: str) -> None:
        """Add `number` to this second's count, unless it has reached `most`. A write that is sent twice may count
        twice.

        Raises: QuotaExceeded, to be tried again after a second, when the count has reached `most`, or when DynamoDB
        throttles the item (at some 1,000 writes a second); DependencyUnavailable.
        """
        second = int(self._clock().timestamp())
        with dependency("DynamoDB"):
            try:
                self._dynamodb.update_item(
                    TableName=self._table,
                    Key=rate_key(partition, second),
                    ConditionExpression="attribute_not_exists(taken) OR taken < :most",
                    UpdateExpression="SET expires_at = :end ADD taken :more",
                    ExpressionAttributeValues={
                        ":most": {"N": str(most)},
                        ":more": {"N": str(number)},
                        ":end": {"N": str(second + _ITEM_LIFETIME_S)},
                    },
                )
            except ClientError as error:
                if not condition_failed(error) and read_error_code(error) not in _TOO_OFTEN:
                    raise
                raise QuotaExceeded(f"{message}; send them more slowly", retry_after_s=1) from error
