"""The registry: every record of a tenant, with its version. Each change is one conditional write that names who made it
and why.

Records are pydantic models that their rooms define; the sort keys here are their addresses. `Registry` is generic
over them.
"""

import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Generic, Protocol, TypeVar

from pydantic import BaseModel

from rlaas.errors import Conflict, InvalidInput, NotFound
from rlaas.tenancy.keys import ApiKey

Record = TypeVar("Record", bound=BaseModel)

LONGEST_KEY = 255
"""Characters of the longest sort key; nothing lies under a longer one. DynamoDB takes 1,024 bytes."""
TENANT = "TENANT"
"""The sort key of a tenant's own record."""
PRIVACY = "PRIVACY"
"""The sort key of a tenant's privacy settings; made with the tenant."""

SKILL_PREFIX = "SKILL#"
"""The prefix of the sort keys of skills."""


@dataclass(frozen=True, slots=True)
class Change:
    """Who changes a record, why, when; the audit entry is made from it."""

    actor: str
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Stored(Generic[Record]):
    """A record as read, with the version to pass as `expected_version` when replacing it."""

    record: Record
    version: int
    change: Change


@dataclass(frozen=True, slots=True)
class Page(Generic[Record]):
    """Some records, and the cursor that continues after them (`None` at the end)."""

    items: tuple[Stored[Record], ...]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class PutResult(Generic[Record]):
    """The record that a request put. `replay` says that the same record was there before, and nothing was written."""

    record: Record
    version: int
    replay: bool = False


def encode_cursor(position: str) -> str:
    """A position in a list as the opaque text that clients get."""
    return base64.urlsafe_b64encode(position.encode()).decode()


def decode_cursor(cursor: str, *, pattern: str) -> str:
    """The position in `cursor`. Raises: InvalidInput when it does not match the regular expression `pattern`."""
    try:
        position = base64.b64decode(cursor, altchars=b"-_", validate=True).decode()
    except ValueError:
        position = ""
    if len(position) > LONGEST_KEY or not re.fullmatch(pattern, position, re.ASCII | re.DOTALL):
        raise InvalidInput("the cursor is not one this list gave out", param="cursor")
    return position


def key_key(key_id: str) -> str:
    """The sort key of an API key in its tenant."""
    return f"KEY#{key_id}"


def skill_key(skill: str) -> str:
    """The sort key of a skill."""
    return f"{SKILL_PREFIX}{skill}"


def dataset_prefix(skill: str) -> str:
    """The prefix of the sort keys of a skill's datasets."""
    return f"DATASET#{skill}#"


def dataset_key(skill: str, version: int) -> str:
    """The sort key of a dataset version; the keys sort by number."""
    return f"{dataset_prefix(skill)}{version:08d}"


def run_key(skill: str, run_id: str) -> str:
    """The sort key of a learning run."""
    return f"RUN#{skill}#{run_id}"


def rollout_key(skill: str, rollout_id: str) -> str:
    """The sort key of a rollout."""
    return f"ROLLOUT#{skill}#{rollout_id}"


def redrive_key(redrive_id: str) -> str:
    """The sort key of a redrive, in the tenant of the operator who started it."""
    return f"REDRIVE#{redrive_id}"


class Registry(Protocol):
    """Records of tenants. Every write is one conditional write, for a key one transaction; the loser of a race gets
    `Conflict`. Every method may raise DependencyUnavailable.

    Policies and routes have Protocols of their own in their rooms; one adapter implements them all.
    """

    def get(self, model: type[Record], tenant_id: str, sort_key: str) -> Stored[Record]:
        """The record under `sort_key`, strongly consistent. Raises: NotFound."""
        ...

    def list(
        self,
        model: type[Record],
        tenant_id: str,
        prefix: str,
        *,
        limit: int = 100,
        cursor: str | None = None,
        newest_first: bool = False,
    ) -> Page[Record]:
        """Up to `limit` records whose sort key begins with `prefix` (such as `POLICY#<skill>#`), in the order of the
        sort keys. Raises: InvalidInput on a bad cursor."""
        ...

    def put(self, tenant_id: str, sort_key: str, record: BaseModel, change: Change) -> None:
        """Store a new record as version 1. Raises: Conflict when there is one."""
        ...

    def replace(self, tenant_id: str, sort_key: str, record: BaseModel, *, expected_version: int, change: Change) -> int:
        """Replace version `expected_version`; the new version, one higher. Raises: Conflict when it is not the
        current one."""
        ...

    def allocate_number(self, tenant_id: str, skill: str, what: str) -> int:
        """The next number of a skill's sequence `what` (`policy`, `dataset`, ...), from 1; no number comes twice."""
        ...

    def create_key(self, key: ApiKey, change: Change) -> None:
        """Store a new key, in one transaction with the authorizer's copy. Raises: Conflict when there is one with its
        id."""
        ...

    def revoke_key(self, tenant_id: str, key_id: str, change: Change) -> ApiKey:
        """Revoke a key from `change.at` on; a key that is revoked stays as it is. Raises: NotFound."""
        ...


def list_all(registry: Registry, model: type[Record], tenant_id: str, prefix: str) -> Iterator[Record]:
    """Every record whose sort key begins with `prefix`, in the order of the sort keys, read page by page. Raises:
    DependencyUnavailable."""
    page = registry.list(model, tenant_id, prefix)
    yield from (stored.record for stored in page.items)
    while page.cursor is not None:
        page = registry.list(model, tenant_id, prefix, cursor=page.cursor)
        yield from (stored.record for stored in page.items)


def replace_record(
    registry: Registry,
    tenant_id: str,
    sort_key: str,
    record: Record,
    *,
    current: Stored[Record],
    expected_version: int,
    change: Change,
) -> PutResult[Record]:
    """Replace version `expected_version` by `record`, unless `record` is `current` already; a `current` of version 0 is
    not stored.

    Raises: Conflict when another version is there; DependencyUnavailable.
    """
    if current.record == record and current.version > 0:
        return PutResult(record, current.version, replay=True)
    version = registry.replace(tenant_id, sort_key, record, expected_version=expected_version, change=change)
    return PutResult(record, version)


def find_record(registry: Registry, model: type[Record], tenant_id: str, sort_key: str) -> Stored[Record]:
    """The record there; where there is none, an empty one of version 0. Raises: DependencyUnavailable."""
    try:
        return registry.get(model, tenant_id, sort_key)
    except NotFound:
        return Stored(model(), 0, Change(actor="", reason="", at=datetime.fromtimestamp(0, UTC)))


def put_record(
    registry: Registry, tenant_id: str, sort_key: str, record: Record, *, name: str, expected_version: int, change: Change
) -> PutResult[Record]:
    """Put `record` in the place of version `expected_version` (0: there is none), unless it is what stands there.

    Raises: Conflict, which calls the record by its `name`, when another version is there; DependencyUnavailable.
    """
    current = find_record(registry, type(record), tenant_id, sort_key)
    try:
        return replace_record(registry, tenant_id, sort_key, record, current=current, expected_version=expected_version, change=change)
    except Conflict:
        raise Conflict(f"the {name} are no longer at version {expected_version}", param="expected_version") from None
