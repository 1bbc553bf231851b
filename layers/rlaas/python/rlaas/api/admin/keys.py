"""API keys."""

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from pydantic import JsonValue

from rlaas.api.admin.answers import ListPage, answer_page
from rlaas.api.admin.call import REASON, AdminCall, EitherCall, PageLimit
from rlaas.api.admin.operations import operation
from rlaas.clock import Timestamp
from rlaas.ids import TenantId
from rlaas.tenancy.create_key import create_key as create
from rlaas.tenancy.create_key import revoke_key as revoke
from rlaas.tenancy.keys import ApiKey, KeyTerms, require_scope
from rlaas.tenancy.registry import key_key

router = APIRouter(prefix="/v1/admin/keys")


class KeyRequest(KeyTerms):
    """A key to make; `tenant_id` names another tenant than the caller's, for which the scope `platform` is needed."""

    tenant_id: TenantId | None = None
    reason: str = REASON


class KeyAnswer(KeyTerms):
    """A key, without its secret."""

    key_id: str
    tenant_id: TenantId
    created_at: Timestamp
    revoked_at: Timestamp | None


class NewKeyAnswer(KeyAnswer):
    """A key that was made now, with its text, which is shown this once; or by the same request before, without."""

    api_key: str | None
    idempotent_replay: bool


class KeyPage(ListPage[KeyAnswer]):
    """Some of the tenant's keys."""


@router.post("", **operation(KeyRequest, ok=NewKeyAnswer, created=NewKeyAnswer))
def create_key(call: EitherCall) -> JSONResponse:
    request = call.body(KeyRequest)
    tenant_id = request.tenant_id or call.tenant_id
    if tenant_id != call.tenant_id:
        require_scope(call.who.scopes, "platform")
    new = create(
        call.services.records,
        call.maker,
        request,
        tenant_id=tenant_id,
        request_name=call.request_name("key"),
        change=call.change(request.reason),
    )
    replay = new.text is None
    content = {**_omit_secret(new.key), "api_key": new.text, "idempotent_replay": replay}
    return JSONResponse(content, status_code=200 if replay else 201)


@router.get("", **operation(ok=KeyPage))
def list_keys(call: AdminCall, limit: PageLimit = 100, cursor: str | None = None) -> JSONResponse:
    page = call.services.records.list(ApiKey, call.tenant_id, key_key(""), limit=limit, cursor=cursor)
    return answer_page((_omit_secret(stored.record) for stored in page.items), page.cursor)


@router.delete("/{key_id}", **operation(ok=KeyAnswer))
def revoke_key(call: EitherCall, key_id: str) -> JSONResponse:
    """A key of the caller's tenant; a platform key revokes any tenant's."""
    any_tenants = "platform" in call.who.scopes
    key = revoke(call.services.records, call.maker, key_id, any_tenants=any_tenants, change=call.change("revoked"))
    return JSONResponse(_omit_secret(key))


def _omit_secret(key: ApiKey) -> dict[str, JsonValue]:
    return key.model_dump(mode="json", exclude={"secret_sha256"})
