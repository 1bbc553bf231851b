"""Where policies are kept: the part of the registry whose records this room knows."""

from typing import Protocol

from rlaas.errors import NotFound
from rlaas.policies.bundle import Policy
from rlaas.tenancy.registry import Change

POLICY_PREFIX = "POLICY#"
"""How the sort keys of policies begin."""


def policy_prefix(skill: str) -> str:
    """How the sort keys of a skill's policies begin."""
    return f"{POLICY_PREFIX}{skill}#"


def policy_key(skill: str, version: int) -> str:
    """The sort key of a policy version; they sort by number."""
    return f"{policy_prefix(skill)}{version:08d}"


def archive_key(policy_id: str) -> str:
    """The sort key of the note that says whether a policy is archived."""
    return f"ARCHIVED#{policy_id}"


def policies_key(skill: str) -> str:
    """What the sort keys of a skill's policy versions begin with."""
    return f"POLICY#{skill}#"


class Policies(Protocol):
    """Immutable policies."""

    def put_policy(self, policy: Policy, change: Change) -> None:
        """Store a new policy version. Raises: Conflict when the number is taken."""
        ...

    def get_policy(self, tenant_id: str, policy_id: str) -> Policy:
        """An immutable policy, which may be remembered for ever. Raises: NotFound."""
        ...


def find_policy(policies: Policies, tenant_id: str, skill: str, policy_id: str, *, param: str = "policy_id") -> Policy:
    """A policy of `skill`. Raises: NotFound, blaming `param`, for one that is none of its."""
    try:
        policy = policies.get_policy(tenant_id, policy_id)
    except NotFound as missing:
        raise NotFound(missing.detail, param=param) from None
    if policy.skill != skill:
        raise NotFound(f"{policy_id!r} is not a policy of {skill!r}", param=param)
    return policy
