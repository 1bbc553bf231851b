"""Plays failed work again, a page a call, for the admin API; and counts it, so that an alarm is raised while some
waits."""

from collections.abc import Mapping

from aws_lambda_powertools.utilities.typing import LambdaContext

from rlaas.clock import utc_now
from rlaas.runtime.log import logger
from rlaas.runtime.metrics import emit
from rlaas.runtime.stage import current_stage


def handler(event: Mapping[str, object], _: LambdaContext) -> Mapping[str, object]:
    """`play` the failed work from `cursor` on; answer how much is `waiting`; or `count` it as the metric `Unhandled`.

    Raises: InvalidInput for a cursor that no redrive gave out, DependencyUnavailable.
    """
    stage = current_stage()
    if event["action"] == "play":
        cursor = event.get("cursor")
        page = stage.kept_redriver.play(cursor if isinstance(cursor, str) else None)
        logger.info("played again", handled=page.handled, superseded=page.superseded, left=len(page.left))
        return page.model_dump(mode="json")
    waiting = {str(place): count for place, count in stage.kept_redriver.count_waiting().items()}
    if event["action"] == "count":
        emit(
            {"Unhandled": (sum(waiting.values()), "Count")},
            dimensions={"stage": stage.name},
            at=utc_now(),
            properties={place: str(count) for place, count in waiting.items()},
        )
    return waiting
