from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rlaas.adapters.aws.registry import DynamoRegistry
from rlaas.adapters.aws.tenants import DynamoTenants
from rlaas.errors import InvalidInput
from rlaas.skills.skill import Skill
from rlaas.tenancy.registry import TENANT, skill_key
from rlaas.tenancy.tenant import Tenant
from tests.contract.tables import make_table
from tests.fakes.worlds import CHANGE, NOW

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient


def test_tenants_are_found_among_all_documents_and_walked_by_cursor(dynamodb: DynamoDBClient) -> None:
    registry = DynamoRegistry(make_table(dynamodb, "registry"), dynamodb)
    names = [f"tenant-{number}" for number in range(5)]
    for name in names:
        registry.put(name, TENANT, Tenant(tenant_id=name, created_at=NOW), CHANGE)
        registry.put(name, skill_key("reply"), Skill(tenant_id=name, skill="reply", created_at=NOW), CHANGE)
    tenants = DynamoTenants("registry", dynamodb)
    seen: list[str] = []
    page = tenants.list(limit=2, cursor=None)
    while True:
        seen += [stored.record.tenant_id for stored in page.items]
        if page.cursor is None:
            break
        page = tenants.list(limit=2, cursor=page.cursor)
    assert sorted(seen) == names
    with pytest.raises(InvalidInput):
        tenants.list(limit=2, cursor="bogus!")
