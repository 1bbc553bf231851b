"""Budgets' items in memory, as DynamoDB keeps them: a write is atomic, a set disappears with its last id."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Lock

from rlaas.metering.counters import WHOLE, CounterItem, SetMember, Write, Written, add_up


@dataclass
class MemoryCounters:
    items: dict[tuple[str, int], dict[str, int | frozenset[str]]] = field(default_factory=dict)
    writes: int = 0
    lock: Lock = field(default_factory=Lock)

    def write(self, tenant_id: str, write: Write, *, shard: int = WHOLE) -> Written:
        with self.lock:
            self.writes += 1
            item = self.items.get((tenant_id, shard), {})
            if not is_met(item, write):
                return Written(False, dict(item))
            self.items[tenant_id, shard] = apply_write(item, write)
            return Written(True, dict(self.items[tenant_id, shard]))

    def move(self, tenant_id: str, writes: Mapping[int, Write]) -> bool:
        with self.lock:
            self.writes += len(writes)
            items = {shard: self.items.get((tenant_id, shard), {}) for shard in writes}
            if not all(is_met(items[shard], write) for shard, write in writes.items()):
                return False
            self.items |= {(tenant_id, shard): apply_write(items[shard], write) for shard, write in writes.items()}
            return True

    def read(self, tenant_id: str) -> CounterItem:
        return add_up(self.read_shards(tenant_id).values())

    def read_shards(self, tenant_id: str) -> dict[int, CounterItem]:
        return {shard: dict(item) for (owner, shard), item in self.items.items() if owner == tenant_id}


def is_met(item: CounterItem, write: Write) -> bool:
    return (
        all(read_number(item, name) <= most for name, most in write.at_most.items())
        and (write.has is None or write.has.id in read_ids(item, write.has))
        and (write.lacks is None or write.lacks.id not in read_ids(item, write.lacks))
        and all(item.get(name) == value for name, value in write.unchanged.items())
    )


def apply_write(item: CounterItem, write: Write) -> dict[str, int | frozenset[str]]:
    attributes = [*write.add, *write.put, *write.remove, *(mark.attribute for mark in (write.mark, write.unmark) if mark)]
    assert len(set(attributes)) == len(attributes), "DynamoDB refuses two changes of one attribute"
    new_item = {name: value for name, value in item.items() if name not in write.remove}
    new_item |= {name: read_number(item, name) + amount for name, amount in write.add.items()} | dict(write.put)
    if write.mark is not None:
        new_item[write.mark.attribute] = read_ids(item, write.mark) | {write.mark.id}
    if write.unmark is not None:
        new_item[write.unmark.attribute] = read_ids(item, write.unmark) - {write.unmark.id}
    return {name: value for name, value in new_item.items() if value != frozenset()}


def read_number(item: CounterItem, name: str) -> int:
    value = item.get(name, 0)
    assert isinstance(value, int)
    return value


def read_ids(item: CounterItem, mark: SetMember) -> frozenset[str]:
    value = item.get(mark.attribute, frozenset())
    assert isinstance(value, frozenset)
    return value
