"""Lambda's part in mirroring: it gives the events' stream to `lake_writer` and the queue to `shadow`.

Driven by hand on moto, so that it ends when there is nothing left to do; the queue itself counts receives and moves
messages to the dead letters.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from functions.lake_writer.handler import handler as follow
from functions.shadow.handler import handler as shadow
from rlaas.adapters.aws.events import DynamoEventStore, build_item
from rlaas.ids import derive_id, make_bound_id
from rlaas.routing.assign import assign
from rlaas.routing.route import Route
from rlaas.telemetry.events import InteractionCreated, OutputProduced
from rlaas.telemetry.ingest import prepare
from rlaas.telemetry.store import StoredEvent
from tests.fakes.gateway import make_lambda_context
from tests.fakes.worlds import SKILL, TENANT

if TYPE_CHECKING:
    from types_boto3_firehose import FirehoseClient
    from types_boto3_firehose.type_defs import ExtendedS3DestinationConfigurationTypeDef
    from types_boto3_s3 import S3Client
    from types_boto3_sqs import SQSClient

MAX_RECEIVES = 3


def make_lake(firehose: FirehoseClient, s3: S3Client) -> str:
    """The name of a delivery stream."""
    s3.create_bucket(Bucket="lake")
    destination: ExtendedS3DestinationConfigurationTypeDef = {
        "BucketARN": "arn:aws:s3:::lake",
        "RoleARN": "arn:aws:iam::123456789012:role/delivery",
    }
    firehose.create_delivery_stream(DeliveryStreamName="events", ExtendedS3DestinationConfiguration=destination)
    return "events"


def make_queues(sqs: SQSClient) -> tuple[str, str]:
    """The shadows' queue and its dead letters as the stack makes them, except that a failed message may be tried again
    at once."""
    dead = sqs.create_queue(QueueName="dead")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    redrive = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": MAX_RECEIVES})
    return sqs.create_queue(QueueName="shadows", Attributes={"VisibilityTimeout": "0", "RedrivePolicy": redrive})["QueueUrl"], dead


@dataclass
class Mirroring:
    """The stage's events and queues."""

    events: DynamoEventStore
    sqs: SQSClient
    queue: str
    dead: str

    def serve(self, route: Route, number: int, at: datetime) -> dict[str, Any]:
        """A request answered by `route`; the stream's record of its output."""
        interaction_id = derive_id("int", str(number))
        decision = assign(route, f"t{number}", decision_id=f"dec_{number}", decided_at=at, interaction_id=interaction_id)
        interaction = InteractionCreated(interaction_id=interaction_id, skill=SKILL, inputs={"email": f"where is parcel {number}?"})
        self.events.put_new(prepare(interaction, TENANT, received_at=at))
        output = OutputProduced(
            output_id=make_bound_id("out", interaction_id),
            interaction_id=interaction_id,
            skill=SKILL,
            text="Hi",
            policy_id=decision.policy_id,
            decision=decision,
        )
        event = prepare(output, TENANT, received_at=at)
        self.events.put_new(event)
        return make_record(event, number)

    def mirror(self, records: list[dict[str, Any]]) -> dict[str, Any]:
        """Call the function with a batch of the stream."""
        return dict(follow({"Records": records}, make_lambda_context()))

    def drain(self) -> int:
        """Deliver messages, ten at a time, until the queue is empty; the number of calls."""
        calls = 0
        while messages := self.sqs.receive_message(QueueUrl=self.queue, MaxNumberOfMessages=10).get("Messages", []):
            records = [{"messageId": message["MessageId"], "body": message["Body"]} for message in messages]
            failed_ids = {failure["itemIdentifier"] for failure in shadow({"Records": records}, make_lambda_context())["batchItemFailures"]}
            done = [message for message in messages if message["MessageId"] not in failed_ids]
            if done:
                self.sqs.delete_message_batch(
                    QueueUrl=self.queue,
                    Entries=[{"Id": str(at), "ReceiptHandle": message["ReceiptHandle"]} for at, message in enumerate(done)],
                )
            calls += 1
        return calls

    def dead_letters(self) -> int:
        """The number of dead letters."""
        counts = self.sqs.get_queue_attributes(QueueUrl=self.dead, AttributeNames=["ApproximateNumberOfMessages"])["Attributes"]
        return int(counts["ApproximateNumberOfMessages"])


def make_record(stored: StoredEvent, number: int) -> dict[str, Any]:
    """The stream's record of a new event."""
    image = build_item(stored, expires_at=stored.received_at)
    return {"eventID": f"e{number}", "eventName": "INSERT", "dynamodb": {"SequenceNumber": str(number), "NewImage": image}}
