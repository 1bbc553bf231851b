"""Each tenant's budgets and prices, from the registry."""

from datetime import datetime, timedelta

from rlaas.clock import Clock
from rlaas.inference.spending import Spending
from rlaas.tenancy.budgets import stored_budgets
from rlaas.tenancy.counters import Counters
from rlaas.tenancy.prices import current_prices
from rlaas.tenancy.registry import Registry

REMEMBERED = timedelta(seconds=10)
"""How long budgets and prices are remembered, and so how late a change of them may be heard."""


class Spendings:
    """Spendings by tenant; a tenant's budgets and prices are read again when they are ten seconds old."""

    def __init__(self, documents: Registry, counters: Counters, *, clock: Clock, lifetime_s: int) -> None:
        self._documents = documents
        self._counters = counters
        self._clock = clock
        self._lifetime_s = lifetime_s
        self._known: dict[str, tuple[datetime, Spending]] = {}

    def of(self, tenant_id: str) -> Spending:
        """The tenant's spending. Raises: DependencyUnavailable."""
        now = self._clock()
        known = self._known.get(tenant_id)
        if known is None or now - known[0] > REMEMBERED:
            budgets = stored_budgets(self._documents, tenant_id).document
            known = (now, Spending(self._counters, budgets, current_prices(self._documents, tenant_id), self._lifetime_s))
            self._known[tenant_id] = known
        return known[1]
