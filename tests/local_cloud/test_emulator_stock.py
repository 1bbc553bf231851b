"""Stock ministack still behaves as our additions assume. A failure here is good news: the addition that the test names
may no longer be needed."""

from __future__ import annotations

import http.client
import json
import time
import uuid
from io import BytesIO

import pyarrow
import pytest
from botocore.exceptions import ClientError
from pyarrow import parquet

from tests.local_cloud.conftest import ROLE, Emulator, until
from tests.local_cloud.test_emulator_streaming import ADAPTER, VARIABLES, package


def name() -> str:
    return f"s-{uuid.uuid4().hex[:8]}"


def test_lambda_runtime_stock_lets_handlers_see_the_emulators_packages(stock: Emulator) -> None:
    call = stock.function(name(), "import ministack\ndef handler(event, context): return ministack.__name__")
    assert call() == "ministack"


def test_lambda_runtime_stock_hides_the_class_of_an_exception_and_kills_the_environment(stock: Emulator) -> None:
    code = "import os\ndef handler(event, context):\n    if event: raise KeyError('x')\n    return os.getpid()"
    call = stock.function(name(), code)
    first = call(False)
    assert call(True)["errorType"] == "Runtime.HandlerError"
    assert call(False) != first


def test_lambda_runtime_stock_initializes_nothing_that_is_deployed(stock: Emulator) -> None:
    code = {"Fn::Sub": "import time\nAT = time.time()\ndef handler(event, context): return AT"}
    stack = name()
    function = {"FunctionName": stack, "Runtime": "python3.11", "Handler": "index.handler", "Role": ROLE, "Code": {"ZipFile": code}}
    formation = stock.client("cloudformation")
    formation.create_stack(
        StackName=stack, TemplateBody=json.dumps({"Resources": {"F": {"Type": "AWS::Lambda::Function", "Properties": function}}})
    )
    formation.get_waiter("stack_create_complete").wait(StackName=stack, WaiterConfig={"Delay": 1})
    before = time.time()
    assert json.loads(stock.client("lambda").invoke(FunctionName=stack)["Payload"].read()) > before


def test_lambda_runtime_stock_starts_no_web_server_behind_lambda_web_adapter(stock: Emulator) -> None:
    function = name()
    stock.client("lambda").create_function(
        FunctionName=function,
        Runtime="python3.11",
        Role=ROLE,
        Handler="run.sh",
        Code={"ZipFile": package()},
        Layers=[ADAPTER],
        Environment={"Variables": VARIABLES},
    )
    request = json.dumps({"httpMethod": "POST", "path": "/x", "headers": {}, "body": "hi"})
    assert stock.client("lambda").invoke(FunctionName=function, Payload=request).get("FunctionError")


def test_apigateway_stock_drops_the_transfer_mode_of_an_integration(stock: Emulator) -> None:
    gateway = stock.client("apigateway")
    api = gateway.create_rest_api(name=name())["id"]
    where = {"restApiId": api, "resourceId": gateway.get_resources(restApiId=api)["items"][0]["id"], "httpMethod": "POST"}
    gateway.put_method(**where, authorizationType="NONE")
    put = gateway.put_integration(**where, type="AWS_PROXY", integrationHttpMethod="POST", uri="f", responseTransferMode="STREAM")
    assert "responseTransferMode" not in put


def test_streams_stock_takes_a_record_named_as_failed_for_handled(stock: Emulator) -> None:
    dynamodb, table, function = stock.client("dynamodb"), name(), name()
    stream = dynamodb.create_table(
        TableName=table,
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"},
    )["TableDescription"]["LatestStreamArn"]
    code = """
        def handler(event, context):
            print("KEYS", [r["dynamodb"]["Keys"]["pk"]["S"] for r in event["Records"]])
            return {"batchItemFailures": [{"itemIdentifier": r["dynamodb"]["SequenceNumber"]} for r in event["Records"]]}
    """
    stock.function(function, code)
    stock.client("lambda").create_event_source_mapping(
        FunctionName=function, EventSourceArn=stream, StartingPosition="TRIM_HORIZON", FunctionResponseTypes=["ReportBatchItemFailures"]
    )

    def seen() -> list[str]:
        try:
            events = stock.client("logs").filter_log_events(logGroupName=f"/aws/lambda/{function}")["events"]
        except ClientError:
            return []
        return [event["message"] for event in events if event["message"].startswith("KEYS")]

    dynamodb.put_item(TableName=table, Item={"pk": {"S": "first"}})
    until(lambda: "KEYS ['first']" in seen())
    dynamodb.put_item(TableName=table, Item={"pk": {"S": "second"}})
    until(lambda: "KEYS ['second']" in seen())
    assert seen() == ["KEYS ['first']", "KEYS ['second']"]


def test_cloudwatch_stock_lumps_all_dimensions_of_a_metric_together(stock: Emulator) -> None:
    cloudwatch, alarm = stock.client("cloudwatch"), name()
    cloudwatch.put_metric_alarm(
        AlarmName=alarm,
        Namespace="Test",
        MetricName=alarm,
        Statistic="Average",
        Period=60,
        EvaluationPeriods=1,
        Threshold=0.5,
        ComparisonOperator="LessThanThreshold",
        Dimensions=[{"Name": "arm", "Value": "canary"}],
    )
    cloudwatch.put_metric_data(
        Namespace="Test", MetricData=[{"MetricName": alarm, "Value": 0.0, "Dimensions": [{"Name": "arm", "Value": "control"}]}]
    )
    assert cloudwatch.describe_alarms(AlarmNames=[alarm])["MetricAlarms"][0]["StateValue"] == "ALARM"


def test_cloudwatch_stock_reads_no_embedded_metrics(stock: Emulator) -> None:
    logs, metric = stock.client("logs"), name()
    logs.create_log_group(logGroupName=metric)
    logs.create_log_stream(logGroupName=metric, logStreamName="s")
    directive = {"Namespace": "Test", "Dimensions": [[]], "Metrics": [{"Name": metric}]}
    line = {"_aws": {"Timestamp": int(time.time() * 1000), "CloudWatchMetrics": [directive]}, metric: 1}
    logs.put_log_events(
        logGroupName=metric, logStreamName="s", logEvents=[{"timestamp": int(time.time() * 1000), "message": json.dumps(line)}]
    )
    assert not stock.client("cloudwatch").list_metrics(MetricName=metric)["Metrics"]


def test_cloudwatch_stock_tells_eventbridge_nothing_of_alarms(stock: Emulator) -> None:
    sqs, events, alarm = stock.client("sqs"), stock.client("events"), name()
    url = sqs.create_queue(QueueName=alarm)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    events.put_rule(Name=alarm, EventPattern=json.dumps({"source": ["aws.cloudwatch"]}))
    events.put_targets(Rule=alarm, Targets=[{"Id": "queue", "Arn": arn}])
    cloudwatch = stock.client("cloudwatch")
    cloudwatch.put_metric_alarm(
        AlarmName=alarm,
        Namespace="T",
        MetricName=alarm,
        Statistic="Sum",
        Period=60,
        EvaluationPeriods=1,
        Threshold=1,
        ComparisonOperator="GreaterThanThreshold",
    )
    cloudwatch.set_alarm_state(AlarmName=alarm, StateValue="ALARM", StateReason="a drill")
    assert "Messages" not in sqs.receive_message(QueueUrl=url, WaitTimeSeconds=1)


def test_athena_stock_answers_a_workgroup_without_its_fields_and_misplaces_results(stock: Emulator) -> None:
    athena, s3, group = stock.client("athena"), stock.client("s3"), name()
    s3.create_bucket(Bucket=group)
    athena.create_work_group(Name=group, Configuration={"ResultConfiguration": {"OutputLocation": f"s3://{group}/a/"}})
    assert "EnforceWorkGroupConfiguration" not in athena.get_work_group(WorkGroup=group)["WorkGroup"]["Configuration"]
    query = athena.start_query_execution(QueryString="SELECT 1 AS one", WorkGroup=group)["QueryExecutionId"]
    until(lambda: athena.get_query_execution(QueryExecutionId=query)["QueryExecution"]["Status"]["State"] == "SUCCEEDED")
    keys = until(lambda: [entry["Key"] for entry in s3.list_objects_v2(Bucket=group).get("Contents", [])])
    assert f"a/{query}.csv" not in keys


def test_athena_stock_does_not_speak_trino(stock: Emulator) -> None:
    athena, group = stock.client("athena"), name()
    stock.client("s3").create_bucket(Bucket=group)
    query = athena.start_query_execution(
        QueryString="""SELECT json_extract_scalar('{"a": 1}', '$.a') AS a""", ResultConfiguration={"OutputLocation": f"s3://{group}/"}
    )["QueryExecutionId"]
    state = until(
        lambda: (
            answer
            if (answer := athena.get_query_execution(QueryExecutionId=query)["QueryExecution"]["Status"]["State"])
            in ("SUCCEEDED", "FAILED")
            else None
        )
    )
    assert state == "FAILED"


def test_athena_stock_has_no_unload(stock: Emulator) -> None:
    athena, group = stock.client("athena"), name()
    stock.client("s3").create_bucket(Bucket=group)
    query = athena.start_query_execution(
        QueryString=f"UNLOAD (SELECT 1 AS one) TO 's3://{group}/unload/' WITH (format = 'PARQUET')",
        ResultConfiguration={"OutputLocation": f"s3://{group}/"},
    )["QueryExecutionId"]
    assert until(lambda: athena.get_query_execution(QueryExecutionId=query)["QueryExecution"]["Status"]["State"] == "FAILED")


def test_athena_stock_does_not_know_a_column_that_files_lack(stock: Emulator) -> None:
    suffix = uuid.uuid4().hex[:8]
    bucket, database = f"lake-{suffix}", f"db_{suffix}"
    s3, glue, athena = stock.client("s3"), stock.client("glue"), stock.client("athena")
    s3.create_bucket(Bucket=bucket)
    body = BytesIO()
    parquet.write_table(pyarrow.table({"event_id": ["old"]}), body)
    s3.put_object(Bucket=bucket, Key="events/a.parquet", Body=body.getvalue())
    glue.create_database(DatabaseInput={"Name": database})
    columns = [{"Name": column, "Type": "string"} for column in ("event_id", "region")]
    storage = {"Columns": columns, "Location": f"s3://{bucket}/events/"}
    table = {"Name": "events", "Parameters": {"classification": "parquet"}, "StorageDescriptor": storage}
    glue.create_table(DatabaseName=database, TableInput=table)
    query = athena.start_query_execution(
        QueryString="SELECT event_id, region FROM events",
        QueryExecutionContext={"Database": database},
        ResultConfiguration={"OutputLocation": f"s3://{bucket}/athena/"},
    )["QueryExecutionId"]
    reason = until(lambda: athena.get_query_execution(QueryExecutionId=query)["QueryExecution"]["Status"].get("StateChangeReason"))
    assert "region" in reason


def test_firehose_stock_writes_a_file_for_each_record(stock: Emulator) -> None:
    s3, stream = stock.client("s3"), name()
    s3.create_bucket(Bucket=stream)
    firehose = stock.client("firehose")
    firehose.create_delivery_stream(
        DeliveryStreamName=stream,
        ExtendedS3DestinationConfiguration={"BucketARN": f"arn:aws:s3:::{stream}", "RoleARN": ROLE, "Prefix": "e/"},
    )
    firehose.put_record_batch(DeliveryStreamName=stream, Records=[{"Data": b"{}\n"}] * 3)
    until(lambda: len(s3.list_objects_v2(Bucket=stream).get("Contents", [])) == 3)


@pytest.mark.parametrize(
    "resource_type",
    [
        "AWS::SageMaker::Model",
        "AWS::SageMaker::EndpointConfig",
        "AWS::SageMaker::Endpoint",
        "AWS::SageMaker::InferenceComponent",
        "AWS::SageMaker::ModelPackageGroup",
        "AWS::Events::Archive",
        "AWS::WAFv2::WebACLAssociation",
    ],
)
def test_cloudformation_stock_refuses(stock: Emulator, resource_type: str) -> None:
    template = json.dumps({"Resources": {"R": {"Type": resource_type, "Properties": {}}}})
    with pytest.raises(ClientError, match=rf"Unrecognized resource types: \[{resource_type}\]"):
        stock.client("cloudformation").create_stack(StackName=name(), TemplateBody=template)


def test_cloudformation_stock_keeps_a_state_machines_logging_where_describe_cannot_see_it(stock: Emulator) -> None:
    formation, stack = stock.client("cloudformation"), name()
    definition = json.dumps({"StartAt": "A", "States": {"A": {"Type": "Succeed"}}})
    machine = {
        "StateMachineName": stack,
        "RoleArn": ROLE,
        "DefinitionString": definition,
        "LoggingConfiguration": {"Level": "ALL", "IncludeExecutionData": False},
    }
    formation.create_stack(
        StackName=stack, TemplateBody=json.dumps({"Resources": {"M": {"Type": "AWS::StepFunctions::StateMachine", "Properties": machine}}})
    )
    formation.get_waiter("stack_create_complete").wait(StackName=stack, WaiterConfig={"Delay": 1})
    arn = f"arn:aws:states:us-east-1:000000000000:stateMachine:{stack}"
    assert "level" not in stock.client("stepfunctions").describe_state_machine(stateMachineArn=arn)["loggingConfiguration"]


def test_sagemaker_stock_has_none(stock: Emulator) -> None:
    with pytest.raises(ClientError):
        stock.client("sagemaker").list_training_jobs()


@pytest.mark.parametrize("action", ["sagemaker:createTrainingJob.sync", "athena:startQueryExecution.sync"])
def test_stepfunctions_stock_has_no_sagemaker_and_no_athena(stock: Emulator, action: str) -> None:
    states, machine = stock.client("stepfunctions"), name()
    task = {"Type": "Task", "Resource": f"arn:aws:states:::{action}", "Parameters": {}, "End": True}
    arn = states.create_state_machine(name=machine, definition=json.dumps({"StartAt": "T", "States": {"T": task}}), roleArn=ROLE)[
        "stateMachineArn"
    ]
    execution = states.start_execution(stateMachineArn=arn)["executionArn"]
    description = until(lambda: answer if (answer := states.describe_execution(executionArn=execution))["status"] != "RUNNING" else None)
    assert "not yet implemented" in description["cause"]


def test_readback_stock_drops_a_tables_ttl_and_recovery(stock: Emulator) -> None:
    formation, stack = stock.client("cloudformation"), name()
    table = {
        "TableName": stack,
        "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}],
        "AttributeDefinitions": [{"AttributeName": "pk", "AttributeType": "S"}],
        "BillingMode": "PAY_PER_REQUEST",
        "TimeToLiveSpecification": {"AttributeName": "expires_at", "Enabled": True},
        "PointInTimeRecoverySpecification": {"PointInTimeRecoveryEnabled": True},
    }
    formation.create_stack(
        StackName=stack, TemplateBody=json.dumps({"Resources": {"T": {"Type": "AWS::DynamoDB::Table", "Properties": table}}})
    )
    formation.get_waiter("stack_create_complete").wait(StackName=stack, WaiterConfig={"Delay": 1})
    dynamodb = stock.client("dynamodb")
    assert dynamodb.describe_time_to_live(TableName=stack)["TimeToLiveDescription"]["TimeToLiveStatus"] == "DISABLED"
    recovery = dynamodb.describe_continuous_backups(TableName=stack)["ContinuousBackupsDescription"]["PointInTimeRecoveryDescription"]
    assert recovery["PointInTimeRecoveryStatus"] == "DISABLED"


def test_invocations_stock_forgets_a_rules_call_that_failed(stock: Emulator) -> None:
    events, sqs, function, rule = stock.client("events"), stock.client("sqs"), name(), name()
    stock.function(function, "def handler(event, context):\n    print('CALLED')\n    raise ValueError('never')")
    queue = sqs.create_queue(QueueName=name())["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    functions = stock.client("lambda")
    functions.put_function_event_invoke_config(
        FunctionName=function, MaximumRetryAttempts=0, DestinationConfig={"OnFailure": {"Destination": arn}}
    )
    events.put_rule(Name=rule, EventPattern=json.dumps({"source": [rule]}))
    target = functions.get_function(FunctionName=function)["Configuration"]["FunctionArn"]
    events.put_targets(Rule=rule, Targets=[{"Id": "1", "Arn": target}])
    events.put_events(Entries=[{"Source": rule, "DetailType": "x", "Detail": "{}"}])

    def was_called() -> bool:
        try:
            lines = stock.client("logs").filter_log_events(logGroupName=f"/aws/lambda/{function}")["events"]
        except ClientError:
            return False
        return any("CALLED" in line["message"] for line in lines)

    until(was_called)
    assert "Messages" not in sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=3)


def test_door_stock_takes_every_caller_for_the_owner_and_lets_every_page_read(stock: Emulator) -> None:
    body = json.dumps({"FunctionName": "none"})
    headers = {
        "Host": "evil.example",
        "Origin": "https://evil.example",
        "Content-Type": "text/plain",
        "x-amz-target": "DynamoDB_20120810.ListTables",
    }
    connection = http.client.HTTPConnection("127.0.0.1", stock.port, timeout=10)
    connection.request("POST", "/", body=body, headers=headers)
    answer = connection.getresponse()
    assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (200, "*")
