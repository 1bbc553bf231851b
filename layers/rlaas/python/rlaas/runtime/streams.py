"""DynamoDB stream batches: what was handled, and from where to begin again."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypedDict, cast

from aws_lambda_powertools import Logger

StreamRecord = Mapping[str, object]

logger = Logger(service="rlaas")


class ItemFailure(TypedDict):
    """The sequence number to begin again at."""

    itemIdentifier: str


class BatchResponse(TypedDict):
    """What a stream consumer with `ReportBatchItemFailures` answers."""

    batchItemFailures: list[ItemFailure]


def each(event: Mapping[str, object], handle: Callable[[StreamRecord], None]) -> BatchResponse:
    """Handle the records in order; the first failure is logged with ids and ends the batch, so order holds and nothing is skipped."""
    for record in records_of(event):
        try:
            handle(record)
        except Exception as error:
            logger.error("stream record failed", event_id=record.get("eventID"), error=type(error).__name__, detail=_safe(error))
            return begin_again_at(record)
    return {"batchItemFailures": []}


def records_of(event: Mapping[str, object]) -> Sequence[StreamRecord]:
    """The records of a batch."""
    return cast(Sequence[StreamRecord], event["Records"])


def begin_again_at(record: StreamRecord) -> BatchResponse:
    """Everything from `record` on is to be delivered again."""
    number = cast(Mapping[str, str], record["dynamodb"])["SequenceNumber"]
    return {"batchItemFailures": [{"itemIdentifier": number}]}


def new_image(record: StreamRecord) -> Mapping[str, Mapping[str, object]]:
    """The item as it is after the change; empty for a deletion."""
    return cast(Mapping[str, Mapping[str, Mapping[str, object]]], record["dynamodb"]).get("NewImage", {})


def _safe(error: Exception) -> str | None:
    """The message of our own errors, which never holds payload text; other messages may."""
    return getattr(error, "detail", None)
