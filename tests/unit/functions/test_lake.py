import json
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import Any, cast

import pytest

from functions.lake_writer import handler as lake_writer
from rlaas.adapters.aws.events import build_item
from rlaas.adapters.aws.lake import FirehoseLake, build_lake_record
from rlaas.runtime.stage import Stage, replace_stage
from rlaas.telemetry.events import InteractionCreated
from rlaas.telemetry.ingest import prepare
from rlaas.telemetry.store import StoredEvent
from tests.fakes.gateway import make_lambda_context
from tests.fakes.worlds import NOW, SKILL, TENANT


def events(count: int, *, size: int = 10) -> list[StoredEvent]:
    return [
        prepare(
            InteractionCreated(interaction_id=f"i{number}", skill=SKILL, thread_id="t1", inputs={"email": "é" * size}),
            TENANT,
            received_at=NOW,
        )
        for number in range(count)
    ]


class Firehose:
    """Takes every record except those with an event in `refusals`, which says how many more times it is refused."""

    def __init__(self, refusals: dict[str, int]) -> None:
        self.refusals = refusals
        self.calls: list[list[list[str]]] = []
        self.accepted: list[str] = []

    def put_record_batch(self, *, DeliveryStreamName: str, Records: Sequence[dict[str, bytes]]) -> dict[str, Any]:
        assert len(Records) <= 500
        assert sum(len(entry["Data"]) for entry in Records) <= 4 * 1024 * 1024
        assert all(len(entry["Data"]) <= 1_000 * 1024 for entry in Records)
        packs = [[json.loads(line)["event_id"] for line in entry["Data"].splitlines()] for entry in Records]
        assert all(len(pack) <= 500 for pack in packs)
        self.calls.append(packs)
        responses: list[dict[str, str]] = []
        for pack in packs:
            refused = any(self.refusals.get(name, 0) > 0 for name in pack)
            self.refusals.update({name: self.refusals[name] - 1 for name in pack if name in self.refusals})
            responses.append({"ErrorCode": "ServiceUnavailableException"} if refused else {"RecordId": pack[0]})
            self.accepted += [] if refused else pack
        return {"RequestResponses": responses, "FailedPutCount": sum("ErrorCode" in response for response in responses)}


def deliver(refusals: dict[str, int], events: list[StoredEvent]) -> tuple[Firehose, list[int]]:
    firehose = Firehose(refusals)
    return firehose, FirehoseLake("stream", cast(Any, firehose), sleep=lambda _: None).deliver(events)


SETTINGS = {
    **{"RLAAS_STAGE": "test", "DELIVERY_STREAM": "stream", "FAILURES_BUCKET": "failures", "AWS_DEFAULT_REGION": "us-east-1"},
    **{"SHADOW_QUEUE_URL": "https://queue", "COUNTERS_TABLE": "counters"},
}
LARGE = 100_000  # characters of two bytes: two such events fit a record, a third does not


def test_small_events_share_one_record() -> None:
    firehose, refused = deliver({}, events(3))
    assert refused == []
    assert firehose.calls == [[["i0", "i1", "i2"]]]


def test_only_refused_records_are_sent_again() -> None:
    firehose, refused = deliver({"i2": 2}, events(5, size=LARGE))
    assert refused == []
    assert firehose.calls == [[["i0", "i1"], ["i2", "i3"], ["i4"]], [["i2", "i3"]], [["i2", "i3"]]]
    assert sorted(firehose.accepted) == ["i0", "i1", "i2", "i3", "i4"]


def test_what_stays_refused_is_told_by_position_with_all_that_shared_its_record() -> None:
    firehose, refused = deliver({"i3": 99, "i4": 99}, events(5, size=LARGE))
    assert refused == [2, 3, 4]
    assert firehose.accepted == ["i0", "i1"]


@pytest.mark.parametrize(
    ("count", "size", "packs"),
    [
        (0, 1, []),
        (1201, 0, [500, 500, 201]),
        (3, 190_000, [1, 1, 1]),  # as large as events may be: no two fit a record
        (40, LARGE, [2] * 20),
    ],
)
def test_records_and_calls_stay_within_firehoses_limits(count: int, size: int, packs: list[int]) -> None:
    firehose, refused = deliver({}, events(count, size=size))
    assert refused == []
    assert [len(pack) for call in firehose.calls for pack in call] == packs
    assert firehose.accepted == [f"i{number}" for number in range(count)]


def test_the_stream_is_read_again_from_the_first_event_of_a_refused_record() -> None:
    stored = events(5, size=LARGE)
    stage = Stage(SETTINGS)
    stage.lake = FirehoseLake("stream", cast(Any, Firehose({"i3": 99})), sleep=lambda _: None)
    images = [build_item(event, expires_at=NOW) for event in stored]
    removal = {"eventName": "REMOVE", "dynamodb": {"SequenceNumber": "100"}}
    records = [{"eventName": "INSERT", "dynamodb": {"SequenceNumber": str(n), "NewImage": image}} for n, image in enumerate(images)]
    with replace_stage(stage):
        answer = lake_writer.handler({"Records": [removal, *records]}, make_lambda_context())
    assert answer["batchItemFailures"][0] == {"itemIdentifier": "2"}  # the stream takes the first


def test_a_record_is_one_line_with_the_lakes_columns_and_partition_keys() -> None:
    (event,) = events(1)
    line = build_lake_record(event)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    columns = json.loads(line)
    assert (columns["event_type"], columns["event_date"]) == ("interaction", "2026-03-01")
    assert (columns["occurred_at"], columns["payload"]) == ("2026-03-01T12:00:00.000000Z", event.payload)
    assert (columns["thread_id"], columns["output_id"]) == ("t1", None)


def test_a_late_event_lies_in_the_utc_day_it_came() -> None:
    occurred_at = datetime(2026, 1, 31, 22, 30, tzinfo=timezone(timedelta(hours=-5)))
    late = prepare(InteractionCreated(skill="drafts", inputs={}, occurred_at=occurred_at), TENANT, received_at=NOW)
    columns = json.loads(build_lake_record(late))
    assert (columns["event_date"], columns["occurred_at"][:10]) == ("2026-03-01", "2026-02-01")
