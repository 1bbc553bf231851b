"""Makes a tenant with its privacy settings: when the platform asks for it through the API, or with a stage's first
key."""

from contextlib import suppress

from pydantic import BaseModel

from rlaas.errors import Conflict, NotFound
from rlaas.tenancy.registry import PRIVACY, TENANT, Change, PutResult, Registry
from rlaas.tenancy.tenant import Tenant


def create_tenant(registry: Registry, tenant: Tenant, *, privacy: BaseModel, change: Change) -> PutResult[Tenant]:
    """Make `tenant`. The same request again returns the tenant that it made.

    Raises: Conflict when there is another tenant with its id; DependencyUnavailable.
    """
    if ensure_tenant(registry, tenant, privacy=privacy, change=change):
        return PutResult(tenant, version=1)
    stored = registry.get(Tenant, tenant.tenant_id, TENANT)
    if stored.record.model_copy(update={"created_at": tenant.created_at}) != tenant:
        raise Conflict(f"there is another tenant {tenant.tenant_id!r}", param="tenant_id")
    return PutResult(stored.record, stored.version, replay=True)


def ensure_tenant(registry: Registry, tenant: Tenant, *, privacy: BaseModel, change: Change) -> bool:
    """Make `tenant` unless there is one with its id, whatever its name; whether it was made.

    `privacy` are the tenant's privacy settings. They are stored first, so that no tenant is ever without them. Raises:
    DependencyUnavailable.
    """
    with suppress(Conflict):
        registry.put(tenant.tenant_id, PRIVACY, privacy, change)
    try:
        registry.put(tenant.tenant_id, TENANT, tenant, change)
    except Conflict:
        return False
    return True


def find_tenant(registry: Registry, tenant_id: str) -> Tenant:
    """The tenant. Raises: NotFound, DependencyUnavailable."""
    try:
        return registry.get(Tenant, tenant_id, TENANT).record
    except NotFound:
        raise NotFound(f"there is no tenant {tenant_id!r}", param="tenant_id") from None
