"""What requests are answered with: the stores, models and clocks that all steps of a request share."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from rlaas.clock import Clock
from rlaas.inference.circuit_breakers import CircuitBreakers
from rlaas.inference.spending import Spending
from rlaas.policies.allowed_models import EVERY_MODEL, AllowedModels
from rlaas.policies.backend import Backend
from rlaas.policies.bundle import Policy
from rlaas.policies.guardrails.moderation import Moderator
from rlaas.privacy.scrub import Scrubber
from rlaas.routing.route import Route
from rlaas.telemetry.store import EventStore


class RouteSource(Protocol):
    """Reads the route and its policies for one request."""

    def get_route_for_request(self, tenant_id: str, skill: str) -> Route:
        """The route as it is now, never remembered. Raises: NotFound."""
        ...

    def get_policy(self, tenant_id: str, policy_id: str) -> Policy:
        """An immutable policy. Raises: NotFound."""
        ...


@dataclass(frozen=True, slots=True)
class Gateway:
    """What a tenant's requests are answered with. `scrubber` and `spending` are the tenant's own.

    `timer` counts seconds from any moment, `pause` waits seconds.
    """

    routes: RouteSource
    backend: Backend
    store: EventStore
    scrubber: Scrubber
    spending: Spending
    clock: Clock
    whole_s: float
    """When a whole answer must be there, in seconds from the request's start."""
    stream_s: float
    """When a streamed answer must have ended, in seconds from the request's start."""
    moderator: Moderator | None = None
    """Asks the services that guardrails are judged by; without one, guardrails that need it fail."""
    timer: Callable[[], float] = time.perf_counter
    pause: Callable[[float], None] = time.sleep
    breakers: CircuitBreakers = field(default_factory=lambda: CircuitBreakers(time.perf_counter))
    allowed: AllowedModels = EVERY_MODEL
    """The models that callers may ask directly; `backend` checks those that RLaaS asks."""
