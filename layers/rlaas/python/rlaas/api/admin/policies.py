"""Policies of a skill."""

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from pydantic import Field

from rlaas.api.admin.answers import ListPage, answer, answer_list, answer_put
from rlaas.api.admin.call import REASON, AdminCall, PageLimit
from rlaas.api.admin.operations import operation
from rlaas.ids import PolicyId
from rlaas.policies.archive import archive_policy as archive
from rlaas.policies.archive import is_archived
from rlaas.policies.bundle import Policy, PolicyArchive, list_differences
from rlaas.policies.policy_store import find_policy, policy_prefix
from rlaas.policies.register import PolicyTerms, StageModels, register_policy
from rlaas.routing.change_route import list_routed_policies
from rlaas.skills.put_skill import find_skill
from rlaas.wire import Json, WireModel

router = APIRouter(prefix="/v1/admin/skills/{skill}/policies")


class PolicyRequest(PolicyTerms):
    """A policy to register. Left out, the base model and the backend are the stage's own."""

    reason: str = REASON


class ArchiveRequest(WireModel):
    """Whether a policy is archived."""

    archived: bool
    reason: str = REASON


class NewPolicyAnswer(Policy):
    """A policy that was registered now, or an equal one that was before."""

    idempotent_replay: bool


class PolicyAnswer(Policy):
    """A policy, and whether it is archived."""

    archived: bool


class PolicyPage(ListPage[Policy]):
    """Some of the skill's policies, the newest first."""


class PolicyChange(WireModel):
    """A place in a bundle that two policies disagree on; null where one has nothing there."""

    path: str
    before: Json = Field(alias="from")
    after: Json = Field(alias="to")


class PolicyDiff(WireModel):
    """What of the bundle `against` was changed to make `policy_id`."""

    policy_id: PolicyId
    against: PolicyId
    changes: tuple[PolicyChange, ...]


class ArchiveAnswer(PolicyArchive):
    """Whether a policy is archived, and was before."""

    idempotent_replay: bool


@router.post("", **operation(PolicyRequest, ok=NewPolicyAnswer, created=NewPolicyAnswer))
def create_policy(call: AdminCall, skill: str) -> JSONResponse:
    here = call.services
    find_skill(here.records, call.tenant_id, skill)
    request = call.body(PolicyRequest)
    stage = StageModels(endpoint=here.endpoint, base_model=here.base_model, allowed=here.allowed, secrets=here.secrets)
    change = call.change(request.reason)
    return answer_put(register_policy(here.records, call.tenant_id, skill, request, stage=stage, change=change), status=201)


@router.get("", **operation(ok=PolicyPage))
def list_policies(call: AdminCall, skill: str, limit: PageLimit = 100, cursor: str | None = None) -> JSONResponse:
    return answer_list(call, Policy, policy_prefix(skill), limit, cursor)


@router.get("/{policy_id}", **operation(ok=PolicyAnswer))
def get_policy(call: AdminCall, skill: str, policy_id: str) -> JSONResponse:
    records = call.services.records
    policy = find_policy(records, call.tenant_id, skill, policy_id)
    return answer(200, policy, archived=is_archived(records, call.tenant_id, policy_id))


@router.get("/{policy_id}/diff", **operation(ok=PolicyDiff))
def diff_policies(call: AdminCall, skill: str, policy_id: str, against: str) -> JSONResponse:
    """What of the bundle `against` was changed to make `policy_id`, field by field."""
    records = call.services.records
    after = find_policy(records, call.tenant_id, skill, policy_id)
    before = find_policy(records, call.tenant_id, skill, against, param="against")
    changes = [{"path": change.path, "from": change.before, "to": change.after} for change in list_differences(before, after)]
    return JSONResponse({"policy_id": policy_id, "against": against, "changes": changes})


@router.put("/{policy_id}/archived", **operation(ArchiveRequest, ok=ArchiveAnswer))
def archive_policy(call: AdminCall, skill: str, policy_id: str) -> JSONResponse:
    """An archived policy stays readable and cannot be routed to; one that a route names or would go back to cannot be
    archived."""
    request, records = call.body(ArchiveRequest), call.services.records
    result = archive(
        records,
        call.tenant_id,
        skill,
        policy_id,
        archived=request.archived,
        routed=lambda: list_routed_policies(records, call.tenant_id, skill),
        change=call.change(request.reason),
    )
    return answer_put(result)
