"""What stays loaded beside the base model, what goes, and what comes back."""

from datetime import timedelta

import pytest

from rlaas.errors import Conflict, DependencyUnavailable
from rlaas.ids import make_adapter_name
from rlaas.learning.adapter_upkeep import Upkeep, ensure_loaded, maintain_adapters, unload_all
from rlaas.policies.backend import SageMakerBackend
from rlaas.policies.bundle import AdapterRef, Policy, PolicyBundle
from rlaas.policies.prompt_graph import ShortPrompt
from rlaas.routing.route import Arm, RouteTarget
from rlaas.skills.skill import Skill
from rlaas.tenancy.registry import skill_key
from tests.fakes.adapters import MemoryAdapters
from tests.fakes.registry import MemoryRegistry
from tests.fakes.worlds import CHANGE, NOW, SKILL, TENANT, make_canary_route, make_route

ENDPOINT = "rlaas-test"
OLD = NOW - timedelta(days=2)


def component(version: int, *, tenant_id: str = TENANT, skill: str = SKILL, sft_only: bool = False) -> str:
    return make_adapter_name(ENDPOINT, tenant_id, skill, version, sft_only=sft_only)


def make_policy(version: int, *, tenant_id: str = TENANT, skill: str = SKILL, has_weights_uri: bool = True, base: bool = False) -> Policy:
    """A policy that asks the adapter of its number, or (`base`) the base model; `has_weights_uri`: it says
    where the weights are."""
    name = component(version, tenant_id=tenant_id, skill=skill)
    ref = AdapterRef(name=name, artifact_uri=f"s3://b/{name}.tar.gz", sha256="0" * 64, run_id="run_1", dataset_version="v1")
    bundle = PolicyBundle(
        base_model="m",
        adapter=ref if has_weights_uri and not base else None,
        prompt=ShortPrompt(user="Reply to: {{ email }}").graph(),
        backend=SageMakerBackend(endpoint=ENDPOINT, component=f"{ENDPOINT}--base" if base else name),
    )
    return Policy.of(bundle, tenant_id=tenant_id, skill=skill, version=version, created_at=NOW)


def registry_of(*policies: Policy) -> MemoryRegistry:
    registry = MemoryRegistry()
    for policy in policies:
        if not registry.has_skill(policy.tenant_id, policy.skill):
            skill = Skill(tenant_id=policy.tenant_id, skill=policy.skill, created_at=NOW)
            registry.put(policy.tenant_id, skill_key(policy.skill), skill, CHANGE)
        registry.put_policy(policy, CHANGE)
    return registry


def look(registry: MemoryRegistry, adapters: MemoryAdapters, *, dry_run: bool = False) -> Upkeep:
    return maintain_adapters(registry, adapters, endpoint=ENDPOINT, now=NOW, dry_run=dry_run, time_is_left=lambda: True)


def test_what_a_route_names_or_would_go_back_to_stays_and_what_nothing_names_goes() -> None:
    registry = registry_of(*map(make_policy, range(1, 8)))
    arms = (make_canary_route(2, 0.1), Arm(policy_id=f"{SKILL}@v3", mode="shadow", weight=1.0))
    back = RouteTarget(control=f"{SKILL}@v4", arms=(make_canary_route(5, 0.5),))
    registry.write_route(make_route(control=1, arms=arms, last_good=back), expected_version=0)
    adapters = MemoryAdapters()
    for version in range(1, 8):
        adapters.add(component(version), OLD)
        adapters.add(component(version, sft_only=True), OLD)
    result = look(registry, adapters)
    assert set(result.kept) == {component(version) for version in (1, 2, 3, 4, 5, 7)}  # 7 is the newest: it waits to be tried
    assert set(result.unloaded) == {component(6), *(component(version, sft_only=True) for version in range(1, 8))}
    assert (result.loaded, result.failed, result.left) == ((), (), 0)


def test_every_place_that_a_rollback_leads_to_is_still_loaded_after_a_look() -> None:
    registry = registry_of(*map(make_policy, (1, 2, 3)), make_policy(4, base=True))
    registry.write_route(make_route(control=2, last_good=RouteTarget(control=f"{SKILL}@v1"), version=1), expected_version=0)
    adapters = MemoryAdapters()
    for version in (1, 2, 3):
        adapters.add(component(version), OLD)
    look(registry, adapters)
    adapters.settle()
    back = registry.roll_back(TENANT, SKILL, CHANGE)
    adapter = adapters.find(component(1))
    assert (back.control, adapter is not None and adapter.status) == (f"{SKILL}@v1", "InService")


def test_a_policy_that_changes_the_prompt_alone_does_not_take_the_place_of_the_newest_adapter() -> None:
    registry = registry_of(make_policy(1), make_policy(2), make_policy(3, base=True))
    adapters = MemoryAdapters()
    for version in (1, 2):
        adapters.add(component(version), OLD)
    assert look(registry, adapters).unloaded == (component(1),)


def test_an_adapter_of_today_stays_whatever_names_it() -> None:
    adapters = MemoryAdapters()
    adapters.add(component(1), NOW - timedelta(hours=23))
    adapters.add(component(2), NOW - timedelta(hours=25))
    result = look(MemoryRegistry(), adapters)
    assert (result.kept, result.unloaded) == ((component(1),), (component(2),))


def test_what_a_route_misses_is_loaded_once_the_base_is_awake() -> None:
    registry = registry_of(make_policy(1), make_policy(2))
    registry.write_route(make_route(control=1), expected_version=0)
    adapters = MemoryAdapters(awake=False)
    adapters.add(component(2))
    assert look(registry, adapters).loaded == ()
    adapters.awake = True
    assert look(registry, adapters).loaded == (component(1),)
    assert adapters.requests == [("load", f"s3://b/{component(1)}.tar.gz")]


def test_a_dry_run_says_what_it_would_do_and_does_nothing() -> None:
    registry = registry_of(make_policy(1))
    registry.write_route(make_route(control=1), expected_version=0)
    adapters = MemoryAdapters()
    adapters.add(component(9), OLD)
    result = look(registry, adapters, dry_run=True)
    assert (result.unloaded, result.loaded, adapters.requests) == ((component(9),), (component(1),), [])


def test_one_that_cannot_be_unloaded_is_told_and_holds_up_no_other() -> None:
    adapters = MemoryAdapters(stuck={component(1)})
    for version in (1, 2):
        adapters.add(component(version), OLD)
    result = look(MemoryRegistry(), adapters)
    assert (result.failed, result.unloaded) == ((component(1),), (component(2),))


def test_a_look_ends_when_its_time_does_and_counts_what_it_did_not_come_to() -> None:
    adapters = MemoryAdapters()
    for tenant_id in ("a", "b", "c"):
        adapters.add(component(1, tenant_id=tenant_id), OLD)
    looks = iter([True, False, False])
    result = maintain_adapters(MemoryRegistry(), adapters, endpoint=ENDPOINT, now=NOW, dry_run=False, time_is_left=lambda: next(looks))
    assert (len(result.unloaded), result.left) == (1, 2)


def test_a_thousand_skills_with_names_cut_short_keep_their_routes_adapters_and_their_newest() -> None:
    skills = [f"a-very-long-skill-name-{number:04d}" for number in range(1000)]
    registry, adapters = MemoryRegistry(), MemoryAdapters()
    tenant_id = "t" * 20
    for skill in skills:
        registry.put(tenant_id, skill_key(skill), Skill(tenant_id=tenant_id, skill=skill, created_at=NOW), CHANGE)
        for version in (1, 2):
            registry.put_policy(make_policy(version, tenant_id=tenant_id, skill=skill), CHANGE)
        first = make_route().model_copy(update={"tenant_id": tenant_id, "skill": skill, "control": f"{skill}@v1"})
        registry.write_route(first, expected_version=0)
    for skill in skills[:30]:
        for version in (1, 2, 3):
            adapters.add(component(version, tenant_id=tenant_id, skill=skill), OLD)
    result = look(registry, adapters, dry_run=True)
    assert set(result.unloaded) == {component(3, tenant_id=tenant_id, skill=skill) for skill in skills[:30]}
    assert set(result.loaded) == {component(1, tenant_id=tenant_id, skill=skill) for skill in skills[30:]}


# Before a route names a policy


def ready(policy: Policy, adapters: MemoryAdapters) -> None:
    ensure_loaded(policy, adapters, endpoint=ENDPOINT, param="control")


def test_a_policy_whose_adapter_was_unloaded_has_it_loaded_before_a_route_names_it() -> None:
    adapters = MemoryAdapters()
    for _ in range(2):
        with pytest.raises(DependencyUnavailable, match="is being loaded") as wait:
            ready(make_policy(1), adapters)
        assert wait.value.retry_after_s == 15
    adapters.settle()
    ready(make_policy(1), adapters)
    assert adapters.requests == [("load", f"s3://b/{component(1)}.tar.gz")]


def test_policies_that_ask_no_adapter_of_the_endpoint_need_none() -> None:
    ready(make_policy(1, base=True), MemoryAdapters())


def test_an_adapter_that_cannot_be_loaded_is_told_with_what_to_do() -> None:
    with pytest.raises(Conflict, match="does not say where its weights are") as unknown:
        ready(make_policy(1, has_weights_uri=False), MemoryAdapters())
    assert unknown.value.param is None or unknown.value.param == "control"
    with pytest.raises(Conflict, match="ResourceLimitExceeded"):
        ready(make_policy(1), MemoryAdapters(full=True))
    failed = MemoryAdapters()
    failed.add(component(1), status="Failed", reason="rank 128 is too high")
    with pytest.raises(Conflict, match="rank 128 is too high"):
        ready(make_policy(1), failed)
    asleep = MemoryAdapters(awake=False)
    with pytest.raises(DependencyUnavailable, match="the base model sleeps") as sleeping:
        ready(make_policy(1), asleep)
    assert (sleeping.value.retry_after_s, asleep.requests) == (60, [])


# Teardown


def test_all_are_unloaded_and_waited_for_so_that_the_base_can_go() -> None:
    adapters = MemoryAdapters(stuck={component(2)})
    for version in (1, 2, 3):
        adapters.add(component(version))

    def pause() -> None:
        adapters.settle()
        adapters.stuck.clear()

    result = unload_all(adapters, pause=pause, time_is_left=lambda: True)
    assert (set(result.unloaded), result.left, adapters.by_name) == ({component(version) for version in (1, 2, 3)}, 0, {})


def test_nothing_is_loaded_between_the_unloading_of_all_and_the_deletion_of_the_endpoint() -> None:
    registry = registry_of(make_policy(1))
    registry.write_route(make_route(control=1), expected_version=0)
    adapters = MemoryAdapters()
    adapters.add(component(1), OLD)
    unload_all(adapters, pause=adapters.settle, time_is_left=lambda: True)
    assert look(registry, adapters) == Upkeep((), (), (), (), 0)


def test_what_is_still_there_when_the_time_is_up_is_counted() -> None:
    adapters = MemoryAdapters()
    adapters.add(component(1))
    looks = iter([True, False])
    result = unload_all(adapters, pause=lambda: None, time_is_left=lambda: next(looks))
    assert (result.unloaded, result.left) == ((component(1),), 1)
