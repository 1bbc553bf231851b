"""Lambda on the laptop cloud: what a handler sees, what its caller gets, and what is logged."""

from __future__ import annotations

import base64
import json
import re
import uuid

from tests.local_cloud.conftest import Emulator, archive, until

IMPORTER = """
    import importlib, os, sys
    def handler(event, context):
        importlib.import_module(event["import"])
        return {"path": sys.path, "environment": sorted(os.environ)}
"""


def name() -> str:
    return f"f-{uuid.uuid4().hex[:8]}"


def test_a_package_of_the_emulators_environment_cannot_be_imported_by_a_handler(emulator: Emulator) -> None:
    call = emulator.function(name(), IMPORTER)
    for package in ("ministack", "duckdb", "boto3", "local", "pip"):
        answer = call({"import": package})
        assert answer["errorType"] == "ModuleNotFoundError"
        assert package in answer["errorMessage"]


def test_an_import_missing_from_the_layers_fails_as_on_aws(emulator: Emulator) -> None:
    answer = emulator.function(name(), "import duckdb\ndef handler(event, context): pass")()
    assert answer["errorType"] == "Runtime.ImportModuleError"
    assert answer["errorMessage"] == "Unable to import module 'main': No module named 'duckdb'"


def test_a_handler_sees_its_layers_and_a_later_layer_wins(emulator: Emulator) -> None:
    client = emulator.client("lambda")
    layers = [
        client.publish_layer_version(LayerName=name(), Content={"ZipFile": archive({"python/colour.py": f"NAME = '{colour}'", **more})})[
            "LayerVersionArn"
        ]
        for colour, more in (("red", {"python/shape.py": "NAME = 'round'"}), ("blue", {}))
    ]
    code = "import colour, shape\ndef handler(event, context): return [colour.NAME, shape.NAME]"
    assert emulator.function(name(), code, Layers=layers)() == ["blue", "round"]


def test_a_handler_sees_only_awss_variables_and_its_own(emulator: Emulator) -> None:
    seen = emulator.function(name(), IMPORTER, Environment={"Variables": {"OWN": "1"}})({"import": "json"})["environment"]
    assert "OWN" in seen
    assert "AWS_LAMBDA_FUNCTION_NAME" in seen
    assert not {"GATEWAY_PORT", "STATE_DIR", "RLAAS_IMAGES"} & set(seen)


def test_an_exception_is_reported_by_its_class_and_the_environment_stays_warm(emulator: Emulator) -> None:
    code = """
        calls = 0
        class DependencyUnavailable(Exception): pass
        def handler(event, context):
            global calls
            calls += 1
            if event: raise DependencyUnavailable("the store is down")
            return calls
    """
    call = emulator.function(name(), code)
    answer = call(True)
    assert (answer["errorType"], answer["errorMessage"]) == ("DependencyUnavailable", "the store is down")
    assert "raise DependencyUnavailable" in "".join(answer["stackTrace"])
    assert call(False) == 2


def test_a_timeout_ends_the_call_and_names_it(emulator: Emulator) -> None:
    call = emulator.function(name(), "import time\ndef handler(event, context): time.sleep(event)", Timeout=1)
    answer = call(30)
    assert answer["errorType"] == "Sandbox.Timedout"
    assert "timed out after 1.00 seconds" in answer["errorMessage"]
    assert call(0) is None


def test_an_exit_and_a_value_that_is_no_json_are_errors_of_the_runtime(emulator: Emulator) -> None:
    call = emulator.function(name(), "import os\ndef handler(event, context): return {1, 2} if event else os._exit(3)")
    assert call(True)["errorType"] == "Runtime.MarshalError"
    assert call(False)["errorType"] == "Runtime.ExitError"
    assert call(True)["errorType"] == "Runtime.MarshalError"


def test_every_line_is_logged_of_a_call_that_writes_many(emulator: Emulator) -> None:
    function = name()
    code = """
        import os, sys
        print("at import")
        def handler(event, context):
            for number in range(20000): print("line", number)
            print("to stderr", file=sys.stderr)
            os.write(1, b"to the descriptor\\n")
            return context.aws_request_id
    """
    request = emulator.function(function, code)()
    logs = emulator.client("logs")
    group = f"/aws/lambda/{function}"
    stream = logs.describe_log_streams(logGroupName=group)["logStreams"][0]["logStreamName"]
    lines, token = [], {}
    while True:
        page = logs.get_log_events(logGroupName=group, logStreamName=stream, startFromHead=True, **token)
        if not page["events"]:
            break
        lines += [event["message"] for event in page["events"]]
        token = {"nextToken": page["nextForwardToken"]}
    assert lines[1] == "at import"
    assert [line for line in lines if line.startswith("line ")] == [f"line {number}" for number in range(20000)]
    assert {"to stderr", "to the descriptor"} <= set(lines)
    assert lines[0].startswith(f"START RequestId: {request}")


def test_the_log_tail_comes_with_the_answer(emulator: Emulator) -> None:
    function = name()
    emulator.function(function, "def handler(event, context): print('hello')")
    answer = emulator.client("lambda").invoke(FunctionName=function, LogType="Tail")
    assert "hello" in base64.b64decode(answer["LogResult"]).decode()


def test_concurrent_calls_get_environments_of_their_own(emulator: Emulator) -> None:
    from concurrent.futures import ThreadPoolExecutor

    call = emulator.function(
        name(), "import os, time\ndef handler(event, context):\n    time.sleep(0.5)\n    return os.getpid()", Timeout=30
    )
    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(call, range(4)))) == 4


def test_environments_are_forks_of_one_process_that_loaded_the_function(emulator: Emulator) -> None:
    from concurrent.futures import ThreadPoolExecutor

    call = emulator.function(
        name(), "import os, time\nloaded = os.getpid()\ndef handler(event, context):\n    time.sleep(0.5)\n    return loaded", Timeout=30
    )
    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(call, range(4)))) == 1


def test_a_function_that_changes_is_loaded_anew(emulator: Emulator) -> None:
    function = name()
    call = emulator.function(function, "import os\nseen = os.environ.get('SEEN')\ndef handler(event, context): return seen")
    assert call() is None
    emulator.client("lambda").update_function_configuration(FunctionName=function, Environment={"Variables": {"SEEN": "yes"}})
    assert call() == "yes"


def stream_of(emulator: Emulator, table: str) -> str:
    return str(
        emulator.client("dynamodb").create_table(
            TableName=table,
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
            StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"},
        )["TableDescription"]["LatestStreamArn"]
    )


def test_a_stream_record_that_the_function_names_as_failed_is_tried_again_and_given_up_alone(emulator: Emulator) -> None:
    dynamodb, sqs, function = emulator.client("dynamodb"), emulator.client("sqs"), name()
    source, seen = name(), name()
    stream = stream_of(emulator, source)
    stream_of(emulator, seen)
    queue = sqs.create_queue(QueueName=name())["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    code = """
        import json
        def handler(event, context):
            keys = [record["dynamodb"]["Keys"]["pk"]["S"] for record in event["Records"]]
            print(json.dumps(keys))
            bad = [r for r in event["Records"] if r["dynamodb"]["Keys"]["pk"]["S"] == "bad"]
            return {"batchItemFailures": [{"itemIdentifier": r["dynamodb"]["SequenceNumber"]} for r in bad]}
    """
    emulator.function(function, code)
    emulator.client("lambda").create_event_source_mapping(
        FunctionName=function,
        EventSourceArn=stream,
        StartingPosition="TRIM_HORIZON",
        BatchSize=10,
        MaximumRetryAttempts=1,
        BisectBatchOnFunctionError=True,
        FunctionResponseTypes=["ReportBatchItemFailures"],
        DestinationConfig={"OnFailure": {"Destination": arn}},
    )
    for key in ("a", "bad", "b"):
        dynamodb.put_item(TableName=source, Item={"pk": {"S": key}})
    message = until(lambda: sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=1).get("Messages"))[0]
    assert json.loads(message["Body"])["requestContext"]["condition"] == "RetryAttemptsExhausted"
    assert json.loads(message["Body"])["DDBStreamBatchInfo"]["batchSize"] == 1

    def handled_keys() -> list[str]:
        events = emulator.client("logs").filter_log_events(logGroupName=f"/aws/lambda/{function}", filterPattern="")["events"]
        return [key for event in events if event["message"].startswith("[") for key in json.loads(event["message"])]

    keys = until(lambda: handled if "b" in (handled := handled_keys()) else None)
    assert keys.count("a") == 1
    assert keys.count("bad") >= 2


def test_a_stream_record_that_is_given_up_is_kept_whole_on_s3_as_lambda_keeps_it(emulator: Emulator) -> None:
    dynamodb, s3, function, table, bucket = emulator.client("dynamodb"), emulator.client("s3"), name(), name(), name()
    stream = stream_of(emulator, table)
    s3.create_bucket(Bucket=bucket)
    emulator.function(function, "def handler(event, context): raise ValueError('never')")
    mapping = emulator.client("lambda").create_event_source_mapping(
        FunctionName=function,
        EventSourceArn=stream,
        StartingPosition="TRIM_HORIZON",
        MaximumRetryAttempts=0,
        DestinationConfig={"OnFailure": {"Destination": f"arn:aws:s3:::{bucket}"}},
    )["UUID"]
    dynamodb.put_item(TableName=table, Item={"pk": {"S": "bad"}, "text": {"S": "as it was"}})
    [entry] = until(lambda: s3.list_objects_v2(Bucket=bucket).get("Contents"))
    second = r"(\d{4})-(\d\d)-(\d\d)T\d\d\.\d\d\.\d\d"
    match = re.fullmatch(rf"aws/lambda/{mapping}/shardId-[0-9a-f-]+/(\d{{4}})/(\d\d)/(\d\d)/{second}-[0-9a-f-]{{36}}", entry["Key"])
    assert match is not None, entry["Key"]
    assert match.groups()[:3] == match.groups()[3:]
    document = json.loads(s3.get_object(Bucket=bucket, Key=entry["Key"])["Body"].read())
    assert document["requestContext"]["condition"] == "RetryAttemptsExhausted"
    assert document["requestContext"]["functionArn"].endswith(f":function:{function}")
    assert document["DDBStreamBatchInfo"].keys() == {
        *("shardId", "startSequenceNumber", "endSequenceNumber", "approximateArrivalOfFirstRecord"),
        *("approximateArrivalOfLastRecord", "batchSize", "streamArn"),
    }
    [record] = json.loads(document["payload"])["Records"]
    assert record["dynamodb"]["NewImage"]["text"] == {"S": "as it was"}


def test_records_that_are_written_between_two_looks_at_their_stream_are_one_call(emulator: Emulator) -> None:
    dynamodb, logs, function, table = emulator.client("dynamodb"), emulator.client("logs"), name(), name()
    stream = stream_of(emulator, table)
    logs.create_log_group(logGroupName=f"/aws/lambda/{function}")
    emulator.function(function, "def handler(event, context): print(len(event['Records']), 'records')")
    emulator.client("lambda").create_event_source_mapping(FunctionName=function, EventSourceArn=stream, StartingPosition="TRIM_HORIZON")
    for key in "abcdefgh":
        dynamodb.put_item(TableName=table, Item={"pk": {"S": key}})

    def counts() -> list[int]:
        events = logs.filter_log_events(logGroupName=f"/aws/lambda/{function}", filterPattern="records")["events"]
        return [int(event["message"].split()[0]) for event in events]

    first, *_ = until(lambda: found if sum(found := counts()) == 8 else None)
    assert first > 1


def test_a_function_that_a_rule_calls_in_vain_leaves_the_call_where_it_keeps_failures(emulator: Emulator) -> None:
    events, sqs, function, rule = emulator.client("events"), emulator.client("sqs"), name(), name()
    emulator.function(function, "def handler(event, context): raise ValueError('never')")
    queue = sqs.create_queue(QueueName=name())["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    functions = emulator.client("lambda")
    functions.put_function_event_invoke_config(
        FunctionName=function, MaximumRetryAttempts=0, DestinationConfig={"OnFailure": {"Destination": arn}}
    )
    events.put_rule(Name=rule, EventPattern=json.dumps({"source": [rule]}))
    events.put_targets(
        Rule=rule, Targets=[{"Id": "1", "Arn": functions.get_function(FunctionName=function)["Configuration"]["FunctionArn"]}]
    )
    events.put_events(Entries=[{"Source": rule, "DetailType": "x", "Detail": json.dumps({"number": 7})}])
    [message] = until(lambda: sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=1).get("Messages"))
    body = json.loads(message["Body"])
    assert body["requestContext"]["functionArn"].endswith(f":function:{function}")
    assert body["requestPayload"]["detail"] == {"number": 7}
