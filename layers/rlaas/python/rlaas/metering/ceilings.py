"""Ceilings: how much the platform lets a tenant have, whatever the tenant's own administrators say.

They lie beside the tenant's budgets under a key of their own, so that one query reads both, and neither side's changes
are in the way of the other's.
"""

from typing import Annotated, Self

from pydantic import Field, model_validator

from rlaas.errors import QuotaExceeded
from rlaas.metering.budgets import BUDGETS, Budgets, Limit, name_ceiling_counter
from rlaas.tenancy.registry import Registry, Stored, find_record
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
        counters = [name_ceiling_counter(limit) for limit in self.spending]
        if len(counters) != len(set(counters)):
            raise ValueError("two of spending limit the same measure in the same window")
        return self


class TenantLimits(Budgets, Ceilings):
    """What a tenant may spend, by its own budgets and by the platform's ceilings."""


def find_ceilings(registry: Registry, tenant_id: str) -> Stored[Ceilings]:
    """The tenant's ceilings; none, of version 0, for a tenant that has none. Raises: DependencyUnavailable."""
    return find_record(registry, Ceilings, tenant_id, CEILINGS)


def read_limits(registry: Registry, tenant_id: str) -> TenantLimits:
    """Budgets and ceilings, by one query. Raises: DependencyUnavailable."""
    parts = [stored.record for stored in registry.list(TenantLimits, tenant_id, BUDGETS).items]
    return TenantLimits(**{name: getattr(part, name) for part in parts for name in part.model_fields_set})


def check_ceiling(most: int | None, count: int, what: str) -> None:
    """Check that a tenant that has `count` may have one more, where the platform allows `most` (None: any number).

    Raises: QuotaExceeded.
    """
    if most is not None and count >= most:
        raise QuotaExceeded(f"the platform's ceiling for this tenant is {most} {what}, and there are {count}: ask its operators for more")
