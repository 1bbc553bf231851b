"""Which adapters are loaded beside the base model, and which ought to be.

Adapters that a route names, or would name after a rollback, stay loaded, so that a rollback need not wait for one. So
do the newest adapter that a skill's policies name, which waits to be tried, and every adapter younger than a day, which
a learning run may still be asking. The others are unloaded; before a route names one of them again, it is loaded.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Protocol

from rlaas.errors import Conflict, DependencyUnavailable, RlaasError
from rlaas.ids import find_adapter_owner, make_adapter_name
from rlaas.metering.ceilings import check_ceiling
from rlaas.policies.backend import SageMakerBackend
from rlaas.policies.bundle import Policy
from rlaas.policies.policy_store import PolicyRecords, policy_prefix
from rlaas.routing.route import Route
from rlaas.routing.route_store import ROUTE_PREFIX
from rlaas.skills.skill import Skill
from rlaas.tenancy.registry import SKILL_PREFIX, list_all

SETTLED = timedelta(days=1)
"""An adapter younger than this stays loaded: its run asks it for some hours at most."""
ADAPTERS_OF_A_RUN = 2
"""The number of adapters that a learning run loads: its candidate and the SFT-only control."""
LOADING_S = 15.0
"""Seconds after which to look again at an adapter that is being loaded."""
_NEWEST = 50
"""The most policies of a skill that are searched, from the newest, for one with an adapter."""


@dataclass(frozen=True, slots=True)
class LoadedAdapter:
    """An adapter at the endpoint. `status` is SageMaker's: Creating, InService, Updating, Deleting or Failed, the last
    with its `reason`."""

    name: str
    status: str
    created_at: datetime
    reason: str | None = None


class Adapters(Protocol):
    """The adapters of one stage's endpoint. Each method raises DependencyUnavailable when SageMaker does not answer."""

    def iterate_loaded(self) -> Iterator[LoadedAdapter]:
        """All of them, and no other component."""
        ...

    def find(self, name: str) -> LoadedAdapter | None:
        """One of them; `None` when there is none."""
        ...

    def load(self, name: str, artifact_uri: str) -> None:
        """Begin to load one; no error when it is there already. Raises: Conflict when SageMaker refuses (a limit is
        reached, the base model sleeps)."""
        ...

    def unload(self, name: str) -> None:
        """Begin to unload one; no error when it is gone. Raises: Conflict while it cannot be (it is still being
        loaded)."""
        ...

    def base_is_awake(self) -> bool:
        """Whether a copy of the base model runs, into which an adapter can be loaded."""
        ...


@dataclass(frozen=True, slots=True)
class Upkeep:
    """The result of one look, by the adapters' names: `kept` stay loaded, `failed` could not be unloaded or loaded;
    `left` is the number of adapters that there was no time to look at."""

    kept: tuple[str, ...]
    unloaded: tuple[str, ...]
    loaded: tuple[str, ...]
    failed: tuple[str, ...]
    left: int


def check_adapters(adapters: Adapters, tenant_id: str, *, endpoint: str, most: int | None, more: int) -> None:
    """Check that the tenant may have `more` adapters loaded, at most `most` in all. Raises: QuotaExceeded,
    DependencyUnavailable."""
    if most is not None:
        count = sum(
            find_adapter_owner(adapter.name, endpoint) == tenant_id for adapter in adapters.iterate_loaded() if adapter.status != "Deleting"
        )
        check_ceiling(most - more + 1, count, f"loaded adapters beside the {more} that this takes")


def ensure_loaded(policy: Policy, adapters: Adapters, *, endpoint: str, param: str, most: int | None = None) -> None:
    """Make sure that the adapters of `policy` are loaded before a route names it; one that was unloaded is loaded
    again, as long as the tenant has fewer than `most`.

    Raises: DependencyUnavailable with `retry_after_s` (seconds) while one is being loaded; Conflict, naming `param`,
    when it cannot be loaded; QuotaExceeded.
    """
    for component, artifact_uri in _list_components(policy, endpoint):
        adapter = adapters.find(component)
        if adapter is not None and adapter.status in ("InService", "Updating"):
            continue
        if adapter is not None and adapter.status == "Failed":
            raise Conflict(f"the adapter {component} of {policy.policy_id} did not load: {adapter.reason}", param=param)
        if adapter is None:
            if artifact_uri is None:
                message = (
                    f"the adapter {component} of {policy.policy_id} is not loaded, and the policy does not say where its weights are: "
                    "register a policy with `adapter`"
                )
                raise Conflict(message, param=param)
            if not adapters.base_is_awake():
                message = (
                    f"the adapter {component} of {policy.policy_id} is not loaded and the base model sleeps. A request to /v1/infer "
                    "wakes it within ten minutes; then send this again"
                )
                raise DependencyUnavailable(message, retry_after_s=60.0)
            check_adapters(adapters, policy.tenant_id, endpoint=endpoint, most=most, more=1)
            adapters.load(component, artifact_uri)
        state = "unloaded" if adapter is not None and adapter.status == "Deleting" else "loaded"
        message = f"the adapter {component} of {policy.policy_id} is being {state}: send this again in a moment"
        raise DependencyUnavailable(message, retry_after_s=LOADING_S)


def maintain_adapters(
    records: PolicyRecords, adapters: Adapters, *, endpoint: str, now: datetime, dry_run: bool, time_is_left: Callable[[], bool]
) -> Upkeep:
    """Unload what nothing names any more and load what a route names and is missing, tenant by tenant of those that
    have adapters loaded.

    Each step is safe to repeat and a failed one does not stop the others. A `dry_run` only returns what would be done.
    Raises: DependencyUnavailable when the adapters cannot be listed.
    """
    by_tenant: dict[str, list[LoadedAdapter]] = defaultdict(list)
    for adapter in adapters.iterate_loaded():
        owner = find_adapter_owner(adapter.name, endpoint)
        if owner is not None and adapter.status != "Deleting":
            by_tenant[owner].append(adapter)
    done: dict[str, list[str]] = {"kept": [], "unloaded": [], "loaded": [], "failed": []}
    left = sum(map(len, by_tenant.values()))

    def do(kind: str, name: str, work: Callable[[], None]) -> None:
        try:
            if not dry_run:
                work()
        except RlaasError:
            kind = "failed"
        done[kind].append(name)

    awake = adapters.base_is_awake()
    for tenant_id, loaded_adapters in by_tenant.items():
        if not time_is_left():
            break
        routed_adapters = dict(_list_routed(records, tenant_id, endpoint))
        waiting = _Waiting(records, tenant_id, endpoint)
        for adapter in loaded_adapters:
            left -= 1
            if adapter.name in routed_adapters or now - adapter.created_at < SETTLED or waiting.names(adapter.name):
                done["kept"].append(adapter.name)
            else:
                do("unloaded", adapter.name, partial(adapters.unload, adapter.name))
        for name, artifact_uri in sorted(routed_adapters.items()) if awake else ():
            if artifact_uri is not None and name not in {adapter.name for adapter in loaded_adapters}:
                do("loaded", name, partial(adapters.load, name, artifact_uri))
    return Upkeep(tuple(done["kept"]), tuple(done["unloaded"]), tuple(done["loaded"]), tuple(done["failed"]), left)


def unload_all(adapters: Adapters, *, pause: Callable[[], None], time_is_left: Callable[[], bool]) -> Upkeep:
    """Unload every adapter and wait until they are gone, because only then can the base model, and with it the
    endpoint, be deleted."""
    names: dict[str, None] = {}
    while (remaining := [*adapters.iterate_loaded()]) and time_is_left():
        for adapter in remaining:
            if adapter.status != "Deleting":
                try:
                    adapters.unload(adapter.name)
                    names[adapter.name] = None
                except Conflict:  # it is still being loaded: the next round asks again
                    continue
        pause()
    return Upkeep((), tuple(names), (), (), len(remaining))


def _list_components(policy: Policy, endpoint: str) -> Iterator[tuple[str, str | None]]:
    """The adapters of `endpoint` that a policy asks, each with the URI of its weights, if that is known."""
    for backend in (policy.backend, *policy.fallbacks):
        if isinstance(backend, SageMakerBackend) and backend.component and find_adapter_owner(backend.component, endpoint):
            own = policy.adapter if policy.adapter is not None and policy.adapter.name == backend.component else None
            yield backend.component, own.artifact_uri if own is not None else None


def _list_routed(records: PolicyRecords, tenant_id: str, endpoint: str) -> Iterator[tuple[str, str | None]]:
    """The adapters that the tenant's routes name, or would name again after a rollback."""
    for route in list_all(records, Route, tenant_id, ROUTE_PREFIX):
        targets = [route.target, *([route.last_good] if route.last_good is not None else [])]
        policy_ids = {target.control for target in targets} | {arm.policy_id for target in targets for arm in target.arms}
        for policy_id in sorted(policy_ids):
            yield from _list_components(records.get_policy(tenant_id, policy_id), endpoint)


class _Waiting:
    """The tenant's adapters that no route names yet: the newest one of each skill. It reads the registry when it is
    first needed."""

    def __init__(self, records: PolicyRecords, tenant_id: str, endpoint: str) -> None:
        self._records, self._tenant_id, self._endpoint = records, tenant_id, endpoint
        self._skills: list[str] | None = None
        self._newest: dict[str, frozenset[str]] = {}

    def names(self, name: str) -> bool:
        """Whether `name` is the newest adapter of its skill."""
        if self._skills is None:
            self._skills = [skill.skill for skill in list_all(self._records, Skill, self._tenant_id, SKILL_PREFIX)]
        version = int(name.removesuffix("--sft").rpartition("--v")[2])
        owners = [skill for skill in self._skills if make_adapter_name(self._endpoint, self._tenant_id, skill, version) == name]
        return any(name in self._find_newest(skill) for skill in owners)

    def _find_newest(self, skill: str) -> frozenset[str]:
        if skill not in self._newest:
            page = self._records.list(Policy, self._tenant_id, policy_prefix(skill), limit=_NEWEST, newest_first=True)
            components_by_policy = (
                [component for component, _ in _list_components(stored.record, self._endpoint)] for stored in page.items
            )
            self._newest[skill] = frozenset(next((components for components in components_by_policy if components), []))
        return self._newest[skill]
