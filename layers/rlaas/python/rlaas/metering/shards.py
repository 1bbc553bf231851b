"""A busy tenant's budgets in several items: what one item of DynamoDB bears is not what a tenant may send.

An item takes about a thousand write units a second. A process that finds its tenant's item overloaded writes to a shard
instead, an item of the same shape, for a while. A shard has no limit of its own: room is moved into it, from the
tenant's item or from another shard, by one transaction that adds to `spent` there and takes the same from `spent` here.
So `spent` of a shard is negative while it has room, its limit is 0, and what all items have spent together is what the
tenant has spent, whoever counted where. Nothing is moved back by itself: whoever finds no room in its item gathers what
the others have, and only where they have too little together is a request refused.
"""

import math
import random
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import NamedTuple, cast

from rlaas.metering.counters import WHOLE, Counters, Item, Write

SHARDS = 32
"""How many items share a busy tenant's writes."""
SHARED = "shared"
"""The attribute of a tenant's own item that says that there are shards, and until when (seconds since the epoch) they
are to be written to; a shard has it once the tenant's own item does."""
OVERLOADED_S = 60
"""How long a tenant's own item is left alone after it was overloaded or room was moved from it, in seconds."""
_PARTS = 2 * SHARDS
"""Into how many parts what is left of a budget is divided, one of which a shard takes at a time."""


class Need(NamedTuple):
    """The room that a request needs in a counter, and the counter's limit."""

    amount: int
    most: int


def limit_of_item(most: int, shard: int) -> int:
    """What a counter with the limit `most` may stand at in the item of `shard`."""
    return most if shard == WHOLE else 0


def is_busy(item: Item, now: datetime) -> bool:
    """Whether the tenant's own `item` says that shards are to be written to."""
    return cast(int, item.get(SHARED, 0)) > now.timestamp()


def move_room(
    counters: Counters, tenant_id: str, shard: int, needs: Mapping[str, Need], items: Mapping[int, Item], *, now: datetime
) -> bool:
    """Move room for `needs`, which names them by attribute, into the item of `shard`: whether `items` have enough
    together.

    An item that others changed in the meantime is left out, so that the room may still not be there. Raises:
    DependencyUnavailable.
    """
    rooms = {
        place: {
            name: max(0, limit_of_item(need.most, place) - cast(int, items.get(place, {}).get(name, 0))) for name, need in needs.items()
        }
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
            at_most={name: limit_of_item(needs[name].most, place) - amount for name, amount in moved.items()},
            add=moved,
            put=_share(now),
        ),
        shard: Write(add={name: -amount for name, amount in moved.items()}, put=_share(now)),
    }


def announce_shard(counters: Counters, tenant_id: str, shard: int, *, now: datetime) -> None:
    """Have the tenant's own item say that there are shards, and the shard that it does.

    Raises: DependencyUnavailable.
    """
    counters.move(tenant_id, {place: Write(put=_share(now)) for place in (WHOLE, shard)})


def _share(now: datetime) -> dict[str, int]:
    return {SHARED: math.ceil(now.timestamp()) + OVERLOADED_S}


class ShardChoice:
    """Which item this process writes a tenant's budgets to: the tenant's own, and for `OVERLOADED_S` seconds after that
    was found overloaded a random shard."""

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
