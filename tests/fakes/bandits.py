"""A bandit's statistics in memory."""

from dataclasses import dataclass, field

from rlaas.errors import Conflict
from rlaas.experiments.allocation import BanditStatistics


@dataclass
class MemoryBandits:
    statistics: dict[tuple[str, str], BanditStatistics] = field(default_factory=dict)

    def load(self, tenant_id: str, skill: str) -> BanditStatistics | None:
        return self.statistics.get((tenant_id, skill))

    def save(self, statistics: BanditStatistics) -> None:
        existing = self.statistics.get((statistics.tenant_id, statistics.skill))
        if statistics.version != (existing.version if existing else 0) + 1:
            raise Conflict("another run was faster")
        self.statistics[statistics.tenant_id, statistics.skill] = statistics
