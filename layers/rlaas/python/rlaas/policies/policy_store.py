"""The part of the registry that stores policies: its keys and its protocol."""

from typing import Protocol

from rlaas.errors import NotFound
from rlaas.policies.bundle import Policy
from rlaas.tenancy.registry import Change, Registry

POLICY_PREFIX = "POLICY#"
"""The beginning of the sort keys of policies."""


def policy_prefix(skill: str) -> str:
    """The beginning of the sort keys of a skill's policies."""
    return f"{POLICY_PREFIX}{skill}#"


def policy_key(skill: str, version: int) -> str:
    """The sort key of a policy version; keys sort by version."""
    return f"{policy_prefix(skill)}{version:08d}"


def archive_key(policy_id: str) -> str:
    """The sort key of the record that says whether a policy is archived."""
    return f"ARCHIVED#{policy_id}"


class Policies(Protocol):
    """Stores immutable policies."""

    def put_policy(self, policy: Policy, change: Change) -> None:
        """Store a new policy version. Raises: Conflict when the version exists."""
        ...

    def get_policy(self, tenant_id: str, policy_id: str) -> Policy:
        """The policy, which never changes, so that callers may cache it for ever. Raises: NotFound."""
        ...


class PolicyRecords(Registry, Policies, Protocol):
    """The registry with its policies."""


def find_policy(policies: Policies, tenant_id: str, skill: str, policy_id: str, *, param: str = "policy_id") -> Policy:
    """A policy of `skill`. Raises: NotFound, naming `param`, when the skill has no such policy."""
    try:
        policy = policies.get_policy(tenant_id, policy_id)
    except NotFound as missing:
        raise NotFound(missing.detail, param=param) from None
    if policy.skill != skill:
        raise NotFound(f"{policy_id!r} is not a policy of {skill!r}", param=param)
    return policy
