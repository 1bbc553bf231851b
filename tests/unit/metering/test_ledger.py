"""Budgets under whatever can happen: requests side by side, writes sent twice, answers lost, processes killed, time
passing."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from rlaas.errors import QuotaExceeded
from rlaas.metering.budgets import NOTHING, Amount, Budget, Budgets, Cap, Charge, SpendingRequest, Window, find_window_start, list_charges
from rlaas.metering.counters import WHOLE, Counters, Write, Written
from rlaas.metering.ledger import GRACE, Reservation, find_spent_arms, read_window, reserve, settle
from tests.fakes.counters import MemoryCounters
from tests.fakes.worlds import NOW, SKILL, TENANT

LIFETIME = 30
REQUEST = SpendingRequest(skill=SKILL, key_id="k" * 26)
DAY = Budgets(budgets=(Budget(name="spend", measure="usd", limit=1.0, window="day"),))


def find_charges(budgets: Budgets, now: datetime = NOW, request: SpendingRequest = REQUEST) -> tuple[Charge, ...]:
    return list_charges(budgets, request, now=now)


def read_standing(counters: Counters, charge: Charge) -> tuple[int, int]:
    """What the charge's window has spent, and how much of that is set aside."""
    return read_window(counters.read(TENANT), charge.counter, charge.start)


def reserve_budgets(
    counters: MemoryCounters, budgets: Budgets, amount: Amount, name: str, now: datetime = NOW, shard: int = WHOLE
) -> Reservation:
    due = find_charges(budgets, now)
    reservation = reserve(counters, TENANT, due, amount, reservation_id=name, now=now, lifetime_s=LIFETIME, shard=shard)
    assert reservation is not None
    return reservation


@dataclass
class Wire(MemoryCounters):
    """Writes arrive twice while `twice`: botocore sent one again because its answer was lost, and the second answer
    counts.

    `meanwhile` is what another process does after a request's first write and before its second.
    """

    twice: bool = False
    meanwhile: list[Callable[[], None]] = field(default_factory=list)
    seen: int = 0

    def write(self, tenant_id: str, write: Write, *, shard: int = WHOLE) -> Written:
        self.seen += 1
        if self.seen > 1 and self.meanwhile:
            self.meanwhile.pop()()
        if self.twice:
            super().write(tenant_id, write, shard=shard)
        return super().write(tenant_id, write, shard=shard)


@dataclass
class Flight:
    reservation: Reservation
    estimate: int
    start: int
    made_at: datetime
    settled: int | None = None
    crashed: bool = False


class Interleavings(RuleBasedStateMachine):
    """One hour budget of 1,000 tokens and one of 600 a minute, whose windows roll while reservations expire."""

    BUDGETS = Budgets(
        budgets=(
            Budget(name="hourly", measure="tokens", limit=1000, window="hour"),
            Budget(name="minutely", measure="tokens", limit=600, window="minute"),
        )
    )

    SHARDS: tuple[int, ...] = (WHOLE,)

    def __init__(self) -> None:
        super().__init__()
        self.shard = WHOLE
        self.counters = Wire()
        self.now = NOW
        self.flights: list[Flight] = []

    def spent(self, window: str) -> int:
        charge = next(charge for charge in find_charges(self.BUDGETS, self.now) if charge.window == window)
        return read_standing(self.counters, charge)[0]

    def truth(self, window: Window) -> tuple[int, int, int]:
        """What settled in the window, and what requests that did not settle hold of it: surely, as they have not
        expired, and at most."""
        start = find_window_start(window, self.now)
        inside = [flight for flight in self.flights if find_window_start(window, flight.made_at) == start]
        unsettled = [flight for flight in inside if flight.settled is None]
        surely = sum(flight.estimate for flight in unsettled if self._may_hold(flight))
        return sum(flight.settled or 0 for flight in inside), surely, sum(flight.estimate for flight in unsettled)

    @property
    def debts(self) -> int:
        """What requests in shards cost beyond their reservations, which other items do not see."""
        if self.SHARDS == (WHOLE,):
            return 0
        return sum(max(0, (flight.settled or 0) - flight.estimate) for flight in self.flights)

    @rule(data=st.data())
    def turn_to_another_item(self, data: st.DataObject) -> None:
        self.shard = data.draw(st.sampled_from(self.SHARDS))

    @rule(amount=st.integers(1, 150), twice=st.booleans(), data=st.data())
    def reserve(self, amount: int, twice: bool, data: st.DataObject) -> None:
        running = [flight for flight in self.flights if flight.settled is None and not flight.crashed]
        self.counters.seen, self.counters.twice = 0, twice
        if running:
            flight = data.draw(st.sampled_from(running))
            self.counters.meanwhile = [lambda: self._settle(flight, flight.estimate // 2)]
        before = {window: self.spent(window) for window in ("hour", "minute")}
        reservation, refusal = self._try(amount)
        self.counters.twice, self.counters.meanwhile = False, []
        if reservation is not None:
            self.flights.append(Flight(reservation, amount, find_window_start("hour", self.now), self.now))
            assert self.spent("hour") <= max(1000, before["hour"]) + self.debts
            return
        assert before["hour"] + amount > 1000 or before["minute"] + amount > 600
        assert refusal is not None
        assert 1 <= (refusal.retry_after_s or 0) <= 3600
        # What is refused for is spent, or held by a reservation that has not expired.
        settled, surely, _ = self.truth("hour")
        assert settled + surely + amount > 1000 or self.spent("minute") + amount > 600

    def _try(self, amount: int) -> tuple[Reservation, None] | tuple[None, QuotaExceeded]:
        try:
            name = f"r{len(self.flights)}"
            return reserve_budgets(self.counters, self.BUDGETS, Amount(tokens=amount), name, self.now, self.shard), None
        except QuotaExceeded as refusal:
            return None, refusal

    def _may_hold(self, flight: Flight) -> bool:
        return flight.reservation.bucket + GRACE > self.now.timestamp()

    def _settle(self, flight: Flight, truly: int) -> None:
        settle(self.counters, flight.reservation, Amount(tokens=truly), now=self.now)
        flight.settled = truly

    @rule(data=st.data(), share=st.floats(0, 1.5), twice=st.booleans())
    def settle(self, data: st.DataObject, share: float, twice: bool) -> None:
        running = [flight for flight in self.flights if flight.settled is None and not flight.crashed]
        if not running:
            return
        flight = data.draw(st.sampled_from(running))
        self.counters.twice = twice
        self._settle(flight, int(flight.estimate * share))
        self.counters.twice = False

    @rule(data=st.data(), twice=st.booleans())
    def settle_late(self, data: st.DataObject, twice: bool) -> None:
        """A slow request settles after another one saw that it had expired."""
        running = [flight for flight in self.flights if flight.settled is None and not flight.crashed]
        if not running:
            return
        flight = data.draw(st.sampled_from(running))
        self.now = max(self.now, datetime.fromtimestamp(flight.reservation.bucket + GRACE, UTC))
        self.reserve_one_token()
        self.counters.twice = twice
        self._settle(flight, flight.estimate // 3)
        self.counters.twice = False

    def reserve_one_token(self) -> None:
        reservation, _ = self._try(1)
        if reservation is not None:
            self.flights.append(Flight(reservation, 1, find_window_start("hour", self.now), self.now))

    @rule(data=st.data())
    def settle_again(self, data: st.DataObject) -> None:
        """A late duplicate of a settlement, while its reservation would still be open."""
        done = [flight for flight in self.flights if flight.settled is not None and self._may_hold(flight)]
        if done:
            flight = data.draw(st.sampled_from(done))
            settle(self.counters, flight.reservation, Amount(tokens=flight.settled or 0), now=self.now)

    @rule(data=st.data())
    def crash(self, data: st.DataObject) -> None:
        running = [flight for flight in self.flights if flight.settled is None]
        if running:
            data.draw(st.sampled_from(running)).crashed = True

    @rule(seconds=st.sampled_from([1, 7, 20, 35, 70, 70, 3700]))
    def wait(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @invariant()
    def never_less_than_what_was_spent_nor_more_than_that_and_what_may_be_held(self) -> None:
        for window in ("hour", "minute"):
            settled, surely, at_most = self.truth(window)
            assert settled + surely <= self.spent(window) <= settled + at_most

    @invariant()
    def over_the_limit_only_by_what_requests_cost_beyond_their_estimate(self) -> None:
        start = find_window_start("hour", self.now)
        beyond = sum(max(0, flight.settled - flight.estimate) for flight in self.flights if flight.settled and flight.start == start)
        late = sum(flight.settled or 0 for flight in self.flights if flight.start == start and not self._may_hold(flight))
        assert self.spent("hour") <= 1000 + beyond + late

    @invariant()
    def the_item_stays_small(self) -> None:
        marks = sum(len(value) for value in self.counters.read(TENANT).values() if isinstance(value, frozenset))
        assert marks <= len(self.flights)

    def teardown(self) -> None:
        """After the last reservation's expiry everything that nobody settled is given back."""
        self.now += timedelta(seconds=2 * LIFETIME + GRACE)
        for shard in self.SHARDS:
            try:
                reservation = reserve_budgets(self.counters, self.BUDGETS, Amount(tokens=1), f"last{shard}", self.now, shard)
            except QuotaExceeded:
                assert self.truth("hour")[0] >= 1000 or self.truth("minute")[0] >= 600
            else:
                settle(self.counters, reservation, NOTHING, now=self.now)
        start = find_window_start("hour", self.now)
        assert self.spent("hour") == sum(flight.settled or 0 for flight in self.flights if flight.start == start)
        assert not [name for name in self.counters.read(TENANT) if name.startswith("open ")]


Interleavings.TestCase.settings = settings(max_examples=150, stateful_step_count=40, suppress_health_check=[HealthCheck.too_slow])
TestInterleavings = Interleavings.TestCase


class InterleavingsOfShards(Interleavings):
    """The same while processes write to several items of the tenant."""

    SHARDS = (WHOLE, 1, 2)


InterleavingsOfShards.TestCase.settings = Interleavings.TestCase.settings
TestInterleavingsOfShards = InterleavingsOfShards.TestCase


def test_of_64_callers_at_once_exactly_as_many_are_served_as_there_is_room_for() -> None:
    counters = MemoryCounters()

    def call(number: int) -> float | None:
        try:
            reserve_budgets(counters, DAY, Amount(nano_usd=100_000_000), f"r{number}")
        except QuotaExceeded as refusal:
            return refusal.retry_after_s
        return 0.0

    with ThreadPoolExecutor(64) as callers:
        waits = list(callers.map(call, range(64)))
    assert waits.count(0.0) == 10
    assert waits.count(1) == 54


def test_one_write_reserves_and_one_settles_also_when_a_window_begins() -> None:
    counters = MemoryCounters()
    for number in range(10):
        now = NOW + timedelta(minutes=7 * number)
        reservation = reserve_budgets(counters, DAY, Amount(nano_usd=1000), f"r{number}", now)
        settle(counters, reservation, Amount(nano_usd=900), now=now + timedelta(seconds=2))
    assert counters.writes == 20


def test_a_crash_in_mid_flight_heals_by_expiry() -> None:
    counters = MemoryCounters()
    for number in range(10):
        reserve_budgets(counters, DAY, Amount(nano_usd=100_000_000), f"r{number}")
    soon = NOW + timedelta(seconds=LIFETIME)
    with pytest.raises(QuotaExceeded):
        reserve_budgets(counters, DAY, Amount(nano_usd=100_000_000), "early", soon)
    healed = NOW + timedelta(seconds=2 * LIFETIME + GRACE)
    reservation = reserve_budgets(counters, DAY, Amount(nano_usd=1_000_000_000), "healed", healed)
    assert read_standing(counters, reservation.charges[0]) == (1_000_000_000, 1_000_000_000)


def test_spent_money_says_when_the_window_ends_and_held_money_to_come_back_soon() -> None:
    counters = MemoryCounters()
    reservation = reserve_budgets(counters, DAY, Amount(nano_usd=1_000_000_000), "r1")
    with pytest.raises(QuotaExceeded) as refusal:
        reserve_budgets(counters, DAY, Amount(nano_usd=1), "r2")
    assert refusal.value.retry_after_s == 1
    settle(counters, reservation, Amount(nano_usd=1_000_000_000), now=NOW)
    with pytest.raises(QuotaExceeded, match=r"'spend' of \$1 a day has no room: \$1 are spent") as spent:
        reserve_budgets(counters, DAY, Amount(nano_usd=1), "r2")
    assert spent.value.retry_after_s == 12 * 3600


def test_a_request_larger_than_the_whole_budget_is_not_told_to_wait() -> None:
    counters = MemoryCounters()
    with pytest.raises(QuotaExceeded, match="is \\$1 a day in all") as refusal:
        reserve_budgets(counters, DAY, Amount(nano_usd=1_000_000_001), "r1")
    assert refusal.value.retry_after_s is None
    assert counters.writes == 0


def test_without_a_budget_nothing_is_written() -> None:
    counters = MemoryCounters()
    assert reserve(counters, TENANT, (), Amount(), reservation_id="r", now=NOW, lifetime_s=LIFETIME) is None
    assert counters.writes == 0


def test_a_settlement_after_the_window_leaves_the_new_one_alone() -> None:
    counters = MemoryCounters()
    reservation = reserve_budgets(counters, DAY, Amount(nano_usd=500_000_000), "r1", datetime(2026, 3, 1, 23, 59, 59, tzinfo=NOW.tzinfo))
    next_day = datetime(2026, 3, 2, 0, 0, 20, tzinfo=NOW.tzinfo)
    settle(counters, reservation, Amount(nano_usd=900_000_000), now=next_day)
    assert read_standing(counters, find_charges(DAY, next_day)[0]) == (0, 0)


def test_a_settlement_after_its_reservation_was_released_is_added_once() -> None:
    counters = MemoryCounters()
    slow = reserve_budgets(counters, DAY, Amount(nano_usd=500_000_000), "slow")
    later = NOW + timedelta(seconds=2 * LIFETIME + GRACE)
    reserve_budgets(counters, DAY, Amount(nano_usd=1), "another", later)
    assert read_standing(counters, find_charges(DAY)[0]) == (1, 1)
    for _ in range(2):
        settle(counters, slow, Amount(nano_usd=400_000_000), now=later)
    assert read_standing(counters, find_charges(DAY)[0]) == (400_000_001, 1)


def test_what_expires_after_its_window_is_not_given_back_to_any() -> None:
    counters = MemoryCounters()
    reserve_budgets(counters, DAY, Amount(nano_usd=500_000_000), "crashed", datetime(2026, 3, 1, 23, 59, 59, tzinfo=NOW.tzinfo))
    for hour in (1, 2, 3):
        now = datetime(2026, 3, 2, hour, tzinfo=NOW.tzinfo)
        reservation = reserve_budgets(counters, DAY, Amount(nano_usd=1), f"r{hour}", now)
        settle(counters, reservation, Amount(nano_usd=1), now=now)
        assert read_standing(counters, find_charges(DAY, now)[0]) == (hour, 0)
    assert {name.split(" ")[0] for name in counters.read(TENANT)} == {"spent", "held", "released"}
    assert len(counters.read(TENANT)) <= 4


def test_all_budgets_of_a_request_have_room_or_none_is_spent_from() -> None:
    counters = MemoryCounters()
    budgets = Budgets(
        budgets=(
            *DAY.budgets,
            Budget(name="skill", scope="skill", skill=SKILL, measure="requests", limit=1, window="hour"),
            Budget(name="other", scope="skill", skill="other", measure="requests", limit=0, window="hour"),
        )
    )
    reserve_budgets(counters, budgets, Amount(nano_usd=1), "r1")
    with pytest.raises(QuotaExceeded, match="'skill' of 1 requests a hour"):
        reserve_budgets(counters, budgets, Amount(nano_usd=1), "r2")
    assert read_standing(counters, find_charges(budgets)[0]) == (1, 1)


def test_an_arm_is_spent_from_its_cap_on_and_until_midnight() -> None:
    counters = MemoryCounters()
    caps = {f"{SKILL}@v2": Cap(requests=2, usd=5.0), f"{SKILL}@v3": Cap(usd=0.0)}
    request = SpendingRequest(skill=SKILL, key_id="k" * 26, capped=(f"{SKILL}@v2", caps[f"{SKILL}@v2"]))
    assert find_spent_arms({}, caps, now=NOW) == {f"{SKILL}@v3"}
    for number in range(3):  # a cap is counted, not enforced: who is assigned is served
        reserve(
            counters, TENANT, find_charges(Budgets(), NOW, request), Amount(), reservation_id=f"r{number}", now=NOW, lifetime_s=LIFETIME
        )
        assert (f"{SKILL}@v2" in find_spent_arms(counters.read(TENANT), caps, now=NOW)) == (number >= 1)
    assert find_spent_arms(counters.read(TENANT), caps, now=NOW + timedelta(hours=12)) == {f"{SKILL}@v3"}
