"""Makes a stage's first key, and its tenant. Only IAM may invoke it; the key's text is in the answer and nowhere
else."""

from collections.abc import Mapping

from aws_lambda_powertools.utilities.typing import LambdaContext
from pydantic import Field, ValidationError

from rlaas.clock import utc_now
from rlaas.ids import TenantId
from rlaas.privacy.settings import TenantPrivacy
from rlaas.runtime.stage import current_stage
from rlaas.tenancy.create_tenant import ensure_tenant
from rlaas.tenancy.keys import Scope, make_key
from rlaas.tenancy.registry import Change
from rlaas.tenancy.tenant import Tenant
from rlaas.wire import WireModel, make_invalid_input


class BootstrapRequest(WireModel):
    """The tenant to make, or to make another key for."""

    tenant_id: TenantId
    scopes: tuple[Scope, ...] = Field(min_length=1)


def handler(event: Mapping[str, object], _: LambdaContext) -> dict[str, str]:
    """Make the tenant unless it exists, and a new key with `scopes`. Raises: InvalidInput, DependencyUnavailable."""
    try:
        request = BootstrapRequest.model_validate(event, strict=False)
    except ValidationError as error:
        raise make_invalid_input(error, event) from None
    registry = current_stage().registry
    change = Change(actor="bootstrap", reason="bootstrap", at=utc_now())
    tenant = Tenant(tenant_id=request.tenant_id, created_at=change.at)
    ensure_tenant(registry, tenant, privacy=TenantPrivacy(), change=change)
    key, text = make_key(tenant_id=request.tenant_id, scopes=request.scopes, created_at=change.at)
    registry.create_key(key, change)
    return {"tenant_id": request.tenant_id, "key_id": key.key_id, "api_key": text}
