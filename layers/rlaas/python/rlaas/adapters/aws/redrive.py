"""Playing again what failed: batches of streams on S3, calls of EventBridge and shadows on SQS, what Firehose could not
write on S3.

Whatever is played is removed only when its consumer says that it was handled, so that whoever dies in between loses
nothing; consumers handle a thing once however often they are given it.
"""

import base64
import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from typing import TYPE_CHECKING, Literal, Protocol, cast, get_args

import boto3
from botocore.config import Config
from pydantic import JsonValue, ValidationError

from rlaas.adapters.aws.clients import client, dependency
from rlaas.adapters.aws.failures import KeptObject, KeptObjects
from rlaas.clock import Clock, utc_now
from rlaas.errors import DependencyUnavailable, InvalidInput
from rlaas.tenancy.redrive import Left, Place, RedrivePage

if TYPE_CHECKING:
    from types_boto3_firehose import FirehoseClient
    from types_boto3_lambda import LambdaClient
    from types_boto3_sqs import SQSClient
    from types_boto3_sqs.type_defs import MessageTypeDef

PAGE = timedelta(seconds=10)
"""A page begins nothing new after so long; with the longest call it stays below what API Gateway waits, 29 s."""
CALL_S = 15.0
"""How long one call of a consumer may take."""
RECORDS = 20
"""Stream records in one call: a share of what a consumer does in a batch of a hundred, so that it ends in time."""
COUNTED = 10_000
"""Things of a place that are counted one by one."""
_SORTED_BYTES = 32 * 1024 * 1024
_HIDDEN_S = 60
_STOPPED = "!"
_FIREHOSE_BYTES = 3_500_000
_PLACES: tuple[Place, ...] = get_args(Place)
_CURSOR = re.compile(r"(\d{13}) (batches|calls|shadows|lake) (.*)", re.DOTALL)

Outcome = Literal["handled", "superseded"] | Left


@dataclass(frozen=True, slots=True)
class Work:
    """Something kept, how to play it again, and, once it was, where the next page goes on."""

    what: str
    play: Callable[[], Outcome]
    resume: Callable[[], str]


class Keeps(Protocol):
    """One place where failed things are kept."""

    def waiting(self) -> int:
        """How much there is, up to `COUNTED`. Raises: DependencyUnavailable."""
        ...

    def work(self, after: str, until: datetime) -> Iterator[Work]:
        """What was kept before `until` and comes after `after`. Raises: DependencyUnavailable."""
        ...


class KeptRedriver:
    """`Redriver` over the four places."""

    def __init__(self, places: Mapping[Place, Keeps], clock: Clock = utc_now) -> None:
        self._places = places
        self._clock = clock

    def waiting(self) -> dict[Place, int]:
        """How much is kept where. Raises: DependencyUnavailable."""
        return {name: place.waiting() for name, place in self._places.items()}

    def play(self, cursor: str | None) -> RedrivePage:
        """Some seconds of work. Raises: InvalidInput, DependencyUnavailable."""
        began = self._clock()
        until, first, after = _position(cursor, began)
        outcomes: list[Outcome] = []
        for name in _PLACES[_PLACES.index(first) :]:
            for work in self._places[name].work(after, until):
                if self._clock() - began > PAGE:
                    return _page(outcomes, _cursor(until, name, after))
                try:
                    outcomes.append(work.play())
                except DependencyUnavailable as error:
                    outcomes.append(Left(what=work.what, why=error.detail))
                after = work.resume()
            after = ""
        return _page(outcomes, None)


def _page(outcomes: Sequence[Outcome], cursor: str | None) -> RedrivePage:
    left = tuple(outcome for outcome in outcomes if isinstance(outcome, Left))
    return RedrivePage(handled=outcomes.count("handled"), superseded=outcomes.count("superseded"), left=left, cursor=cursor)


def _position(cursor: str | None, now: datetime) -> tuple[datetime, Place, str]:
    if cursor is None:
        return now, _PLACES[0], ""
    found = _CURSOR.fullmatch(cursor)
    if found is None:
        raise InvalidInput("the cursor is not one a redrive gave out", param="cursor")
    return datetime.fromtimestamp(int(found[1]) / 1000, UTC), cast(Place, found[2]), found[3]


def _cursor(until: datetime, place: Place, after: str) -> str:
    return f"{int(until.timestamp() * 1000):013d} {place} {after}"


class Consumers:
    """The functions that may be called, by name. What failed names a function with or without a version; these are
    called instead."""

    def __init__(self, arns: Sequence[str], *, in_order: str, functions: "LambdaClient | None" = None) -> None:
        self._arns = {_name(arn): arn for arn in arns}
        self._in_order = _name(in_order)
        self._functions = functions or _lambda()
        self.stopped = False
        """The consumer that needs order has failed: it gets nothing more of this redrive."""

    def play_batch(self, arn: str, records: Sequence[JsonValue]) -> str | None:
        """Give a stream's records to their consumer, in order; why they are left, if they are. Raises:
        DependencyUnavailable."""
        name = _name(arn)
        if name == self._in_order and self.stopped:
            return f"{name} takes changes in order, and failed on an earlier one"
        failed, self.stopped = 0, self.stopped or name == self._in_order  # until it has succeeded
        for start in range(0, len(records), RECORDS):
            answer = self._call(name, {"Records": [*records[start : start + RECORDS]], "redrive": True})
            if isinstance(answer, str):
                return answer
            failures = cast("Mapping[str, list[object]]", answer).get("batchItemFailures", []) if isinstance(answer, dict) else []
            failed += len(failures)
            if failed and name == self._in_order:
                break
        if failed:
            return f"{name} still fails on {failed} of {len(records)} records; its log says why"
        self.stopped = self.stopped and name != self._in_order
        return None

    def play_call(self, arn: str, event: JsonValue) -> str | None:
        """Call the function once more; why it is left, if it is."""
        answer = self._call(_name(arn), event)
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
    """Batches of streams, each by itself; those of one second in the order of their stream."""

    def __init__(self, objects: KeptObjects, consumers: Consumers) -> None:
        self._objects = objects
        self._consumers = consumers

    def waiting(self) -> int:
        """How many batches."""
        return _count(self._objects)

    def work(self, after: str, until: datetime) -> Iterator[Work]:
        """The batches, by when they were given up."""
        self._consumers.stopped = after.startswith(_STOPPED)
        older = (found for found in self._objects.after(after.removeprefix(_STOPPED)) if found.kept_at < until)
        for _, group in itertools.groupby(older, key=lambda found: _second(found.key)):
            together = list(group)
            if len(together) > 1 and sum(found.size for found in together) <= _SORTED_BYTES:
                together.sort(key=self._start)
            last = max(found.key for found in together)
            for found in together:
                yield Work(found.key, partial(self._play, found.key), partial(self._resume, last))

    def _resume(self, last: str) -> str:
        return _STOPPED * self._consumers.stopped + last

    def _start(self, found: KeptObject) -> int:
        kept = _document(self._objects.read(found.key))
        info = kept.get("DDBStreamBatchInfo")
        number = info.get("startSequenceNumber") if isinstance(info, dict) else None
        return int(number) if isinstance(number, str) and number.isdigit() else 0

    def _play(self, key: str) -> Outcome:
        body = self._objects.read(key)
        if body is None:
            return "handled"
        kept = _document(body)
        context, payload = kept.get("requestContext"), kept.get("payload")
        event = _document(payload.encode()) if isinstance(payload, str) else payload
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

    def waiting(self) -> int:
        """How many calls, about."""
        return self._queue.depth()

    def work(self, after: str, until: datetime) -> Iterator[Work]:
        """The calls; the queue has no order, so `after` means nothing to it."""
        for message in self._queue.messages(until):
            yield Work(message["MessageId"], partial(self._play, message), str)

    def _play(self, message: "MessageTypeDef") -> Outcome:
        event: JsonValue
        body = _document(message["Body"].encode())
        context = body.get("requestContext")
        if isinstance(context, dict) and "requestPayload" in body:
            arn, event = context.get("functionArn"), body["requestPayload"]
        else:
            arn, event = _target(message), body
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
    """Mirrored requests that could not be answered: they go back into their queue."""

    def __init__(self, dead_letters_url: str, queue_url: str, sqs: "SQSClient | None" = None) -> None:
        self._dead = DeadLetters(dead_letters_url, sqs)
        self._queue_url = queue_url
        self._sqs = sqs or client("sqs")

    def waiting(self) -> int:
        """How many tasks, about."""
        return self._dead.depth()

    def work(self, after: str, until: datetime) -> Iterator[Work]:
        """The tasks, in no order."""
        for message in self._dead.messages(until):
            yield Work(message["MessageId"], partial(self._play, message), str)

    def _play(self, message: "MessageTypeDef") -> Outcome:
        with dependency("SQS"):
            self._sqs.send_message(QueueUrl=self._queue_url, MessageBody=message["Body"])
        self._dead.delete(message)
        return "handled"


class UndeliveredEvents:
    """What Firehose could neither partition nor convert: given to it again."""

    def __init__(self, objects: KeptObjects, stream: str, firehose: "FirehoseClient | None" = None) -> None:
        self._objects = objects
        self._stream = stream
        self._firehose = firehose or client("firehose")

    def waiting(self) -> int:
        """How many files."""
        return _count(self._objects)

    def work(self, after: str, until: datetime) -> Iterator[Work]:
        """The files, by the kind of their error and the day."""
        for found in self._objects.after(after):
            if found.kept_at < until:
                yield Work(found.key, partial(self._play, found.key), partial(str, found.key))

    def _play(self, key: str) -> Outcome:
        body = self._objects.read(key)
        if body is None:
            return "handled"
        records = []
        for line in body.splitlines():
            raw = _document(line).get("rawData")
            if not isinstance(raw, str):
                return Left(what=key, why="a line of it holds no rawData: it is not what Firehose writes of a failed record")
            records.append(base64.b64decode(raw).rstrip(b"\n") + b"\n")
        for batch in _by_size(records):
            with dependency("Firehose"):
                answer = self._firehose.put_record_batch(DeliveryStreamName=self._stream, Records=[{"Data": data} for data in batch])
            if answer["FailedPutCount"]:
                return Left(what=key, why="Firehose refused some of it: try again later")
        self._objects.delete(key)
        return "handled"


class DeadLetters:
    """A queue where messages end."""

    def __init__(self, url: str, sqs: "SQSClient | None" = None) -> None:
        self._url = url
        self._sqs = sqs or client("sqs")

    def depth(self) -> int:
        """How many messages, about, those that are being played included."""
        names: list[Literal["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]]
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        with dependency("SQS"):
            counts = self._sqs.get_queue_attributes(QueueUrl=self._url, AttributeNames=[*names])["Attributes"]
        return sum(int(counts[name]) for name in names)

    def messages(self, until: datetime) -> "Iterator[MessageTypeDef]":
        """Those sent before `until`; each is hidden from others for a minute."""
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
        """It was played again. Raises: DependencyUnavailable."""
        with dependency("SQS"):
            self._sqs.delete_message(QueueUrl=self._url, ReceiptHandle=message["ReceiptHandle"])


class LambdaRedriver:
    """`Redriver` by the function `redrive`, which may do what the admin API may not."""

    def __init__(self, name: str, functions: "LambdaClient | None" = None) -> None:
        self._name = name
        self._functions = functions

    def waiting(self) -> dict[Place, int]:
        """How much is kept where. Raises: DependencyUnavailable."""
        return cast("dict[Place, int]", self._asked({"action": "waiting"}))

    def play(self, cursor: str | None) -> RedrivePage:
        """Some seconds of work. Raises: InvalidInput, DependencyUnavailable."""
        try:
            return RedrivePage.model_validate(self._asked({"action": "play", "cursor": cursor}), strict=False)
        except ValidationError:
            raise DependencyUnavailable("the answer of the function redrive is not one") from None

    def _asked(self, request: Mapping[str, JsonValue]) -> object:
        with dependency("the function redrive"):
            answer = (self._functions or _patient()).invoke(FunctionName=self._name, Payload=json.dumps(request).encode())
            body = json.loads(answer["Payload"].read())
        if "FunctionError" not in answer:
            return body
        if body.get("errorType") == "InvalidInput":
            raise InvalidInput(body["errorMessage"], param="cursor")
        raise DependencyUnavailable("the function redrive failed; its log says why")


def _target(message: "MessageTypeDef") -> str | None:
    """What a rule could not hand the event to, as EventBridge says in its dead letters."""
    found = message.get("MessageAttributes", {}).get("TARGET_ARN")
    return found.get("StringValue") if found else None


def _count(objects: KeptObjects) -> int:
    return sum(1 for _ in itertools.islice(objects.after(""), COUNTED))


def _second(key: str) -> str:
    """The key without its random end: batches of one shard and second."""
    return re.sub(r"(\d{4}-\d\d-\d\dT\d\d\.\d\d\.\d\d)-[0-9a-f-]{36}$", r"\1", key)


def _name(arn: str) -> str:
    """The name of the function that `arn` is of, whatever its version."""
    parts = arn.split(":")
    return parts[6] if len(parts) > 6 else arn


def _document(body: bytes | None) -> dict[str, JsonValue]:
    try:
        read = json.loads(body or b"null")
    except ValueError:
        return {}
    return read if isinstance(read, dict) else {}


def _by_size(records: Sequence[bytes]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    for record in records:
        if batch and (len(batch) == 500 or sum(map(len, batch)) + len(record) > _FIREHOSE_BYTES):
            yield batch
            batch = []
        batch.append(record)
    if batch:
        yield batch


@cache
def _lambda() -> "LambdaClient":
    config = Config(connect_timeout=1, read_timeout=CALL_S, retries={"total_max_attempts": 1})
    found: LambdaClient = boto3.client("lambda", config=config)
    return found


@cache
def _patient() -> "LambdaClient":
    config = Config(connect_timeout=1, read_timeout=28, retries={"total_max_attempts": 1})
    found: LambdaClient = boto3.client("lambda", config=config)
    return found
