"""The shadows' queue: a shadow policy answers, its output is stored, and its task is struck out of the ledger."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TypedDict, cast

from aws_lambda_powertools.utilities.typing import LambdaContext

from rlaas.adapters.aws.shadows import DynamoShadowLedger
from rlaas.adapters.aws.stream_batches import BatchResponse, ItemFailure
from rlaas.api import answering
from rlaas.clock import utc_now
from rlaas.inference.gateway import Gateway
from rlaas.inference.shadow import ShadowTask, answer_unseen
from rlaas.policies.backend import Backend
from rlaas.runtime.environment import InferenceEnvironment, environment
from rlaas.runtime.log import logger
from rlaas.runtime.metrics import emit


class Message(TypedDict):
    """What SQS hands over."""

    messageId: str
    body: str


@cache
def ledger() -> DynamoShadowLedger:
    """The ledger, made on first use."""
    return DynamoShadowLedger(environment(InferenceEnvironment).counters_table)


def backend() -> Backend:
    """The models."""
    settings = environment(InferenceEnvironment)
    return answering.backends(settings.stage, settings.allowed_models)


def answer_task(task: ShadowTask) -> bool:
    """Do one task; whether its output is new."""
    settings = environment(InferenceEnvironment)
    store, registry = answering.stores(settings)
    gateway = Gateway(
        routes=registry,
        backend=backend(),
        store=store,
        scrubber=answering.scrubbers(settings).of(task.tenant_id),
        spending=answering.spendings(settings).of(task.tenant_id),
        clock=utc_now,
        moderator=answering.moderators(settings.stage, settings.allowed_models),
    )
    new = answer_unseen(task, gateway)
    ledger().strike(task)
    return new


def handler(event: Mapping[str, object], _: LambdaContext) -> BatchResponse:
    """Each message by itself; one that fails is handed out again until the queue takes it for dead."""
    failures: list[ItemFailure] = []
    outputs = 0
    for message in cast(Sequence[Message], event["Records"]):
        try:
            task = ShadowTask.model_validate_json(message["body"])
            outputs += answer_task(task)
        except Exception as error:
            logger.warning(
                "shadow failed", message_id=message["messageId"], error=type(error).__name__, detail=getattr(error, "detail", None)
            )
            failures.append({"itemIdentifier": message["messageId"]})
    emit(
        {"ShadowOutput": (outputs, "Count"), "ShadowFailed": (len(failures), "Count")},
        dimensions={"stage": environment(InferenceEnvironment).stage},
        at=utc_now(),
        properties={},
    )
    return {"batchItemFailures": failures}
