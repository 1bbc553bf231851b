"""Processing again what failed and was kept, for the platform."""

from typing import Annotated

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from pydantic import Field

from rlaas.api.admin.answers import answer
from rlaas.api.admin.call import REASON, PlatformCall
from rlaas.api.admin.operations import operation
from rlaas.tenancy.redrive import FailedWorkKind, RedrivePage, play_page
from rlaas.wire import WireModel

router = APIRouter(prefix="/v1/admin/redrives")


class RedriveRequest(WireModel):
    """A page of a redrive; `cursor` is that of the page before. A `dryrun` says how much is kept where, and processes
    nothing."""

    cursor: Annotated[str, Field(max_length=500)] | None = None
    dryrun: bool = False
    reason: str = REASON


class RedriveDryRun(WireModel):
    """How much is kept where, counted up to 10,000."""

    waiting: dict[FailedWorkKind, int]


@router.post("", **operation(RedriveRequest, ok=(RedrivePage, RedriveDryRun)))
def redrive(call: PlatformCall) -> JSONResponse:
    """Process again what failed and was kept, of all tenants, for some seconds; the first page is entered into the
    audit."""
    request, here = call.body(RedriveRequest), call.services
    if request.dryrun:
        return answer(200, RedriveDryRun(waiting=here.redriver.count_waiting()))
    change = call.change(request.reason)
    return answer(200, play_page(here.redriver, here.records, call.tenant_id, cursor=request.cursor, change=change))
