"""Skills."""

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from rlaas.api.admin.answers import ListPage, answer, answer_list
from rlaas.api.admin.call import REASON, AdminCall, PageLimit
from rlaas.api.admin.operations import operation
from rlaas.metering.ceilings import check_ceiling
from rlaas.skills.put_skill import SkillTerms, find_skill
from rlaas.skills.put_skill import put_skill as put
from rlaas.skills.skill import Skill
from rlaas.tenancy.registry import list_all, skill_key

router = APIRouter(prefix="/v1/admin/skills")


class SkillRequest(SkillTerms):
    """What a skill is to be."""

    reason: str = REASON


class SkillAnswer(Skill):
    """A skill that was made now, or was so before."""

    idempotent_replay: bool


class SkillPage(ListPage[Skill]):
    """Some of the tenant's skills, by name."""


@router.get("", **operation(ok=SkillPage))
def list_skills(call: AdminCall, limit: PageLimit = 100, cursor: str | None = None) -> JSONResponse:
    return answer_list(call, Skill, skill_key(""), limit, cursor, newest_first=False)


@router.put("/{skill}", **operation(SkillRequest, ok=(Skill, SkillAnswer), created=SkillAnswer))
def put_skill(call: AdminCall, skill: str) -> JSONResponse:
    request, records = call.body(SkillRequest), call.services.records

    def admit() -> None:
        if (most := call.ceilings().skills) is not None:
            check_ceiling(most, sum(1 for _ in list_all(records, Skill, call.tenant_id, skill_key(""))), "skills")

    result = put(records, call.tenant_id, skill, request, change=call.change(request.reason), admit=admit)
    if result.replay:
        return answer(200, result.record, idempotent_replay=True)
    if result.version == 1:
        return answer(201, result.record, idempotent_replay=False)
    return answer(200, result.record)


@router.get("/{skill}", **operation(ok=Skill))
def get_skill(call: AdminCall, skill: str) -> JSONResponse:
    return answer(200, find_skill(call.services.records, call.tenant_id, skill))
