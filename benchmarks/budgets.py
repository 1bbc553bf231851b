"""How many requests a second a tenant with budgets may send: the gateway's own reservations and settlements against
items that bear what DynamoDB publishes.

An item bears a thousand write units a second. A write takes a unit for each KB of its item, in a transaction two; one
that its condition or the limit refuses takes them too. Requests come at random moments and last `REQUEST_S` seconds;
each is served by the environment that was free last, as on Lambda, which remembers which of the tenant's items it
writes to. Time is simulated; what is counted, moved and refused is not.
"""

import heapq
import math
import random
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from benchmarks.result import report
from rlaas.errors import DependencyUnavailable, QuotaExceeded
from rlaas.metering.budgets import Amount, Budget, Budgets, SpendingRequest, list_charges
from rlaas.metering.counters import WHOLE, CounterItem, Overloaded, Write, Written
from rlaas.metering.ledger import Reservation, reserve, settle
from rlaas.metering.shards import ShardChoice, announce_shard
from tests.fakes.counters import MemoryCounters
from tests.fakes.worlds import NOW, SKILL, TENANT

UNITS_A_SECOND = 1_000
REQUEST_S = 2.0
LIFETIME_S = 30
SECONDS = 10
RATES = (1, 50, 130, 500, 2_000)
ATTEMPTS = 3
"""How often botocore sends a throttled write; it waits up to `2 ** n` tenths of a second before the next."""
ESTIMATE = Amount(tokens=2_000, nano_usd=4_000_000)
SPENT = Amount(tokens=900, nano_usd=1_500_000)
BUDGETS = Budgets(
    budgets=(
        Budget(name="month", measure="usd", limit=1_000_000, window="month"),
        Budget(name="day", measure="tokens", limit=10**12, window="day", scope="skill", skill=SKILL),
        Budget(name="minute", measure="requests", limit=1_000_000, window="minute"),
        Budget(name="second", measure="requests", limit=100_000, window="second"),
    )
)


@dataclass
class LimitedCounters(MemoryCounters):
    """Items that refuse a write which is more than they bear in a second (of `clock_s`)."""

    clock_s: float = 0.0
    units: float = 0.0
    """Write units taken so far."""
    taken: dict[tuple[int, int], float] = field(default_factory=lambda: defaultdict(float))

    def write(self, tenant_id: str, write: Write, *, shard: int = WHOLE) -> Written:
        """As in memory. Raises: Overloaded."""
        self._take(tenant_id, shard, times=1)
        return super().write(tenant_id, write, shard=shard)

    def move(self, tenant_id: str, writes: Mapping[int, Write]) -> bool:
        """As in memory. Raises: Overloaded."""
        for shard in writes:
            self._take(tenant_id, shard, times=2)
        return super().move(tenant_id, writes)

    def _take(self, tenant_id: str, shard: int, *, times: int) -> None:
        units = times * max(1, math.ceil(count_bytes(self.items.get((tenant_id, shard), {})) / 1024))
        second = shard, math.floor(self.clock_s)
        if self.taken[second] + units > UNITS_A_SECOND:
            raise Overloaded("throttled")
        self.taken[second] += units
        self.units += units


def count_bytes(item: CounterItem) -> int:
    """An item's bytes by DynamoDB's rules: names, a byte for two digits and one more, a set's texts and three."""
    return 40 + sum(
        len(name) + (3 + sum(len(text) + 1 for text in value) if isinstance(value, frozenset) else len(str(value)) // 2 + 2)
        for name, value in item.items()
    )


@dataclass
class Tenant:
    """A tenant's requests through environments that each serve one at a time."""

    budgets: Budgets
    shards: bool
    counters: LimitedCounters = field(default_factory=LimitedCounters)
    chance: random.Random = field(default_factory=lambda: random.Random(1))
    served: int = 0
    out_of_budget: int = 0
    throttled_at_s: list[float] = field(default_factory=list)
    lost_settlements: int = 0

    @property
    def sent(self) -> int:
        """Requests that were sent."""
        return self.served + self.out_of_budget + len(self.throttled_at_s)

    def send(self, rate: float, seconds: int) -> None:
        """Send `rate` requests a second for so many `seconds`, and let all of them end."""
        free: list[ShardChoice] = []
        ends: list[tuple[float, int, ShardChoice, Reservation]] = []
        number = 0
        at = self.chance.expovariate(rate)
        while at < seconds or ends:
            if ends and (at >= seconds or ends[0][0] <= at):
                moment, _, choice, reservation = heapq.heappop(ends)
                self._settle(moment, choice, reservation)
                free.append(choice)
                continue
            number += 1
            choice = free.pop() if free else ShardChoice(self.chance.randrange)
            reserved = self._reserve(at, choice, f"r{number:09}")
            if reserved is None:
                free.append(choice)
            else:
                heapq.heappush(ends, (at + REQUEST_S, number, choice, reserved))
            at += self.chance.expovariate(rate)

    def _reserve(self, at_s: float, choice: ShardChoice, name: str) -> Reservation | None:
        now = NOW + timedelta(seconds=at_s)
        due = list_charges(self.budgets, SpendingRequest(skill=SKILL, key_id="k"), now=now)
        for attempt in range(ATTEMPTS):
            self.counters.clock_s = at_s + 0.1 * (2**attempt - 1)
            shard = choice.choose(TENANT, now=now) if self.shards else WHOLE
            try:
                reservation = reserve(
                    self.counters, TENANT, due, ESTIMATE, reservation_id=name, now=now, lifetime_s=LIFETIME_S, shard=shard
                )
            except QuotaExceeded:
                self.out_of_budget += 1
                return None
            except Overloaded:
                choice.note_overload(TENANT, now=now)
                continue
            except DependencyUnavailable:
                break
            self.served += 1
            if reservation is not None and reservation.is_busy:
                choice.note_overload(TENANT, now=now)
            return reservation
        self.throttled_at_s.append(at_s)
        return None

    def _settle(self, at_s: float, choice: ShardChoice, reservation: Reservation) -> None:
        for attempt in range(ATTEMPTS):
            self.counters.clock_s = at_s + 0.1 * (2**attempt - 1)
            try:
                settle(self.counters, reservation, SPENT, now=NOW + timedelta(seconds=at_s))
            except Overloaded:
                choice.note_overload(TENANT, now=NOW + timedelta(seconds=at_s))
            else:
                return
        self.lost_settlements += 1


def throttled_ratios() -> dict[str, float]:
    """For each rate, from nothing and at once: the share of the first five seconds' requests that are throttled with
    one item and with shards, of those thereafter, of settlements that are lost, and the write units of a request."""
    figures: dict[str, float] = {}
    for rate in RATES:
        for name, shards in (("one_item", False), ("shards", True)):
            tenant = Tenant(BUDGETS, shards)
            tenant.send(rate, SECONDS)
            later = sum(at_s >= SECONDS / 2 for at_s in tenant.throttled_at_s)
            figures |= {
                f"{name}_{rate}_per_s_at_first_throttled_ratio": (len(tenant.throttled_at_s) - later) / (rate * SECONDS / 2),
                f"{name}_{rate}_per_s_then_throttled_ratio": later / (rate * SECONDS / 2),
                f"{name}_{rate}_per_s_lost_settlement_ratio": tenant.lost_settlements / max(1, tenant.served),
                f"{name}_{rate}_per_s_units_per_request": tenant.counters.units / tenant.sent,
            }
    return figures


def at_the_end_of_a_budget() -> dict[str, float]:
    """Of a budget for 1,000 requests, at 100 a second for 20 seconds, in one item and in shards: the share that is
    spent when all has settled, by how much it is overspent, and the share of requests that got 503."""
    figures: dict[str, float] = {}
    limit = 1_000 * SPENT.nano_usd / 1e9
    for name, shards in (("one_item", False), ("shards", True)):
        tenant = Tenant(Budgets(budgets=(Budget(name="day", measure="usd", limit=limit, window="day"),)), shards)
        if shards:
            announce_shard(tenant.counters, TENANT, 1, now=NOW)
        tenant.send(100, 20)
        spent = tenant.served * SPENT.nano_usd / 1e9
        figures[f"{name}_end_of_budget_spent_ratio"] = spent / limit
        figures[f"{name}_end_of_budget_overspent_ratio"] = max(0.0, spent - limit) / limit
        figures[f"{name}_end_of_budget_throttled_ratio"] = len(tenant.throttled_at_s) / tenant.sent
    return figures


def main() -> None:
    """Simulate and report."""
    report("budgets", "make bench-budgets", {**throttled_ratios(), **at_the_end_of_a_budget()})


if __name__ == "__main__":
    main()
