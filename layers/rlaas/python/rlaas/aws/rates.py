"""How many requests a tenant has sent in this second, on DynamoDB: an item a tenant and second, one conditional UpdateItem a request."""

from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from rlaas.aws.clients import client, condition_failed, dependency, error_code
from rlaas.clock import Clock
from rlaas.errors import QuotaExceeded

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

_KEPT_S = 60
"""How long a second's item is wanted, by clocks that may be apart; the table's TTL removes it at some time after."""
_TOO_OFTEN = frozenset({"ThrottlingException", "ProvisionedThroughputExceededException", "RequestLimitExceeded"})


class DynamoRates:
    """At most `per_second` requests of each tenant in each second, over all processes, on the counters table."""

    def __init__(self, table: str, *, per_second: int, clock: Clock, dynamodb: "DynamoDBClient | None" = None) -> None:
        self._table = table
        self._per_second = per_second
        self._clock = clock
        self._dynamodb = dynamodb or client("dynamodb")

    def take(self, tenant_id: str, *, at_most: int | None = None) -> None:
        """Count one request, of `at_most` so many in this second where the platform's ceiling is lower than the stage's. A write that is
        sent twice may count twice.

        Raises: QuotaExceeded, to be tried again after a second, where the tenant has none left, or sends more than an item bears (some
        1,000 writes a second); DependencyUnavailable.
        """
        second, most = int(self._clock().timestamp()), self._per_second if at_most is None else min(at_most, self._per_second)
        with dependency("DynamoDB"):
            try:
                self._dynamodb.update_item(
                    TableName=self._table,
                    Key={"pk": {"S": f"T#{tenant_id}"}, "sk": {"S": f"RATE#{second}"}},
                    ConditionExpression="attribute_not_exists(taken) OR taken < :most",
                    UpdateExpression="SET expires_at = :end ADD taken :one",
                    ExpressionAttributeValues={
                        ":most": {"N": str(most)},
                        ":one": {"N": "1"},
                        ":end": {"N": str(second + _KEPT_S)},
                    },
                )
            except ClientError as error:
                if not condition_failed(error) and error_code(error) not in _TOO_OFTEN:
                    raise
                whose = "the most that one tenant may" if most == self._per_second else "the platform's ceiling for it"
                raise QuotaExceeded(
                    f"the tenant sends more than {most} requests a second, {whose}; send them more slowly", retry_after_s=1
                ) from error
