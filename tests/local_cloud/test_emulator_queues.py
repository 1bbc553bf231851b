"""Queues as mirroring and rewards need them: redelivery, dead letters, and quiet tenants first."""

import json
import uuid

from botocore.exceptions import ClientError

from tests.local_cloud.conftest import Emulator, until


def name() -> str:
    return f"q-{uuid.uuid4().hex[:8]}"


def logged_batches(emulator: Emulator, function: str) -> list[list[str]]:
    try:
        events = emulator.client("logs").filter_log_events(logGroupName=f"/aws/lambda/{function}", filterPattern="")["events"]
    except ClientError:  # nothing was logged yet
        return []
    return [json.loads(event["message"]) for event in events if event["message"].startswith("[")]


def test_a_message_named_as_failed_is_handed_out_again_and_then_taken_for_dead_alone(emulator: Emulator) -> None:
    sqs, function = emulator.client("sqs"), name()

    def arn(url: str) -> str:
        return str(sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"])

    dead = sqs.create_queue(QueueName=name())["QueueUrl"]
    redrive = json.dumps({"deadLetterTargetArn": arn(dead), "maxReceiveCount": 2})
    queue = sqs.create_queue(QueueName=name(), Attributes={"VisibilityTimeout": "5", "RedrivePolicy": redrive})["QueueUrl"]
    code = """
        import json
        def handler(event, context):
            print(json.dumps([record["body"] for record in event["Records"]]))
            return {"batchItemFailures": [{"itemIdentifier": r["messageId"]} for r in event["Records"] if r["body"] == "bad"]}
    """
    emulator.function(function, code)
    emulator.client("lambda").create_event_source_mapping(
        FunctionName=function, EventSourceArn=arn(queue), BatchSize=10, FunctionResponseTypes=["ReportBatchItemFailures"]
    )
    entries = [{"Id": body, "MessageBody": body} for body in ("a", "bad", "b")]
    sqs.send_message_batch(QueueUrl=queue, Entries=entries)
    [letter] = until(lambda: sqs.receive_message(QueueUrl=dead, WaitTimeSeconds=1).get("Messages"))
    assert letter["Body"] == "bad"
    bodies = [body for batch in logged_batches(emulator, function) for body in batch]
    assert (bodies.count("a"), bodies.count("bad"), bodies.count("b")) == (1, 2, 1)


def test_a_quiet_tenants_message_is_handed_out_before_anothers_backlog(emulator: Emulator) -> None:
    sqs = emulator.client("sqs")
    queue = sqs.create_queue(QueueName=name())["QueueUrl"]
    for start in (0, 10):
        entries = [{"Id": str(n), "MessageBody": f"loud {n}", "MessageGroupId": "loud"} for n in range(start, start + 10)]
        sqs.send_message_batch(QueueUrl=queue, Entries=entries)
    sqs.send_message(QueueUrl=queue, MessageBody="quiet", MessageGroupId="quiet")

    def receive(most: int) -> list[str]:
        messages = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=most).get("Messages", [])
        for message in messages:
            if message["Body"] == "loud 0":
                sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
        return [message["Body"] for message in messages]

    assert receive(2) == ["loud 0", "quiet"]
    assert receive(10) == [f"loud {n}" for n in range(1, 11)]
