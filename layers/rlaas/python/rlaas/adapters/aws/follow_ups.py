"""Events to follow up beyond their tenant's share of a batch: they wait on SQS, and no other tenant waits for them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, TypeVar, cast

from pydantic import TypeAdapter

from rlaas.adapters.aws.clients import client, dependency
from rlaas.errors import DependencyUnavailable
from rlaas.rewards.standing import Arrivals

if TYPE_CHECKING:
    from types_boto3_sqs import SQSClient
    from types_boto3_sqs.type_defs import SendMessageBatchRequestEntryTypeDef

Value = TypeVar("Value")

_INTERACTIONS = 20
"""Interactions in one message."""
_SENT_TOGETHER = 10
_ARRIVALS = TypeAdapter(tuple[Arrivals, ...])


class FollowUpQueue:
    """A queue whose messages each hold arrivals of one tenant, which is the message's group: SQS hands out the messages
    of quiet tenants first.

    A message has the form of a failed call, so that one that cannot be followed up is played again as a failed call
    (`rlaas.adapters.aws.failed_work.FailedCalls`).
    """

    def __init__(self, url: str, function_arn: str, sqs: "SQSClient | None" = None) -> None:
        self._url = url
        self._function_arn = function_arn
        self._sqs = sqs or client("sqs")

    def send(self, arrivals: Sequence[Arrivals]) -> None:
        """Send `arrivals` to the queue. Raises: DependencyUnavailable when SQS did not take all of them."""
        ordered = sorted(arrivals, key=lambda arrival: arrival.tenant_id)
        entries: list[SendMessageBatchRequestEntryTypeDef] = []
        for tenant_id, group in groupby(ordered, key=lambda arrival: arrival.tenant_id):
            for part in _split(list(group), _INTERACTIONS):
                entries.append({"Id": str(len(entries)), "MessageBody": self._body(part), "MessageGroupId": tenant_id})
        for batch in _split(entries, _SENT_TOGETHER):
            with dependency("SQS"):
                answer = self._sqs.send_message_batch(QueueUrl=self._url, Entries=batch)
            if answer.get("Failed"):
                raise DependencyUnavailable("SQS refused messages")

    def _body(self, arrivals: Sequence[Arrivals]) -> str:
        payload = {"arrivals": _ARRIVALS.dump_python(tuple(arrivals), mode="json")}
        return json.dumps({"requestContext": {"functionArn": self._function_arn}, "requestPayload": payload})


def read_arrivals(event: Mapping[str, object]) -> tuple[Arrivals, ...] | None:
    """The arrivals in `event`, which SQS sends of the queue's messages or a redrive of one; `None` for any other event.

    Raises: pydantic.ValidationError for a message that `FollowUpQueue` did not write.
    """
    if "arrivals" in event:
        return _ARRIVALS.validate_json(json.dumps(event["arrivals"]))
    records = cast("Sequence[Mapping[str, str]]", event.get("Records", ()))
    if not records or records[0].get("eventSource") != "aws:sqs":
        return None
    payloads = (json.loads(record["body"])["requestPayload"]["arrivals"] for record in records)
    return tuple(arrival for payload in payloads for arrival in _ARRIVALS.validate_json(json.dumps(payload)))


def _split(values: Sequence[Value], most: int) -> Iterator[Sequence[Value]]:
    return (values[start : start + most] for start in range(0, len(values), most))
