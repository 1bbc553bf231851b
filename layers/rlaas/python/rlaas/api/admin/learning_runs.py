"""Learning runs of a skill."""

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from pydantic import Field

from rlaas.api.admin.answers import ListPage, answer, answer_list
from rlaas.api.admin.call import REASON, AdminCall, PageLimit
from rlaas.api.admin.operations import operation
from rlaas.ids import PolicyId, derive_id, new_id
from rlaas.learning.runs import LearningRun, LearningSettings
from rlaas.learning.start_run import admit_run, start_run
from rlaas.runtime.state_machines import merge_settings
from rlaas.tenancy.registry import run_key
from rlaas.wire import Json, WireModel

router = APIRouter(prefix="/v1/admin/skills/{skill}/learning-runs")


class LearningRunRequest(WireModel):
    """A learning run to start; `settings` as in `LearningSettings`."""

    settings: dict[str, Json] = Field(default_factory=dict)
    reason: str = REASON


class LearningRunAnswer(LearningRun):
    """A learning run, and the policy that it registered."""

    policy_id: PolicyId | None


class LearningRunPage(ListPage[LearningRun]):
    """Some of the skill's learning runs, the newest first."""


@router.post("", **operation(LearningRunRequest, started=LearningRun))
def start_learning_run(call: AdminCall, skill: str) -> JSONResponse:
    request, here = call.body(LearningRunRequest), call.services
    name = call.request_name("run", skill)

    def admit() -> None:
        admit_run(here.adapters, here.counters, call.tenant_id, call.ceilings(), endpoint=here.endpoint, clock=here.clock)

    run = start_run(
        here.records,
        tenant_id=call.tenant_id,
        skill=skill,
        run_id=derive_id("run", name) if name else new_id("run"),
        settings=merge_settings(LearningSettings, here.learning_settings, request.settings),
        actor=call.actor,
        reason=request.reason,
        clock=here.clock,
        admit=admit,
        start=here.learning.start,
    )
    return answer(202, run)


@router.get("", **operation(ok=LearningRunPage))
def list_learning_runs(call: AdminCall, skill: str, limit: PageLimit = 100, cursor: str | None = None) -> JSONResponse:
    return answer_list(call, LearningRun, run_key(skill, ""), limit, cursor)


@router.get("/{run_id}", **operation(ok=LearningRunAnswer))
def get_learning_run(call: AdminCall, skill: str, run_id: str) -> JSONResponse:
    run = call.services.records.get(LearningRun, call.tenant_id, run_key(skill, run_id)).record
    return answer(200, run, policy_id=run.registered_policy_id)
