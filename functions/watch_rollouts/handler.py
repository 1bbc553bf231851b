"""The schedule of the guards: for each rollout that has a route, what became known since, and the evidence of harm from that."""

import random
from collections.abc import Callable, Mapping
from functools import cache

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext

from rlaas.adapters.aws.events import DynamoEventStore
from rlaas.adapters.aws.metrics_alarms import CloudWatchGuards
from rlaas.adapters.aws.registry import DynamoRegistry
from rlaas.adapters.aws.trials import DynamoTrials, RoutesOnTrial
from rlaas.clock import utc_now
from rlaas.errors import RlaasError
from rlaas.rollout.conduct import Conductor
from rlaas.runtime.environment import RolloutEnvironment, environment
from rlaas.runtime.harm_metric import emit_harm
from rlaas.runtime.metrics import emit

logger = Logger(service="rlaas")
_NEEDED_MS = 30_000
"""With less time left no other rollout is begun."""


@cache
def stores() -> tuple[DynamoRegistry, DynamoEventStore, DynamoTrials, CloudWatchGuards, RoutesOnTrial]:
    """What a look needs, made on first use."""
    settings = environment(RolloutEnvironment)
    return (
        DynamoRegistry(settings.registry_table),
        DynamoEventStore(settings.events_table, ttl_days=settings.event_ttl_days),
        DynamoTrials(settings.counters_table),
        CloudWatchGuards(settings.stage),
        RoutesOnTrial(settings.registry_table),
    )


def watch(tenant_id: str, skill: str, time_is_left: Callable[[], bool]) -> None:
    """Look at the rollout that has this route, if one has it still, until all that is known has been seen."""
    registry, events, trials, guards, _ = stores()
    rollout_id = registry.get_route(tenant_id, skill).rollout_id
    if rollout_id is None:
        return
    conductor = Conductor(registry, events, trials, guards, utc_now, tenant_id, skill, rollout_id)
    state = conductor.watch()
    while time_is_left() and (further := conductor.watch()).version > state.version:
        state = further
    emit_harm(state, conductor.rollout().candidate, stage=environment(RolloutEnvironment).stage, at=utc_now())


def handler(_: Mapping[str, object], context: LambdaContext) -> dict[str, int]:
    """Look at every rollout, in another order each time; one that fails holds up no other."""
    waiting = list(stores()[-1].list("rollout"))
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
            watch(tenant_id, skill, time_is_left)
        except RlaasError as error:
            counts["failed"] += 1
            logger.warning("not watched", tenant_id=tenant_id, skill=skill, error=type(error).__name__, detail=error.detail)
    if waiting:
        emit(
            {"WatchesFailed": (counts["failed"], "Count"), "WatchesLeft": (counts["left"], "Count")},
            dimensions={"stage": environment(RolloutEnvironment).stage},
            at=utc_now(),
            properties={},
        )
    return counts
