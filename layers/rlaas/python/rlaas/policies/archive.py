"""Archived policies, which stay readable but cannot be routed to."""

from collections.abc import Callable, Collection

from rlaas.errors import Conflict, NotFound
from rlaas.policies.bundle import PolicyArchive
from rlaas.policies.policy_store import PolicyRecords, archive_key, find_policy
from rlaas.tenancy.registry import Change, PutResult, Registry


def archive_policy(
    records: PolicyRecords,
    tenant_id: str,
    skill: str,
    policy_id: str,
    *,
    archived: bool,
    routed: Callable[[], Collection[str]],
    change: Change,
) -> PutResult[PolicyArchive]:
    """Store whether a policy of `skill` is archived. `routed` returns the ids of the policies that the skill's route
    names or would go back to.

    Raises: NotFound for a policy of another skill, Conflict when a policy in `routed` would be archived.
    """
    find_policy(records, tenant_id, skill, policy_id)
    if archived and policy_id in routed():
        raise Conflict(f"the route of {skill!r} names {policy_id} or would go back to it", param="policy_id")
    key, archive = archive_key(policy_id), PolicyArchive(policy_id=policy_id, archived=archived)
    try:
        current = records.get(PolicyArchive, tenant_id, key)
    except NotFound:
        records.put(tenant_id, key, archive, change)
        return PutResult(archive, version=1)
    if current.record == archive:
        return PutResult(archive, current.version, replay=True)
    return PutResult(archive, records.replace(tenant_id, key, archive, expected_version=current.version, change=change))


def is_archived(registry: Registry, tenant_id: str, policy_id: str) -> bool:
    """Whether the policy is archived."""
    try:
        return registry.get(PolicyArchive, tenant_id, archive_key(policy_id)).record.archived
    except NotFound:
        return False
