"""Failed work, where AWS keeps it and how each piece is played again: batches of streams on S3, calls of EventBridge
and mirrored requests on SQS, what Firehose could not write on S3."""

import base64
import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache, partial
from typing import TYPE_CHECKING, Literal, cast

import boto3
from botocore.config import Config
from pydantic import JsonValue

from rlaas.adapters.aws.clients import client, dependency
from rlaas.adapters.aws.failures import KeptObject, KeptObjects
from rlaas.tenancy.redrive import Left

if TYPE_CHECKING:
    from types_boto3_firehose import FirehoseClient
    from types_boto3_lambda import LambdaClient
    from types_boto3_sqs import SQSClient
    from types_boto3_sqs.type_defs import MessageTypeDef

CALL_S = 15.0
"""Seconds that one call of a consumer may take."""
RECORDS = 20
"""Stream records in one call: a share of what a consumer handles in a batch of a hundred, so that it ends in time."""
COUNTED = 10_000
"""Pieces of work of one place that are counted one by one."""
_SORTED_BYTES = 32 * 1024 * 1024
_HIDDEN_S = 60
_STOPPED = "!"
_FIREHOSE_BYTES = 3_500_000

PlayResult = Literal["handled", "superseded"] | Left


@dataclass(frozen=True, slots=True)
class Work:
    """A piece of failed work: what it is, how to play it again, and where the next page continues after that."""

    what: str
    play: Callable[[], PlayResult]
    resume: Callable[[], str]


class Consumers:
    """The functions that may be called, by name. Failed work names its function with or without a version; the
    functions here are called in either case."""

    def __init__(self, arns: Sequence[str], *, in_order: str, functions: "LambdaClient | None" = None) -> None:
        self._arns = {_function_name(arn): arn for arn in arns}
        self._in_order = _function_name(in_order)
        self._functions = functions or _lambda_client()
        self.is_stopped = False
        """Whether the consumer that needs order has failed: then this redrive gives it nothing more."""

    def play_batch(self, arn: str, records: Sequence[JsonValue]) -> str | None:
        """Give a stream's records to their consumer, in order; why they are left, if they are. Raises:
        DependencyUnavailable."""
        name = _function_name(arn)
        if name == self._in_order and self.is_stopped:
            return f"{name} takes changes in order, and failed on an earlier one"
        failure_count = 0
        self.is_stopped = self.is_stopped or name == self._in_order  # until it has succeeded
        for start in range(0, len(records), RECORDS):
            answer = self._call(name, {"Records": [*records[start : start + RECORDS]], "redrive": True})
            if isinstance(answer, str):
                return answer
            failures = cast("Mapping[str, list[object]]", answer).get("batchItemFailures", []) if isinstance(answer, dict) else []
            failure_count += len(failures)
            if failure_count and name == self._in_order:
                break
        if failure_count:
            return f"{name} still fails on {failure_count} of {len(records)} records; its log says why"
        self.is_stopped = self.is_stopped and name != self._in_order
        return None

    def play_call(self, arn: str, event: JsonValue) -> str | None:
        """Call the function once more; why the call is left, if it is. Raises: DependencyUnavailable."""
        answer = self._call(_function_name(arn), event)
        return answer if isinstance(answer, str) else None

    def _call(self, name: str, event: JsonValue) -> "str | dict[str, object] | None":
        if name not in self._arns:
            return f"{name} is no consumer that may be called: play it again by hand"
        with dependency(name):
            answer = self._functions.invoke(FunctionName=self._arns[name], Payload=json.dumps(event, separators=(",", ":")).encode())
            body = json.loads(answer["Payload"].read() or b"null")
        if "FunctionError" in answer:
            return f"{name} failed with {body.get('errorType', answer['FunctionError'])}; its log says why"
        return cast("dict[str, object] | None", body if isinstance(body, dict) else None)


class KeptBatches:
    """Batches of streams, each played by itself; those of one second in the order of their stream."""

    def __init__(self, objects: KeptObjects, consumers: Consumers) -> None:
        self._objects = objects
        self._consumers = consumers

    def count_waiting(self) -> int:
        """How many batches, counted up to `COUNTED`. Raises: DependencyUnavailable."""
        return _count(self._objects)

    def iterate_work(self, after: str, until: datetime) -> Iterator[Work]:
        """The batches, by when Lambda gave them up. Raises: DependencyUnavailable."""
        self._consumers.is_stopped = after.startswith(_STOPPED)
        older = (batch for batch in self._objects.after(after.removeprefix(_STOPPED)) if batch.kept_at < until)
        for _, group in itertools.groupby(older, key=lambda batch: _strip_random_end(batch.key)):
            batches = list(group)
            if len(batches) > 1 and sum(batch.size for batch in batches) <= _SORTED_BYTES:
                batches.sort(key=self._start)
            last = max(batch.key for batch in batches)
            for batch in batches:
                yield Work(batch.key, partial(self._play, batch.key), partial(self._resume, last))

    def _resume(self, last: str) -> str:
        return _STOPPED * self._consumers.is_stopped + last

    def _start(self, batch: KeptObject) -> int:
        info = _read_document(self._objects.read(batch.key)).get("DDBStreamBatchInfo")
        number = info.get("startSequenceNumber") if isinstance(info, dict) else None
        return int(number) if isinstance(number, str) and number.isdigit() else 0

    def _play(self, key: str) -> PlayResult:
        body = self._objects.read(key)
        if body is None:
            return "handled"
        document = _read_document(body)
        context, payload = document.get("requestContext"), document.get("payload")
        event = _read_document(payload.encode()) if isinstance(payload, str) else payload
        arn = context.get("functionArn") if isinstance(context, dict) else None
        records = event.get("Records") if isinstance(event, dict) else None
        if not isinstance(arn, str) or not isinstance(records, list):
            return Left(what=key, why="it is no batch that Lambda kept: it names no function, or holds no records")
        why = self._consumers.play_batch(arn, records)
        if why is not None:
            return Left(what=key, why=why)
        self._objects.delete(key)
        return "handled"


class FailedCalls:
    """Calls of functions by EventBridge: those that Lambda gave up, and those that a rule could not hand over."""

    def __init__(self, queue_url: str, consumers: Consumers, sqs: "SQSClient | None" = None) -> None:
        self._queue = DeadLetters(queue_url, sqs)
        self._consumers = consumers

    def count_waiting(self) -> int:
        """About how many calls. Raises: DependencyUnavailable."""
        return self._queue.measure_depth()

    def iterate_work(self, after: str, until: datetime) -> Iterator[Work]:
        """The calls; the queue has no order, so `after` changes nothing. Raises: DependencyUnavailable."""
        for message in self._queue.iterate_messages(until):
            yield Work(message["MessageId"], partial(self._play, message), str)

    def _play(self, message: "MessageTypeDef") -> PlayResult:
        event: JsonValue
        body = _read_document(message["Body"].encode())
        context = body.get("requestContext")
        if isinstance(context, dict) and "requestPayload" in body:
            arn, event = context.get("functionArn"), body["requestPayload"]
        else:
            arn, event = _target_arn(message), body
        if isinstance(event, dict) and (event.get("detail-type") == "Scheduled Event" or event.get("action") == "count"):
            self._queue.delete(message)
            return "superseded"
        if not isinstance(arn, str):
            return Left(what=message["MessageId"], why="the message names no function")
        why = self._consumers.play_call(arn, event)
        if why is not None:
            return Left(what=message["MessageId"], why=why)
        self._queue.delete(message)
        return "handled"


class DeadShadows:
    """Mirrored requests that no shadow could answer: they go back into their queue."""

    def __init__(self, dead_letters_url: str, queue_url: str, sqs: "SQSClient | None" = None) -> None:
        self._dead_letters = DeadLetters(dead_letters_url, sqs)
        self._queue_url = queue_url
        self._sqs = sqs or client("sqs")

    def count_waiting(self) -> int:
        """About how many tasks. Raises: DependencyUnavailable."""
        return self._dead_letters.measure_depth()

    def iterate_work(self, after: str, until: datetime) -> Iterator[Work]:
        """The tasks, in no order. Raises: DependencyUnavailable."""
        for message in self._dead_letters.iterate_messages(until):
            yield Work(message["MessageId"], partial(self._play, message), str)

    def _play(self, message: "MessageTypeDef") -> PlayResult:
        with dependency("SQS"):
            self._sqs.send_message(QueueUrl=self._queue_url, MessageBody=message["Body"])
        self._dead_letters.delete(message)
        return "handled"


class UndeliveredEvents:
    """Files of events that Firehose could neither partition nor convert: they are given to it again."""

    def __init__(self, objects: KeptObjects, stream: str, firehose: "FirehoseClient | None" = None) -> None:
        self._objects = objects
        self._stream = stream
        self._firehose = firehose or client("firehose")

    def count_waiting(self) -> int:
        """How many files, counted up to `COUNTED`. Raises: DependencyUnavailable."""
        return _count(self._objects)

    def iterate_work(self, after: str, until: datetime) -> Iterator[Work]:
        """The files, by the kind of their error and the day. Raises: DependencyUnavailable."""
        for file in self._objects.after(after):
            if file.kept_at < until:
                yield Work(file.key, partial(self._play, file.key), partial(str, file.key))

    def _play(self, key: str) -> PlayResult:
        body = self._objects.read(key)
        if body is None:
            return "handled"
        records = []
        for line in body.splitlines():
            raw = _read_document(line).get("rawData")
            if not isinstance(raw, str):
                return Left(what=key, why="a line of it holds no rawData: it is not what Firehose writes of a failed record")
            records.append(base64.b64decode(raw).rstrip(b"\n") + b"\n")
        for batch in _split_by_size(records):
            with dependency("Firehose"):
                answer = self._firehose.put_record_batch(DeliveryStreamName=self._stream, Records=[{"Data": data} for data in batch])
            if answer["FailedPutCount"]:
                return Left(what=key, why="Firehose refused some of it: try again later")
        self._objects.delete(key)
        return "handled"


class DeadLetters:
    """A queue of messages that failed for good."""

    def __init__(self, url: str, sqs: "SQSClient | None" = None) -> None:
        self._url = url
        self._sqs = sqs or client("sqs")

    def measure_depth(self) -> int:
        """About how many messages, including those that are being played again. Raises: DependencyUnavailable."""
        names: list[Literal["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]]
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        with dependency("SQS"):
            counts = self._sqs.get_queue_attributes(QueueUrl=self._url, AttributeNames=[*names])["Attributes"]
        return sum(int(counts[name]) for name in names)

    def iterate_messages(self, until: datetime) -> "Iterator[MessageTypeDef]":
        """The messages sent before `until`; each is hidden from other readers for 60 s. Raises:
        DependencyUnavailable."""
        while True:
            with dependency("SQS"):
                answer = self._sqs.receive_message(
                    QueueUrl=self._url,
                    MaxNumberOfMessages=1,  # a page may end after any, and what it was handed would stay hidden
                    VisibilityTimeout=_HIDDEN_S,
                    WaitTimeSeconds=1,
                    MessageAttributeNames=["All"],
                    MessageSystemAttributeNames=["SentTimestamp"],
                )
            if not answer.get("Messages"):
                return
            for message in answer["Messages"]:
                if int(message["Attributes"]["SentTimestamp"]) < until.timestamp() * 1000:
                    yield message

    def delete(self, message: "MessageTypeDef") -> None:
        """Delete a message that was handled. Raises: DependencyUnavailable."""
        with dependency("SQS"):
            self._sqs.delete_message(QueueUrl=self._url, ReceiptHandle=message["ReceiptHandle"])


def _target_arn(message: "MessageTypeDef") -> str | None:
    """The target that a rule could not hand the event to, as EventBridge names it in its dead letters."""
    attribute = message.get("MessageAttributes", {}).get("TARGET_ARN")
    return attribute.get("StringValue") if attribute else None


def _count(objects: KeptObjects) -> int:
    return sum(1 for _ in itertools.islice(objects.after(""), COUNTED))


def _strip_random_end(key: str) -> str:
    """The part of the key that batches of one shard and second share."""
    return re.sub(r"(\d{4}-\d\d-\d\dT\d\d\.\d\d\.\d\d)-[0-9a-f-]{36}$", r"\1", key)


def _function_name(arn: str) -> str:
    """The name of the function with this ARN, whatever its version."""
    parts = arn.split(":")
    return parts[6] if len(parts) > 6 else arn


def _read_document(body: bytes | None) -> dict[str, JsonValue]:
    """The JSON object in `body`; an empty one where it holds none."""
    try:
        document = json.loads(body or b"null")
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _split_by_size(records: Sequence[bytes]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    for record in records:
        if batch and (len(batch) == 500 or sum(map(len, batch)) + len(record) > _FIREHOSE_BYTES):
            yield batch
            batch = []
        batch.append(record)
    if batch:
        yield batch


@cache
def _lambda_client() -> "LambdaClient":
    config = Config(connect_timeout=1, read_timeout=CALL_S, retries={"total_max_attempts": 1})
    functions: LambdaClient = boto3.client("lambda", config=config)
    return functions
