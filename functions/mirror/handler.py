"""The events' stream into the shadows' queue: each output whose decision drew shadows, a task for each of them."""

from collections.abc import Mapping
from functools import cache

from aws_lambda_powertools.utilities.typing import LambdaContext

from rlaas.aws.events import stored_event
from rlaas.aws.shadows import DynamoShadowLedger, ShadowQueue
from rlaas.clock import utc_now
from rlaas.inference.shadow import ShadowTask, shadow_tasks
from rlaas.runtime.environment import MirrorEnvironment, environment
from rlaas.runtime.log import logger
from rlaas.runtime.metrics import emit
from rlaas.runtime.streams import BatchResponse, StreamRecord, begin_again_at, each, new_image


@cache
def ways() -> tuple[DynamoShadowLedger, ShadowQueue]:
    """The ledger and the queue, made on first use."""
    settings = environment(MirrorEnvironment)
    return DynamoShadowLedger(settings.counters_table), ShadowQueue(settings.shadow_queue_url)


def handler(event: Mapping[str, object], _: LambdaContext) -> BatchResponse:
    """Enter the batch's tasks into the ledger and send them; what is refused is delivered again from the first such record on.

    A record that cannot be read ends the batch after what comes before it. A task sent twice leaves one output.
    """
    tasks: list[ShadowTask] = []
    sources: list[StreamRecord] = []

    def read(record: StreamRecord) -> None:
        drawn = shadow_tasks(stored_event(new_image(record))) if record["eventName"] == "INSERT" else []
        tasks.extend(drawn)
        sources.extend([record] * len(drawn))

    unread = each(event, read)
    if not tasks:
        return unread
    ledger, queue = ways()
    ledger.enter(tasks, at=utc_now())
    refused = queue.send(tasks)
    emit(
        {"ShadowSampled": (len(tasks) - len(refused), "Count")},
        dimensions={"stage": environment(MirrorEnvironment).stage},
        at=utc_now(),
        properties={},
    )
    if refused:
        logger.warning("tasks refused by the queue", refused=len(refused))
        return begin_again_at(sources[min(refused)])
    return unread
