"""What a tenant may spend, and what it has spent of that."""

from datetime import datetime

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from pydantic import Field, JsonValue

from rlaas.api.admin.answers import answer, answer_version, to_json
from rlaas.api.admin.call import REASON, AdminCall
from rlaas.api.admin.operations import operation
from rlaas.clock import Timestamp, rfc3339
from rlaas.metering.budget_usage import read_window_usage
from rlaas.metering.budgets import BUDGETS, Budget, Budgets, Limit, name_ceiling_counter
from rlaas.metering.ceilings import Ceilings, read_limits
from rlaas.metering.counters import CounterItem
from rlaas.tenancy.registry import find_record, put_record
from rlaas.wire import WireModel

router = APIRouter(prefix="/v1/admin/budgets")


class BudgetsRequest(Budgets):
    """The budgets to put in place of version `expected_version` (0: there are none yet)."""

    expected_version: int = Field(ge=0)
    reason: str = REASON


class BudgetsAnswer(Budgets):
    """The tenant's budgets, the version to change them at (0: there are none yet), and the platform's ceilings."""

    version: int = Field(ge=0)
    ceilings: Ceilings


class PutBudgetsAnswer(Budgets):
    """Budgets that were put now, or stood there before."""

    version: int = Field(ge=1)
    idempotent_replay: bool


class LimitUsage(Limit):
    """A ceiling, and what its window has spent, `set_aside` for requests in flight included."""

    spent: float = Field(ge=0)
    set_aside: float = Field(ge=0)
    resets_at: Timestamp


class BudgetUsage(Budget):
    """A budget, and what its window has spent, `set_aside` for requests in flight included."""

    spent: float = Field(ge=0)
    set_aside: float = Field(ge=0)
    resets_at: Timestamp


class BudgetsUsage(WireModel):
    """What each budget and each of the platform's ceilings has spent."""

    data: tuple[BudgetUsage, ...]
    ceilings: tuple[LimitUsage, ...]


@router.get("", **operation(ok=BudgetsAnswer))
def get_budgets(call: AdminCall) -> JSONResponse:
    """Every budget, and the version to change them at; and the platform's ceilings, which only the platform changes."""
    stored = find_record(call.services.records, Budgets, call.tenant_id, BUDGETS)
    return answer(200, stored.record, version=stored.version, ceilings=to_json(call.ceilings()))


@router.put("", **operation(BudgetsRequest, ok=PutBudgetsAnswer))
def put_budgets(call: AdminCall) -> JSONResponse:
    """In force for every request after ten seconds. What was spent stays counted when a budget gets another name or
    limit."""
    request = call.body(BudgetsRequest)
    result = put_record(
        call.services.records,
        call.tenant_id,
        BUDGETS,
        Budgets(budgets=request.budgets),
        name="budgets",
        expected_version=request.expected_version,
        change=call.change(request.reason),
    )
    return answer_version(result)


@router.get("/usage", **operation(ok=BudgetsUsage))
def get_budgets_usage(call: AdminCall) -> JSONResponse:
    """What the window of each budget and each of the platform's ceilings has spent, how much of that is only set aside
    for requests in flight, and when the next one begins."""
    now = call.services.clock()
    item = call.services.counters.read(call.tenant_id)
    limits = read_limits(call.services.records, call.tenant_id)
    content: dict[str, JsonValue] = {
        "data": [_build_usage(budget, budget.counter, item, now) for budget in limits.budgets],
        "ceilings": [_build_usage(limit, name_ceiling_counter(limit), item, now) for limit in limits.spending],
    }
    return JSONResponse(content)


def _build_usage(limit: Limit, counter: str, item: CounterItem, now: datetime) -> dict[str, JsonValue]:
    usage = read_window_usage(limit, counter, item, now=now)
    return {**to_json(limit), "spent": usage.spent, "set_aside": usage.set_aside, "resets_at": rfc3339(usage.resets_at)}
