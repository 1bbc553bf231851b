"""Guards in memory."""

from dataclasses import dataclass, field

from rlaas.rollout.conduct import RollbackAlarm


@dataclass
class MemoryGuards:
    guards: dict[tuple[str, str], RollbackAlarm] = field(default_factory=dict)

    def put(self, guard: RollbackAlarm) -> None:
        self.guards[guard.tenant_id, guard.skill] = guard

    def delete(self, tenant_id: str, skill: str, rollout_id: str) -> None:
        existing = self.guards.get((tenant_id, skill))
        if existing is not None and existing.rollout_id == rollout_id:
            del self.guards[tenant_id, skill]
