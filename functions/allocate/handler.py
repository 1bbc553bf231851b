"""Runs on a schedule: for each route with a bandit, reads the new outcomes of its decisions and sets its arms'
shares."""

import random
from collections.abc import Mapping

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext

from rlaas.clock import utc_now
from rlaas.errors import RlaasError
from rlaas.experiments.allocation import allocate_route
from rlaas.runtime.metrics import emit
from rlaas.runtime.stage import current_stage

logger = Logger(service="rlaas")
_NEEDED_MS = 60_000
"""Milliseconds that must be left to start with another route."""


def handler(_: Mapping[str, object], context: LambdaContext) -> dict[str, int]:
    """Look at every bandit, in another order each time; one that fails leaves its route as it is and stops no
    other. The answer counts the routes by outcome."""
    stage = current_stage()
    waiting = list(stage.routes_on_trial.list("bandit"))
    random.shuffle(waiting)
    counts = {"looked_at": 0, "changed": 0, "failed": 0, "left": 0}
    for place, (tenant_id, skill) in enumerate(waiting):
        if context.get_remaining_time_in_millis() < _NEEDED_MS:
            counts["left"] = len(waiting) - place
            break
        counts["looked_at"] += 1
        try:
            result = allocate_route(
                tenant_id,
                skill,
                routes=stage.registry,
                specs=stage.registry,
                events=stage.events,
                statistics=stage.bandits,
                now=utc_now(),
            )
        except RlaasError as error:
            counts["failed"] += 1
            logger.warning("not allocated", tenant_id=tenant_id, skill=skill, error=type(error).__name__, detail=error.detail)
            continue
        counts["changed"] += result.route is not None
        logger.info("allocated", tenant_id=tenant_id, skill=skill, reason=result.reason, seen=result.seen, settled=result.settled)
    if waiting:  # CloudWatch bills a metric for each hour in which it is sent
        emit(
            {"AllocationsFailed": (counts["failed"], "Count"), "AllocationsLeft": (counts["left"], "Count")},
            dimensions={"stage": stage.name},
            at=utc_now(),
            properties={},
        )
    return counts
