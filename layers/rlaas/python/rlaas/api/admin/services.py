"""What the admin API works with."""

from dataclasses import dataclass
from typing import Protocol

from pydantic import JsonValue

from rlaas.clock import Clock
from rlaas.learning.adapter_upkeep import Adapters
from rlaas.metering.counters import Counters
from rlaas.policies.allowed_models import EVERY_MODEL, AllowedModels
from rlaas.policies.bundle import SecretHosts
from rlaas.policies.policy_store import Policies
from rlaas.rollout.conduct import RollbackAlarms
from rlaas.rollout.trial import TrialStore
from rlaas.routing.route_store import Routes
from rlaas.telemetry.store import EventStore
from rlaas.telemetry.usage import UsageStore
from rlaas.tenancy.audit import AuditLog, RegistryContents
from rlaas.tenancy.keys import KeySource
from rlaas.tenancy.redrive import Redriver
from rlaas.tenancy.registry import Page, Registry
from rlaas.tenancy.tenant import Tenant


class Records(Registry, Routes, Policies, KeySource, RegistryContents, Protocol):
    """Everything the registry's adapter serves."""


class Tenants(Protocol):
    """All tenants, for the platform."""

    def list(self, *, limit: int, cursor: str | None) -> Page[Tenant]:
        """Some tenants in no particular order. Raises: InvalidInput on a bad cursor."""
        ...


class Executions(Protocol):
    """Starts executions of one state machine."""

    def start(self, name: str, payload: dict[str, JsonValue]) -> None:
        """Start the execution `name` once. Raises: DependencyUnavailable."""
        ...


@dataclass(frozen=True, slots=True)
class Services:
    """What the admin API works with. The settings are the stage's, under those that a request gives."""

    records: Records
    tenants: Tenants
    events: EventStore
    audit: AuditLog
    guards: RollbackAlarms
    trials: TrialStore
    counters: Counters
    usage: UsageStore
    learning: Executions
    rollout: Executions
    adapters: Adapters
    redriver: Redriver
    clock: Clock
    endpoint: str
    base_model: str
    learning_settings: dict[str, JsonValue]
    rollout_settings: dict[str, JsonValue]
    secrets: SecretHosts
    allowed: AllowedModels = EVERY_MODEL
