"""The schedule of the bandits: for each route with one, what became of its decisions since, and its shares from that."""

import random
from collections.abc import Mapping
from functools import cache

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext

from rlaas.adapters.aws.events import DynamoEventStore
from rlaas.adapters.aws.registry import DynamoRegistry
from rlaas.adapters.aws.trials import DynamoBandits, RoutesOnTrial
from rlaas.clock import utc_now
from rlaas.errors import RlaasError
from rlaas.experiments.allocation import allocate_route
from rlaas.runtime.environment import AllocationEnvironment, environment
from rlaas.runtime.metrics import emit

logger = Logger(service="rlaas")
_NEEDED_MS = 60_000
"""With less time left no other route is begun."""


@cache
def stores() -> tuple[DynamoRegistry, DynamoEventStore, DynamoBandits, RoutesOnTrial]:
    """The registry, the events, the bandits and their list, made on first use."""
    settings = environment(AllocationEnvironment)
    events = DynamoEventStore(settings.events_table, ttl_days=settings.event_ttl_days)
    registry, table = DynamoRegistry(settings.registry_table), settings.registry_table
    return registry, events, DynamoBandits(settings.counters_table), RoutesOnTrial(table)


def handler(_: Mapping[str, object], context: LambdaContext) -> dict[str, int]:
    """Look at every bandit, in another order each time; one that fails leaves its route as it is and holds up no other."""
    routes, events, bandits, on_trial = stores()
    waiting = list(on_trial.list("bandit"))
    random.shuffle(waiting)
    counts = {"looked_at": 0, "changed": 0, "failed": 0, "left": 0}
    for place, (tenant_id, skill) in enumerate(waiting):
        if context.get_remaining_time_in_millis() < _NEEDED_MS:
            counts["left"] = len(waiting) - place
            break
        counts["looked_at"] += 1
        try:
            done = allocate_route(tenant_id, skill, routes=routes, specs=routes, events=events, statistics=bandits, now=utc_now())
        except RlaasError as error:
            counts["failed"] += 1
            logger.warning("not allocated", tenant_id=tenant_id, skill=skill, error=type(error).__name__, detail=error.detail)
            continue
        counts["changed"] += done.route is not None
        logger.info("allocated", tenant_id=tenant_id, skill=skill, reason=done.reason, seen=done.seen, settled=done.settled)
    if waiting:  # CloudWatch bills a metric for each hour in which it is sent
        emit(
            {"AllocationsFailed": (counts["failed"], "Count"), "AllocationsLeft": (counts["left"], "Count")},
            dimensions={"stage": environment(AllocationEnvironment).stage},
            at=utc_now(),
            properties={},
        )
    return counts
