"""Keeps the endpoint's adapters up: lets the endpoint sleep when no learning run needs it, unloads adapters that
nothing names, and loads those that routes miss.

Called every hour and whenever a learning run has ended. By hand, {"dry_run": true} answers what it would do, and
{"unload": "all"} unloads every adapter, so that the endpoint can be deleted.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Literal

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext
from pydantic import BaseModel

from rlaas.adapters.aws.inference_components import let_sleep
from rlaas.clock import utc_now
from rlaas.learning.adapter_upkeep import Upkeep, maintain_adapters, unload_all
from rlaas.runtime.environment import AdaptersEnvironment
from rlaas.runtime.metrics import emit
from rlaas.runtime.stage import Stage, current_stage

logger = Logger(service="rlaas")
_NEEDED_MS = 30_000
"""Milliseconds that must be left to start with another tenant."""
_PAUSE_S = 3.0


class ReconcileRequest(BaseModel):
    """A request by hand; the schedule and the events of runs leave both fields out."""

    dry_run: bool = False
    unload: Literal["all"] | None = None


def handler(event: Mapping[str, object], context: LambdaContext) -> dict[str, object]:
    """Reconcile once; the names of the adapters by what was done with them. Raises: DependencyUnavailable when the
    adapters could not be listed."""
    stage, request = current_stage(), ReconcileRequest.model_validate(event)

    def time_is_left() -> bool:
        return context.get_remaining_time_in_millis() >= _NEEDED_MS

    if request.unload:
        upkeep = unload_all(stage.adapters, pause=lambda: time.sleep(_PAUSE_S), time_is_left=time_is_left)
    else:
        settings = stage.settings(AdaptersEnvironment)
        if settings.scale_to_zero and not request.dry_run and not stage.learning.is_running():
            let_sleep(settings.endpoint_name)
        upkeep = keep_adapters_up(stage, dry_run=request.dry_run, time_is_left=time_is_left)
    report: dict[str, object] = {**asdict(upkeep), "kept": len(upkeep.kept)}
    logger.info("adapters", dry_run=request.dry_run, adapters=report)
    # CloudWatch bills a metric for each hour in which it has a value.
    if not request.dry_run and (upkeep.unloaded or upkeep.loaded or upkeep.failed):
        emit(
            {
                "AdaptersUnloaded": (len(upkeep.unloaded), "Count"),
                "AdaptersLoaded": (len(upkeep.loaded), "Count"),
                "AdaptersFailed": (len(upkeep.failed), "Count"),
            },
            dimensions={"stage": stage.name},
            at=utc_now(),
            properties={},
        )
    return report


def keep_adapters_up(stage: Stage, *, dry_run: bool, time_is_left: Callable[[], bool]) -> Upkeep:
    """Load and unload adapters until they are those that the stage's routes and policies name."""
    return maintain_adapters(
        stage.registry,
        stage.adapters,
        endpoint=stage.settings(AdaptersEnvironment).endpoint_name,
        now=utc_now(),
        dry_run=dry_run,
        time_is_left=time_is_left,
    )
