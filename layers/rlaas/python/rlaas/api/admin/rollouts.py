"""Rollouts of a skill."""

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from pydantic import Field

from rlaas.api.admin.answers import ListPage, answer, answer_list
from rlaas.api.admin.call import REASON, AdminCall, ApiCall, PageLimit
from rlaas.api.admin.operations import operation
from rlaas.ids import PolicyId, derive_id, new_id
from rlaas.rollout.conduct import Conductor
from rlaas.rollout.start import start_rollout as start
from rlaas.rollout.steps import Rollout, RolloutSettings
from rlaas.rollout.trial import TrialState
from rlaas.rollout.trial_evidence import TrialEvidence
from rlaas.runtime.state_machines import merge_settings
from rlaas.tenancy.registry import rollout_key
from rlaas.wire import Json, WireModel

router = APIRouter(prefix="/v1/admin/skills/{skill}/rollouts")


class RolloutRequest(WireModel):
    """A rollout of `policy_id` to start; `settings` as in `RolloutSettings`. A `dryrun` starts nothing and answers with
    the plan, even one that cannot conclude."""

    policy_id: PolicyId
    settings: dict[str, Json] = Field(default_factory=dict)
    reason: str = REASON
    dryrun: bool = False


class RolloutPage(ListPage[Rollout]):
    """Some of the skill's rollouts, the newest first."""


@router.post("", **operation(RolloutRequest, ok=Rollout, started=Rollout))
def start_rollout(call: AdminCall, skill: str) -> JSONResponse:
    request, here = call.body(RolloutRequest), call.services
    candidate = here.records.get_policy(call.tenant_id, request.policy_id)
    name = call.request_name("rollout", skill)
    rollout = start(
        _build_conductor(call, skill, derive_id("rol", name) if name else new_id("rol")),
        candidate=candidate,
        settings=merge_settings(RolloutSettings, here.rollout_settings, request.settings),
        actor=call.actor,
        reason=request.reason,
        dryrun=request.dryrun,
        load=call.load,
        start=here.rollout.start,
    )
    return answer(200 if request.dryrun else 202, rollout)


@router.get("", **operation(ok=RolloutPage))
def list_rollouts(call: AdminCall, skill: str, limit: PageLimit = 100, cursor: str | None = None) -> JSONResponse:
    return answer_list(call, Rollout, rollout_key(skill, ""), limit, cursor)


@router.get("/{rollout_id}", **operation(ok=Rollout))
def get_rollout(call: AdminCall, skill: str, rollout_id: str) -> JSONResponse:
    return answer(200, call.services.records.get(Rollout, call.tenant_id, rollout_key(skill, rollout_id)).record)


@router.get("/{rollout_id}/evidence", **operation(ok=TrialEvidence))
def get_evidence(call: AdminCall, skill: str, rollout_id: str) -> JSONResponse:
    """What the rollout's trial has seen so far: both arms, harm by kind, and the evidence over time."""
    rollout = _build_conductor(call, skill, rollout_id).read_rollout()
    state = call.services.trials.load(call.tenant_id, skill, rollout_id) or TrialState.begin(rollout)
    return answer(200, TrialEvidence.of(rollout, state))


def _build_conductor(call: ApiCall, skill: str, rollout_id: str) -> Conductor:
    here = call.services
    return Conductor(here.records, here.events, here.trials, here.guards, here.clock, call.tenant_id, skill, rollout_id)
