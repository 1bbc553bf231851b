"""DynamoDB stream batches: which records were handled, which are set aside, and where the stream begins again.

Powertools' `BatchProcessor` cannot do this. For streams it continues after a failure, which breaks the order; it
handles one record at a time, where rewards handle those of an interaction together; and it sets nothing aside. Only its
FIFO processor, for SQS, stops at a failure.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol, TypedDict, TypeVar, cast

from aws_lambda_powertools import Logger
from botocore.exceptions import BotoCoreError, ClientError

from rlaas.errors import Conflict, DependencyUnavailable, RlaasError

StreamRecord = Mapping[str, object]
Value = TypeVar("Value")

logger = Logger(service="rlaas")


class ItemFailure(TypedDict):
    """The sequence number of a record that was not handled."""

    itemIdentifier: str


class BatchResponse(TypedDict):
    """The answer of a stream consumer with `ReportBatchItemFailures`; the stream begins again at the first failure."""

    batchItemFailures: list[ItemFailure]


class Keeper(Protocol):
    """Where records are kept that no retry can help."""

    def set_aside(self, record: StreamRecord) -> None:
        """Keep `record` until it is played again. Raises: DependencyUnavailable."""
        ...


def do_in_order(
    event: Mapping[str, object],
    works: Iterable[tuple[Sequence[StreamRecord], Callable[[], None]]],
    *,
    keeper: Keeper | None = None,
) -> list[StreamRecord]:
    """Do `works` in order, each for some of the batch's records; the records that were not handled. A failure is logged
    with ids.

    A failure that may pass ends the batch, so that order holds and nothing is skipped. With a `keeper`, where order
    does not matter, records that would fail for ever are set aside and the rest go on. When a batch is played again
    (`redrive`), nothing is set aside, because it is kept already; with a `keeper`, all works are tried.
    """
    remaining: list[StreamRecord] = []
    all_works = list(works)
    for place, (records, work) in enumerate(all_works):
        try:
            work()
        except Exception as error:
            failures = [record for record in records if not _set_aside(event, record, error, keeper)]
            remaining += failures
            if failures and (keeper is None or not is_redrive(event)):
                return remaining + [record for later, _ in all_works[place + 1 :] for record in later]
    return remaining


def read_each(
    event: Mapping[str, object], records: Iterable[StreamRecord], read: Callable[[StreamRecord], Value], *, keeper: Keeper
) -> tuple[list[tuple[StreamRecord, Value]], list[StreamRecord]]:
    """The records that `read` could read, each with its value, and those that were neither read nor set aside."""
    values: list[tuple[StreamRecord, Value]] = []
    failures: list[StreamRecord] = []
    for record in records:
        try:
            values.append((record, read(record)))
        except Exception as error:
            if not _set_aside(event, record, error, keeper):
                failures.append(record)
    return values, failures


def _set_aside(event: Mapping[str, object], record: StreamRecord, error: Exception, keeper: Keeper | None) -> bool:
    """Log the failure and set `record` aside where that may help; whether it is kept, so that the stream may go on."""
    logger.error("stream record failed", event_id=record.get("eventID"), error=type(error).__name__, detail=_find_detail(error))
    if keeper is None or is_redrive(event) or _may_pass(error):
        return False
    try:
        keeper.set_aside(record)
    except DependencyUnavailable as unavailable:
        logger.error("stream record not set aside", event_id=record.get("eventID"), detail=unavailable.detail)
        return False
    logger.error("stream record set aside", event_id=record.get("eventID"))
    return True


def _may_pass(error: Exception) -> bool:
    """Whether the failure may pass when the record is tried again later."""
    if isinstance(error, RlaasError):
        return error.retryable or isinstance(error, Conflict)
    return isinstance(error, ClientError | BotoCoreError)


def is_redrive(event: Mapping[str, object]) -> bool:
    """Whether a redrive plays this batch again."""
    return event.get("redrive") is True


def list_records(event: Mapping[str, object]) -> Sequence[StreamRecord]:
    """The records of a batch."""
    return cast(Sequence[StreamRecord], event["Records"])


def begin_again_at(record: StreamRecord) -> BatchResponse:
    """Have the stream deliver everything from `record` on again."""
    return report_failures([record])


def report_first_failure(event: Mapping[str, object], failures: Sequence[StreamRecord]) -> BatchResponse:
    """Have the stream deliver the batch again from the first of `failures` on; for a batch that a redrive plays again,
    name all of them."""
    if is_redrive(event):
        return report_failures(failures)
    return report_failures([record for record in list_records(event) if any(record is failure for failure in failures)][:1])


def report_failures(records: Iterable[StreamRecord]) -> BatchResponse:
    """Report all but `records` as handled; the stream delivers everything from the first of them on again."""
    return {"batchItemFailures": [{"itemIdentifier": cast(Mapping[str, str], record["dynamodb"])["SequenceNumber"]} for record in records]}


def read_new_image(record: StreamRecord) -> Mapping[str, Mapping[str, object]]:
    """The item as it is after the change; empty for a deletion."""
    return cast(Mapping[str, Mapping[str, Mapping[str, object]]], record["dynamodb"]).get("NewImage", {})


def _find_detail(error: Exception) -> str | None:
    """The message of one of our own errors, which never holds payload text; other messages may."""
    return getattr(error, "detail", None)
