"""What the window of a limit has spent so far."""

from dataclasses import dataclass
from datetime import UTC, datetime

from rlaas.metering.budgets import Limit, find_window_end, find_window_start
from rlaas.metering.counters import CounterItem
from rlaas.metering.ledger import read_window
from rlaas.metering.prices import to_usd


@dataclass(frozen=True, slots=True)
class WindowUsage:
    """What a window has spent, and how much of that is only set aside for requests in flight: in the limit's
    measure, US dollars for `usd`. `resets_at` is when the next window begins."""

    spent: float
    set_aside: float
    resets_at: datetime


def read_window_usage(limit: Limit, counter: str, item: CounterItem, *, now: datetime) -> WindowUsage:
    """What the window of `limit` that `now` is in has spent, by what `item` says of its `counter`."""
    start = find_window_start(limit.window, now)
    spent, reserved = read_window(item, counter, start)
    in_dollars = limit.measure == "usd"
    return WindowUsage(
        spent=to_usd(spent) if in_dollars else spent,
        set_aside=to_usd(reserved) if in_dollars else reserved,
        resets_at=datetime.fromtimestamp(find_window_end(limit.window, start), UTC),
    )
