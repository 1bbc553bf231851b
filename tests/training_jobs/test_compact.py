from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import boto3
import pyarrow
import pytest
from moto import mock_aws
from pyarrow import parquet

from rlaas.adapters.aws import clients
from training_jobs.compact import job as compact

BUCKET, DAY = "lake", "2025-05-04"
COLUMNS = ("tenant_id", "event_id", "skill", "policy_id", "occurred_at", "received_at", "payload")
Row = dict[str, str | None]


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    clients._client.cache_clear()
    with mock_aws():
        client = boto3.client("s3")
        client.create_bucket(Bucket=BUCKET)
        yield client
    clients._client.cache_clear()


def event(number: int, *, tenant: str = "acme", skill: str = "reply", received: str | None = None, **columns: str | None) -> Row:
    return {
        "tenant_id": tenant,
        "event_id": f"e{number}",
        "skill": skill,
        "policy_id": None,
        "occurred_at": f"{DAY}T09:00:00.000000Z",
        "received_at": f"{DAY}T{received or f'10:{number // 60 % 60:02}:{number % 60:02}'}.000000Z",
        "payload": json.dumps({"number": number}),
        **columns,
    }


def put(s3: Any, name: str, rows: Sequence[Mapping[str, str | None]], *, columns: Sequence[str] = COLUMNS, day: str = DAY) -> str:
    key = f"events/event_type=output/event_date={day}/{name}"
    buffer = BytesIO()
    schema = pyarrow.schema({column: pyarrow.string() for column in columns})
    parquet.write_table(pyarrow.Table.from_pylist(list(rows), schema=schema), buffer, compression="snappy")
    s3.put_object(Bucket=BUCKET, Key=key, Body=buffer.getvalue())
    return key


def keys(s3: Any) -> list[str]:
    return [entry["Key"] for entry in s3.list_objects_v2(Bucket=BUCKET).get("Contents", [])]


def rows(s3: Any) -> list[Row]:
    """Every row in the lake, file by file."""
    return [
        row for key in keys(s3) for row in parquet.read_table(BytesIO(s3.get_object(Bucket=BUCKET, Key=key)["Body"].read())).to_pylist()
    ]


def ids(events: Sequence[Row]) -> list[str]:
    return sorted(f"{row['tenant_id']}/{row['event_id']}" for row in events)


@pytest.fixture
def run(run_job: Callable[..., int], caplog: pytest.LogCaptureFixture) -> Callable[..., list[dict[str, Any]]]:
    """Runs the job and returns what it logged."""

    def run(*words: str, status: int = 0) -> list[dict[str, Any]]:
        caplog.clear()
        with caplog.at_level(logging.INFO, logger="compact"):
            assert run_job(compact.main, "--bucket", BUCKET, *words) == status
        return [json.loads(record.message) for record in caplog.records if record.name == "compact"]

    return run


Run = Callable[..., list[dict[str, Any]]]


def test_many_small_files_become_one_sorted_by_tenant_skill_and_time(s3: Any, run: Run) -> None:
    events = [event(number, tenant=f"t{number % 3}", skill=f"s{number % 2}") for number in range(400)]
    for start in range(0, 400, 10):
        put(s3, f"firehose-{start:03}.parquet", events[start : start + 10][::-1])
    report, total = run()
    (key,) = keys(s3)
    assert compact.COMPACTED.fullmatch(key.rpartition("/")[2])
    stored = rows(s3)
    assert ids(stored) == ids(events)
    order = [(row["tenant_id"], row["skill"], row["received_at"]) for row in stored]
    assert order == sorted(order)
    assert (report["files_in"], report["files_out"], report["rows_in"], report["duplicates"], report["rows_out"]) == (40, 1, 400, 0, 400)
    assert 0 < report["bytes_out"] < report["bytes_in"]
    assert total == {"due": 1, "left": 0, "failed": 0}
    codec = parquet.ParquetFile(BytesIO(s3.get_object(Bucket=BUCKET, Key=key)["Body"].read())).metadata.row_group(0).column(0).compression
    assert codec == "ZSTD"


def test_files_in_folders_below_the_partition_are_taken_in_and_hidden_ones_are_not(s3: Any, run: Run) -> None:
    put(s3, "2025/05/04/10/a.parquet", [event(1)])
    hidden = [put(s3, "_temporary/b.parquet", [event(2)]), put(s3, ".c.parquet", [event(3)])]
    report, _ = run()
    assert report["files_in"] == 1
    assert set(hidden) < set(keys(s3))


def test_of_an_event_delivered_twice_the_one_received_first_stays(s3: Any, run: Run) -> None:
    put(s3, "a.parquet", [event(1, received="12:00:00", payload="later"), event(2)])
    put(s3, "b.parquet", [event(1, received="11:00:00", payload="first"), event(1, tenant="other"), event(1, received="13:00:00")])
    report, _ = run()
    stored = rows(s3)
    assert ids(stored) == ["acme/e1", "acme/e2", "other/e1"]
    assert next(row["payload"] for row in stored if row["tenant_id"] == "acme" and row["event_id"] == "e1") == "first"
    assert report["duplicates"] == 2


def test_rows_without_ids_are_never_taken_for_duplicates(s3: Any, run: Run) -> None:
    put(s3, "a.parquet", [event(1, event_id=None), event(2, event_id=None), event(3, tenant_id=None), event(3, tenant_id=None)])
    run()
    assert len(rows(s3)) == 4


def test_a_compacted_partition_is_left_alone_until_a_late_event_comes(s3: Any, run: Run) -> None:
    put(s3, "a.parquet", [event(1)])
    run()
    before = keys(s3)
    assert run() == [{"due": 0, "left": 0, "failed": 0}]
    assert keys(s3) == before
    put(s3, "late.parquet", [event(2), event(1, received="23:00:00")])
    report, _ = run()
    assert (report["files_in"], report["duplicates"], ids(rows(s3))) == (2, 1, ["acme/e1", "acme/e2"])


def test_a_run_killed_between_writing_and_deleting_leaves_duplicates_that_the_next_one_removes(s3: Any, run: Run, tmp_path: Path) -> None:
    put(s3, "a.parquet", [event(number) for number in range(5)])
    put(s3, "b.parquet", [event(number) for number in range(3, 8)])
    (partition,) = compact.list_partitions(s3, BUCKET)
    compact.merge(s3, BUCKET, partition, tmp_path)
    assert len(rows(s3)) == 10 + 8
    run()
    assert ids(rows(s3)) == [f"acme/e{number}" for number in range(8)]


@pytest.mark.parametrize("deleted", [0, 1, 2])
def test_a_run_killed_while_deleting_loses_nothing(s3: Any, run: Run, tmp_path: Path, deleted: int) -> None:
    put(s3, "a.parquet", [event(1), event(2)])
    put(s3, "b.parquet", [event(2), event(3)])
    (partition,) = compact.list_partitions(s3, BUCKET)
    compact.delete(s3, BUCKET, compact.merge(s3, BUCKET, partition, tmp_path).read[:deleted])
    run()
    assert ids(rows(s3)) == ["acme/e1", "acme/e2", "acme/e3"]
    assert run()[-1]["due"] == 0


def test_two_runs_over_the_same_files_write_the_same_and_keep_it(s3: Any, tmp_path: Path) -> None:
    put(s3, "a.parquet", [event(1), event(2)])
    put(s3, "b.parquet", [event(2)])
    (partition,) = compact.list_partitions(s3, BUCKET)
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        folder.mkdir()
    one, two = (compact.merge(s3, BUCKET, partition, folder) for folder in folders)
    assert one == two
    compact.delete(s3, BUCKET, one.read)
    compact.delete(s3, BUCKET, two.read)
    assert ids(rows(s3)) == ["acme/e1", "acme/e2"]


def test_a_file_whose_events_are_all_there_already_does_not_take_the_compacted_file_with_it(s3: Any, run: Run) -> None:
    """The new file's content equals the old one's; were names made of the content alone, it would be deleted as one of
    those read."""
    put(s3, "a.parquet", [event(1)])
    run()
    put(s3, "again.parquet", [event(1)])
    run()
    assert ids(rows(s3)) == ["acme/e1"]


def test_a_run_whose_files_another_deleted_writes_nothing(s3: Any, tmp_path: Path) -> None:
    put(s3, "a.parquet", [event(1)])
    gone = put(s3, "b.parquet", [event(2)])
    (partition,) = compact.list_partitions(s3, BUCKET)
    s3.delete_object(Bucket=BUCKET, Key=gone)
    before = keys(s3)
    with pytest.raises(compact.FilesGone):
        compact.merge(s3, BUCKET, partition, tmp_path)
    assert keys(s3) == before


def test_a_file_that_arrives_meanwhile_is_not_touched(s3: Any, run: Run, tmp_path: Path) -> None:
    put(s3, "a.parquet", [event(1)])
    (partition,) = compact.list_partitions(s3, BUCKET)
    merged = compact.merge(s3, BUCKET, partition, tmp_path)
    new = put(s3, "b.parquet", [event(2)])
    compact.delete(s3, BUCKET, merged.read)
    assert new in keys(s3)
    assert ids(rows(s3)) == ["acme/e1", "acme/e2"]


def test_columns_that_older_files_lack_are_null(s3: Any, run: Run) -> None:
    put(s3, "new.parquet", [event(2, policy_id="p@v2")])
    put(s3, "old.parquet", [event(1)], columns=[column for column in COLUMNS if column != "policy_id"])
    run()
    assert {row["event_id"]: row["policy_id"] for row in rows(s3)} == {"e1": None, "e2": "p@v2"}


def test_a_large_partition_is_cut_by_event_and_each_file_is_free_of_duplicates(s3: Any, run: Run) -> None:
    events = [event(number, tenant=f"t{number % 3}", payload=f"{number}" * 400) for number in range(3_000)]
    put(s3, "a.parquet", events)
    put(s3, "b.parquet", events[::2])
    report, _ = run("--shard-mib", "1")
    assert report["files_out"] == len(keys(s3)) > 2
    assert (report["rows_in"], report["duplicates"]) == (4_500, 1_500)
    assert ids(rows(s3)) == ids(events)
    assert run("--shard-mib", "1") == [{"due": 0, "left": 0, "failed": 0}]


def test_todays_partition_and_more_than_asked_for_wait(s3: Any, run: Run) -> None:
    for day in ("2025-05-01", "2025-05-02", "2025-05-03"):
        put(s3, "a.parquet", [event(1)], day=day)
    report, total = run("--until", "2025-05-02", "--max-partitions", "1")
    assert report["event_date"] == "2025-05-02"
    assert total == {"due": 2, "left": 1, "failed": 0}


def test_a_file_that_is_no_parquet_fails_its_partition_and_no_other(s3: Any, run: Run, ml_root: Path) -> None:
    s3.put_object(Bucket=BUCKET, Key="events/event_type=output/event_date=2025-05-05/broken.parquet", Body=b"not Parquet")
    put(s3, "a.parquet", [event(1)])
    broken, good, total = run(status=1)
    assert broken["failed"] == "ArrowInvalid"
    assert good["rows_out"] == 1
    assert total["failed"] == 1
    message = (ml_root / "output" / "message").read_text()
    assert message.startswith("1 of 2 partitions stay as they were, the first output of 2025-05-05 (ArrowInvalid): ")
    assert "events/event_type=output/event_date=2025-05-05/broken.parquet" in keys(s3)
