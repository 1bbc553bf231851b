"""What the window of a limit has spent so far."""

from dataclasses import dataclass
from datetime import UTC, datetime

from rlaas.metering.budgets import Limit, window_end, window_start
from rlaas.metering.counters import Item
from rlaas.metering.ledger import standing
from rlaas.metering.prices import usd


@dataclass(frozen=True, slots=True)
class WindowUsage:
    """What a window has spent, and how much of that is only set aside for requests in flight: in the limit's
    measure, US dollars for `usd`. `resets_at` is when the next window begins."""

    spent: float
    set_aside: float
    resets_at: datetime


def usage_of_window(limit: Limit, counter: str, item: Item, *, now: datetime) -> WindowUsage:
    """What the window of `limit` that `now` is in has spent, by what `item` says of its `counter`."""
    start = window_start(limit.window, now)
    spent, reserved = standing(item, counter, start)
    in_dollars = limit.measure == "usd"
    return WindowUsage(
        spent=usd(spent) if in_dollars else spent,
        set_aside=usd(reserved) if in_dollars else reserved,
        resets_at=datetime.fromtimestamp(window_end(limit.window, start), UTC),
    )
