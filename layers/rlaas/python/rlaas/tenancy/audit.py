"""The audit: a chain of entries for each tenant. Each entry has the hash of the entry before it, and the hash of the
record that the change left.

A check of the chain finds every entry that was changed, moved or deleted from within. Entries deleted from the end are
found by comparing with the registry, where their changes still are. Somebody who can write both the chain and the
registry can make both anew; only a copy elsewhere, such as the last `hash` in a log or a backup, shows that.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from pydantic import Field

from rlaas.clock import Timestamp
from rlaas.ids import Sha256, TenantId, hash_canonical_json
from rlaas.wire import WireModel

GENESIS = "0" * 64
"""The `prev_hash` of a tenant's first entry."""
_PAGE = 1000


class RegistryChange(WireModel):
    """One change of the registry, as its stream reports it."""

    registry_event_id: str
    tenant_id: TenantId
    at: Timestamp
    actor: str
    action: str
    target: str
    before_version: int | None
    after_version: int | None
    reason: str
    content_sha256: Sha256 | None = Field(
        default=None,
        description="Of the whole item after the change; null where it is gone, and in entries older than this field.",
    )


class AuditEntry(RegistryChange):
    """A change at its place in the tenant's chain. `hash` is computed from all other fields."""

    seq: int = Field(ge=1)
    prev_hash: Sha256
    hash: Sha256


@dataclass(frozen=True, slots=True)
class RegistryContent:
    """The registry's current item under `target`, by its hash, and since when it is there."""

    target: str
    version: int | None
    sha256: str
    changed_at: datetime


class RegistryContents(Protocol):
    """Lists the contents of the registry."""

    def iterate_contents(self, tenant_id: str) -> Iterable[RegistryContent]:
        """Everything of the tenant that has entries in its audit. Raises: DependencyUnavailable."""
        ...


class AuditLog(Protocol):
    """An append-only log per tenant."""

    def read_last(self, tenant_id: str) -> AuditEntry | None:
        """The newest entry; `None` without any. Raises: DependencyUnavailable."""
        ...

    def append(self, entry: AuditEntry) -> bool:
        """Store `entry` unless there is one with its `seq` or its `registry_event_id`; whether it was stored. Raises:
        DependencyUnavailable."""
        ...

    def is_recorded(self, tenant_id: str, registry_event_id: str) -> bool:
        """Whether this change already has its entry. Raises: DependencyUnavailable."""
        ...

    def list_entries(self, tenant_id: str, *, after: int = 0, limit: int = 100) -> list[AuditEntry]:
        """Up to `limit` entries with `seq > after`, in order. Raises: DependencyUnavailable."""
        ...


def append_change(change: RegistryChange, log: AuditLog) -> AuditEntry | None:
    """Append `change` to its tenant's chain; `None` when it has an entry (streams deliver at least once). Raises:
    DependencyUnavailable."""
    while not log.is_recorded(change.tenant_id, change.registry_event_id):
        entry = _chain_entry(change, log.read_last(change.tenant_id))
        if log.append(entry):
            return entry
    return None


def verify_chain(entries: Iterable[AuditEntry]) -> int:
    """How many entries the chain has, from its first.

    Raises: ValueError naming the first `seq` that is missing, altered or out of place.
    """
    previous: AuditEntry | None = None
    for entry in entries:
        if entry != _chain_entry(RegistryChange(**_change_fields(entry)), previous):
            raise ValueError(f"the audit chain of {entry.tenant_id} breaks at seq {entry.seq}")
        previous = entry
    return previous.seq if previous else 0


@dataclass(slots=True)
class NewestEntries:
    """The newest entry of each target, which is that of the highest version: a redrive enters a failed change after
    later ones."""

    _entries: dict[str, AuditEntry] = field(default_factory=dict)
    _before_versions: set[tuple[str, int]] = field(default_factory=set)
    _after_versions: set[tuple[str, int]] = field(default_factory=set)

    def note_each(self, entries: Iterable[AuditEntry]) -> Iterator[AuditEntry]:
        """Yield `entries` and note each."""
        for entry in entries:
            newest = self._entries.get(entry.target)
            if newest is None or _rank(entry) >= _rank(newest):
                self._entries[entry.target] = entry
            if entry.before_version:
                self._before_versions.add((entry.target, entry.before_version))
            if entry.after_version:
                self._after_versions.add((entry.target, entry.after_version))
            yield entry

    def check(self, contents: Iterable[RegistryContent], *, before: datetime) -> None:
        """Compare the registry's contents with the entries; a change after `before` may still wait for its entry.

        Raises: ValueError naming the first target of which a change has no entry.
        """
        if missing := self._before_versions - self._after_versions:
            target, version = min(missing)
            raise ValueError(f"version {version} of {target} has no entry, and a later one has")
        gone = {target for target, entry in self._entries.items() if entry.after_version is not None and entry.at <= before}
        for content in contents:
            gone.discard(content.target)
            entry = self._entries.get(content.target)
            if entry is not None and (entry.content_sha256 or content.sha256, entry.after_version) == (content.sha256, content.version):
                continue
            if content.changed_at <= before:
                raise ValueError(f"{content.target} is not what the audit says: a change of it has no entry")
        if gone:
            raise ValueError(f"{min(gone)} is gone, and the audit does not say so")


class ChainState(WireModel):
    """Whether a tenant's chain is intact: its length if so, else its first fault."""

    intact: bool
    length: int | None
    fault: str | None


def inspect_chain(log: AuditLog, contents: RegistryContents, tenant_id: str, *, before: datetime) -> ChainState:
    """Whether every entry follows from the one before, and the registry's contents are what the entries say, except for
    changes after `before`. Raises: DependencyUnavailable."""

    def entries() -> Iterator[AuditEntry]:
        page = log.list_entries(tenant_id, limit=_PAGE)
        while page:
            yield from page
            page = log.list_entries(tenant_id, after=page[-1].seq, limit=_PAGE)

    newest = NewestEntries()
    try:
        length = verify_chain(newest.note_each(entries()))
        newest.check(contents.iterate_contents(tenant_id), before=before)
        return ChainState(intact=True, length=length, fault=None)
    except ValueError as fault:
        return ChainState(intact=False, length=None, fault=str(fault))


def _rank(entry: AuditEntry) -> float:
    return entry.after_version if entry.after_version is not None else (entry.before_version or 0) + 0.5


def _change_fields(change: RegistryChange) -> dict[str, Any]:
    return {name: getattr(change, name) for name in RegistryChange.model_fields}


def _chain_entry(change: RegistryChange, previous: AuditEntry | None) -> AuditEntry:
    seq = previous.seq + 1 if previous else 1
    prev_hash = previous.hash if previous else GENESIS
    body = {**change.model_dump(mode="json"), "seq": seq, "prev_hash": prev_hash}
    if change.content_sha256 is None:  # older entries, made without this field, keep their hash
        del body["content_sha256"]
    return AuditEntry(**_change_fields(change), seq=seq, prev_hash=prev_hash, hash=hash_canonical_json(body))
