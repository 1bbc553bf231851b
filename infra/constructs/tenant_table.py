"""A DynamoDB table whose keys begin with the tenant."""

from collections.abc import Mapping

from aws_cdk import RemovalPolicy
from aws_cdk import aws_dynamodb as dynamodb
from constructs import Construct

from infra.config import StageConfig


class TenantTable(dynamodb.Table):
    """The table `rlaas-<stage>-<name>` with keys `pk` and `sk`: pay per request, point-in-time recovery, optional TTL
    and stream.

    It is encrypted with a key that AWS owns, at no cost. A key of our own would cost money and a KMS call on the hot
    path, and would keep nobody out whom the table's IAM policies let in. A tenant who needs a key of its own gets a
    stage of its own.

    The table is kept when its stack is deleted, but not when the deployment that made it fails, because the next
    deployment would then find its name in use. So it has no deletion protection, which a failed deployment could not
    lift; DynamoDB keeps the backup of a deleted table for 35 days.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        config: StageConfig,
        name: str,
        expires_at: str | None = None,
        stream: dynamodb.StreamViewType | None = None,
        indexes: Mapping[str, tuple[str, str]] | None = None,
    ) -> None:
        """`expires_at` is the TTL attribute; `indexes` maps an index's name to its partition and sort attributes
        (strings)."""
        super().__init__(
            scope,
            id,
            table_name=f"{config.prefix}-{name}",
            partition_key=_string("pk"),
            sort_key=_string("sk"),
            billing_mode=dynamodb.BillingMode.PAY_PER_REQUEST,
            point_in_time_recovery_specification=dynamodb.PointInTimeRecoverySpecification(point_in_time_recovery_enabled=True),
            time_to_live_attribute=expires_at,
            stream=stream,
            removal_policy=RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE if config.keep_data else RemovalPolicy.DESTROY,
        )
        for index, (partition, sort) in (indexes or {}).items():
            self.add_global_secondary_index(
                index_name=index,
                partition_key=_string(partition),
                sort_key=_string(sort),
                projection_type=dynamodb.ProjectionType.ALL,
            )

    def index_arn(self, index: str) -> str:
        """The ARN of a secondary index, for IAM policies."""
        return f"{self.table_arn}/index/{index}"


def _string(name: str) -> dynamodb.Attribute:
    return dynamodb.Attribute(name=name, type=dynamodb.AttributeType.STRING)
