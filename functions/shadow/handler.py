"""Does the tasks in the shadows' queue: a shadow policy answers, its output is stored, and the task is struck out of
the ledger."""

from collections.abc import Mapping, Sequence
from typing import TypedDict, cast

from aws_lambda_powertools.utilities.typing import LambdaContext

from rlaas.adapters.aws.stream_batches import BatchResponse, ItemFailure
from rlaas.clock import utc_now
from rlaas.inference.gateway import Gateway
from rlaas.inference.shadow import TIMEOUT_S, ShadowTask, answer_unseen
from rlaas.runtime.log import logger
from rlaas.runtime.metrics import emit
from rlaas.runtime.stage import Stage, current_stage


class QueueMessage(TypedDict):
    """A message of SQS."""

    messageId: str
    body: str


def answer_task(task: ShadowTask, stage: Stage) -> bool:
    """Do one task; whether its output is new. Raises: RlaasError."""
    gateway = Gateway(
        routes=stage.registry,
        backend=stage.backends,
        store=stage.events,
        scrubber=stage.scrubbers.of(task.tenant_id),
        spending=stage.spendings.of(task.tenant_id),
        clock=utc_now,
        whole_s=TIMEOUT_S,
        stream_s=TIMEOUT_S,
        moderator=stage.moderators,
    )
    is_new = answer_unseen(task, gateway)
    stage.shadow_ledger.strike(task)
    return is_new


def handler(event: Mapping[str, object], _: LambdaContext) -> BatchResponse:
    """Do the task of each message; SQS hands out a failed message again until it moves to the dead letters."""
    stage = current_stage()
    failures: list[ItemFailure] = []
    outputs = 0
    for message in cast(Sequence[QueueMessage], event["Records"]):
        try:
            task = ShadowTask.model_validate_json(message["body"])
            outputs += answer_task(task, stage)
        except Exception as error:
            logger.warning(
                "shadow failed", message_id=message["messageId"], error=type(error).__name__, detail=getattr(error, "detail", None)
            )
            failures.append({"itemIdentifier": message["messageId"]})
    emit(
        {"ShadowOutput": (outputs, "Count"), "ShadowFailed": (len(failures), "Count")},
        dimensions={"stage": stage.name},
        at=utc_now(),
        properties={},
    )
    return {"batchItemFailures": failures}
