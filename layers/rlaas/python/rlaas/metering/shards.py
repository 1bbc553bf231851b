"""A busy tenant's budgets in several DynamoDB items, because one item takes about a thousand write units a second.

A process that finds its tenant's item overloaded writes to a shard for a while: another item of the same shape. A shard
begins without room. Room is moved into it from the tenant's item or another shard, by one transaction that adds to
`spent` in the giving item and takes the same from `spent` of the shard. So a shard's `spent` is negative while it has
room, its limit is 0, and the tenant has spent the sum of all items. Room is not moved back by itself: a process that
finds too little in its item gathers what the others have, and a request is refused only when all together have too
little.
"""

import math
import random
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import NamedTuple, cast

from rlaas.metering.counters import WHOLE, CounterItem, Counters, Write

SHARDS = 32
"""How many items share a busy tenant's writes."""
SHARED = "shared"
"""The attribute of a tenant's own item that says that there are shards, and until when (seconds since the epoch) they
are to be written to; a shard has it once the tenant's own item does."""
OVERLOADED_S = 60
"""How long a tenant's own item is left alone after it was overloaded or room was moved from it, in seconds."""
_PARTS = 2 * SHARDS
"""A shard takes one of so many parts of what is left of a budget at a time."""


class Need(NamedTuple):
    """The room that a request needs in a counter, and the counter's limit `most`, in the counter's unit."""

    amount: int
    most: int


def find_limit(most: int, shard: int) -> int:
    """The most that a counter with the limit `most` may hold in the item of `shard`."""
    return most if shard == WHOLE else 0


def is_busy(item: CounterItem, now: datetime) -> bool:
    """Whether the tenant's own `item` says that shards are to be written to."""
    return cast(int, item.get(SHARED, 0)) > now.timestamp()


def move_room(
    counters: Counters, tenant_id: str, shard: int, needs: Mapping[str, Need], items: Mapping[int, CounterItem], *, now: datetime
) -> bool:
    """Move room for `needs` (by attribute) into the item of `shard`; False, and nothing is moved, when all `items` (by
    their shard) have too little together.

    An item that others change at the same time is skipped, so there may be too little room even after True.

    Raises: DependencyUnavailable.
    """
    rooms = {
        place: {name: max(0, find_limit(need.most, place) - cast(int, items.get(place, {}).get(name, 0))) for name, need in needs.items()}
        for place in {*items, WHOLE, shard}
    }
    if any(sum(room[name] for room in rooms.values()) < need.amount for name, need in needs.items()):
        return False
    here = rooms.pop(shard)
    for place, room in sorted(rooms.items(), key=lambda entry: (entry[0] != WHOLE, -max(entry[1].values()))):
        lacking = {name: need.amount - here[name] for name, need in needs.items() if need.amount > here[name]}
        parts = _PARTS if place == WHOLE else 2
        moved = {name: min(room[name], max(amount, room[name] // parts)) for name, amount in lacking.items() if room[name] > 0}
        if moved and counters.move(tenant_id, _build_move(place, shard, moved, needs, now)):
            here = {name: amount + moved.get(name, 0) for name, amount in here.items()}
    return True


def _build_move(place: int, shard: int, moved: Mapping[str, int], needs: Mapping[str, Need], now: datetime) -> dict[int, Write]:
    return {
        place: Write(
            at_most={name: find_limit(needs[name].most, place) - amount for name, amount in moved.items()},
            add=moved,
            put=_share(now),
        ),
        shard: Write(add={name: -amount for name, amount in moved.items()}, put=_share(now)),
    }


def announce_shard(counters: Counters, tenant_id: str, shard: int, *, now: datetime) -> None:
    """Write into the tenant's own item that there are shards, and into the shard that the item says so.

    Raises: DependencyUnavailable.
    """
    counters.move(tenant_id, {place: Write(put=_share(now)) for place in (WHOLE, shard)})


def _share(now: datetime) -> dict[str, int]:
    return {SHARED: math.ceil(now.timestamp()) + OVERLOADED_S}


class ShardChoice:
    """Which item this process writes a tenant's budgets to: the tenant's own, or for `OVERLOADED_S` seconds after that
    was overloaded a random shard."""

    def __init__(self, pick: Callable[[int], int] = random.randrange) -> None:
        """`pick` is a random number below its argument."""
        self._pick = pick
        self._shards: dict[str, tuple[int, datetime]] = {}

    def choose(self, tenant_id: str, *, now: datetime) -> int:
        """The shard to write to."""
        shard, until = self._shards.get(tenant_id, (WHOLE, now))
        return shard if now < until else WHOLE

    def note_overload(self, tenant_id: str, *, now: datetime) -> int:
        """Choose another shard for the tenant."""
        shard = WHOLE + 1 + self._pick(SHARDS)
        self._shards[tenant_id] = shard, now + timedelta(seconds=OVERLOADED_S)
        return shard
