"""What models cost a tenant."""

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse
from pydantic import Field

from rlaas.api.admin.answers import answer, answer_put
from rlaas.api.admin.call import REASON, AdminCall
from rlaas.api.admin.operations import operation
from rlaas.metering.prices import ModelName, Price, PriceTable, find_current_prices, read_prices
from rlaas.metering.prices import put_prices as put
from rlaas.wire import WireModel

router = APIRouter(prefix="/v1/admin/prices")


class PricesRequest(WireModel):
    """The prices to follow version `expected_version` (0: there are none yet)."""

    prices: dict[ModelName, Price] = Field(max_length=500)
    expected_version: int = Field(ge=0)
    reason: str = REASON


class PutPricesAnswer(PriceTable):
    """Prices that were put now, or were the newest before."""

    idempotent_replay: bool


@router.get("", **operation(ok=PriceTable))
def get_prices(call: AdminCall, version: Annotated[int | None, Query(ge=1)] = None) -> JSONResponse:
    """The newest prices, or those of a version: an output's `price_version` says which version it was priced by."""
    records = call.services.records
    return answer(200, find_current_prices(records, call.tenant_id) if version is None else read_prices(records, call.tenant_id, version))


@router.put("", **operation(PricesRequest, ok=PutPricesAnswer))
def put_prices(call: AdminCall) -> JSONResponse:
    """A new version, in force for every request after ten seconds; what was answered before keeps its cost."""
    request = call.body(PricesRequest)
    result = put(
        call.services.records,
        call.tenant_id,
        request.prices,
        expected_version=request.expected_version,
        change=call.change(request.reason),
    )
    return answer_put(result)
