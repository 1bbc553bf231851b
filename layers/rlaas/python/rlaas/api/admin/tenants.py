"""Tenants, for the platform."""

from typing import Annotated

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from pydantic import Field

from rlaas.api.admin.answers import ListPage, answer_page, answer_put, to_json
from rlaas.api.admin.call import PageLimit, PlatformCall
from rlaas.api.admin.operations import operation
from rlaas.ids import TenantId
from rlaas.privacy.settings import TenantPrivacy
from rlaas.tenancy.create_tenant import create_tenant as create
from rlaas.tenancy.tenant import Tenant
from rlaas.wire import Json, WireModel

router = APIRouter(prefix="/v1/admin/tenants")


class TenantRequest(WireModel):
    """A tenant to make."""

    tenant_id: TenantId
    name: Annotated[str, Field(max_length=200)] = ""
    metadata: dict[str, Json] = Field(default_factory=dict)


class TenantAnswer(Tenant):
    """A tenant that was made now, or by the same request before."""

    idempotent_replay: bool


class TenantPage(ListPage[Tenant]):
    """Some tenants, in no particular order."""


@router.post("", **operation(TenantRequest, ok=TenantAnswer, created=TenantAnswer))
def create_tenant(call: PlatformCall) -> JSONResponse:
    request = call.body(TenantRequest)
    change = call.change("tenant made")
    tenant = Tenant(**request.model_dump(), created_at=change.at)
    return answer_put(create(call.services.records, tenant, privacy=TenantPrivacy(), change=change), status=201)


@router.get("", **operation(ok=TenantPage))
def list_tenants(call: PlatformCall, limit: PageLimit = 100, cursor: str | None = None) -> JSONResponse:
    page = call.services.tenants.list(limit=limit, cursor=cursor)
    return answer_page((to_json(stored.record) for stored in page.items), page.cursor)
