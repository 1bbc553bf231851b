"""What a tenant wants done with personal data."""

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from pydantic import Field

from rlaas.api.admin.answers import answer
from rlaas.api.admin.call import REASON, AdminCall
from rlaas.api.admin.operations import operation
from rlaas.privacy.settings import PrivacySettings, TenantPrivacy, check_custom
from rlaas.tenancy.registry import PRIVACY, replace_record

router = APIRouter(prefix="/v1/admin/privacy")


class PrivacyRequest(PrivacySettings):
    """The settings to put in place of version `expected_version`."""

    expected_version: int = Field(ge=1)
    reason: str = REASON


class PrivacyAnswer(PrivacySettings):
    """The tenant's settings, and the version to change them at."""

    version: int = Field(ge=1)


class PutPrivacyAnswer(PrivacyAnswer):
    """Settings that were put now, or stood there before."""

    idempotent_replay: bool


@router.get("", **operation(ok=PrivacyAnswer))
def get_privacy(call: AdminCall) -> JSONResponse:
    """What is done with each kind of personal data, and the version to change it at."""
    stored = call.services.records.get(TenantPrivacy, call.tenant_id, PRIVACY)
    return answer(200, stored.record.settings, version=stored.version)


@router.put("", **operation(PrivacyRequest, ok=PutPrivacyAnswer))
def put_privacy(call: AdminCall) -> JSONResponse:
    """In force for every event that comes in after ten seconds; what is stored stays as it is."""
    request, records = call.body(PrivacyRequest), call.services.records
    current = records.get(TenantPrivacy, call.tenant_id, PRIVACY)
    settings = PrivacySettings(**{name: getattr(request, name) for name in PrivacySettings.model_fields})
    check_custom(settings)
    result = replace_record(
        records,
        call.tenant_id,
        PRIVACY,
        current.record.model_copy(update={"settings": settings}),
        current=current,
        expected_version=request.expected_version,
        change=call.change(request.reason),
    )
    return answer(200, settings, version=result.version, idempotent_replay=result.replay)
