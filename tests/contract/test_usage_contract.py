"""Usage: every output counts once, however often and in whatever batches a stream delivers it."""

from datetime import date, timedelta

import pytest

from rlaas.chat import Usage
from rlaas.telemetry.events import FeedbackSubmitted, OutputProduced
from rlaas.telemetry.ingest import prepare
from rlaas.telemetry.store import StoredEvent
from rlaas.telemetry.usage import Tally, UsageStore, group_tallies
from tests.fakes.worlds import NOW, SKILL, TENANT

FIRST, LAST = date(2026, 3, 1), date(2026, 3, 31)


def output(number: int, *, tenant: str = TENANT, skill: str = SKILL, key_id: str | None = "key1", usage: bool = True) -> StoredEvent:
    event = OutputProduced(
        skill=skill,
        interaction_id=f"int_{number}",
        output_id=f"out_{number}",
        policy_id=f"{skill}@v1",
        text="Dear customer",
        usage=Usage(input_tokens=100, output_tokens=10, cached_tokens=40, cache_write_tokens=30) if usage else None,
        cost_usd=0.000_000_3,
        key_id=key_id,
    )
    return prepare(event, tenant, received_at=NOW + timedelta(days=number // 100))


def total(usage: UsageStore, tenant: str = TENANT) -> Tally:
    return sum((tally for _, tally in usage.iterate_between(tenant, FIRST, LAST)), Tally())


def test_an_output_counts_once_in_whatever_batches_it_comes(usage: UsageStore) -> None:
    outputs = [output(number) for number in range(260)]
    for start, end in ((0, 150), (100, 200), (0, 260), (259, 260)):
        usage.count([*outputs[start:end], *outputs[start : start + 3]])
    assert total(usage) == Tally(260, 26_000, 10_400, 2_600, 7_800, 260 * 300)
    assert total(usage, "another") == Tally()
    days = group_tallies(usage.iterate_between(TENANT, FIRST, LAST), ["day"])
    assert [(names["day"], tally.requests) for names, tally in days] == [("2026-03-01", 100), ("2026-03-02", 100), ("2026-03-03", 60)]
    assert [tally.requests for _, tally in usage.iterate_between(TENANT, date(2026, 3, 2), date(2026, 3, 2))] == [100]


def test_a_batch_of_many_accounts_is_told_apart(usage: UsageStore) -> None:
    outputs = [output(n, tenant=f"t{n % 3}", skill=f"s{n % 7}", key_id=None if n % 2 else f"k{n}") for n in range(90)]
    usage.count(outputs)
    usage.count(outputs)
    for tenant in ("t0", "t1", "t2"):
        assert total(usage, tenant).requests == 30
        by_key = group_tallies(usage.iterate_between(tenant, FIRST, LAST), ["key", "skill"])
        assert sum(tally.requests for names, tally in by_key if names["key"] is None) == 15
        assert {names["skill"] for names, _ in by_key} == {f"s{n}" for n in range(7)}


def test_the_outputs_of_one_large_request_count_once_when_some_come_again(usage: UsageStore) -> None:
    together = [prepare(output(number).event(), TENANT, received_at=NOW) for number in range(500)]
    usage.count(together[:130])
    usage.count(together[90:310])
    usage.count(together)
    assert total(usage).requests == 500


def test_only_what_used_a_model_counts(usage: UsageStore) -> None:
    feedback = FeedbackSubmitted(skill=SKILL, interaction_id="int_1", kind="action", action="sent")
    usage.count([output(1, usage=False), prepare(feedback, TENANT, received_at=NOW)])
    usage.count([])
    assert total(usage) == Tally()


@pytest.mark.parametrize("amounts", [Usage(input_tokens=10**9, output_tokens=10**9, cached_tokens=10**9)])
def test_the_largest_amounts_can_be_counted(usage: UsageStore, amounts: Usage) -> None:
    event = OutputProduced(skill=SKILL, interaction_id="int_1", text="", usage=amounts, cost_usd=1e6)
    usage.count([prepare(event, TENANT, received_at=NOW)])
    assert total(usage) == Tally(1, 10**9, 10**9, 10**9, 0, 10**15)
