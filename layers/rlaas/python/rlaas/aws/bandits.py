"""Bandits on DynamoDB: their statistics in the counters, and the routes that have one by the registry's index `bandits`."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

from botocore.exceptions import ClientError

from rlaas.aws.clients import client, dependency
from rlaas.aws.dynamodb_items import from_item, to_item
from rlaas.aws.registry import BANDITS, BANDITS_INDEX
from rlaas.errors import Conflict
from rlaas.rollout.allocation import BanditStatistics

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient
    from types_boto3_dynamodb.type_defs import QueryInputTypeDef


class DynamoBandits:
    """`BanditStore`: one item a skill, which no stream follows, so that looks leave no trace in the audit and changed routes do."""

    def __init__(self, counters: str, registry: str, dynamodb: "DynamoDBClient | None" = None) -> None:
        self._counters = counters
        self._registry = registry
        self._dynamodb = dynamodb or client("dynamodb")

    def load(self, tenant_id: str, skill: str) -> BanditStatistics | None:
        """The statistics, strongly consistent."""
        with dependency("DynamoDB"):
            answer = self._dynamodb.get_item(
                TableName=self._counters, Key=to_item({"pk": f"T#{tenant_id}", "sk": f"BANDIT#{skill}"}), ConsistentRead=True
            )
        if "Item" not in answer:
            return None
        return BanditStatistics.model_validate_json(cast(str, from_item(answer["Item"])["body"]), extra="ignore")

    def save(self, statistics: BanditStatistics) -> None:
        """Store the version that follows. Raises: Conflict."""
        before = statistics.version - 1
        try:
            with dependency("DynamoDB"):
                self._dynamodb.put_item(
                    TableName=self._counters,
                    Item=to_item(
                        {
                            "pk": f"T#{statistics.tenant_id}",
                            "sk": f"BANDIT#{statistics.skill}",
                            "version": statistics.version,
                            "body": statistics.model_dump_json(),
                        }
                    ),
                    ConditionExpression="#version = :before OR (:before = :none AND attribute_not_exists(pk))",
                    ExpressionAttributeNames={"#version": "version"},
                    ExpressionAttributeValues=to_item({":before": before, ":none": 0}),
                )
        except ClientError:
            raise Conflict(f"the bandit of {statistics.skill!r} was looked at by another run") from None

    def skills(self) -> Iterator[tuple[str, str]]:
        """The tenant and skill of each route with a bandit; may lag a write by a moment."""
        query: QueryInputTypeDef = {
            "TableName": self._registry,
            "IndexName": BANDITS_INDEX,
            "KeyConditionExpression": "gsi_bandit = :bandits",
            "ExpressionAttributeValues": to_item({":bandits": BANDITS}),
            "ProjectionExpression": "pk, sk",
        }
        while True:
            with dependency("DynamoDB"):
                answer = self._dynamodb.query(**query)
            for item in answer["Items"]:
                key = cast(dict[str, str], from_item(item))
                yield key["pk"].removeprefix("T#"), key["sk"].removeprefix("ROUTE#")
            if "LastEvaluatedKey" not in answer:
                return
            query["ExclusiveStartKey"] = to_item(from_item(answer["LastEvaluatedKey"]))
