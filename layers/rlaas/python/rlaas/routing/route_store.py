"""Where routes are stored: the part of the registry that holds them."""

from typing import Protocol

from rlaas.policies.policy_store import PolicyRecords
from rlaas.routing.route import Route
from rlaas.tenancy.registry import Change

ROUTE_PREFIX = "ROUTE#"
"""The prefix of the sort keys of routes."""


def route_key(skill: str) -> str:
    """The sort key of a skill's route."""
    return f"{ROUTE_PREFIX}{skill}"


class Routes(Protocol):
    """The current route of each skill."""

    def get_route(self, tenant_id: str, skill: str) -> Route:
        """The current route, strongly consistent, for a change of it. Raises: NotFound."""
        ...

    def get_route_for_request(self, tenant_id: str, skill: str) -> Route:
        """The current route for one request: one eventually consistent read, never cached. Raises: NotFound."""
        ...

    def write_route(self, route: Route, *, expected_version: int) -> None:
        """Store `route`, whose version is `expected_version + 1`; 0 expects that there is none yet. Raises: Conflict
        when another writer was faster."""
        ...

    def roll_back(self, tenant_id: str, skill: str, change: Change, *, rollout_id: str | None = None) -> Route:
        """Restore the last good control and arms, in one conditional write that needs no read before it; returns the
        new route.

        With `rollout_id` it acts only while the route belongs to that rollout, so that a late alarm cannot undo another
        change. A route already rolled back is returned as it is. Raises: NotFound without a route, Conflict when there
        is no way back or the route belongs to something else.
        """
        ...


class RouteRecords(PolicyRecords, Routes, Protocol):
    """The registry with its routes and policies."""
