"""No key makes or revokes a key with more rights than its own. Over HTTP on the laptop cloud."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from tests.laptop_cloud import LaptopCloud


def make_key(http: httpx.Client, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    answer = http.post("v1/admin/keys", json=body)
    return answer.status_code, answer.json()


@pytest.fixture
def platform(cloud: LaptopCloud) -> httpx.Client:
    """A platform key of a tenant that has administrators, too."""
    tenant = cloud.tenant()
    return cloud.connect(cloud.key(tenant.tenant_id, ("platform",)))


def test_what_was_lent_for_a_while_cannot_be_kept(cloud: LaptopCloud) -> None:
    tenant = cloud.tenant()
    until = datetime.now(UTC) + timedelta(minutes=5)
    _, lent = make_key(tenant.http, {"scopes": ["admin"], "expires_at": until.isoformat()})
    http = cloud.connect(lent["api_key"])
    for body, param in (
        ({"scopes": ["admin"]}, "expires_at"),
        ({"scopes": ["admin"], "expires_at": (until + timedelta(seconds=1)).isoformat()}, "expires_at"),
        ({"scopes": ["infer"], "expires_at": until.isoformat()}, "scopes"),
    ):
        status, answer = make_key(http, body)
        assert (status, answer["error"]["param"]) == (403, param)
    assert make_key(http, {"scopes": ["admin"], "expires_at": until.isoformat()})[0] == 201


def test_a_tenants_administrator_has_no_hand_in_a_platform_key_of_his_tenant(cloud: LaptopCloud, platform: httpx.Client) -> None:
    _, operator = make_key(platform, {"scopes": ["platform"]})
    administrator = cloud.connect(cloud.key(operator["tenant_id"], ("infer", "telemetry", "admin")))
    assert administrator.delete(f"v1/admin/keys/{operator['key_id']}").status_code == 403
    assert cloud.connect(operator["api_key"]).get("v1/admin/tenants").status_code == 200


def test_the_last_platform_key_cannot_lock_the_platform_out(cloud: LaptopCloud, platform: httpx.Client) -> None:
    _, own = make_key(platform, {"scopes": ["platform"]})
    operator = cloud.connect(own["api_key"])
    assert operator.delete(f"v1/admin/keys/{own['key_id']}").status_code == 409
    assert platform.delete(f"v1/admin/keys/{own['key_id']}").status_code == 200
    assert operator.get("v1/admin/tenants").status_code == 401
