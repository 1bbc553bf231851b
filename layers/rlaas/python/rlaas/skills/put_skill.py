"""Puts a skill under its name: creates it, or changes it to what the request says."""

from collections.abc import Callable
from datetime import datetime
from typing import Annotated

from pydantic import Field, ValidationError

from rlaas.errors import NotFound
from rlaas.ids import MetricName
from rlaas.skills.skill import Metric, RewardSpec, Skill
from rlaas.tenancy.registry import Change, PutResult, Registry, skill_key
from rlaas.wire import Json, WireModel, make_invalid_input


class SkillTerms(WireModel):
    """The content of a skill in a request."""

    description: Annotated[str, Field(max_length=2000)] = ""
    reward: RewardSpec = RewardSpec()
    metrics: dict[MetricName, Metric] = Field(default_factory=dict, max_length=100)
    metadata: dict[str, Json] = Field(default_factory=dict)


def put_skill(
    registry: Registry, tenant_id: str, name: str, terms: SkillTerms, *, change: Change, admit: Callable[[], None]
) -> PutResult[Skill]:
    """Create the skill `name` with version 1, or change it. `admit` is called before a skill is created, and raises
    when there may be no more skills.

    Raises: InvalidInput for an invalid name, Conflict when the skill was changed at the same time, and what `admit`
    raises.
    """
    key = skill_key(name)
    try:
        current = registry.get(Skill, tenant_id, key)
    except NotFound:
        skill = _build_skill(tenant_id, name, terms, created_at=change.at)
        admit()
        registry.put(tenant_id, key, skill, change)
        return PutResult(skill, version=1)
    skill = _build_skill(tenant_id, name, terms, created_at=current.record.created_at)
    if skill == current.record:
        return PutResult(skill, current.version, replay=True)
    return PutResult(skill, registry.replace(tenant_id, key, skill, expected_version=current.version, change=change))


def find_skill(registry: Registry, tenant_id: str, name: str) -> Skill:
    """The skill `name`. Raises: NotFound."""
    try:
        return registry.get(Skill, tenant_id, skill_key(name)).record
    except NotFound:
        raise NotFound(f"there is no skill {name!r}", param="skill") from None


def _build_skill(tenant_id: str, name: str, terms: SkillTerms, *, created_at: datetime) -> Skill:
    try:
        return Skill(
            tenant_id=tenant_id,
            skill=name,
            description=terms.description,
            reward=terms.reward,
            metrics=terms.metrics,
            metadata=terms.metadata,
            created_at=created_at,
        )
    except ValidationError as error:
        raise make_invalid_input(error, {"skill": name}) from None
