"""The audit chain on DynamoDB, and the registry's stream read as changes."""

import json
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

from botocore.exceptions import ClientError
from pydantic import ConfigDict, JsonValue, TypeAdapter, ValidationError

from rlaas.adapters.aws.clients import client, dependency
from rlaas.adapters.aws.dynamodb_items import AttributeValue, from_item, to_item
from rlaas.adapters.aws.item_keys import (
    LAST_ENTRY,
    SEQUENCE_PREFIX,
    entry_mark_key,
    entry_sort_key,
    find_tenant_id,
    item_key,
    tenant_partition,
)
from rlaas.ids import TenantId, hash_text
from rlaas.tenancy.audit import AuditEntry, RegistryChange

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient
    from types_boto3_dynamodb.type_defs import TransactWriteItemTypeDef

_TENANT_ID: TypeAdapter[str] = TypeAdapter(TenantId, config=ConfigDict(defer_build=True))


class DynamoAuditLog:
    """`AuditLog` on one table. With each entry, one transaction writes a mark under its registry event's id."""

    def __init__(self, table: str, dynamodb: "DynamoDBClient | None" = None) -> None:
        self._table = table
        self._dynamodb = dynamodb or client("dynamodb")

    def read_last(self, tenant_id: str) -> AuditEntry | None:
        """The newest entry, strongly consistent. Raises: DependencyUnavailable."""
        entries = self._entries(tenant_id, after=0, limit=1, newest_first=True)
        return entries[0] if entries else None

    def append(self, entry: AuditEntry) -> bool:
        """Store `entry` and its mark unless one of the two exists; whether they were stored. Raises:
        DependencyUnavailable."""
        items = [
            {
                **item_key(tenant_partition(entry.tenant_id), entry_sort_key(entry.seq)),
                **to_item(entry.model_dump(mode="json")),
            },
            {**entry_mark_key(entry.tenant_id, entry.registry_event_id), **to_item({"seq": entry.seq})},
        ]
        puts: list[TransactWriteItemTypeDef] = [
            {
                "Put": {
                    "TableName": self._table,
                    "Item": item,
                    "ConditionExpression": "attribute_not_exists(pk)",
                }
            }
            for item in items
        ]
        try:
            with dependency("DynamoDB"):
                self._dynamodb.transact_write_items(TransactItems=puts)
        except ClientError:
            return False
        return True

    def is_recorded(self, tenant_id: str, registry_event_id: str) -> bool:
        """Whether this change already has its entry. Raises: DependencyUnavailable."""
        with dependency("DynamoDB"):
            answer = self._dynamodb.get_item(
                TableName=self._table,
                Key=entry_mark_key(tenant_id, registry_event_id),
                ConsistentRead=True,
            )
        return "Item" in answer

    def list_entries(self, tenant_id: str, *, after: int = 0, limit: int = 100) -> list[AuditEntry]:
        """Up to `limit` entries with `seq > after`, in order. Raises: DependencyUnavailable."""
        return self._entries(tenant_id, after=after, limit=limit, newest_first=False)

    def _entries(self, tenant_id: str, *, after: int, limit: int, newest_first: bool) -> list[AuditEntry]:
        with dependency("DynamoDB"):
            answer = self._dynamodb.query(
                TableName=self._table,
                KeyConditionExpression="pk = :pk AND sk BETWEEN :first AND :last",
                ExpressionAttributeValues=to_item(
                    {":pk": tenant_partition(tenant_id), ":first": entry_sort_key(after + 1), ":last": entry_sort_key(LAST_ENTRY)}
                ),
                ScanIndexForward=not newest_first,
                Limit=limit,
                ConsistentRead=True,
            )
        return [_to_entry(from_item(item)) for item in answer["Items"]]


def read_registry_change(record: Mapping[str, object]) -> RegistryChange | None:
    """The change in a record of the registry's stream; `None` for counters, for the authorizer's copy of a key, and for
    an item in a partition that cannot be a tenant's.

    A change made by hand has its entry too, though its item may lack fields that RLaaS writes or hold others.
    """
    stream = cast(Mapping[str, Mapping[str, AttributeValue]], record["dynamodb"])
    before, after = (from_item(stream.get(image, {})) for image in ("OldImage", "NewImage"))
    item = after or before
    tenant_id, target = find_tenant_id(cast(str, item["pk"])), cast(str, item["sk"])
    if not _is_tenant(tenant_id) or target.startswith(SEQUENCE_PREFIX):
        return None
    event_name = cast(str, record["eventName"])
    return RegistryChange(
        registry_event_id=cast(str, record["eventID"]),
        tenant_id=tenant_id,
        at=read_changed_at(item)
        or datetime.fromtimestamp(cast(Mapping[str, float], record["dynamodb"])["ApproximateCreationDateTime"], UTC),
        actor=_text(item.get("changed_by")),
        action={"INSERT": "create", "MODIFY": "change", "REMOVE": "delete"}[event_name],
        target=target,
        before_version=_version(before),
        after_version=_version(after),
        reason=_text(item.get("reason")),
        content_sha256=hash_content(after) if after else None,
    )


def hash_content(item: Mapping[str, JsonValue]) -> str:
    """The SHA-256 of a whole item of the registry, including what was put there by hand."""
    return hash_text(json.dumps(item, sort_keys=True, separators=(",", ":"), default=repr))


def _is_tenant(name: str) -> bool:
    try:
        _TENANT_ID.validate_python(name)
    except ValidationError:
        return False
    return True


def read_changed_at(item: Mapping[str, JsonValue]) -> datetime | None:
    """The item's `changed_at`; None where it has none, or one without a time zone."""
    with suppress(KeyError, TypeError, ValueError):
        at = datetime.fromisoformat(cast(str, item["changed_at"]))
        if at.tzinfo is not None:
            return at
    return None


def _text(value: JsonValue) -> str:
    return value if isinstance(value, str) else "unknown"


def _version(item: Mapping[str, JsonValue]) -> int | None:
    version = item.get("version")
    return version if isinstance(version, int) else None


def _to_entry(item: dict[str, JsonValue]) -> AuditEntry:
    return AuditEntry.model_validate(
        {"before_version": None, "after_version": None, "content_sha256": None, **item}, strict=False, extra="ignore"
    )
