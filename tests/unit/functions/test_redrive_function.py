"""What failed is played again by the real consumers, on moto, and removed only when it was handled."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, cast

import boto3
import pytest

from functions.audit_writer import handler as audit_writer
from functions.redrive import handler as redrive
from functions.reward_writer import handler as reward_writer
from rlaas.adapters.aws.failed_work import Consumers
from rlaas.adapters.aws.failures import SetAside
from rlaas.clock import utc_now
from rlaas.errors import InvalidInput
from rlaas.runtime.environment import RedriveEnvironment
from rlaas.runtime.stage import current_stage
from rlaas.tenancy.audit import verify_chain
from rlaas.tenancy.redrive import RedrivePage
from tests.fakes.functions import FunctionsHere
from tests.fakes.gateway import make_lambda_context
from tests.fakes.worlds import TENANT
from tests.unit.functions.conftest import Stage
from tests.unit.functions.test_stream_functions import by_hand, landed, output, record, sent

ARN = "arn:aws:lambda:us-east-1:123456789012:function:rlaas-test-"


@dataclass
class KeptFailures:
    """A stage whose failures are kept, and what calls its functions."""

    stage: Stage
    functions: FunctionsHere
    guarded: list[Any]
    queues: dict[str, str]

    def batch(self, function: str, records: list[dict[str, Any]], *, number: int = 0, text: bool = True) -> str:
        """Keep a batch as Lambda does."""
        event = {"Records": records}
        first = records[0]["dynamodb"]["SequenceNumber"]
        document = {
            "requestContext": {"functionArn": f"{ARN}{function}", "condition": "RetryAttemptsExhausted", "approximateInvokeCount": 9},
            "version": "1.0",
            "DDBStreamBatchInfo": {"shardId": "s", "startSequenceNumber": first, "batchSize": len(records)},
            "payload": json.dumps(event) if text else event,
        }
        key = f"aws/lambda/mapping/s/2026/03/01/2026-03-01T12.00.{number:02d}-00000000-0000-0000-0000-{99 - int(first):012d}"
        boto3.client("s3").put_object(Bucket="failures", Key=key, Body=json.dumps(document))
        return key

    def send(self, queue: str, body: object, **attributes: str) -> None:
        values = {name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()}
        boto3.client("sqs").send_message(QueueUrl=self.queues[queue], MessageBody=json.dumps(body), MessageAttributes=cast(Any, values))

    def play(self, cursor: str | None = None) -> RedrivePage:
        answer = redrive.handler({"action": "play", "cursor": cursor}, make_lambda_context())
        return RedrivePage.model_validate(answer, strict=False)

    def count_waiting(self) -> dict[str, int]:
        return cast("dict[str, int]", redrive.handler({"action": "waiting"}, make_lambda_context()))


@pytest.fixture
def failures(furnished_stage: Stage, monkeypatch: pytest.MonkeyPatch) -> KeptFailures:
    sqs = boto3.client("sqs")
    queues = {name: sqs.create_queue(QueueName=name)["QueueUrl"] for name in ("failures", "dead-shadows", "shadows")}
    guarded: list[Any] = []
    functions = FunctionsHere(
        {
            "rlaas-test-reward_writer": reward_writer.handler,
            "rlaas-test-audit_writer": audit_writer.handler,
            "rlaas-test-guard": lambda event, _: guarded.append(event),
        }
    )
    boto3.client("s3").create_bucket(Bucket="lake")
    boto3.client("s3").create_bucket(Bucket="delivered")
    boto3.client("firehose").create_delivery_stream(
        DeliveryStreamName="events",
        S3DestinationConfiguration={"RoleARN": "arn:aws:iam::123456789012:role/x", "BucketARN": "arn:aws:s3:::delivered"},
    )
    variables = {
        "FAILURES_QUEUE_URL": queues["failures"],
        "LAKE_BUCKET": "lake",
        "DELIVERY_STREAM": "events",
        "SHADOW_QUEUE_URL": queues["shadows"],
        "DEAD_LETTER_QUEUE_URL": queues["dead-shadows"],
        "CONSUMERS": json.dumps([f"{ARN}reward_writer", f"{ARN}audit_writer", f"{ARN}guard:live"]),
        "IN_ORDER": f"{ARN}audit_writer",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    settings = current_stage().settings(RedriveEnvironment)
    current_stage().consumers = Consumers(settings.consumers, in_order=settings.in_order, functions=cast(Any, functions))
    return KeptFailures(furnished_stage, functions, guarded, queues)


def rewards(failures: KeptFailures) -> int:
    return [event.event_type for event in failures.stage.events.read_interaction(TENANT, "i1")].count("reward")


@pytest.mark.parametrize("text", [True, False], ids=["payload is text", "payload is an object"])
def test_a_kept_batch_is_handled_once_and_gone(failures: KeptFailures, text: bool) -> None:
    records = [landed(failures.stage, 1, output(None)), landed(failures.stage, 2, sent())]
    failures.batch("reward_writer", records, text=text)
    failures.batch("reward_writer", records, number=1, text=text)
    assert failures.count_waiting()["batches"] == 2
    page = failures.play()
    assert (page.handled, page.left, page.cursor) == (2, (), None)
    assert rewards(failures) == 1
    assert not any(failures.count_waiting().values())


def test_what_still_fails_stays_whole_and_says_so_and_keeps_no_other(failures: KeptFailures) -> None:
    malformed = record(1, {"event_type": {"S": "feedback"}})
    key = failures.batch("reward_writer", [malformed, landed(failures.stage, 2, output(None)), landed(failures.stage, 3, sent())])
    failures.batch("reward_writer", [landed(failures.stage, 4, sent().model_copy(update={"feedback_id": "f9"}))], number=1)
    page = failures.play()
    assert (page.handled, [left.what for left in page.left]) == (1, [key])
    assert "1 of 3 records" in page.left[0].why
    assert failures.count_waiting()["batches"] == 1
    assert rewards(failures) >= 1


def test_a_record_that_was_set_aside_is_handled_after_the_fault_is_mended(failures: KeptFailures) -> None:
    landed(failures.stage, 1, output(None))
    SetAside("failures", f"{ARN}reward_writer").set_aside(landed(failures.stage, 2, sent()))
    assert failures.play().handled == 1
    assert rewards(failures) == 1


def test_changes_are_chained_in_the_order_of_their_stream(failures: KeptFailures) -> None:
    for number in (3, 1, 2):  # of one second: their keys come the other way round
        failures.batch("audit_writer", [by_hand(number, {"version": {"N": str(number)}})])
    assert failures.play().handled == 3
    entries = failures.stage.audit.list_entries(TENANT)
    assert verify_chain(entries) == 3
    assert [entry.after_version for entry in entries] == [1, 2, 3]


def test_a_change_that_cannot_be_chained_lets_none_before_it_also_on_later_pages(failures: KeptFailures) -> None:
    first = by_hand(1, {})
    del first["eventID"]
    failures.batch("audit_writer", [first])
    failures.batch("audit_writer", [by_hand(2, {})], number=1)
    failures.batch("reward_writer", [landed(failures.stage, 3, output(None))], number=2)
    page = failures.play()
    assert (page.handled, len(page.left)) == (1, 2)
    assert failures.stage.audit.list_entries(TENANT) == []
    assert "in order" in page.left[1].why


def test_a_page_ends_in_time_and_the_next_goes_on_after_it(failures: KeptFailures) -> None:
    for number in range(3):
        first = by_hand(number, {})
        del first["eventID"]
        failures.batch("audit_writer", [first], number=number)
    now = utc_now()

    def slow() -> datetime:
        nonlocal now
        now += timedelta(seconds=6)
        return now

    current_stage().kept_redriver = replace(current_stage().kept_redriver, clock=slow)
    seen: list[str] = []
    page = failures.play()
    for _ in range(5):
        seen += [left.what[-5:] for left in page.left]
        if page.cursor is None:
            break
        page = failures.play(page.cursor)
    assert page.cursor is None
    assert len(seen) == len(set(seen)) == 3
    assert failures.functions.calls.count("rlaas-test-audit_writer") == 1


def test_calls_that_failed_are_made_again_and_scheduled_ones_dropped(failures: KeptFailures) -> None:
    alarm = {"detail-type": "CloudWatch Alarm State Change", "detail": {}}
    scheduled = {"detail-type": "Scheduled Event"}
    failures.send("failures", {"requestContext": {"functionArn": f"{ARN}guard:$LATEST"}, "requestPayload": alarm, "responsePayload": {}})
    failures.send("failures", alarm, RULE_ARN="rule", TARGET_ARN=f"{ARN}guard:live", ERROR_CODE="NO_PERMISSIONS")
    failures.send("failures", scheduled, TARGET_ARN=f"{ARN}guard:live")
    failures.send("failures", alarm, TARGET_ARN=f"{ARN}somebody_elses")
    page = failures.play()
    assert (page.handled, page.superseded, len(page.left)) == (2, 1, 1)
    assert failures.guarded == [alarm, alarm]
    assert "somebody_elses is no consumer" in page.left[0].why
    assert failures.count_waiting()["calls"] == 1


def test_a_call_that_fails_again_stays(failures: KeptFailures) -> None:
    def failing(event: object, _: object) -> None:
        raise KeyError("nothing there")

    failures.functions.handlers["rlaas-test-guard"] = failing
    failures.send("failures", {"requestContext": {"functionArn": f"{ARN}guard"}, "requestPayload": {"detail": {}}})
    [left] = failures.play().left
    assert "failed with KeyError" in left.why
    assert "nothing there" not in left.why  # it may be personal
    assert failures.count_waiting()["calls"] == 1


def test_dead_shadows_go_back_into_their_queue(failures: KeptFailures) -> None:
    failures.send("dead-shadows", {"policy_id": "p"})
    assert failures.play().handled == 1
    [message] = boto3.client("sqs").receive_message(QueueUrl=failures.queues["shadows"])["Messages"]
    assert json.loads(message["Body"]) == {"policy_id": "p"}
    assert failures.count_waiting()["shadows"] == 0


def test_what_firehose_could_not_write_is_given_to_it_again(failures: KeptFailures) -> None:
    s3 = boto3.client("s3")
    lines = [json.dumps({"errorCode": "x", "rawData": base64.b64encode(f'{{"event_id":"{n}"}}\n'.encode()).decode()}) for n in range(2)]
    s3.put_object(Bucket="lake", Key="errors/format-conversion-failed/2026-03-01/a", Body="\n".join(lines))
    s3.put_object(Bucket="lake", Key="errors/format-conversion-failed/2026-03-01/b", Body="no JSON")
    page = failures.play()
    assert (page.handled, [left.what[-1] for left in page.left]) == (1, ["b"])
    files = [s3.get_object(Bucket="delivered", Key=entry["Key"]) for entry in s3.list_objects_v2(Bucket="delivered")["Contents"]]
    assert b"".join(file["Body"].read() for file in files) == b'{"event_id":"0"}\n{"event_id":"1"}\n'
    assert failures.count_waiting()["lake"] == 1


def test_what_is_no_batch_stays_and_says_so(failures: KeptFailures) -> None:
    boto3.client("s3").put_object(Bucket="failures", Key="aws/lambda/x", Body=b"\x00")
    [left] = failures.play().left
    assert "no batch that Lambda kept" in left.why


def test_a_cursor_that_no_redrive_gave_out_is_refused(failures: KeptFailures) -> None:
    with pytest.raises(InvalidInput, match="cursor"):
        failures.play("batches")


def test_everything_that_waits_is_one_metric(failures: KeptFailures, capsys: pytest.CaptureFixture[str]) -> None:
    failures.batch("reward_writer", [by_hand(1, {})])
    failures.send("failures", {})
    boto3.client("s3").put_object(Bucket="lake", Key="errors/x", Body=b"")
    redrive.handler({"action": "count"}, make_lambda_context())
    line = json.loads(capsys.readouterr().out)
    assert (line["Unhandled"], line["stage"], line["batches"], line["calls"], line["lake"]) == (3, "test", "1", "1", "1")
