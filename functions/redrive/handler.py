"""Plays again what failed and was kept, a page a call, for the admin API; and counts it, so that an alarm tells while something waits."""

from collections.abc import Mapping
from functools import cache

from aws_lambda_powertools.utilities.typing import LambdaContext

from rlaas.adapters.aws.failures import BATCHES, KeptObjects
from rlaas.adapters.aws.redrive import Consumers, DeadShadows, FailedCalls, KeptBatches, KeptRedriver, UndeliveredEvents
from rlaas.clock import utc_now
from rlaas.runtime.environment import RedriveEnvironment, environment
from rlaas.runtime.log import logger
from rlaas.runtime.metrics import emit


@cache
def redriver() -> KeptRedriver:
    """The places where things are kept, made on first use."""
    settings = environment(RedriveEnvironment)
    consumers = Consumers(settings.consumers, in_order=settings.in_order)
    return KeptRedriver(
        {
            "batches": KeptBatches(KeptObjects(settings.failures_bucket, BATCHES), consumers),
            "calls": FailedCalls(settings.failures_queue_url, consumers),
            "shadows": DeadShadows(settings.dead_letter_queue_url, settings.shadow_queue_url),
            "lake": UndeliveredEvents(KeptObjects(settings.lake_bucket, "errors/"), settings.delivery_stream),
        }
    )


def handler(event: Mapping[str, object], _: LambdaContext) -> Mapping[str, object]:
    """`play` what is kept, from `cursor` on; say what is `waiting`; or `count` it as the metric `Unhandled`."""
    if event["action"] == "play":
        cursor = event.get("cursor")
        page = redriver().play(cursor if isinstance(cursor, str) else None)
        logger.info("played again", handled=page.handled, superseded=page.superseded, left=len(page.left))
        return page.model_dump(mode="json")
    waiting = {str(place): count for place, count in redriver().waiting().items()}
    if event["action"] == "count":
        emit(
            {"Unhandled": (sum(waiting.values()), "Count")},
            dimensions={"stage": environment(RedriveEnvironment).stage},
            at=utc_now(),
            properties={place: str(count) for place, count in waiting.items()},
        )
    return waiting
