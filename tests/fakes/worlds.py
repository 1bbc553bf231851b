"""Small worlds to test in: one tenant, one skill, two policies, a clock that stands still."""

from datetime import UTC, datetime

from rlaas.policies.backend import SageMakerBackend
from rlaas.policies.bundle import Policy, PolicyBundle
from rlaas.policies.prompt_graph import ShortPrompt
from rlaas.privacy.settings import TenantPrivacy
from rlaas.routing.route import Arm, Route, RouteTarget
from rlaas.skills.skill import Skill
from rlaas.tenancy.registry import PRIVACY, Change, skill_key
from tests.fakes.registry import MemoryRegistry

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
TENANT, SKILL = "acme", "support-email-draft"
CHANGE = Change(actor="key:1", reason="set up", at=NOW)


def clock() -> datetime:
    return NOW


def make_policy(version: int, *, user: str = "Reply to: {{ email }}", system: str = "", component: str | None = None) -> Policy:
    bundle = PolicyBundle(
        base_model="smollm2-135m",
        prompt=ShortPrompt(system=system, user=user).graph(),
        backend=SageMakerBackend(endpoint="rlaas-local", component=component or f"v{version}"),
    )
    return Policy.of(bundle, tenant_id=TENANT, skill=SKILL, version=version, created_at=NOW)


def make_route(
    *, control: int = 1, arms: tuple[Arm, ...] = (), version: int = 1, last_good: RouteTarget | None = None, rollout_id: str | None = None
) -> Route:
    return Route(
        tenant_id=TENANT,
        skill=SKILL,
        version=version,
        control=f"{SKILL}@v{control}",
        arms=arms,
        salt="pinch",
        rollout_id=rollout_id,
        last_good=last_good,
        changed_by="key:1",
        reason="set up",
        changed_at=NOW,
    )


def make_canary_route(version: int, weight: float) -> Arm:
    return Arm(policy_id=f"{SKILL}@v{version}", mode="canary", weight=weight)


def furnish_registry(arms: tuple[Arm, ...] = ()) -> MemoryRegistry:
    """A registry with the skill, policies 1 and 2 and a route of control 1 with `arms`."""
    registry = MemoryRegistry()
    registry.put(TENANT, skill_key(SKILL), Skill(tenant_id=TENANT, skill=SKILL, created_at=NOW), CHANGE)
    registry.put(TENANT, PRIVACY, TenantPrivacy(), CHANGE)
    for version in (1, 2):
        registry.put_policy(make_policy(version), CHANGE)
    registry.write_route(make_route(arms=arms), expected_version=0)
    return registry
