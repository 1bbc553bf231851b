"""Ceilings: how much the platform lets a tenant have, whatever the tenant's own administrators say.

They lie beside the tenant's budgets under a key of their own, so that one query reads both, and neither side's changes
are in the way of the other's.
"""

from datetime import UTC, datetime
from typing import Annotated, Self

from pydantic import Field, model_validator

from rlaas.errors import Conflict, NotFound, QuotaExceeded
from rlaas.metering.budgets import BUDGETS, Budgets, Limit, ceiling_counter
from rlaas.tenancy.registry import Change, Registry, Stored, Written, replace_record
from rlaas.wire import WireModel

CEILINGS = f"{BUDGETS}#CEILINGS"
"""The sort key of a tenant's ceilings in the registry."""

_Count = Annotated[int, Field(ge=0, le=1_000_000)]


class Ceilings(WireModel):
    """The most that a tenant may have; what is left out is not capped.

    `spending` counts everything that models are asked for the tenant, mirrored requests too. `adapters` are loaded at
    the endpoint at a time, `skills` and `policies_per_skill` are made through the API; what there is already stays.
    """

    spending: tuple[Limit, ...] = Field(default=(), max_length=8)
    requests_per_second: Annotated[int, Field(ge=1, le=100_000)] | None = None
    learning_runs_per_day: _Count | None = None
    adapters: _Count | None = None
    skills: _Count | None = None
    policies_per_skill: _Count | None = None

    @model_validator(mode="after")
    def _limits_each_once(self) -> Self:
        counters = [ceiling_counter(limit) for limit in self.spending]
        if len(counters) != len(set(counters)):
            raise ValueError("two of spending limit the same measure in the same window")
        return self


class TenantLimits(Budgets, Ceilings):
    """What a tenant may spend, by its own budgets and by the platform's ceilings."""


def stored_ceilings(registry: Registry, tenant_id: str) -> Stored[Ceilings]:
    """The tenant's ceilings; none, of version 0, for a tenant that has none. Raises: DependencyUnavailable."""
    try:
        return registry.get(Ceilings, tenant_id, CEILINGS)
    except NotFound:
        return Stored(Ceilings(), 0, Change(actor="", reason="", at=datetime.fromtimestamp(0, UTC)))


def put_ceilings(registry: Registry, tenant_id: str, ceilings: Ceilings, *, expected_version: int, change: Change) -> Written[Ceilings]:
    """Put the tenant's ceilings in the place of version `expected_version`. Raises: Conflict when another is there."""
    current = stored_ceilings(registry, tenant_id)
    try:
        return replace_record(registry, tenant_id, CEILINGS, ceilings, current=current, expected_version=expected_version, change=change)
    except Conflict:
        raise Conflict(f"the ceilings are no longer at version {expected_version}", param="expected_version") from None


def limits_of(registry: Registry, tenant_id: str) -> TenantLimits:
    """Budgets and ceilings, by one query. Raises: DependencyUnavailable."""
    parts = [stored.record for stored in registry.list(TenantLimits, tenant_id, BUDGETS).items]
    return TenantLimits(**{name: getattr(part, name) for part in parts for name in part.model_fields_set})


def check_ceiling(most: int | None, count: int, what: str) -> None:
    """Check that a tenant that has `count` may have one more, where the platform allows `most` (None: any number).

    Raises: QuotaExceeded.
    """
    if most is not None and count >= most:
        raise QuotaExceeded(f"the platform's ceiling for this tenant is {most} {what}, and there are {count}: ask its operators for more")
