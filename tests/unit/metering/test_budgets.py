"""What budgets cover, when windows begin and end, and what tokens cost to the last billionth of a dollar."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Literal, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaas.chat import Usage
from rlaas.metering.budgets import (
    Amount,
    Budget,
    Budgets,
    Cap,
    Limit,
    SpendingRequest,
    Window,
    find_window_end,
    find_window_start,
    format_amount,
    list_charges,
)
from rlaas.metering.prices import Price, PriceTable, compute_cost, compute_most, to_nano_usd, to_usd

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
KEY = "01hqzz0000000000000000000a"


def budget(name: str, **fields: object) -> Budget:
    return Budget.model_validate({"name": name, "measure": "requests", "limit": 5, "window": "day", **fields})


def test_a_request_spends_from_what_covers_it() -> None:
    budgets = Budgets(
        budgets=(
            budget("all"),
            budget("mine", scope="skill", skill="reply"),
            budget("other", scope="skill", skill="summary"),
            budget("key", scope="key", key_id=KEY),
            budget("mirrored", scope="shadow"),
        )
    )

    def names(request: SpendingRequest) -> list[str]:
        return [charge.name.removeprefix("the budget ").strip("'") for charge in list_charges(budgets, request, now=NOW)]

    assert names(SpendingRequest(skill="reply", key_id=KEY)) == ["all", "mine", "key"]
    assert names(SpendingRequest(skill="summary", key_id="another")) == ["all", "other"]
    assert names(SpendingRequest(skill="reply", key_id=KEY, mirrored=True)) == ["mirrored"]
    capped = SpendingRequest(skill="reply", key_id="another", capped=("reply@v2", Cap(tokens=5, usd=1.0)))
    assert [(charge.counter, charge.most) for charge in list_charges(Budgets(), capped, now=NOW)] == [
        ("arm/reply@v2:tokens:day", None),
        ("arm/reply@v2:usd:day", None),
    ]


def test_the_platforms_ceilings_cover_all_that_is_asked_mirrored_requests_too() -> None:
    ceilings, budgets = [Limit(measure="usd", limit=5, window="day")], Budgets(budgets=(budget("mine", measure="usd", window="day"),))
    for request in (SpendingRequest(skill="reply", key_id=KEY), SpendingRequest(skill="reply", key_id=KEY, mirrored=True)):
        first = list_charges(budgets, request, now=NOW, ceilings=ceilings)[0]
        assert (first.counter, first.most, first.name) == ("all:usd:day", 5 * 10**9, "the platform's ceiling")
    assert (
        len({charge.counter for charge in list_charges(budgets, SpendingRequest(skill="reply", key_id=KEY), now=NOW, ceilings=ceilings)})
        == 2
    )


def test_a_budget_counts_on_under_another_name_and_limit() -> None:
    assert budget("old", measure="usd", limit=1).counter == budget("new", measure="usd", limit=2).counter == "tenant:usd:day"
    assert budget("k", scope="key", key_id=KEY).counter == f"key/{KEY}:requests:day"


@given(
    st.datetimes(min_value=datetime(1990, 1, 1), max_value=datetime(2200, 1, 1)), st.integers(-12, 14), st.sampled_from(get_args(Window))
)
def test_windows_follow_each_other_without_gap_or_overlap_in_any_zone(moment: datetime, hours: int, window: Window) -> None:
    now = moment.replace(tzinfo=timezone(timedelta(hours=hours)))
    start = find_window_start(window, now)
    end = find_window_end(window, start)
    assert start <= now.timestamp() < end
    assert find_window_start(window, datetime.fromtimestamp(end, UTC)) == end
    assert find_window_start(window, datetime.fromtimestamp(end - 1, UTC)) == start


def test_months_have_their_own_lengths() -> None:
    for year, month, days in ((2026, 2, 28), (2028, 2, 29), (2026, 12, 31), (2026, 4, 30)):
        start = find_window_start("month", datetime(year, month, 10, tzinfo=UTC))
        assert find_window_end("month", start) - start == days * 86400


PRICES = st.decimals(min_value=0, max_value=1000, places=6)


@given(PRICES, PRICES, *[st.none() | PRICES] * 3, st.tuples(*[st.integers(0, 10**7)] * 5))
def test_costs_are_exact_to_the_billionth(
    inp: Decimal,
    out: Decimal,
    cached: Decimal | None,
    write: Decimal | None,
    write_1h: Decimal | None,
    counts: tuple[int, int, int, int, int],
) -> None:
    fresh, hits, written, for_an_hour, output_tokens = counts
    prices = {"cached_input": cached, "cache_write": write, "cache_write_1h": write_1h}
    price = Price(input=float(inp), output=float(out), **{name: float(one) for name, one in prices.items() if one is not None})
    usage = Usage(
        input_tokens=fresh + hits + written + for_an_hour,
        output_tokens=output_tokens,
        cached_tokens=hits,
        cache_write_tokens=written + for_an_hour,
        cache_write_1h_tokens=for_an_hour,
    )
    exact = fresh * inp + hits * (inp if cached is None else cached) + output_tokens * out
    exact += written * (inp * Decimal("1.25") if write is None else write) + for_an_hour * (inp * 2 if write_1h is None else write_1h)
    actual = compute_cost(price, usage)
    assert abs(actual - exact * 1000) <= Decimal("0.5")
    assert to_nano_usd(to_usd(actual)) == actual
    longest: Literal["1h", "5m"] | None = "1h" if for_an_hour else "5m" if written else None
    if cached is None or cached <= inp:
        assert compute_most(price, usage, writes_for=longest) >= actual


def test_the_published_price_of_a_million_and_of_one() -> None:
    table = PriceTable(version=1, prices={"m": Price(input=0.15, output=0.6, cached_input=0.075)})
    assert table.compute_cost("m", Usage(input_tokens=1_000_000, output_tokens=1_000_000)) == to_nano_usd(0.75)
    assert table.compute_cost("m", Usage(input_tokens=1_000_000, output_tokens=0, cached_tokens=1_000_000)) == to_nano_usd(0.075)
    assert table.compute_cost("m", Usage(input_tokens=1, output_tokens=1)) == 750
    assert table.compute_cost("unheard of", Usage(input_tokens=1, output_tokens=1)) == 0


def test_what_is_written_to_a_cache_costs_what_the_vendor_charges_for_it() -> None:
    claude = Price(input=3, output=15, cached_input=0.3)
    written = Usage(input_tokens=1_000_000, output_tokens=0, cache_write_tokens=1_000_000)
    assert compute_cost(claude, written) == to_nano_usd(3.75)
    assert compute_cost(claude, written.model_copy(update={"cache_write_1h_tokens": 1_000_000})) == to_nano_usd(6)
    nova = Price(input=0.8, output=3.2, cache_write=0.8, cache_write_1h=0.9)
    assert compute_cost(nova, written) == to_nano_usd(0.8)
    assert compute_cost(nova, written.model_copy(update={"cache_write_1h_tokens": 500_000})) == to_nano_usd(0.85)


def test_the_digest_of_a_policy_with_a_price_is_what_it_was_before_prices_of_writes() -> None:
    assert Price(input=3, output=15).model_dump(mode="json") == {"input": 3.0, "output": 15.0, "cached_input": None}
    assert Price(input=3, output=15, cache_write=3.75).model_dump(mode="json")["cache_write"] == 3.75


def test_a_cap_caps_something_and_amounts_are_said_as_people_say_them() -> None:
    with pytest.raises(ValueError, match="a cap needs"):
        Cap()
    assert Cap(requests=0).most == {"requests": 0}
    assert Amount(tokens=3, nano_usd=4).of("usd") == 4
    assert [format_amount("usd", amount) for amount in (500_000_000, 12_000_000_000, 1500)] == ["$0.5", "$12", "$0.000002"]
    assert format_amount("tokens", 12_000) == "12,000 tokens"
