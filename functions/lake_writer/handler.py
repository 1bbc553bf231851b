"""The events' stream into the lake, and the requests that drew shadows into the shadows' queue.

One function for both: a stream's shard bears two readers, and `reward_writer` is the other.
"""

from collections.abc import Mapping, Sequence
from functools import cache

from aws_lambda_powertools.utilities.typing import LambdaContext

from rlaas.aws.events import stored_event
from rlaas.aws.lake import FirehoseLake
from rlaas.aws.shadows import DynamoShadowLedger, ShadowQueue
from rlaas.clock import utc_now
from rlaas.inference.shadow import shadow_tasks
from rlaas.runtime.environment import LakeEnvironment, environment
from rlaas.runtime.log import logger
from rlaas.runtime.metrics import emit
from rlaas.runtime.streams import BatchResponse, begin_again_at, new_image, records_of
from rlaas.telemetry.store import StoredEvent


@cache
def lake() -> FirehoseLake:
    """The lake, made on first use."""
    return FirehoseLake(environment(LakeEnvironment).delivery_stream)


@cache
def shadows() -> tuple[DynamoShadowLedger, ShadowQueue]:
    """The shadows' ledger and queue, made on first use."""
    settings = environment(LakeEnvironment)
    return DynamoShadowLedger(settings.counters_table), ShadowQueue(settings.shadow_queue_url)


def mirror(events: Sequence[StoredEvent]) -> list[int]:
    """Enter a task for each shadow that an output's decision drew into the ledger and send it; the places of events the queue refused.

    A task sent twice leaves one output. Raises: DependencyUnavailable.
    """
    drawn = [(place, task) for place, event in enumerate(events) if "mirrored" in event.marks for task in shadow_tasks(event)]
    if not drawn:
        return []
    tasks = [task for _, task in drawn]
    ledger, queue = shadows()
    ledger.enter(tasks, at=utc_now())
    refused = queue.send(tasks)
    emit(
        {"ShadowSampled": (len(tasks) - len(refused), "Count")},
        dimensions={"stage": environment(LakeEnvironment).stage},
        at=utc_now(),
        properties={},
    )
    if refused:
        logger.warning("tasks refused by the queue", refused=len(refused))
    return [drawn[at][0] for at in refused]


def handler(event: Mapping[str, object], _: LambdaContext) -> BatchResponse:
    """Deliver and mirror every new event; what Firehose or the queue keeps refusing is delivered again from the first such event on."""
    inserts = [record for record in records_of(event) if record["eventName"] == "INSERT"]
    events = [stored_event(new_image(record)) for record in inserts]
    refused = [*lake().deliver(events), *mirror(events)]
    return begin_again_at(inserts[min(refused)]) if refused else {"batchItemFailures": []}
