"""The most that a tenant may have, which the platform sets."""

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from pydantic import Field

from rlaas.api.admin.answers import answer, answer_version
from rlaas.api.admin.call import REASON, PlatformCall
from rlaas.api.admin.operations import operation
from rlaas.metering.ceilings import CEILINGS, Ceilings, find_ceilings
from rlaas.tenancy.create_tenant import find_tenant
from rlaas.tenancy.registry import put_record

router = APIRouter(prefix="/v1/admin/tenants/{tenant_id}/ceilings")


class CeilingsRequest(Ceilings):
    """The ceilings to put in place of version `expected_version` (0: there are none yet)."""

    expected_version: int = Field(ge=0)
    reason: str = REASON


class CeilingsAnswer(Ceilings):
    """A tenant's ceilings, and the version to change them at (0: there are none yet)."""

    version: int = Field(ge=0)


class PutCeilingsAnswer(CeilingsAnswer):
    """Ceilings that were put now, or stood there before."""

    idempotent_replay: bool


@router.get("", **operation(ok=CeilingsAnswer))
def get_ceilings(call: PlatformCall, tenant_id: str) -> JSONResponse:
    """The most that the tenant may have, and the version to change it at. Needs the scope `platform`."""
    find_tenant(call.services.records, tenant_id)
    stored = find_ceilings(call.services.records, tenant_id)
    return answer(200, stored.record, version=stored.version)


@router.put("", **operation(CeilingsRequest, ok=PutCeilingsAnswer))
def put_ceilings(call: PlatformCall, tenant_id: str) -> JSONResponse:
    """In force for every request after ten seconds; the tenant's own administrators read them and cannot lift them.
    Needs the scope `platform`."""
    request, records = call.body(CeilingsRequest), call.services.records
    find_tenant(records, tenant_id)
    ceilings = Ceilings(**{name: getattr(request, name) for name in Ceilings.model_fields})
    result = put_record(
        records,
        tenant_id,
        CEILINGS,
        ceilings,
        name="ceilings",
        expected_version=request.expected_version,
        change=call.change(request.reason),
    )
    return answer_version(result)
