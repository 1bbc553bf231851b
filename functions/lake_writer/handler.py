"""The events' stream into the lake, and the requests that drew shadows into the shadows' queue.

One function does both: a shard of a DynamoDB stream serves at most two readers, and `reward_writer` is the other.
"""

from collections.abc import Mapping, Sequence
from functools import cache

from aws_lambda_powertools.utilities.typing import LambdaContext

from rlaas.adapters.aws.events import stored_event
from rlaas.adapters.aws.failures import SetAside
from rlaas.adapters.aws.lake import FirehoseLake
from rlaas.adapters.aws.shadows import DynamoShadowLedger, ShadowQueue
from rlaas.adapters.aws.stream_batches import BatchResponse, StreamRecord, new_image, read_each, records_of, report_failures
from rlaas.clock import utc_now
from rlaas.inference.shadow import ShadowTask, shadow_tasks
from rlaas.runtime.environment import LakeEnvironment, environment
from rlaas.runtime.log import logger
from rlaas.runtime.metrics import emit
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


def read(record: StreamRecord) -> tuple[StoredEvent, list[ShadowTask]]:
    """The new event, and a task for each shadow that its decision drew."""
    event = stored_event(new_image(record))
    return event, list(shadow_tasks(event)) if "mirrored" in event.marks else []


def mirror(tasks_of: Sequence[Sequence[ShadowTask]]) -> list[int]:
    """Enter each event's tasks into the ledger and send them; the places of events whose tasks the queue refused.

    A task sent twice leaves one output. Raises: DependencyUnavailable.
    """
    drawn = [(place, task) for place, tasks in enumerate(tasks_of) for task in tasks]
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


def handler(event: Mapping[str, object], context: LambdaContext) -> BatchResponse:
    """Deliver and mirror every new event; what Firehose or the queue keeps refusing is delivered again from the first such event on."""
    inserts = [record for record in records_of(event) if record["eventName"] == "INSERT"]
    keeper = SetAside(environment(LakeEnvironment).failures_bucket, context.invoked_function_arn)
    new_events, failures = read_each(event, inserts, read, keeper=keeper)
    refused = {*lake().deliver([new for _, (new, _) in new_events]), *mirror([tasks for _, (_, tasks) in new_events])}
    return report_failures([*failures, *(new_events[place][0] for place in sorted(refused))])
