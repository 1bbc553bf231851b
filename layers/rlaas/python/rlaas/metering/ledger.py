"""The counting of budgets: a reservation before each call, its settlement after it, one conditional write of one item
each.

A tenant's budgets are counted in one item, a busy tenant's in several (`rlaas.metering.shards`), of which all of this
holds for each by itself. Its attributes are (times are seconds since the epoch)

    spent <counter> <start>          what the window that begins at <start> has spent: settled amounts and reserved ones
    held <bucket> <counter> <start>  the reserved part of it, by the bucket that the reservations expire with
    open <bucket>                    the ids of those reservations (a set)
    late <until>                     the ids of reservations that settled after their release, to settle them once
    released                         the last bucket that was released

A window's attributes appear when it is first spent from, so a new window needs no write of its own and nothing of the
old one can get into it: a request counts in the window it began in. What windows and buckets leave behind is removed by
the settlements of requests that saw it, unconditionally, since nothing can bring it back. A reservation expires between
one and two lifetimes after it was made; then whoever is refused, or sees it, gives its amount back by one write on the
condition that the bucket is as it was seen.

Invariants, whatever is repeated, lost or killed (`tests/unit/metering/test_ledger.py` holds them under random
interleavings):
1. `spent` of a window that is not over is the sum of what settled in it and of what open reservations hold of it: it is
   never less than what was truly spent and reported.
2. A reservation is made only where `spent` stays within the limit, so `spent` exceeds it only by what requests cost
   beyond their own reservation: by nothing when the estimates are upper bounds.
3. A refusal was true of the item at one moment, after all that had expired by then was given back.
4. Two lifetimes and `GRACE` after the last reservation, all that crashed processes held is given back.
5. A write that is sent twice counts once. (Exception: the answer to a settlement is lost, and its bucket is released
   before the write is sent again, seconds later. Then it counts twice: too much, never too little.)

Clocks may be `GRACE` apart. Windows of a second or a minute end before their reservations expire and are not given back
early.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import cast, get_args

from rlaas.errors import DependencyUnavailable, QuotaExceeded
from rlaas.ids import PolicyId
from rlaas.metering.budgets import Amount, Cap, Charge, Window, find_window_end, find_window_start, format_amount, list_capped_counters
from rlaas.metering.counters import WHOLE, CounterItem, Counters, SetMember, Write, add_up
from rlaas.metering.shards import SHARED, Need, announce_shard, find_limit, is_busy, move_room

GRACE = 5
"""How far apart clocks may be, in seconds: what is over by less is not yet removed or released."""
_BRIEF: tuple[Window, ...] = ("second", "minute")
_ATTEMPTS = 5
_LATE_S = 900
"""How long after its expiry a reservation's settlement is remembered, in seconds."""
_REMOVED_TOGETHER = 40
_RELEASED = "released"


@dataclass(frozen=True, slots=True)
class Reservation:
    """What was set aside for one request, to be settled once."""

    tenant_id: str
    id: str
    bucket: int
    charges: tuple[Charge, ...]
    estimate: Amount
    shard: int = WHOLE
    is_busy: bool = False
    """Whether the item said that the tenant's next reservation belongs in a shard."""
    over: tuple[str, ...] = ()
    """Attributes seen to be over, for the settlement to remove."""


def reserve(
    counters: Counters,
    tenant_id: str,
    charges: Sequence[Charge],
    estimate: Amount,
    *,
    reservation_id: str,
    now: datetime,
    lifetime_s: int,
    shard: int = WHOLE,
) -> Reservation | None:
    """Set `estimate` aside from every one of `charges`, or from none: one conditional write; `None` when nothing is
    charged.

    `reservation_id` is random (`secrets.token_urlsafe(6)`); `lifetime_s`, in seconds, is at least as long as the
    request can take. Only a refusal, finding an expired reservation, or an empty shard takes more writes. Nothing is
    refused that has room in the tenant's items together.

    Raises: QuotaExceeded with `retry_after_s`, naming the budget; without it when the request is larger than the whole
    budget; DependencyUnavailable.
    """
    if not charges:
        return None
    _refuse_the_impossible(charges, estimate)
    reservation = Reservation(
        tenant_id=tenant_id,
        id=reservation_id,
        bucket=(math.floor(now.timestamp()) // lifetime_s + 2) * lifetime_s,
        charges=tuple(charges),
        estimate=estimate,
        shard=shard,
    )
    for _ in range(_ATTEMPTS):
        applied, item = counters.write(tenant_id, _build_reserving_write(reservation), shard=shard)
        release = build_release(item, now)
        if applied or reservation.id in _read_ids(item, _open_attribute(reservation.bucket)):
            if release is not None:
                counters.write(tenant_id, release, shard=shard)
            if shard != WHOLE and SHARED not in item:
                announce_shard(counters, tenant_id, shard, now=now)
            return replace(reservation, over=_list_over(item, now), is_busy=shard == WHOLE and is_busy(item, now))
        if release is not None:
            counters.write(tenant_id, release, shard=shard)
        elif shard == WHOLE and SHARED not in item:
            raise _build_refusal(reservation, item, now)
        else:
            _gather_room(counters, reservation, now)
    raise DependencyUnavailable("the tenant's budgets change too quickly to be read")


def _gather_room(counters: Counters, reservation: Reservation, now: datetime) -> None:
    """Move room from the tenant's other items to the reservation's. Raises: QuotaExceeded where all have too little."""
    tenant_id = reservation.tenant_id
    items = counters.read_shards(tenant_id)
    for shard, item in items.items():
        if (release := build_release(item, now)) is not None:
            items[shard] = counters.write(tenant_id, release, shard=shard).item
    limited = [(charge, charge.most) for charge in reservation.charges if charge.most is not None]
    needs = {_spent_attribute(charge): Need(reservation.estimate.of(charge.measure), most) for charge, most in limited}
    if not move_room(counters, tenant_id, reservation.shard, needs, items, now=now):
        raise _build_refusal(reservation, add_up(items.values()), now)


def settle(counters: Counters, reservation: Reservation, spent: Amount, *, now: datetime) -> None:
    """Turn the reservation into what was truly spent: one conditional write, which also removes what the reservation
    saw to be over.

    Had it been released in the meantime, the amount is added after all. Settling twice counts once. Raises:
    DependencyUnavailable.
    """
    tenant_id, charges = reservation.tenant_id, _list_lasting(reservation.charges, now)
    mark = SetMember(_open_attribute(reservation.bucket), reservation.id)
    estimate = reservation.estimate
    add = {
        **{_spent_attribute(charge): spent.of(charge.measure) - estimate.of(charge.measure) for charge in charges},
        **{_held_attribute(reservation.bucket, charge): -estimate.of(charge.measure) for charge in charges if charge.window not in _BRIEF},
    }
    add = {attribute: amount for attribute, amount in add.items() if amount}
    over = [attribute for attribute in reservation.over if attribute not in add]
    applied, item = counters.write(tenant_id, Write(has=mark, unmark=mark, add=add, remove=over), shard=reservation.shard)
    if applied or cast(int, item.get(_RELEASED, 0)) < reservation.bucket:
        return
    late = SetMember(f"late {reservation.bucket + _LATE_S}", reservation.id)
    write = Write(lacks=late, mark=late, add={_spent_attribute(charge): spent.of(charge.measure) for charge in charges})
    counters.write(tenant_id, write, shard=reservation.shard)


def count_today(counters: Counters, tenant_id: str, what: str, *, most: int, now: datetime) -> int | None:
    """Count one more `what` of this day (UTC), exactly, also when others count at the same time.

    None when it was counted; the seconds until the next day where `most` were before. Raises: DependencyUnavailable.
    """
    start = find_window_start("day", now)
    attribute = f"spent {what}:day {start}"
    over = _list_over(counters.read(tenant_id), now)
    if most > 0 and counters.write(tenant_id, Write(at_most={attribute: most - 1}, add={attribute: 1}, remove=over)).applied:
        return None
    return math.ceil(find_window_end("day", start) - now.timestamp())


def build_release(item: CounterItem, now: datetime) -> Write | None:
    """The write that gives back what every expired bucket of `item` holds; `None` when there is none."""
    expired_ids = {bucket: _read_ids(item, _open_attribute(bucket)) for bucket in _list_buckets(item) if bucket + GRACE <= now.timestamp()}
    if not expired_ids:
        return None
    back: dict[str, int] = {}
    entries = [(attribute, parts) for attribute, parts in _parse_attributes(item, "held") if int(parts[1]) in expired_ids]
    for attribute, (_, _, name, start) in entries:
        spent = f"spent {name} {start}"
        back[spent] = back.get(spent, 0) - cast(int, item[attribute])
    return Write(
        unchanged={**{_open_attribute(bucket): ids for bucket, ids in expired_ids.items()}, _RELEASED: item.get(_RELEASED)},
        add={attribute: amount for attribute, amount in back.items() if amount},
        put={_RELEASED: max(*expired_ids, cast(int, item.get(_RELEASED, 0)))},
        remove=[*(attribute for attribute, _ in entries), *map(_open_attribute, expired_ids)],
    )


def find_spent_arms(item: CounterItem, caps: Mapping[PolicyId, Cap], *, now: datetime) -> frozenset[PolicyId]:
    """The arms whose cap is spent, as of `item`.

    Read before the assignment, which leaves them out, so that a decision's propensities are exact given what was read;
    a spent arm answers a few more requests until reads have caught up, and those in flight.
    """
    return frozenset(
        policy_id
        for policy_id, name, start, most in list_capped_counters(caps, now=now)
        if cast(int, item.get(f"spent {name} {start}", 0)) >= most
    )


def read_window(item: CounterItem, counter: str, start: int) -> tuple[int, int]:
    """What the window of `counter` that begins at `start` has spent, reserved amounts included, and how much of that is
    reserved and may be given back."""
    reserved = sum(cast(int, item[name]) for name, parts in _parse_attributes(item, "held") if parts[2:] == [counter, str(start)])
    return cast(int, item.get(f"spent {counter} {start}", 0)), reserved


def _build_reserving_write(reservation: Reservation) -> Write:
    mark = SetMember(_open_attribute(reservation.bucket), reservation.id)
    amounts = [(charge, reservation.estimate.of(charge.measure)) for charge in reservation.charges]
    return Write(
        at_most={
            _spent_attribute(charge): find_limit(charge.most, reservation.shard) - amount
            for charge, amount in amounts
            if charge.most is not None
        },
        lacks=mark,
        mark=mark,
        add={
            **{_spent_attribute(charge): amount for charge, amount in amounts},
            **{_held_attribute(reservation.bucket, charge): amount for charge, amount in amounts if charge.window not in _BRIEF},
        },
    )


def _refuse_the_impossible(charges: Sequence[Charge], estimate: Amount) -> None:
    for charge in charges:
        if charge.most is not None and estimate.of(charge.measure) > charge.most:
            raise QuotaExceeded(
                f"the request may take {format_amount(charge.measure, estimate.of(charge.measure))}, and {charge.name} is "
                f"{format_amount(charge.measure, charge.most)} a {charge.window} in all; a smaller max_tokens may let it in"
            )


def _build_refusal(reservation: Reservation, item: CounterItem, now: datetime) -> QuotaExceeded | DependencyUnavailable:
    """Why there is no room, and how long to wait: a second where the room is only reserved, until the window ends where
    it is spent."""
    waits: list[tuple[float, str]] = []
    for charge in reservation.charges:
        spent, reserved = read_window(item, charge.counter, charge.start)
        amount = reservation.estimate.of(charge.measure)
        if charge.most is None or spent + amount <= charge.most:
            continue
        is_only_reserved = spent - reserved + amount <= charge.most
        wait = 1.0 if is_only_reserved else max(1.0, find_window_end(charge.window, charge.start) - now.timestamp())
        reason = (
            f"{charge.name} of {format_amount(charge.measure, charge.most)} a {charge.window} has no room: "
            f"{format_amount(charge.measure, spent)} are spent or set aside, "
            f"and the request may take {format_amount(charge.measure, amount)}"
        )
        waits.append((wait, reason))
    if not waits:
        return DependencyUnavailable("the tenant's budgets could not be read")
    wait, reason = max(waits)
    return QuotaExceeded(reason, retry_after_s=math.ceil(wait))


def _list_over(item: CounterItem, now: datetime) -> tuple[str, ...]:
    """Attributes that nothing will be added to any more and that hold nothing to give back."""
    over = [name for name, (_, counter, start) in _parse_attributes(item, "spent") if _is_window_over(counter, int(start), now)]
    for name, (_, bucket, counter, start) in _parse_attributes(item, "held"):
        is_over = int(bucket) + GRACE <= now.timestamp() or _is_window_over(counter, int(start), now)
        if is_over and _open_attribute(int(bucket)) not in item:
            over.append(name)
    over += [name for name, (_, bucket) in _parse_attributes(item, "late") if int(bucket) + GRACE <= now.timestamp()]
    return tuple(over[:_REMOVED_TOGETHER])


def _list_lasting(charges: Sequence[Charge], now: datetime) -> list[Charge]:
    """Those whose window is not over: to add to another one would bring back what was removed."""
    return [charge for charge in charges if find_window_end(charge.window, charge.start) + GRACE > now.timestamp()]


def _is_window_over(counter: str, start: int, now: datetime) -> bool:
    window = counter.rpartition(":")[2]
    return window not in get_args(Window) or find_window_end(cast(Window, window), start) + GRACE <= now.timestamp()


def _parse_attributes(item: CounterItem, kind: str) -> Iterator[tuple[str, list[str]]]:
    for attribute in item:
        parts = attribute.split(" ")
        if parts[0] == kind:
            yield attribute, parts


def _list_buckets(item: CounterItem) -> list[int]:
    return [int(bucket) for _, (_, bucket) in _parse_attributes(item, "open")]


def _read_ids(item: CounterItem, attribute: str) -> frozenset[str]:
    return cast("frozenset[str]", item.get(attribute, frozenset()))


def _spent_attribute(charge: Charge) -> str:
    return f"spent {charge.counter} {charge.start}"


def _held_attribute(bucket: int, charge: Charge) -> str:
    return f"held {bucket} {charge.counter} {charge.start}"


def _open_attribute(bucket: int) -> str:
    return f"open {bucket}"
