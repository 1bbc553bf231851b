"""Runs on a schedule: for each rollout that has a route, reads new outcomes and emits the evidence of harm for its
guard."""

import random
from collections.abc import Callable, Mapping

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext

from rlaas.clock import utc_now
from rlaas.errors import RlaasError
from rlaas.rollout.conduct import Conductor
from rlaas.runtime.harm_metric import emit_harm
from rlaas.runtime.metrics import emit
from rlaas.runtime.stage import Stage, current_stage

logger = Logger(service="rlaas")
_NEEDED_MS = 30_000
"""Milliseconds that must be left to start with another rollout."""


def watch(tenant_id: str, skill: str, stage: Stage, time_is_left: Callable[[], bool]) -> None:
    """Look at the rollout that has this route, if one still has it, until all its outcomes have been read. Raises:
    RlaasError."""
    rollout_id = stage.registry.get_route(tenant_id, skill).rollout_id
    if rollout_id is None:
        return
    conductor = Conductor(stage.registry, stage.events, stage.trials, stage.guards, utc_now, tenant_id, skill, rollout_id)
    state = conductor.watch()
    while time_is_left() and (further := conductor.watch()).version > state.version:
        state = further
    emit_harm(state, conductor.read_rollout().candidate, stage=stage.name, at=utc_now())


def handler(_: Mapping[str, object], context: LambdaContext) -> dict[str, int]:
    """Look at every rollout, in another order each time; one that fails stops no other. The answer counts the rollouts
    by outcome."""
    stage = current_stage()
    waiting = list(stage.routes_on_trial.list("rollout"))
    random.shuffle(waiting)
    counts = {"looked_at": 0, "failed": 0, "left": 0}

    def time_is_left() -> bool:
        return context.get_remaining_time_in_millis() >= _NEEDED_MS

    for place, (tenant_id, skill) in enumerate(waiting):
        if not time_is_left():
            counts["left"] = len(waiting) - place
            break
        counts["looked_at"] += 1
        try:
            watch(tenant_id, skill, stage, time_is_left)
        except RlaasError as error:
            counts["failed"] += 1
            logger.warning("not watched", tenant_id=tenant_id, skill=skill, error=type(error).__name__, detail=error.detail)
    if waiting:
        emit(
            {"WatchesFailed": (counts["failed"], "Count"), "WatchesLeft": (counts["left"], "Count")},
            dimensions={"stage": stage.name},
            at=utc_now(),
            properties={},
        )
    return counts
