"""Failed work that waits, in memory."""

from dataclasses import dataclass, field

from rlaas.tenancy.redrive import FailedWorkKind, Left, RedrivePage

FIRST = "1767225600000 batches aws/lambda/m/s/2026"


@dataclass
class MemoryRedriver:
    """Two pages: one handled, and one left."""

    batches: int = 2
    requests: list[str | None] = field(default_factory=list)

    def count_waiting(self) -> dict[FailedWorkKind, int]:
        return {"batches": self.batches, "calls": 0, "shadows": 0, "lake": 0}

    def play(self, cursor: str | None) -> RedrivePage:
        self.requests.append(cursor)
        if cursor is None:
            self.batches -= 1
            return RedrivePage(handled=1, cursor=FIRST)
        return RedrivePage(left=(Left(what="aws/lambda/m/s/2027", why="its consumer still fails"),))
