"""The upkeep of the endpoint: lets it sleep when no learning run needs it, unloads adapters nothing names, loads those
that routes miss.

Called by the hour and whenever a learning run has ended. By hand: {"dry_run": true} says what would be done, {"unload":
"all"} unloads every adapter, so that the endpoint can be deleted.
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
from rlaas.learning.adapter_upkeep import Upkeep, keep_up, unload_all
from rlaas.runtime.environment import AdaptersEnvironment
from rlaas.runtime.metrics import emit
from rlaas.runtime.stage import Stage, current_stage

logger = Logger(service="rlaas")
_NEEDED_MS = 30_000
"""With less time left no other tenant is begun."""
_PAUSE_S = 3.0


class Request(BaseModel):
    """What is asked by hand; the schedule and the events of runs ask nothing special."""

    dry_run: bool = False
    unload: Literal["all"] | None = None


def handler(event: Mapping[str, object], context: LambdaContext) -> dict[str, object]:
    """One look; what it did, by the adapters' names. Raises: DependencyUnavailable when it could not even look."""
    stage, request = current_stage(), Request.model_validate(event)

    def time_is_left() -> bool:
        return context.get_remaining_time_in_millis() >= _NEEDED_MS

    if request.unload:
        done = unload_all(stage.adapters, pause=lambda: time.sleep(_PAUSE_S), time_is_left=time_is_left)
    else:
        settings = stage.settings(AdaptersEnvironment)
        if settings.scale_to_zero and not request.dry_run and not stage.learning.is_running():
            let_sleep(settings.endpoint_name)
        done = kept_up(stage, dry_run=request.dry_run, time_is_left=time_is_left)
    told: dict[str, object] = {**asdict(done), "kept": len(done.kept)}
    logger.info("adapters", dry_run=request.dry_run, adapters=told)
    if not request.dry_run and (done.unloaded or done.loaded or done.failed):  # a metric is billed for each hour in which it has a value
        emit(
            {
                "AdaptersUnloaded": (len(done.unloaded), "Count"),
                "AdaptersLoaded": (len(done.loaded), "Count"),
                "AdaptersFailed": (len(done.failed), "Count"),
            },
            dimensions={"stage": stage.name},
            at=utc_now(),
            properties={},
        )
    return told


def kept_up(stage: Stage, *, dry_run: bool, time_is_left: Callable[[], bool]) -> Upkeep:
    """Compare what is loaded with what the stage's routes and policies name."""
    return keep_up(
        stage.registry,
        stage.adapters,
        endpoint=stage.settings(AdaptersEnvironment).endpoint_name,
        now=utc_now(),
        dry_run=dry_run,
        time_is_left=time_is_left,
    )
