"""Firehose, Glue and Athena on the laptop cloud."""

from __future__ import annotations

import csv
import json
import re
import uuid
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import awswrangler
import boto3
import pytest

from infra.constructs.event_lake import COLUMNS as EVENT_COLUMNS
from rlaas.adapters.aws.lake import FirehoseLake
from rlaas.chat import Usage
from rlaas.learning.selection import build_unload_statement
from rlaas.runtime.state_machines import Failure
from rlaas.telemetry.events import AnyEvent, FeedbackSubmitted, InteractionCreated, OutputProduced, TaskResultReported
from rlaas.telemetry.ingest import prepare
from rlaas.telemetry.store import StoredEvent
from tests.local_cloud.conftest import ROLE, ROOT, Emulator, until
from tests.state_machines.conftest import create
from training_jobs.build_dataset.job import read_events

COLUMNS = [{"Name": "event_id", "Type": "string"}, {"Name": "payload", "Type": "string"}, {"Name": "value", "Type": "double"}]


@pytest.fixture
def lake(emulator: Emulator) -> dict[str, str]:
    """A lake of few columns."""
    return make_lake(emulator, COLUMNS, ["event_type"])


@pytest.fixture
def event_lake(emulator: Emulator) -> dict[str, str]:
    """A lake as the data stack describes it."""
    return make_lake(emulator, [{"Name": name, "Type": "string"} for name in EVENT_COLUMNS], ["event_type", "event_date"])


def make_lake(emulator: Emulator, columns: list[dict[str, str]], keys: list[str]) -> dict[str, str]:
    """A bucket, a table partitioned by `keys`, a workgroup of its own and a delivery stream into it."""
    suffix = uuid.uuid4().hex[:8]
    names = {"bucket": f"lake-{suffix}", "database": f"db_{suffix}", "workgroup": f"group-{suffix}", "stream": f"stream-{suffix}"}
    emulator.client("s3").create_bucket(Bucket=names["bucket"])
    glue = emulator.client("glue")
    glue.create_database(DatabaseInput={"Name": names["database"]})
    glue.create_table(
        DatabaseName=names["database"],
        TableInput={
            "Name": "events",
            "TableType": "EXTERNAL_TABLE",
            "Parameters": {"classification": "parquet"},
            "PartitionKeys": [{"Name": key, "Type": "string"} for key in keys],
            "StorageDescriptor": {
                "Columns": columns,
                "Location": f"s3://{names['bucket']}/events/",
                "InputFormat": "org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat",
                "OutputFormat": "org.apache.hadoop.hive.ql.io.parquet.MapredParquetOutputFormat",
                "SerdeInfo": {"SerializationLibrary": "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe"},
            },
        },
    )
    emulator.client("athena").create_work_group(
        Name=names["workgroup"], Configuration={"ResultConfiguration": {"OutputLocation": f"s3://{names['bucket']}/athena"}}
    )
    query = "{" + ", ".join(f"{key}: .{key}" for key in keys) + "}"
    emulator.client("firehose").create_delivery_stream(
        DeliveryStreamName=names["stream"],
        ExtendedS3DestinationConfiguration={
            "BucketARN": f"arn:aws:s3:::{names['bucket']}",
            "RoleARN": ROLE,
            "Prefix": "events/" + "".join(f"{key}=!{{partitionKeyFromQuery:{key}}}/" for key in keys),
            "ErrorOutputPrefix": "errors/",
            "BufferingHints": {"IntervalInSeconds": 60, "SizeInMBs": 64},
            "DynamicPartitioningConfiguration": {"Enabled": True},
            "ProcessingConfiguration": {
                "Enabled": True,
                "Processors": [
                    {"Type": "RecordDeAggregation", "Parameters": [{"ParameterName": "SubRecordType", "ParameterValue": "JSON"}]},
                    {
                        "Type": "MetadataExtraction",
                        "Parameters": [
                            {"ParameterName": "MetadataExtractionQuery", "ParameterValue": query},
                            {"ParameterName": "JsonParsingEngine", "ParameterValue": "JQ-1.6"},
                        ],
                    },
                ],
            },
            "DataFormatConversionConfiguration": {
                "Enabled": True,
                "SchemaConfiguration": {"DatabaseName": names["database"], "TableName": "events", "RoleARN": ROLE},
                "InputFormatConfiguration": {"Deserializer": {"OpenXJsonSerDe": {}}},
                "OutputFormatConfiguration": {"Serializer": {"ParquetSerDe": {}}},
            },
        },
    )
    return names


def put(emulator: Emulator, stream: str, records: list[dict[str, Any]]) -> None:
    answer = emulator.client("firehose").put_record_batch(
        DeliveryStreamName=stream, Records=[{"Data": json.dumps(record).encode()} for record in records]
    )
    assert answer["FailedPutCount"] == 0


def keys(emulator: Emulator, bucket: str, prefix: str) -> list[str]:
    return [entry["Key"] for entry in emulator.client("s3").list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", [])]


def ask(emulator: Emulator, names: dict[str, str], query: str, **how: Any) -> list[dict[str, Any]]:
    session = boto3.Session(aws_access_key_id="test", aws_secret_access_key="test", region_name="us-east-1")
    awswrangler.config.athena_endpoint_url = awswrangler.config.s3_endpoint_url = awswrangler.config.glue_endpoint_url = emulator.url
    try:
        frame = awswrangler.athena.read_sql_query(
            query, database=names["database"], workgroup=names["workgroup"], ctas_approach=False, boto3_session=session, **how
        )
    finally:
        awswrangler.config.reset()  # it is the process's, and other tests' too
    rows: list[dict[str, Any]] = frame.to_dict("records")
    return rows


def test_records_of_a_partition_become_one_file_that_athena_reads(emulator: Emulator, lake: dict[str, str]) -> None:
    records = [
        {"event_id": f"e{number}", "event_type": kind, "value": number, "payload": json.dumps({"texts": [{"text": f"t{number}"}]})}
        for kind in ("output", "feedback")
        for number in range(20)
    ]
    put(emulator, lake["stream"], records)
    until(lambda: len(keys(emulator, lake["bucket"], "events/")) == 2)
    query = """
        SELECT event_type, count(*) AS n, sum(value) AS total, max(json_extract_scalar(payload, '$.texts[0].text')) AS text,
               array_join(array_agg(event_id ORDER BY event_id), ',') AS ids
        FROM events WHERE event_type = 'output' GROUP BY event_type
    """
    row = ask(emulator, lake, query)[0]
    assert (row["n"], row["total"], row["text"]) == (20, 190.0, "t9")
    assert row["ids"].startswith("e0,e1,e10")


def test_a_record_without_its_partition_key_goes_to_the_errors_and_spoils_nothing(emulator: Emulator, lake: dict[str, str]) -> None:
    put(emulator, lake["stream"], [{"event_id": "good", "event_type": "output"}, {"event_id": "bad"}])
    until(lambda: keys(emulator, lake["bucket"], "events/") and keys(emulator, lake["bucket"], "errors/"))
    assert ask(emulator, lake, "SELECT event_id FROM events") == [{"event_id": "good"}]


def test_a_record_of_many_events_is_taken_apart_before_it_is_partitioned(emulator: Emulator, lake: dict[str, str]) -> None:
    lines = [json.dumps({"event_id": f"e{n}", "event_type": ("output", "feedback")[n % 2], "payload": "é } {"}) for n in range(10)]
    emulator.client("firehose").put_record_batch(
        DeliveryStreamName=lake["stream"], Records=[{"Data": "\n".join(lines[:6]).encode()}, {"Data": "".join(lines[6:]).encode()}]
    )
    until(lambda: len(keys(emulator, lake["bucket"], "events/")) == 2)
    rows = ask(emulator, lake, "SELECT event_type, count(*) AS n FROM events GROUP BY event_type ORDER BY event_type")
    assert rows == [{"event_type": "feedback", "n": 5}, {"event_type": "output", "n": 5}]
    assert keys(emulator, lake["bucket"], "errors/") == []


def test_a_record_of_more_events_than_firehose_takes_apart_goes_to_the_errors(emulator: Emulator, lake: dict[str, str]) -> None:
    lines = [json.dumps({"event_id": f"e{n}", "event_type": "output"}) for n in range(501)]
    emulator.client("firehose").put_record_batch(DeliveryStreamName=lake["stream"], Records=[{"Data": "\n".join(lines).encode()}])
    until(lambda: keys(emulator, lake["bucket"], "errors/"))
    assert keys(emulator, lake["bucket"], "events/") == []


def test_a_result_lies_where_the_execution_says(emulator: Emulator, lake: dict[str, str]) -> None:
    athena = emulator.client("athena")
    query = athena.start_query_execution(QueryString="SELECT 1 AS one", WorkGroup=lake["workgroup"])["QueryExecutionId"]
    execution = until(
        lambda: (
            description
            if (description := athena.get_query_execution(QueryExecutionId=query)["QueryExecution"])["Status"]["State"]
            in ("SUCCEEDED", "FAILED")
            else None
        )
    )
    assert execution["ResultConfiguration"]["OutputLocation"] == f"s3://{lake['bucket']}/athena/{query}.csv"
    body = emulator.client("s3").get_object(Bucket=lake["bucket"], Key=f"athena/{query}.csv")["Body"].read()
    assert body.decode().split() == ["one", "1"]


def run_query(emulator: Emulator, names: dict[str, str], query: str) -> dict[str, Any]:
    """The query's execution, ended."""
    athena = emulator.client("athena")
    new_query = athena.start_query_execution(
        QueryString=query, WorkGroup=names["workgroup"], QueryExecutionContext={"Database": names["database"]}
    )
    execution: dict[str, Any] = until(
        lambda: (
            description
            if (description := athena.get_query_execution(QueryExecutionId=new_query["QueryExecutionId"])["QueryExecution"])["Status"][
                "State"
            ]
            in ("SUCCEEDED", "FAILED")
            else None
        )
    )
    return execution


@pytest.mark.parametrize("query", ["SELECT FROM WHERE (", "UNLOAD (SELECT FROM WHERE () TO 's3://b/f/' WITH (format = 'PARQUET')"])
def test_what_is_not_athenas_sql_fails_with_a_reason(emulator: Emulator, lake: dict[str, str], query: str) -> None:
    status = run_query(emulator, lake, query)["Status"]
    assert status["State"] == "FAILED"
    assert status["StateChangeReason"]


def test_an_answer_is_unloaded_to_files_without_an_ending_that_a_client_finds(emulator: Emulator, lake: dict[str, str]) -> None:
    put(emulator, lake["stream"], [{"event_id": f"e{n}", "event_type": ("output", "feedback")[n % 2], "value": n} for n in range(10)])
    until(lambda: len(keys(emulator, lake["bucket"], "events/")) == 2)
    query = "SELECT event_id, value, json_extract_scalar(payload, '$.a') AS a FROM events WHERE event_type = 'output' ORDER BY event_id"
    folder = f"s3://{lake['bucket']}/athena/unload/x"
    assert ask(emulator, lake, query, unload_approach=True, s3_output=folder) == ask(emulator, lake, query)
    [file] = [key for key in keys(emulator, lake["bucket"], "athena/unload/x/") if not key.endswith("-manifest.csv")]
    assert "." not in file


def test_of_no_rows_no_file_is_unloaded_and_none_beside_what_lies_there(emulator: Emulator, lake: dict[str, str]) -> None:
    def unload(where: str) -> dict[str, Any]:
        return run_query(
            emulator,
            lake,
            f"UNLOAD (SELECT 1 AS one WHERE {where}) TO 's3://{lake['bucket']}/unload/' WITH (format = 'PARQUET', compression = 'SNAPPY')",
        )

    empty = unload("1 = 0")
    assert (empty["Status"]["State"], empty["StatementType"], empty["SubstatementType"]) == ("SUCCEEDED", "DML", "UNLOAD")
    assert keys(emulator, lake["bucket"], "unload/") == []
    assert empty["Statistics"]["DataManifestLocation"] == f"s3://{lake['bucket']}/athena/{empty['QueryExecutionId']}-manifest.csv"
    assert unload("1 = 1")["Status"]["State"] == "SUCCEEDED"
    [file] = keys(emulator, lake["bucket"], "unload/")
    again = unload("1 = 1")["Status"]
    assert again["State"] == "FAILED"
    assert again["StateChangeReason"].startswith("HIVE_PATH_ALREADY_EXISTS: ")
    assert keys(emulator, lake["bucket"], "unload/") == [file]


def test_a_column_added_to_the_table_is_null_where_older_files_lack_it(emulator: Emulator, lake: dict[str, str]) -> None:
    put(emulator, lake["stream"], [{"event_id": "old", "event_type": "output"}])
    until(lambda: keys(emulator, lake["bucket"], "events/"))
    glue = emulator.client("glue")
    table = glue.get_table(DatabaseName=lake["database"], Name="events")["Table"]
    table_input = {name: table[name] for name in ("Name", "TableType", "Parameters", "PartitionKeys", "StorageDescriptor")}
    table_input["StorageDescriptor"]["Columns"].append({"Name": "region", "Type": "string"})
    glue.update_table(DatabaseName=lake["database"], TableInput=table_input)
    query = "SELECT event_id, region FROM events WHERE event_type = 'output' ORDER BY event_id"
    assert [(row["event_id"], row["region"] is None) for row in ask(emulator, lake, query)] == [("old", True)]
    put(emulator, lake["stream"], [{"event_id": "new", "event_type": "output", "region": "eu"}])
    until(lambda: len(keys(emulator, lake["bucket"], "events/")) == 2)
    assert [row["region"] for row in ask(emulator, lake, query)] == ["eu", None]


# --- docs/lake.md
# ----------------------------------------------------------------------------------------------------------------------

MORNING = datetime(2025, 5, 4, 9, 0, tzinfo=UTC)


def a_small_day() -> list[StoredEvent]:
    """The events behind the guide's answers: three drafts, the reactions, and another tenant's interaction."""
    reply: dict[str, Any] = {"skill": "reply"}

    def output(number: int, policy: str, text: str, latency_ms: float, tokens: int) -> AnyEvent:
        usage = Usage(input_tokens=50, output_tokens=tokens)
        about = {"output_id": f"out_{number}", "interaction_id": f"int_{number}", "policy_id": policy}
        return OutputProduced(**reply, **about, text=text, latency_ms=latency_ms, usage=usage)

    def feedback(number: int, output_number: int, **fields: Any) -> AnyEvent:
        about = {"feedback_id": f"fbk_{number}", "output_id": f"out_{output_number}", "interaction_id": f"int_{output_number}"}
        return FeedbackSubmitted(**reply, **about, **fields)

    emails = {1: "Where is my order?", 2: "Can I cancel?", 3: "Do you ship abroad?"}
    first: list[AnyEvent] = [
        *(InteractionCreated(**reply, interaction_id=f"int_{number}", inputs={"email": text}) for number, text in emails.items()),
        output(1, "reply@v1", "It leaves today.", 100, 10),
        output(2, "reply@v1", "Yes, until it has left.", 200, 20),
        output(3, "reply@v2", "To most countries.", 80, 12),
        feedback(1, 1, kind="rating", rating=1.0),
        feedback(2, 2, kind="rating", rating=0.5),
        feedback(3, 2, kind="edit", final_text="Yes, as long as it has not left."),
    ]
    second: list[AnyEvent] = [
        feedback(4, 3, kind="edit", final_text="To all of Europe."),
        TaskResultReported(**reply, task_result_id="tsk_1", interaction_id="int_1", name="reopened", value=False),
    ]
    day_later = MORNING + timedelta(days=1)
    return [
        *(prepare(event, "acme", received_at=MORNING) for event in first),
        *(prepare(event, "acme", received_at=day_later) for event in second),
        prepare(InteractionCreated(**reply, interaction_id="int_1", inputs={"email": "Hello"}), "other", received_at=MORNING),
    ]


def deliver_twice(emulator: Emulator, names: dict[str, str]) -> None:
    """The small day into the lake; one rating comes twice, as at-least-once delivery may have it."""
    events = a_small_day()
    lake = FirehoseLake(names["stream"], emulator.client("firehose"))
    assert lake.deliver(events) == []
    until(lambda: len(keys(emulator, names["bucket"], "events/")) == 5)
    assert lake.deliver([event for event in events if event.event_id == "fbk_1"]) == []
    until(lambda: len(keys(emulator, names["bucket"], "events/")) == 6)


def answer(emulator: Emulator, names: dict[str, str], query: str) -> list[list[str]]:
    rows = ask(emulator, names, query)
    return [list(rows[0]), *([str(value) for value in row.values()] for row in rows)]


def guide() -> list[tuple[str, list[list[str]]]]:
    """Each question of docs/lake.md with its answer."""
    text = (ROOT / "docs/lake.md").read_text()
    return [
        (query, list(csv.reader(StringIO(table)))) for query, table in re.findall(r"```sql\n(.*?)```\n\n```csv\n(.*?)```", text, re.DOTALL)
    ]


def select_events(emulator: Emulator, names: dict[str, str], statement: tuple[str, str], folder: str) -> dict[str, Any]:
    """The learning machine's own state, as an execution of its own that ends with where the files are; its failures are
    tried again."""
    state = json.loads((ROOT / "infra/state_machines/learning.asl.json").read_text())["States"]["SelectEvents"]
    del state["Catch"]
    retry = [{**state["Retry"][0], "ErrorEquals": ["States.TaskFailed"], "IntervalSeconds": 1, "MaxAttempts": 1}]
    states = {
        "Begin": {
            "Type": "Pass",
            "Assign": {"plan": {"select_events": {"statement": list(statement), "output_uri": folder}}},
            "Next": "SelectEvents",
        },
        "SelectEvents": {**state, "Retry": retry},
        "BuildDataset": {"Type": "Pass", "Output": "{% $events_uri %}", "End": True},
    }
    definition = json.dumps({"QueryLanguage": "JSONata", "StartAt": "Begin", "States": states})
    for placeholder, value in (("LakeDatabase", names["database"]), ("LakeWorkgroup", names["workgroup"])):
        definition = definition.replace(f"${{{placeholder}}}", value)
    client = emulator.client("stepfunctions")
    machine = client.create_state_machine(name=f"select-{uuid.uuid4().hex[:8]}", definition=definition, roleArn=ROLE)["stateMachineArn"]
    execution = client.start_execution(stateMachineArn=machine, input="{}")["executionArn"]
    execution_description: dict[str, Any] = until(
        lambda: description if (description := client.describe_execution(executionArn=execution))["status"] != "RUNNING" else None,
        seconds=60,
    )
    return execution_description


def fetch(emulator: Emulator, bucket: str, prefix: str, folder: Path) -> Path:
    """Everything below a prefix, as SageMaker brings it."""
    folder.mkdir()
    for key in keys(emulator, bucket, prefix):
        emulator.client("s3").download_file(bucket, key, str(folder / key.removeprefix(prefix)))
    return folder


def selection(tenant_id: str, folder: str) -> tuple[str, str]:
    return build_unload_statement(tenant_id=tenant_id, skill="reply", since=MORNING, until=MORNING + timedelta(days=1), folder=folder)


def test_the_learning_machine_has_athena_write_what_the_dataset_is_made_of(
    emulator: Emulator, event_lake: dict[str, str], tmp_path: Path
) -> None:
    deliver_twice(emulator, event_lake)
    bucket, prefix = event_lake["bucket"], "athena/unload/acme/run_1/"
    emulator.client("s3").put_object(Bucket=bucket, Key=f"{prefix}0/half", Body=b"of a try that failed")
    folder = f"s3://{bucket}/{prefix}"
    execution = select_events(emulator, event_lake, selection("acme", folder), folder)
    assert (execution["status"], json.loads(execution.get("output", "null"))) == ("SUCCEEDED", f"{folder}1/"), execution.get("cause")
    read = list(read_events("acme", fetch(emulator, bucket, f"{prefix}1/", tmp_path / "acme")))
    first_day = [event for event in a_small_day() if event.tenant_id == "acme" and event.received_at == MORNING]
    expected = {event.event_id: event.payload for event in first_day if event.event_type in ("interaction", "output", "feedback")}
    assert {event.event_id: event.payload for event in read} == expected
    assert len(read) == len(expected) + 1  # the rating that came twice


def test_a_selection_of_no_events_is_a_file_all_the_same(emulator: Emulator, event_lake: dict[str, str], tmp_path: Path) -> None:
    folder = f"s3://{event_lake['bucket']}/athena/unload/nobody/run_1/"
    execution = select_events(emulator, event_lake, selection("nobody", folder), folder)
    assert execution["status"] == "SUCCEEDED", execution.get("cause")
    files = fetch(emulator, event_lake["bucket"], "athena/unload/nobody/run_1/0/", tmp_path / "nobody")
    assert len(list(files.iterdir())) == 1
    assert list(read_events("nobody", files)) == []


def test_a_query_that_fails_fails_its_task_with_athenas_reason(emulator: Emulator, event_lake: dict[str, str]) -> None:
    wrong = (f"UNLOAD (SELECT no_such_column FROM events) TO 's3://{event_lake['bucket']}/unload/", "/' WITH (format = 'PARQUET')")
    execution = select_events(emulator, event_lake, wrong, "")
    assert execution["error"] == "States.TaskFailed"
    query = json.loads(execution["cause"])["QueryExecution"]
    assert (query["Status"]["State"], query["WorkGroup"]) == ("FAILED", event_lake["workgroup"])
    assert isinstance(query["Status"]["SubmissionDateTime"], int)
    assert "no_such_column" in Failure(Error=execution["error"], Cause=execution["cause"]).message
    nowhere = select_events(emulator, {**event_lake, "workgroup": "primary"}, wrong, "")
    assert (nowhere["error"], nowhere["cause"][:18]) == ("Athena.InvalidRequestException", "No output location")


def test_the_guides_questions_have_the_guides_answers(emulator: Emulator, event_lake: dict[str, str]) -> None:
    deliver_twice(emulator, event_lake)
    questions = guide()
    assert len(questions) == (ROOT / "docs/lake.md").read_text().count("```sql") == 5
    for query, expected in questions:
        assert answer(emulator, event_lake, query) == expected, query


def test_the_compaction_machine_leaves_one_row_per_event(emulator: Emulator, event_lake: dict[str, str]) -> None:
    deliver_twice(emulator, event_lake)
    name = f"compaction-{uuid.uuid4().hex[:8]}"
    create(
        emulator,
        "compaction",
        name=name,
        Prefix=f"rlaas-{name[-8:]}",
        LakeBucket=event_lake["bucket"],
        SageMakerRoleArn=ROLE,
        LearningImageUri="repository",
        Region="us-east-1",
        ProcessingInstanceType="ml.m5.large",
        ProcessingMaxSeconds="120",
    )
    states = emulator.client("stepfunctions")
    execution = states.start_execution(stateMachineArn=f"arn:aws:states:us-east-1:000000000000:stateMachine:{name}", input="{}")
    description = until(
        lambda: answer if (answer := states.describe_execution(executionArn=execution["executionArn"]))["status"] != "RUNNING" else None,
        seconds=120,
    )
    assert description["status"] == "SUCCEEDED", description.get("cause")
    files = keys(emulator, event_lake["bucket"], "events/")
    assert len(files) == 5
    assert all("/compacted-" in file for file in files)
    query = "SELECT count(*) AS n, count(DISTINCT event_id) AS ids FROM events WHERE event_type = 'feedback' AND tenant_id = 'acme'"
    assert answer(emulator, event_lake, query)[1] == ["4", "4"]
    for number in (0, 1, 3, 4):  # the third counts copies, of which there are none any more
        query, expected = guide()[number]
        assert answer(emulator, event_lake, query) == expected, query
