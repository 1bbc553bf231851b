"""Usage in memory."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date

from rlaas.telemetry.store import StoredEvent
from rlaas.telemetry.usage import Account, Tally, count_usage


@dataclass
class MemoryUsage:
    entries: dict[tuple[str, str], tuple[Account, Tally]] = field(default_factory=dict)

    def count(self, outputs: Sequence[StoredEvent]) -> None:
        for output in outputs:
            if (entry := count_usage(output)) is not None:
                self.entries.setdefault((output.tenant_id, output.event_id), entry)

    def iterate_between(self, tenant_id: str, first: date, last: date) -> Iterable[tuple[Account, Tally]]:
        sums: dict[Account, Tally] = {}
        for account, tally in self.entries.values():
            if account.tenant_id == tenant_id and first <= account.day <= last:
                sums[account] = sums.get(account, Tally()) + tally
        return sorted(sums.items(), key=lambda one: (one[0].day, one[0].skill))
