"""The audit of a tenant's changes."""

from datetime import timedelta

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from rlaas.api.admin.answers import ListPage, to_json
from rlaas.api.admin.call import AdminCall, PageLimit
from rlaas.api.admin.operations import operation
from rlaas.tenancy.audit import AuditEntry, ChainState, inspect_chain
from rlaas.tenancy.registry import decode_cursor, encode_cursor

router = APIRouter(prefix="/v1/admin/audit")
_LAG = timedelta(minutes=10)
"""How long after a change its entry may be missing: then an alarm says that the audit stands still."""


class AuditPage(ListPage[AuditEntry]):
    """Some entries of the audit, from the first on; with the first page whether the whole chain holds."""

    chain: ChainState | None


@router.get("", **operation(ok=AuditPage))
def list_audit(call: AdminCall, limit: PageLimit = 100, cursor: str | None = None) -> JSONResponse:
    """Entries from the first on, and with the first page whether the whole chain holds, for which the whole registry is
    read."""
    here = call.services
    after = 0 if cursor is None else int(decode_cursor(cursor, pattern=r"[0-9]{1,11}"))
    entries = here.audit.list_entries(call.tenant_id, after=after, limit=limit)
    next_cursor = encode_cursor(str(entries[-1].seq)) if len(entries) == limit else None
    chain = inspect_chain(here.audit, here.records, call.tenant_id, before=here.clock() - _LAG) if cursor is None else None
    return JSONResponse(
        {"data": [to_json(entry) for entry in entries], "next_cursor": next_cursor, "chain": to_json(chain) if chain else None}
    )
