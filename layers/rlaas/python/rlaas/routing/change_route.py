"""Replace a skill's route: whether the change is allowed, and what the next route is."""

from collections.abc import Callable, Mapping

from pydantic import Field, ValidationError, field_validator

from rlaas.errors import Conflict, InvalidInput, NotFound
from rlaas.ids import PolicyId, new_id
from rlaas.metering.budgets import Cap
from rlaas.policies.archive import is_archived
from rlaas.policies.bundle import Policy
from rlaas.policies.policy_store import find_policy
from rlaas.routing.bandit_settings import BanditSettings
from rlaas.routing.route import MOST_ARMS, MOST_SHADOWS, Arm, ArmMode, Route, UnitKind
from rlaas.routing.route_store import RouteRecords, Routes
from rlaas.tenancy.registry import Change, PutResult
from rlaas.wire import WireModel, make_invalid_input

Load = Callable[[Policy, str], None]
"""Makes sure that a policy can answer before a route names it; the text is the policy's field in the request. Raises:
any RlaasError."""


class ArmRequest(WireModel):
    """An arm of a route; see `Arm`."""

    policy_id: PolicyId
    mode: ArmMode
    weight: float = Field(ge=0, le=1)
    cap: Cap | None = None


class RouteTerms(WireModel):
    """The content of the next route; the skill's first route fixes `unit` for good."""

    expected_version: int = Field(ge=0)
    control: PolicyId
    arms: tuple[ArmRequest, ...] = Field(default=(), max_length=MOST_ARMS)
    unit: UnitKind | None = None
    bandit: BanditSettings | None = None

    @field_validator("arms")
    @classmethod
    def _have_few_shadows(cls, arms: tuple[ArmRequest, ...]) -> tuple[ArmRequest, ...]:
        if (shadows := sum(arm.mode == "shadow" for arm in arms)) > MOST_SHADOWS:
            raise ValueError(f"{shadows} arms are shadows, and at most {MOST_SHADOWS} may be")
        return arms


def change_route(records: RouteRecords, tenant_id: str, skill: str, terms: RouteTerms, *, change: Change, load: Load) -> PutResult[Route]:
    """Replace version `expected_version` of the skill's route, where 0 means that there is none yet. The same request
    again returns the route that the first one wrote.

    Only policies that the present route does not name are loaded first, because taking one out must not wait for the
    endpoint.

    Raises: NotFound for a policy that is not the skill's; Conflict for an archived one, or when the route is at another
    version; InvalidInput for a route that is not valid; what `load` raises.
    """
    places = _list_policies_by_place(terms)
    for place, policy_id in places.items():
        find_policy(records, tenant_id, skill, policy_id, param=place)
        if is_archived(records, tenant_id, policy_id):
            raise Conflict(f"{policy_id} is archived", param=place)
    current = find_route(records, tenant_id, skill)
    if current is not None and _is_written_by(terms, change, current):
        return PutResult(current, current.version, replay=True)
    version = current.version if current else 0
    if version != terms.expected_version:
        raise Conflict(f"the route is at version {version}", param="expected_version")
    try:
        route = _build_next_route(current, terms, tenant_id=tenant_id, skill=skill, change=change)
    except ValidationError as error:
        raise make_invalid_input(error, terms.model_dump()) from None
    except ValueError as error:
        raise InvalidInput(str(error), param="arms") from None
    policy_ids = list_routed_policies(records, tenant_id, skill)
    for place, policy_id in places.items():
        if policy_id not in policy_ids:
            load(find_policy(records, tenant_id, skill, policy_id), place)
    records.write_route(route, expected_version=terms.expected_version)
    return PutResult(route, route.version)


def list_routed_policies(routes: Routes, tenant_id: str, skill: str) -> set[str]:
    """The policies that the skill's route names, or would name after a rollback."""
    route = find_route(routes, tenant_id, skill)
    if route is None:
        return set()
    targets = [route.target, *([route.last_good] if route.last_good else [])]
    return {policy_id for target in targets for policy_id in (target.control, *(arm.policy_id for arm in target.arms))}


def find_route(routes: Routes, tenant_id: str, skill: str) -> Route | None:
    """The skill's route, to be changed; `None` where there is none yet."""
    try:
        return routes.get_route(tenant_id, skill)
    except NotFound:
        return None


def _list_policies_by_place(terms: RouteTerms) -> Mapping[str, str]:
    return {"control": terms.control, **{f"arms.{at}.policy_id": arm.policy_id for at, arm in enumerate(terms.arms)}}


def _build_arms(terms: RouteTerms) -> tuple[Arm, ...]:
    return tuple(Arm(policy_id=arm.policy_id, mode=arm.mode, weight=arm.weight, cap=arm.cap) for arm in terms.arms)


def _is_written_by(terms: RouteTerms, change: Change, route: Route) -> bool:
    """Whether this very request wrote `route` before."""
    requested_arms = [(arm.policy_id, arm.mode, arm.weight, arm.cap) for arm in terms.arms]
    present_arms = [(arm.policy_id, arm.mode, arm.weight, arm.cap) for arm in route.arms]
    return (route.version, route.control, present_arms, route.bandit, route.changed_by, route.reason) == (
        terms.expected_version + 1,
        terms.control,
        requested_arms,
        _choose_bandit_settings(route, terms),
        change.actor,
        change.reason,
    )


def _choose_bandit_settings(current: Route | None, terms: RouteTerms) -> BanditSettings | None:
    """The settings of the request, else those of the present route, else the defaults if an arm has mode `bandit`."""
    settings = terms.bandit or (current.bandit if current else None)
    return settings or (BanditSettings() if any(arm.mode == "bandit" for arm in terms.arms) else None)


def _build_next_route(current: Route | None, terms: RouteTerms, *, tenant_id: str, skill: str, change: Change) -> Route:
    """The next route. A route that a running rollout wrote is not yet known to be good, so a rollback still leads to
    the one from before the rollout."""
    if current is None:
        return Route(
            tenant_id=tenant_id,
            skill=skill,
            version=1,
            control=terms.control,
            arms=_build_arms(terms),
            unit=terms.unit or "thread",
            salt=new_id("dec"),
            bandit=_choose_bandit_settings(None, terms),
            changed_by=change.actor,
            reason=change.reason,
            changed_at=change.at,
        )
    if terms.unit not in (None, current.unit):
        raise InvalidInput(f"the unit is {current.unit} and cannot change: every unit would change arm", param="unit")
    return current.succeed(
        control=terms.control,
        arms=_build_arms(terms),
        last_good=current.last_good if current.rollout_id is not None else current.target,
        rollout_id=None,
        changed_by=change.actor,
        reason=change.reason,
        changed_at=change.at,
        bandit=_choose_bandit_settings(current, terms),
    )
