"""The route of a skill."""

from typing import Annotated

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from pydantic import Field

from rlaas.api.admin.answers import answer, answer_put
from rlaas.api.admin.call import REASON, AdminCall
from rlaas.api.admin.operations import operation
from rlaas.rollout.conduct import take_back
from rlaas.routing.change_route import RouteTerms, change_route
from rlaas.routing.route import Route
from rlaas.skills.put_skill import find_skill
from rlaas.wire import WireModel

router = APIRouter(prefix="/v1/admin/skills/{skill}")


class RouteRequest(RouteTerms):
    """The route to put in place of version `expected_version` (0: there is none yet). `unit` is fixed by the first.

    `bandit` says how arms of mode `bandit` get their weights, which start from those in the request; left out, it stays
    as it is. A weight for an arm that the bandit's guards dropped lets it back in.
    """

    reason: str = REASON


class RollbackRequest(WireModel):
    """Why a skill goes back to its last good route."""

    reason: Annotated[str, Field(min_length=1, max_length=500)]


class RouteAnswer(Route):
    """A route that was put now, or by the same request before."""

    idempotent_replay: bool


@router.get("/route", **operation(ok=Route))
def get_route(call: AdminCall, skill: str) -> JSONResponse:
    return answer(200, call.services.records.get_route(call.tenant_id, skill))


@router.put("/route", **operation(RouteRequest, ok=RouteAnswer, created=RouteAnswer))
def put_route(call: AdminCall, skill: str) -> JSONResponse:
    records = call.services.records
    find_skill(records, call.tenant_id, skill)
    request = call.body(RouteRequest)
    result = change_route(records, call.tenant_id, skill, request, change=call.change(request.reason), load=call.load)
    return answer_put(result, status=201 if result.version == 1 else 200)


@router.post("/rollback", **operation(RollbackRequest, ok=Route))
def roll_back(call: AdminCall, skill: str) -> JSONResponse:
    request = call.body(RollbackRequest)
    change = call.change(request.reason)
    return answer(200, take_back(call.services.records, tenant_id=call.tenant_id, skill=skill, change=change))
