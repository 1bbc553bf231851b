"""Conditional writes of one item, which budgets need, in memory and on DynamoDB."""

from datetime import timedelta

import pytest

from rlaas.errors import QuotaExceeded
from rlaas.metering.budgets import Amount, Budget, Budgets, Cap, Charge, SpendingRequest, list_charges
from rlaas.metering.counters import WHOLE, Counters, SetMember, Write
from rlaas.metering.ledger import build_release, count_today, find_spent_arms, read_window, reserve, settle
from rlaas.metering.shards import SHARED
from tests.fakes.worlds import NOW, SKILL, TENANT

REQUEST = SpendingRequest(skill=SKILL, key_id="k" * 26, capped=(f"{SKILL}@v2", Cap(requests=2)))
BUDGETS = Budgets(
    budgets=(
        Budget(name="spend", measure="usd", limit=1.0, window="month"),
        Budget(name="rate", scope="skill", skill=SKILL, measure="requests", limit=10, window="second"),
    )
)
CENT = Amount(tokens=100, nano_usd=300_000_000)


def stands(counters: Counters, charge: Charge) -> tuple[int, int]:
    """What the charge's window has spent, and how much of that is set aside."""
    return read_window(counters.read(TENANT), charge.counter, charge.start)


def test_a_write_happens_whole_or_not_at_all_and_tells_the_item(counters: Counters) -> None:
    assert counters.read(TENANT) == {}
    first = counters.write(TENANT, Write(at_most={"n": 4}, lacks=SetMember("ids", "a"), mark=SetMember("ids", "a"), add={"n": 5, "m": -1}))
    first_item = {"n": 5, "m": -1, "ids": frozenset("a")}
    assert first == (True, first_item)
    assert counters.write(TENANT, Write(at_most={"n": 4}, add={"n": 1})) == (False, first_item)
    assert counters.write(TENANT, Write(lacks=SetMember("ids", "a"), add={"n": 1})) == (False, first_item)
    assert counters.write(TENANT, Write(has=SetMember("ids", "b"), add={"n": 1})) == (False, first_item)
    assert counters.write(TENANT, Write(has=SetMember("no such", "b"), add={"n": 1})) == (False, first_item)
    assert counters.write(TENANT, Write(at_most={"n": 5}, mark=SetMember("ids", "b"), add={"n": 2})).item["ids"] == frozenset("ab")
    for stale in ({"ids": frozenset("a")}, {"n": None}, {"absent": 0}):
        assert not counters.write(TENANT, Write(unchanged=stale, remove=["ids"], add={"m": 1})).applied
    fresh = Write(unchanged={"ids": frozenset("ba"), "absent": None, "n": 7}, remove=["m"], put={"last": 9}, unmark=SetMember("ids", "a"))
    assert counters.write(TENANT, fresh) == (True, {"n": 7, "last": 9, "ids": frozenset("b")})
    assert counters.write(TENANT, Write(has=SetMember("ids", "b"), unmark=SetMember("ids", "b"))) == (True, {"n": 7, "last": 9})
    assert counters.read(TENANT) == {"n": 7, "last": 9}
    assert counters.read("another") == {}


def test_a_reservation_is_settled_released_and_settled_late(counters: Counters) -> None:
    all_charges = list_charges(BUDGETS, REQUEST, now=NOW)
    reservations = [reserve(counters, TENANT, all_charges, CENT, reservation_id=f"r{n}", now=NOW, lifetime_s=30) for n in range(3)]
    with pytest.raises(QuotaExceeded) as refused:
        reserve(counters, TENANT, all_charges, CENT, reservation_id="r3", now=NOW, lifetime_s=30)
    assert refused.value.retry_after_s == 1
    assert find_spent_arms(counters.read(TENANT), {f"{SKILL}@v2": Cap(requests=3)}, now=NOW) == {f"{SKILL}@v2"}
    assert reservations[0] is not None
    assert reservations[1] is not None
    settle(counters, reservations[0], Amount(tokens=90, nano_usd=100_000_000), now=NOW)
    settle(counters, reservations[0], Amount(tokens=90, nano_usd=100_000_000), now=NOW)
    assert stands(counters, all_charges[0]) == (700_000_000, 600_000_000)
    later = NOW + timedelta(seconds=120)
    release = build_release(counters.read(TENANT), later)
    assert release is not None
    assert counters.write(TENANT, release).applied
    assert not counters.write(TENANT, release).applied
    assert stands(counters, all_charges[0]) == (100_000_000, 0)
    for _ in range(2):
        settle(counters, reservations[1], Amount(tokens=1, nano_usd=50_000_000), now=later)
    assert stands(counters, all_charges[0]) == (150_000_000, 0)


def test_so_many_a_day_are_counted_and_yesterdays_are_forgotten(counters: Counters) -> None:
    def count_three(hours: int) -> list[int | None]:
        return [count_today(counters, TENANT, "runs", most=2, now=NOW + timedelta(hours=hours)) for _ in range(3)]

    assert count_three(0) == [None, None, 12 * 3600]
    assert count_three(13) == [None, None, 23 * 3600]
    assert [*counters.read(TENANT).values()] == [2]
    assert count_today(counters, TENANT, "runs", most=0, now=NOW) is not None


def test_what_is_over_goes_with_the_settlements_of_those_who_saw_it(counters: Counters) -> None:
    for second in range(0, 1200, 40):
        now = NOW + timedelta(seconds=second)
        reservation = reserve(
            counters,
            TENANT,
            list_charges(BUDGETS, REQUEST, now=now),
            Amount(nano_usd=1),
            reservation_id=f"r{second}",
            now=now,
            lifetime_s=30,
        )
        assert reservation is not None
        settle(counters, reservation, Amount(nano_usd=1), now=now)
    assert len(counters.read(TENANT)) < 12


def test_what_shards_count_is_the_tenants_and_room_moves_whole_or_not_at_all(counters: Counters) -> None:
    there = [Write(at_most={"n": 10 - 4}, add={"n": 4}, put={SHARED: 1}), Write(at_most={"n": -4}, add={"n": 4})]
    here = Write(add={"n": -4}, put={SHARED: 1})
    assert counters.move(TENANT, {WHOLE: there[0], 3: here})
    assert not counters.move(TENANT, {3: there[1], 5: Write(at_most={"n": -1}, add={"n": -4})})
    assert counters.write(TENANT, Write(at_most={"n": -3}, add={"n": 3}), shard=3) == (True, {"n": -1, SHARED: 1})
    assert not counters.write(TENANT, Write(at_most={"n": -2}, add={"n": 2}), shard=3).applied
    assert not counters.write(TENANT, Write(at_most={"n": -2}, add={"n": 2}), shard=4).applied
    assert counters.read_shards(TENANT) == {WHOLE: {"n": 4, SHARED: 1}, 3: {"n": -1, SHARED: 1}}
    assert counters.read(TENANT)["n"] == 3
    assert counters.read_shards("another") == {}


def test_no_shard_refuses_while_another_has_room_and_what_is_refused_has_room_nowhere(counters: Counters) -> None:
    all_charges = list_charges(BUDGETS, REQUEST, now=NOW)
    shards = (4, WHOLE, 9)
    for number, shard in enumerate(shards):
        assert reserve(counters, TENANT, all_charges, CENT, reservation_id=f"r{number}", now=NOW, lifetime_s=30, shard=shard)
    for shard in shards:
        with pytest.raises(QuotaExceeded, match=r"'spend' of \$1 a month has no room: \$0.9"):
            reserve(counters, TENANT, all_charges, CENT, reservation_id="r3", now=NOW, lifetime_s=30, shard=shard)
        small = Amount(nano_usd=30_000_000)
        assert reserve(counters, TENANT, all_charges, small, reservation_id=f"s{shard}", now=NOW, lifetime_s=30, shard=shard)
    assert stands(counters, all_charges[0]) == (990_000_000, 990_000_000)
    assert find_spent_arms(counters.read(TENANT), {f"{SKILL}@v2": Cap(requests=6)}, now=NOW) == {f"{SKILL}@v2"}


def test_a_shard_that_only_counts_is_the_tenants_too(counters: Counters) -> None:
    uncapped = list_charges(Budgets(), REQUEST, now=NOW)
    reserve(counters, TENANT, uncapped, Amount(), reservation_id="r", now=NOW, lifetime_s=30, shard=2)
    assert find_spent_arms(counters.read(TENANT), {f"{SKILL}@v2": Cap(requests=1)}, now=NOW) == {f"{SKILL}@v2"}


@pytest.mark.parametrize("shard", [WHOLE, 9])
def test_what_a_shard_got_back_serves_the_tenants_other_items(counters: Counters, shard: int) -> None:
    all_charges = list_charges(BUDGETS, REQUEST, now=NOW)
    most = Amount(nano_usd=950_000_000)
    reservation = reserve(counters, TENANT, all_charges, most, reservation_id="r", now=NOW, lifetime_s=30, shard=4)
    assert reservation is not None
    settle(counters, reservation, Amount(nano_usd=50_000_000), now=NOW)
    assert reserve(counters, TENANT, all_charges, most, reservation_id="s", now=NOW, lifetime_s=30, shard=shard)
    assert stands(counters, all_charges[0]) == (1_000_000_000, 950_000_000)
