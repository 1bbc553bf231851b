"""Delivers new events, from their table's stream, to the lake, and sends requests to mirror to the shadows' queue.

One function does both because a shard of a DynamoDB stream serves at most two readers; `reward_writer` is the other.
"""

from collections.abc import Mapping, Sequence

from aws_lambda_powertools.utilities.typing import LambdaContext

from rlaas.adapters.aws.events import read_stored_event
from rlaas.adapters.aws.stream_batches import BatchResponse, StreamRecord, list_records, read_each, read_new_image, report_failures
from rlaas.clock import utc_now
from rlaas.inference.shadow import ShadowTask, shadow_tasks
from rlaas.runtime.log import logger
from rlaas.runtime.metrics import emit
from rlaas.runtime.stage import current_stage
from rlaas.telemetry.store import StoredEvent


def read(record: StreamRecord) -> tuple[StoredEvent, list[ShadowTask]]:
    """The new event, and a task for each shadow policy that its decision drew."""
    event = read_stored_event(read_new_image(record))
    return event, list(shadow_tasks(event)) if "mirrored" in event.shadow_roles else []


def mirror(tasks_of: Sequence[Sequence[ShadowTask]]) -> list[int]:
    """Enter each event's tasks into the ledger and send them; the positions of events whose tasks the queue refused.

    A task that is sent twice makes one output. Raises: DependencyUnavailable.
    """
    pairs = [(position, task) for position, tasks in enumerate(tasks_of) for task in tasks]
    if not pairs:
        return []
    tasks = [task for _, task in pairs]
    stage = current_stage()
    stage.shadow_ledger.enter(tasks, at=utc_now())
    refused = stage.shadow_queue.send(tasks)
    emit(
        {"ShadowSampled": (len(tasks) - len(refused), "Count")},
        dimensions={"stage": stage.name},
        at=utc_now(),
        properties={},
    )
    if refused:
        logger.warning("tasks refused by the queue", refused=len(refused))
    return [pairs[index][0] for index in refused]


def handler(event: Mapping[str, object], context: LambdaContext) -> BatchResponse:
    """Deliver and mirror every new event; the stream delivers again from the first event on that Firehose or the queue
    refused. Raises: DependencyUnavailable."""
    inserts = [record for record in list_records(event) if record["eventName"] == "INSERT"]
    stage = current_stage()
    new_events, failures = read_each(event, inserts, read, keeper=stage.keeper(context.invoked_function_arn))
    refused = {*stage.lake.deliver([new for _, (new, _) in new_events]), *mirror([tasks for _, (_, tasks) in new_events])}
    return report_failures([*failures, *(new_events[place][0] for place in sorted(refused))])
