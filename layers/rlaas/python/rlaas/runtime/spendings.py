"""Each tenant's budgets and prices, from the registry."""

from functools import partial

from rlaas.clock import Clock
from rlaas.inference.spending import Spending
from rlaas.metering.ceilings import TenantLimits
from rlaas.metering.counters import Counters
from rlaas.metering.prices import find_current_prices
from rlaas.metering.shards import ShardChoice
from rlaas.runtime.remembered import Remembered
from rlaas.tenancy.registry import Registry


class Spendings:
    """Spendings by tenant; prices are remembered as long as `limits`. A reservation lives `lifetime_s` seconds."""

    def __init__(self, records: Registry, counters: Counters, limits: Remembered[TenantLimits], *, clock: Clock, lifetime_s: int) -> None:
        self._counters = counters
        self._limits = limits
        self._prices = Remembered(partial(find_current_prices, records), clock=clock)
        self._lifetime_s = lifetime_s
        self._shards = ShardChoice()

    def of(self, tenant_id: str) -> Spending:
        """The tenant's spending. Raises: DependencyUnavailable."""
        prices, limits = self._prices.of(tenant_id), self._limits.of(tenant_id)
        return Spending(self._counters, limits, prices, self._lifetime_s, ceilings=limits.spending, shards=self._shards)
