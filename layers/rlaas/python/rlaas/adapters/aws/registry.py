"""The registry on DynamoDB: a partition `T#<tenant>` for each tenant, an item for each record, every write
conditional."""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NotRequired, TypedDict, cast

from botocore.exceptions import ClientError
from pydantic import BaseModel, JsonValue

from rlaas.adapters.aws.audit_log import hash_content, read_changed_at
from rlaas.adapters.aws.clients import client, dependency, read_failed_item
from rlaas.adapters.aws.dynamodb_items import AttributeValue, from_item, to_attribute, to_item
from rlaas.adapters.aws.item_keys import (
    AUTHORIZER_SORT_KEY,
    BANDITS,
    ROLLOUTS,
    SEQUENCE_PREFIX,
    authorizer_partition,
    item_key,
    sequence_key,
    tenant_partition,
)
from rlaas.adapters.aws.pages import read_items
from rlaas.clock import rfc3339
from rlaas.errors import Conflict, NotFound
from rlaas.ids import parse_policy_id
from rlaas.policies.bundle import Policy
from rlaas.policies.policy_store import policy_key
from rlaas.routing.route import Route
from rlaas.routing.route_store import route_key
from rlaas.skills.skill import Metric, RewardSpec, Skill
from rlaas.tenancy.audit import RegistryContent
from rlaas.tenancy.keys import ApiKey
from rlaas.tenancy.registry import LONGEST_KEY, Change, Page, Record, Stored, decode_cursor, encode_cursor, key_key, skill_key

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient
    from types_boto3_dynamodb.type_defs import AttributeValueTypeDef, QueryInputTypeDef, TransactWriteItemTypeDef


class DynamoRegistry:
    """`Registry`, `KeySource`, `Policies`, `Routes`, `SkillSource` and `RewardSpecs` on one table."""

    def __init__(self, table: str, dynamodb: "DynamoDBClient | None" = None) -> None:
        self._table = table
        self._dynamodb = dynamodb or client("dynamodb")
        self._policies: dict[tuple[str, str], Policy] = {}
        self._skills: set[tuple[str, str]] = set()

    # Records

    def get(self, model: type[Record], tenant_id: str, sort_key: str) -> Stored[Record]:
        """The record under `sort_key`, strongly consistent. Raises: NotFound, DependencyUnavailable."""
        item = self._item(tenant_partition(tenant_id), sort_key, consistent=True)
        if item is None:
            raise NotFound(f"there is no {_name_in_words(sort_key)}")
        return _to_stored(model, item)

    def list(
        self,
        model: type[Record],
        tenant_id: str,
        prefix: str,
        *,
        limit: int = 100,
        cursor: str | None = None,
        newest_first: bool = False,
    ) -> Page[Record]:
        """Up to `limit` records whose sort key begins with `prefix`. Raises: InvalidInput on a bad cursor,
        DependencyUnavailable."""
        if len(prefix) > LONGEST_KEY:
            return Page(items=(), cursor=None)
        partition = tenant_partition(tenant_id)
        query: QueryInputTypeDef = {
            "TableName": self._table,
            "KeyConditionExpression": "pk = :pk AND begins_with(sk, :prefix)",
            "ExpressionAttributeValues": to_item({":pk": partition, ":prefix": prefix}),
            "Limit": limit,
            "ScanIndexForward": not newest_first,
            "ConsistentRead": True,
        }
        if cursor is not None:
            query["ExclusiveStartKey"] = item_key(partition, decode_cursor(cursor, pattern=re.escape(prefix) + ".+"))
        with dependency("DynamoDB"):
            answer = self._dynamodb.query(**query)
        last = answer.get("LastEvaluatedKey")
        return Page(
            items=tuple(_to_stored(model, from_item(item)) for item in answer["Items"]),
            cursor=encode_cursor(last["sk"]["S"]) if last else None,
        )

    def put(self, tenant_id: str, sort_key: str, record: BaseModel, change: Change) -> None:
        """Store a new record as version 1. Raises: Conflict when there is one, DependencyUnavailable."""
        self._write(tenant_partition(tenant_id), sort_key, record, change, expected_version=0)

    def replace(self, tenant_id: str, sort_key: str, record: BaseModel, *, expected_version: int, change: Change) -> int:
        """Replace version `expected_version`; the new version. Raises: Conflict when another version is there,
        DependencyUnavailable."""
        self._write(tenant_partition(tenant_id), sort_key, record, change, expected_version=expected_version)
        return expected_version + 1

    def allocate_number(self, tenant_id: str, skill: str, what: str) -> int:
        """The next number of a sequence, by an atomic ADD. Raises: DependencyUnavailable."""
        with dependency("DynamoDB"):
            answer = self._dynamodb.update_item(
                TableName=self._table,
                Key=sequence_key(tenant_id, skill, what),
                UpdateExpression="ADD #n :one",
                ExpressionAttributeNames={"#n": "n"},
                ExpressionAttributeValues=to_item({":one": 1}),
                ReturnValues="UPDATED_NEW",
            )
        return int(answer["Attributes"]["n"]["N"])

    def has_skill(self, tenant_id: str, skill: str) -> bool:
        """Whether the tenant has the skill; skills are never deleted, so a yes is remembered. Raises:
        DependencyUnavailable."""
        if (tenant_id, skill) in self._skills:
            return True
        if self._item(tenant_partition(tenant_id), skill_key(skill)) is None:
            return False
        self._skills.add((tenant_id, skill))
        return True

    def get_metrics(self, tenant_id: str, skill: str) -> dict[str, Metric]:
        """The skill's current metrics, by name. Raises: NotFound, DependencyUnavailable."""
        return self.get(Skill, tenant_id, skill_key(skill)).record.metrics

    def get_reward_spec(self, tenant_id: str, skill: str) -> RewardSpec:
        """How the skill is rewarded at present. Raises: NotFound, DependencyUnavailable."""
        return self.get(Skill, tenant_id, skill_key(skill)).record.reward

    # Policies

    def put_policy(self, policy: Policy, change: Change) -> None:
        """Store a new policy version. Raises: Conflict, DependencyUnavailable."""
        self.put(policy.tenant_id, policy_key(policy.skill, policy.version), policy, change)

    def get_policy(self, tenant_id: str, policy_id: str) -> Policy:
        """An immutable policy, remembered for the life of the process. Raises: NotFound, DependencyUnavailable."""
        policy = self._policies.get((tenant_id, policy_id))
        if policy is None:
            try:
                policy = self.get(Policy, tenant_id, policy_key(*parse_policy_id(policy_id))).record
            except (ValueError, NotFound):
                raise NotFound(f"there is no policy {policy_id!r}", param="policy_id") from None
            self._policies[tenant_id, policy_id] = policy
        return policy

    # Routes

    def get_route(self, tenant_id: str, skill: str) -> Route:
        """The current route, strongly consistent. Raises: NotFound, DependencyUnavailable."""
        return self._route(tenant_id, skill, consistent=True)

    def get_route_for_request(self, tenant_id: str, skill: str) -> Route:
        """The route for one request: a single eventually consistent read, never cached. Raises: NotFound,
        DependencyUnavailable."""
        return self._route(tenant_id, skill, consistent=False)

    def write_route(self, route: Route, *, expected_version: int) -> None:
        """Store `route`, the version after `expected_version`. Raises: Conflict when another version is there,
        DependencyUnavailable, ValueError when `route` is not that version."""
        if route.version != expected_version + 1:
            raise ValueError(f"route version {route.version} does not follow {expected_version}")
        change = Change(actor=route.changed_by, reason=route.reason, at=route.changed_at)
        self._write(tenant_partition(route.tenant_id), route_key(route.skill), route, change, expected_version=expected_version)

    def roll_back(self, tenant_id: str, skill: str, change: Change, *, rollout_id: str | None = None) -> Route:
        """Put the last good target back by one UpdateItem that copies it inside the item. With `rollout_id`, only while
        the route belongs to that rollout. Raises: NotFound, Conflict, DependencyUnavailable."""
        condition = "attribute_type(#body.#last_good, :map) AND #body.#mode = :normal"
        values: dict[str, JsonValue] = {":map": "M", ":normal": "normal"}
        if rollout_id is not None:
            condition += " AND #body.#rollout_id = :rollout_id"
            values[":rollout_id"] = rollout_id
        names = ("body", "control", "arms", "last_good", "mode", "version", "changed_by", "reason", "changed_at")
        try:
            with dependency("DynamoDB"):
                answer = self._dynamodb.update_item(
                    TableName=self._table,
                    Key=item_key(tenant_partition(tenant_id), route_key(skill)),
                    ConditionExpression=condition,
                    UpdateExpression=(
                        "SET #body.#control = #body.#last_good.#control, #body.#arms = #body.#last_good.#arms, "
                        "#body.#mode = :rolled_back, #body.#version = #body.#version + :one, #version = #version + :one, "
                        "#body.#changed_by = :actor, #body.#reason = :reason, #body.#changed_at = :at, "
                        "#changed_by = :actor, #reason = :reason, #changed_at = :at REMOVE gsi_trial"
                    ),
                    ExpressionAttributeNames={f"#{name}": name for name in (*names, *(["rollout_id"] if rollout_id is not None else []))},
                    ExpressionAttributeValues=to_item(
                        {
                            **values,
                            ":rolled_back": "rolled_back",
                            ":one": 1,
                            ":actor": change.actor,
                            ":reason": change.reason,
                            ":at": rfc3339(change.at),
                        }
                    ),
                    ReturnValues="ALL_NEW",
                    ReturnValuesOnConditionCheckFailure="ALL_OLD",
                )
        except ClientError as error:
            return _explain_no_rollback(read_failed_item(error), skill, rollout_id)
        return _to_stored(Route, from_item(answer["Attributes"])).record

    # Keys

    def create_key(self, key: ApiKey, change: Change) -> None:
        """Store a new key in both its places, in one transaction. Raises: Conflict, DependencyUnavailable."""
        self._write_key(key, change, expected_version=0)

    def find_key(self, key_id: str) -> ApiKey | None:
        """The key with this id, from the authorizer's copy. Raises: DependencyUnavailable."""
        item = self._item(authorizer_partition(key_id), AUTHORIZER_SORT_KEY)
        return _to_stored(ApiKey, item).record if item else None

    def revoke_key(self, tenant_id: str, key_id: str, change: Change) -> ApiKey:
        """Revoke a key in both its places, in one transaction. Raises: NotFound, DependencyUnavailable."""
        stored = self.get(ApiKey, tenant_id, key_key(key_id))
        if stored.record.revoked_at is not None:
            return stored.record
        revoked = stored.record.model_copy(update={"revoked_at": change.at})
        self._write_key(revoked, change, expected_version=stored.version)
        return revoked

    # All items

    def iterate_contents(self, tenant_id: str) -> Iterator[RegistryContent]:
        """Everything of the tenant that has entries in its audit, by consistent queries of 1 MB. Raises:
        DependencyUnavailable."""
        query: QueryInputTypeDef = {
            "TableName": self._table,
            "KeyConditionExpression": "pk = :pk",
            "ExpressionAttributeValues": to_item({":pk": tenant_partition(tenant_id)}),
            "ConsistentRead": True,
        }
        for item in map(from_item, read_items(self._dynamodb, "query", query)):
            target = cast(str, item["sk"])
            if not target.startswith(SEQUENCE_PREFIX):
                version = item.get("version")
                since = read_changed_at(item) or datetime.min.replace(tzinfo=UTC)
                yield RegistryContent(target, version if isinstance(version, int) else None, hash_content(item), since)

    # One item

    def _item(self, partition: str, sort_key: str, *, consistent: bool = False) -> dict[str, JsonValue] | None:
        if len(sort_key) > LONGEST_KEY:
            return None
        with dependency("DynamoDB"):
            answer = self._dynamodb.get_item(TableName=self._table, Key=item_key(partition, sort_key), ConsistentRead=consistent)
        return from_item(answer["Item"]) if "Item" in answer else None

    def _route(self, tenant_id: str, skill: str, *, consistent: bool) -> Route:
        item = self._item(tenant_partition(tenant_id), route_key(skill), consistent=consistent)
        if item is None:
            raise NotFound(f"the skill {skill!r} has no route", param="skill")
        return _to_stored(Route, item).record

    def _write(self, partition: str, sort_key: str, record: BaseModel, change: Change, *, expected_version: int) -> None:
        try:
            with dependency("DynamoDB"):
                self._dynamodb.put_item(
                    TableName=self._table,
                    Item=_build_item(partition, sort_key, record, change, expected_version + 1),
                    **_build_condition(expected_version),
                )
        except ClientError:
            raise _make_conflict(sort_key, expected_version) from None

    def _write_key(self, key: ApiKey, change: Change, *, expected_version: int) -> None:
        places = (
            (tenant_partition(key.tenant_id), key_key(key.key_id)),
            (authorizer_partition(key.key_id), AUTHORIZER_SORT_KEY),
        )
        writes: list[TransactWriteItemTypeDef] = [
            {
                "Put": {
                    "TableName": self._table,
                    "Item": _build_item(partition, sort_key, key, change, expected_version + 1),
                    "ReturnValuesOnConditionCheckFailure": "NONE",
                    **_build_condition(expected_version),
                }
            }
            for partition, sort_key in places
        ]
        try:
            with dependency("DynamoDB"):
                self._dynamodb.transact_write_items(TransactItems=writes)
        except ClientError:
            raise _make_conflict(key_key(key.key_id), expected_version) from None


class _Condition(TypedDict):
    ConditionExpression: str
    ExpressionAttributeNames: NotRequired[dict[str, str]]
    ExpressionAttributeValues: "NotRequired[dict[str, AttributeValueTypeDef]]"


def _build_condition(expected_version: int) -> _Condition:
    if expected_version == 0:
        return {"ConditionExpression": "attribute_not_exists(pk)"}
    return {
        "ConditionExpression": "#version = :expected",
        "ExpressionAttributeNames": {"#version": "version"},
        "ExpressionAttributeValues": to_item({":expected": expected_version}),
    }


def _build_item(partition: str, sort_key: str, record: BaseModel, change: Change, version: int) -> "dict[str, AttributeValueTypeDef]":
    values: dict[str, JsonValue] = {
        "version": version,
        "changed_by": change.actor,
        "reason": change.reason,
        "changed_at": rfc3339(change.at),
        "gsi_trial": _find_index_partition(record) if isinstance(record, Route) else None,
    }
    return {**item_key(partition, sort_key), **to_item(values), "body": to_attribute(record.model_dump(mode="json"))}


def _find_index_partition(route: Route) -> str | None:
    if route.rollout_id is not None and route.mode == "normal":
        return ROLLOUTS
    return BANDITS if route.bandit is not None else None


def _to_stored(model: type[Record], item: Mapping[str, JsonValue]) -> Stored[Record]:
    change = Change(
        actor=cast(str, item["changed_by"]),
        reason=cast(str, item["reason"]),
        at=datetime.fromisoformat(cast(str, item["changed_at"])),
    )
    record = model.model_validate(item["body"], strict=False, extra="ignore")
    return Stored(record=record, version=cast(int, item["version"]), change=change)


def _make_conflict(sort_key: str, expected_version: int) -> Conflict:
    if expected_version == 0:
        return Conflict(f"there is already a {_name_in_words(sort_key)}")
    return Conflict(f"the {_name_in_words(sort_key)} is no longer at version {expected_version}", param="expected_version")


def _explain_no_rollback(item: Mapping[str, AttributeValue], skill: str, rollout_id: str | None) -> Route:
    if not item:
        raise NotFound(f"the skill {skill!r} has no route", param="skill")
    route = _to_stored(Route, from_item(item)).record
    if rollout_id is not None and route.rollout_id != rollout_id:
        raise Conflict(f"the route of {skill!r} no longer belongs to {rollout_id}")
    if route.mode == "rolled_back":
        return route
    raise Conflict(f"the route of {skill!r} has no last good version to go back to")


def _name_in_words(sort_key: str) -> str:
    """A sort key as words: `POLICY#reply#00000002` is `policy reply 2`."""
    kind, *rest = sort_key.split("#")
    return " ".join([kind.lower(), *(part.lstrip("0") if part.isdigit() else part for part in rest)])
