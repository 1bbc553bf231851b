"""The audit log in memory."""

from dataclasses import dataclass, field

from rlaas.tenancy.audit import AuditEntry


@dataclass
class MemoryAuditLog:
    chains: dict[str, list[AuditEntry]] = field(default_factory=dict)

    def read_last(self, tenant_id: str) -> AuditEntry | None:
        return self.chains[tenant_id][-1] if self.chains.get(tenant_id) else None

    def append(self, entry: AuditEntry) -> bool:
        chain = self.chains.setdefault(entry.tenant_id, [])
        if entry.seq != len(chain) + 1 or self.is_recorded(entry.tenant_id, entry.registry_event_id):
            return False
        chain.append(entry)
        return True

    def is_recorded(self, tenant_id: str, registry_event_id: str) -> bool:
        return any(entry.registry_event_id == registry_event_id for entry in self.chains.get(tenant_id, []))

    def list_entries(self, tenant_id: str, *, after: int = 0, limit: int = 100) -> list[AuditEntry]:
        return [entry for entry in self.chains.get(tenant_id, []) if entry.seq > after][:limit]
