"""Where policies are kept: the part of the registry whose documents this room knows."""

from typing import Protocol

from rlaas.policies.bundle import Policy
from rlaas.tenancy.registry import Change


def policy_key(skill: str, version: int) -> str:
    """The sort key of a policy version; they sort by number."""
    return f"POLICY#{skill}#{version:08d}"


def archive_key(policy_id: str) -> str:
    """The sort key of the note that says whether a policy is archived."""
    return f"ARCHIVED#{policy_id}"


class Policies(Protocol):
    """Immutable policies."""

    def put_policy(self, policy: Policy, change: Change) -> None:
        """Store a new policy version. Raises: Conflict when the number is taken."""
        ...

    def get_policy(self, tenant_id: str, policy_id: str) -> Policy:
        """An immutable policy, which may be remembered for ever. Raises: NotFound."""
        ...
