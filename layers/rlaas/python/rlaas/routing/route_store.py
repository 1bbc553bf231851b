"""Where routes are kept: the part of the registry whose records this room knows."""

from typing import Protocol

from rlaas.routing.route import Route
from rlaas.tenancy.registry import Change

ROUTE_PREFIX = "ROUTE#"
"""How the sort keys of routes begin."""


def route_key(skill: str) -> str:
    """The sort key of a skill's route."""
    return f"{ROUTE_PREFIX}{skill}"


class Routes(Protocol):
    """The current route of each skill."""

    def get_route(self, tenant_id: str, skill: str) -> Route:
        """The current route, strongly consistent: to be changed. Raises: NotFound."""
        ...

    def current_route(self, tenant_id: str, skill: str) -> Route:
        """The route for one request: one eventually consistent read, never remembered. Raises: NotFound."""
        ...

    def write_route(self, route: Route, *, expected_version: int) -> None:
        """Store `route`, whose version is `expected_version + 1`; 0 expects none yet. Raises: Conflict on a lost
        race."""
        ...

    def rollback(self, tenant_id: str, skill: str, change: Change, *, rollout_id: str | None = None) -> Route:
        """Put the last good control and arms back, in one conditional write that needs no read before it; the new
        route.

        With `rollout_id` only while the route belongs to that rollout, so that a late alarm cannot undo another's
        change. A route already rolled back is returned as it is. Raises: NotFound without a route, Conflict when there
        is no way back or the route belongs to something else.
        """
        ...
