"""Following up that one tenant has too much of for its share of a batch, on SQS: it waits there for itself alone."""

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
"""Followed up by one message."""
_SENT_TOGETHER = 10
_ARRIVALS = TypeAdapter(tuple[Arrivals, ...])


class FollowUpQueue:
    """A queue whose messages each hold arrivals of one tenant, which is the message's group: SQS hands out those of
    quiet tenants first.

    A message has the shape of a call that failed, so that what cannot be followed up is played again as one
    (`rlaas.adapters.aws.failed_work`).
    """

    def __init__(self, url: str, function_arn: str, sqs: "SQSClient | None" = None) -> None:
        self._url = url
        self._function_arn = function_arn
        self._sqs = sqs or client("sqs")

    def send(self, arrivals: Sequence[Arrivals]) -> None:
        """Put `arrivals` off. Raises: DependencyUnavailable when some of them were not taken."""
        ordered = sorted(arrivals, key=lambda one: one.tenant_id)
        entries: list[SendMessageBatchRequestEntryTypeDef] = []
        for tenant_id, of_tenant in groupby(ordered, key=lambda one: one.tenant_id):
            for together in _parts(list(of_tenant), _INTERACTIONS):
                entries.append({"Id": str(len(entries)), "MessageBody": self._body(together), "MessageGroupId": tenant_id})
        for some in _parts(entries, _SENT_TOGETHER):
            with dependency("SQS"):
                answer = self._sqs.send_message_batch(QueueUrl=self._url, Entries=some)
            if answer.get("Failed"):
                raise DependencyUnavailable("SQS refused messages")

    def _body(self, arrivals: Sequence[Arrivals]) -> str:
        payload = {"arrivals": _ARRIVALS.dump_python(tuple(arrivals), mode="json")}
        return json.dumps({"requestContext": {"functionArn": self._function_arn}, "requestPayload": payload})


def put_off(event: Mapping[str, object]) -> tuple[Arrivals, ...] | None:
    """The arrivals that `event` holds, one message of the queue or what a redrive gives of it; `None` for any other
    event.

    Raises: pydantic.ValidationError for a message that `FollowUpQueue` did not write.
    """
    if "arrivals" in event:
        return _ARRIVALS.validate_json(json.dumps(event["arrivals"]))
    records = cast("Sequence[Mapping[str, str]]", event.get("Records", ()))
    if not records or records[0].get("eventSource") != "aws:sqs":
        return None
    payloads = (json.loads(record["body"])["requestPayload"]["arrivals"] for record in records)
    return tuple(one for payload in payloads for one in _ARRIVALS.validate_json(json.dumps(payload)))


def _parts(values: Sequence[Value], most: int) -> Iterator[Sequence[Value]]:
    return (values[start : start + most] for start in range(0, len(values), most))
