"""Each tenant's budgets and prices, from the registry."""

from datetime import datetime

from rlaas.clock import Clock
from rlaas.inference.spending import Spending
from rlaas.metering.ledger import Counters
from rlaas.metering.prices import PriceTable, current_prices
from rlaas.runtime.limits import REMEMBERED, Limits
from rlaas.tenancy.registry import Registry


class Spendings:
    """Spendings by tenant; a tenant's prices are read again when they are ten seconds old, as `limits` reads the rest."""

    def __init__(self, records: Registry, counters: Counters, limits: Limits, *, clock: Clock, lifetime_s: int) -> None:
        self._records = records
        self._counters = counters
        self._limits = limits
        self._clock = clock
        self._lifetime_s = lifetime_s
        self._known: dict[str, tuple[datetime, PriceTable]] = {}

    def of(self, tenant_id: str) -> Spending:
        """The tenant's spending. Raises: DependencyUnavailable."""
        now = self._clock()
        known = self._known.get(tenant_id)
        if known is None or now - known[0] > REMEMBERED:
            known = self._known[tenant_id] = (now, current_prices(self._records, tenant_id))
        limits = self._limits.of(tenant_id)
        return Spending(self._counters, limits, known[1], self._lifetime_s, ceilings=limits.spending)
