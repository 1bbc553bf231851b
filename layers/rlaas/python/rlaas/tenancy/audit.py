"""The audit: per tenant, a chain of entries in which each carries the hash of the one before, so none can be changed or dropped unseen."""

from collections.abc import Iterable
from typing import Any, Protocol

from pydantic import Field

from rlaas.clock import Timestamp
from rlaas.ids import Sha256, TenantId, canonical_sha256
from rlaas.wire import WireModel

GENESIS = "0" * 64
"""The `prev_hash` of a tenant's first entry."""


class RegistryChange(WireModel):
    """One change of the registry, as its stream tells it."""

    registry_event_id: str
    tenant_id: TenantId
    at: Timestamp
    actor: str
    action: str
    target: str
    before_version: int | None
    after_version: int | None
    reason: str


class AuditEntry(RegistryChange):
    """A change at its place in the tenant's chain. `hash` covers every other field."""

    seq: int = Field(ge=1)
    prev_hash: Sha256
    hash: Sha256


class AuditLog(Protocol):
    """An append-only log per tenant."""

    def last(self, tenant_id: str) -> AuditEntry | None:
        """The newest entry."""
        ...

    def append(self, entry: AuditEntry) -> bool:
        """Store `entry` unless its `seq` is taken or its `registry_event_id` recorded; whether it was stored."""
        ...

    def recorded(self, tenant_id: str, registry_event_id: str) -> bool:
        """Whether this change already has its entry."""
        ...

    def entries(self, tenant_id: str, *, after: int = 0, limit: int = 100) -> list[AuditEntry]:
        """Up to `limit` entries with `seq > after`, in order."""
        ...


def append_change(change: RegistryChange, log: AuditLog) -> AuditEntry | None:
    """Chain `change` onto its tenant's log; `None` when it is already there (streams deliver at least once)."""
    while not log.recorded(change.tenant_id, change.registry_event_id):
        entry = _chained(change, log.last(change.tenant_id))
        if log.append(entry):
            return entry
    return None


def verify_chain(entries: Iterable[AuditEntry]) -> int:
    """How many entries the chain has, from its first.

    Raises: ValueError naming the first `seq` that is missing, altered or out of place.
    """
    previous: AuditEntry | None = None
    for entry in entries:
        if entry != _chained(RegistryChange(**_change_fields(entry)), previous):
            raise ValueError(f"the audit chain of {entry.tenant_id} breaks at seq {entry.seq}")
        previous = entry
    return previous.seq if previous else 0


def _change_fields(change: RegistryChange) -> dict[str, Any]:
    return {name: getattr(change, name) for name in RegistryChange.model_fields}


def _chained(change: RegistryChange, previous: AuditEntry | None) -> AuditEntry:
    seq = previous.seq + 1 if previous else 1
    prev_hash = previous.hash if previous else GENESIS
    body = {**change.model_dump(mode="json"), "seq": seq, "prev_hash": prev_hash}
    return AuditEntry(**_change_fields(change), seq=seq, prev_hash=prev_hash, hash=canonical_sha256(body))
