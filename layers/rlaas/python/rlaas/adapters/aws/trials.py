"""Trials on DynamoDB: the states of bandits and rollouts in the counters table, and the routes on trial by the
registry's index `trials`.

The counters table has no stream: a look at a trial writes nothing to the audit, and a changed route does.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, cast

from botocore.exceptions import ClientError

from rlaas.adapters.aws.clients import client, dependency
from rlaas.adapters.aws.dynamodb_items import from_item, to_item
from rlaas.adapters.aws.item_keys import (
    BANDITS,
    ROLLOUTS,
    TRIALS_INDEX,
    bandit_sort_key,
    find_tenant_id,
    item_key,
    tenant_partition,
    trial_sort_key,
)
from rlaas.adapters.aws.pages import read_items
from rlaas.errors import Conflict
from rlaas.experiments.allocation import BanditStatistics
from rlaas.rollout.trial import TrialState
from rlaas.routing.route_store import ROUTE_PREFIX

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient
    from types_boto3_dynamodb.type_defs import QueryInputTypeDef


class _Items:
    """An item for each trial, replaced if its version is the one before."""

    def __init__(self, counters: str, dynamodb: "DynamoDBClient | None" = None) -> None:
        self._counters = counters
        self._dynamodb = dynamodb or client("dynamodb")

    def body(self, tenant_id: str, sort_key: str) -> str | None:
        """The state as JSON, strongly consistent. Raises: DependencyUnavailable."""
        with dependency("DynamoDB"):
            answer = self._dynamodb.get_item(
                TableName=self._counters, Key=item_key(tenant_partition(tenant_id), sort_key), ConsistentRead=True
            )
        return cast(str, from_item(answer["Item"])["body"]) if "Item" in answer else None

    def replace(self, tenant_id: str, sort_key: str, body: str, *, version: int) -> None:
        """Store `version`, which follows the stored one. Raises: Conflict, DependencyUnavailable."""
        try:
            with dependency("DynamoDB"):
                self._dynamodb.put_item(
                    TableName=self._counters,
                    Item={**item_key(tenant_partition(tenant_id), sort_key), **to_item({"version": version, "body": body})},
                    ConditionExpression="#version = :before OR (:before = :none AND attribute_not_exists(pk))",
                    ExpressionAttributeNames={"#version": "version"},
                    ExpressionAttributeValues=to_item({":before": version - 1, ":none": 0}),
                )
        except ClientError:
            raise Conflict(f"another look at {sort_key} was faster") from None


class DynamoBandits:
    """`BanditStore`."""

    def __init__(self, counters: str, dynamodb: "DynamoDBClient | None" = None) -> None:
        self._items = _Items(counters, dynamodb)

    def load(self, tenant_id: str, skill: str) -> BanditStatistics | None:
        """The statistics, strongly consistent. Raises: DependencyUnavailable."""
        body = self._items.body(tenant_id, bandit_sort_key(skill))
        return None if body is None else BanditStatistics.model_validate_json(body, extra="ignore")

    def save(self, statistics: BanditStatistics) -> None:
        """Store the next version. Raises: Conflict when another one was stored first, DependencyUnavailable."""
        key = bandit_sort_key(statistics.skill)
        self._items.replace(statistics.tenant_id, key, statistics.model_dump_json(), version=statistics.version)


class DynamoTrials:
    """`TrialStore`."""

    def __init__(self, counters: str, dynamodb: "DynamoDBClient | None" = None) -> None:
        self._items = _Items(counters, dynamodb)

    def load(self, tenant_id: str, skill: str, rollout_id: str) -> TrialState | None:
        """The state, strongly consistent. Raises: DependencyUnavailable."""
        body = self._items.body(tenant_id, trial_sort_key(skill, rollout_id))
        return None if body is None else TrialState.model_validate_json(body, extra="ignore")

    def save(self, state: TrialState) -> None:
        """Store the next version. Raises: Conflict when another one was stored first, DependencyUnavailable."""
        key = trial_sort_key(state.skill, state.rollout_id)
        self._items.replace(state.tenant_id, key, state.model_dump_json(), version=state.version)


class RoutesOnTrial:
    """The tenant and skill of each route with a bandit or in a rollout."""

    def __init__(self, registry: str, dynamodb: "DynamoDBClient | None" = None) -> None:
        self._registry = registry
        self._dynamodb = dynamodb or client("dynamodb")

    def list(self, kind: Literal["bandit", "rollout"]) -> Iterator[tuple[str, str]]:
        """All tenants' routes of one kind; may lag a write by a moment. Raises: DependencyUnavailable."""
        query: QueryInputTypeDef = {
            "TableName": self._registry,
            "IndexName": TRIALS_INDEX,
            "KeyConditionExpression": "gsi_trial = :kind",
            "ExpressionAttributeValues": to_item({":kind": BANDITS if kind == "bandit" else ROLLOUTS}),
            "ProjectionExpression": "pk, sk",
        }
        for item in read_items(self._dynamodb, "query", query):
            yield find_tenant_id(item["pk"]["S"]), item["sk"]["S"].removeprefix(ROUTE_PREFIX)
