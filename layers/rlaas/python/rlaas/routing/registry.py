"""Where routes and policies are kept: the part of the registry whose documents this room knows."""

from typing import Protocol

from rlaas.routing.policy import Policy
from rlaas.routing.route import Route
from rlaas.tenancy.registry import Change


def policy_key(skill: str, version: int) -> str:
    """The sort key of a policy version; they sort by number."""
    return f"POLICY#{skill}#{version:08d}"


def archive_key(policy_id: str) -> str:
    """The sort key of the note that says whether a policy is archived."""
    return f"ARCHIVED#{policy_id}"


def route_key(skill: str) -> str:
    """The sort key of a skill's route."""
    return f"ROUTE#{skill}"


class Policies(Protocol):
    """Immutable policies."""

    def put_policy(self, policy: Policy, change: Change) -> None:
        """Store a new policy version. Raises: Conflict when the number is taken."""
        ...

    def get_policy(self, tenant_id: str, policy_id: str) -> Policy:
        """An immutable policy, which may be remembered for ever. Raises: NotFound."""
        ...


class Routes(Protocol):
    """The current route of each skill."""

    def get_route(self, tenant_id: str, skill: str) -> Route:
        """The current route, strongly consistent: to be changed. Raises: NotFound."""
        ...

    def current_route(self, tenant_id: str, skill: str) -> Route:
        """The route for one request: one eventually consistent read, never remembered. Raises: NotFound."""
        ...

    def write_route(self, route: Route, *, expected_version: int) -> None:
        """Store `route`, whose version is `expected_version + 1`; 0 expects none yet. Raises: Conflict on a lost race."""
        ...

    def rollback(self, tenant_id: str, skill: str, change: Change, *, rollout_id: str | None = None) -> Route:
        """Put the last good control and arms back, in one conditional write that needs no read before it; the new route.

        With `rollout_id` only while the route belongs to that rollout, so that a late alarm cannot undo another's change. A route
        already rolled back is returned as it is. Raises: NotFound without a route, Conflict when there is no way back or the route
        belongs to something else.
        """
        ...
