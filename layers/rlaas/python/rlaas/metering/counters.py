"""The items that budgets are counted in, and the conditional writes of them."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, cast

from rlaas.errors import DependencyUnavailable

WHOLE = 0
"""The number of the tenant's own item."""


class Overloaded(DependencyUnavailable):
    """An item is written more often than its table bears."""


CounterItem = Mapping[str, int | frozenset[str]]
"""The item's numbers and sets by attribute; empty when there is none."""


class SetMember(NamedTuple):
    """An id in a set attribute."""

    attribute: str
    id: str


@dataclass(frozen=True, slots=True)
class Write:
    """One conditional write of an item: all of it happens, or nothing. No attribute is changed in two ways."""

    at_most: Mapping[str, int] = field(default_factory=dict)
    """Condition: these numbers are no larger; an absent one is 0."""
    has: SetMember | None = None
    lacks: SetMember | None = None
    unchanged: Mapping[str, int | frozenset[str] | None] = field(default_factory=dict)
    """Condition: these attributes are exactly so; None is absent."""
    add: Mapping[str, int] = field(default_factory=dict)
    """Added to numbers, which begin at 0."""
    put: Mapping[str, int] = field(default_factory=dict)
    mark: SetMember | None = None
    """Put into its set."""
    unmark: SetMember | None = None
    """Taken out of its set, which goes with its last id."""
    remove: Collection[str] = ()


class Written(NamedTuple):
    """Whether a write happened, and the item: after it, or as its condition found it."""

    applied: bool
    item: CounterItem


class Counters(Protocol):
    """The items that budgets are counted in. A tenant has one, and beside it shards, which `rlaas.metering.shards`
    writes to. An item is named by its shard's number; the tenant's own is `WHOLE`. All raise DependencyUnavailable."""

    def write(self, tenant_id: str, write: Write, *, shard: int = WHOLE) -> Written:
        """Do `write` atomically, unless a condition of it is false. It may be carried out twice when an answer is lost.

        Raises: Overloaded when the item is written too often.
        """
        ...

    def move(self, tenant_id: str, writes: Mapping[int, Write]) -> bool:
        """Do all `writes`, each to the item of its shard, or none of them: whether they were done, exactly once. False
        also where another write was in the way."""
        ...

    def read(self, tenant_id: str) -> CounterItem:
        """The tenant's items added up, eventually consistent."""
        ...

    def read_shards(self, tenant_id: str) -> dict[int, CounterItem]:
        """The tenant's items, by shard."""
        ...


def add_up(items: Iterable[CounterItem]) -> CounterItem:
    """What is spent, held and open in all of `items` together."""
    total: dict[str, int | frozenset[str]] = {}
    for item in items:
        for attribute, value in item.items():
            if isinstance(value, frozenset):
                total[attribute] = value | cast("frozenset[str]", total.get(attribute, frozenset()))
            else:
                total[attribute] = value + cast(int, total.get(attribute, 0))
    return total
