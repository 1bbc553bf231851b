"""All tenants of a stage, by a scan: the platform's operators ask for them too rarely to keep an index."""

from itertools import islice
from typing import TYPE_CHECKING, cast

from pydantic import JsonValue

from rlaas.adapters.aws.clients import client
from rlaas.adapters.aws.dynamodb_items import from_item, to_item
from rlaas.adapters.aws.item_keys import TENANT_PARTITION, item_key, tenant_partition
from rlaas.adapters.aws.pages import read_items
from rlaas.tenancy.registry import TENANT, Change, Page, Stored, decode_cursor, encode_cursor
from rlaas.tenancy.tenant import Tenant

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient
    from types_boto3_dynamodb.type_defs import ScanInputTypeDef


class DynamoTenants:
    """`Tenants` on the registry's table."""

    def __init__(self, table: str, dynamodb: "DynamoDBClient | None" = None) -> None:
        self._table = table
        self._dynamodb = dynamodb or client("dynamodb")

    def list(self, *, limit: int, cursor: str | None) -> Page[Tenant]:
        """Up to `limit` tenants. Raises: InvalidInput on a bad cursor, DependencyUnavailable."""
        scan: ScanInputTypeDef = {
            "TableName": self._table,
            "FilterExpression": "sk = :tenant",
            "ExpressionAttributeValues": to_item({":tenant": TENANT}),
        }
        if cursor is not None:
            scan["ExclusiveStartKey"] = item_key(decode_cursor(cursor, pattern=TENANT_PARTITION), TENANT)
        tenants = tuple(_to_stored(from_item(item)) for item in islice(read_items(self._dynamodb, "scan", scan), limit))
        last = tenants[-1].record.tenant_id if len(tenants) == limit else None
        return Page(items=tenants, cursor=None if last is None else encode_cursor(tenant_partition(last)))


def _to_stored(item: dict[str, JsonValue]) -> Stored[Tenant]:
    tenant = Tenant.model_validate(item["body"], strict=False, extra="ignore")
    change = Change(actor=cast(str, item["changed_by"]), reason=cast(str, item["reason"]), at=tenant.created_at)
    return Stored(record=tenant, version=cast(int, item["version"]), change=change)
