"""Each tenant's budgets and ceilings, from the registry, remembered for a moment by whatever lets requests in and pays for them."""

from datetime import datetime, timedelta

from rlaas.clock import Clock
from rlaas.metering.ceilings import TenantLimits, limits_of
from rlaas.tenancy.registry import Registry

REMEMBERED = timedelta(seconds=10)
"""How long budgets, ceilings and prices are remembered, and so how late a change of them may be heard."""


class Limits:
    """Limits by tenant; a tenant's are read again when they are ten seconds old."""

    def __init__(self, records: Registry, *, clock: Clock) -> None:
        self._records = records
        self._clock = clock
        self._known: dict[str, tuple[datetime, TenantLimits]] = {}

    def of(self, tenant_id: str) -> TenantLimits:
        """The tenant's limits. Raises: DependencyUnavailable."""
        now = self._clock()
        known = self._known.get(tenant_id)
        if known is None or now - known[0] > REMEMBERED:
            known = self._known[tenant_id] = (now, limits_of(self._records, tenant_id))
        return known[1]
