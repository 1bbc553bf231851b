"""Alarms, their events, and embedded metrics on the laptop cloud."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

from tests.local_cloud.conftest import Emulator, until


def name() -> str:
    return f"a-{uuid.uuid4().hex[:8]}"


def alarm(emulator: Emulator, **settings: Any) -> str:
    parameters = {
        "AlarmName": name(),
        "Namespace": "Test",
        "MetricName": "Reward",
        "Statistic": "Average",
        "Period": 60,
        "EvaluationPeriods": 1,
        "Threshold": 0.5,
        "ComparisonOperator": "LessThanThreshold",
        **settings,
    }
    emulator.client("cloudwatch").put_metric_alarm(**parameters)
    return str(parameters["AlarmName"])


def state(emulator: Emulator, alarm_name: str) -> str:
    return str(emulator.client("cloudwatch").describe_alarms(AlarmNames=[alarm_name])["MetricAlarms"][0]["StateValue"])


def put(emulator: Emulator, metric: str, value: float, minutes_ago: int = 0, **dimensions: str) -> None:
    emulator.client("cloudwatch").put_metric_data(
        Namespace="Test",
        MetricData=[
            {
                "MetricName": metric,
                "Value": value,
                "Timestamp": time.time() - 60 * minutes_ago,
                "Dimensions": [{"Name": key, "Value": text} for key, text in dimensions.items()],
            }
        ],
    )


def test_an_alarm_looks_at_its_own_dimensions_only(emulator: Emulator) -> None:
    metric = name()
    mine = alarm(emulator, MetricName=metric, Dimensions=[{"Name": "arm", "Value": "canary"}])
    put(emulator, metric, 0.0, arm="control")
    assert state(emulator, mine) == "INSUFFICIENT_DATA"
    put(emulator, metric, 0.9, arm="canary")
    assert state(emulator, mine) == "OK"
    put(emulator, metric, -2.0, arm="canary")
    assert state(emulator, mine) == "ALARM"


def test_an_alarm_needs_its_datapoints_out_of_its_periods(emulator: Emulator) -> None:
    metric = name()
    two_of_three = alarm(emulator, MetricName=metric, EvaluationPeriods=3, DatapointsToAlarm=2)
    for minutes, value in ((3, 0.9), (2, 0.1), (1, 0.9)):
        put(emulator, metric, value, minutes)
    assert state(emulator, two_of_three) == "OK"
    put(emulator, metric, 0.1)
    assert state(emulator, two_of_three) == "ALARM"


def test_missing_data_is_treated_as_the_alarm_says(emulator: Emulator) -> None:
    metric = name()
    expected = {"breaching": "ALARM", "notBreaching": "OK", "missing": "INSUFFICIENT_DATA", "ignore": "INSUFFICIENT_DATA"}
    alarms = {treatment: alarm(emulator, MetricName=metric, TreatMissingData=treatment) for treatment in expected}
    assert {treatment: state(emulator, alarm_name) for treatment, alarm_name in alarms.items()} == expected


def listener(emulator: Emulator) -> tuple[str, str]:
    """(event rule's queue URL, its ARN): a queue that gets every alarm state change."""
    sqs, events, rule = emulator.client("sqs"), emulator.client("events"), name()
    url = sqs.create_queue(QueueName=name())["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    pattern = {"source": ["aws.cloudwatch"], "detail-type": ["CloudWatch Alarm State Change"], "detail": {"state": {"value": ["ALARM"]}}}
    events.put_rule(Name=rule, EventPattern=json.dumps(pattern))
    events.put_targets(Rule=rule, Targets=[{"Id": "queue", "Arn": arn}])
    return url, arn


def wait_for_event(emulator: Emulator, url: str, alarm_name: str) -> dict[str, Any]:
    """The event about `alarm_name`."""
    sqs = emulator.client("sqs")

    def look() -> dict[str, Any] | None:
        for message in sqs.receive_message(QueueUrl=url, WaitTimeSeconds=1, MaxNumberOfMessages=10).get("Messages", []):
            event: dict[str, Any] = json.loads(message["Body"])
            if event["detail"]["alarmName"] == alarm_name:
                return event
        return None

    event: dict[str, Any] = until(look)
    return event


def test_a_state_change_is_an_event_on_the_default_bus_by_evaluation_and_by_hand(emulator: Emulator) -> None:
    url, _ = listener(emulator)
    metric = name()
    by_data = alarm(emulator, MetricName=metric, Dimensions=[{"Name": "arm", "Value": "x"}], AlarmDescription="the guard")
    put(emulator, metric, 0.0, arm="x")
    event = wait_for_event(emulator, url, by_data)
    assert event["detail"]["previousState"]["value"] == "INSUFFICIENT_DATA"
    assert event["detail"]["configuration"]["metrics"][0]["metricStat"]["metric"]["dimensions"] == {"arm": "x"}
    assert event["detail"]["configuration"]["description"] == "the guard"
    assert event["resources"][0].endswith(f":alarm:{by_data}")
    by_hand = alarm(emulator, MetricName=name())
    emulator.client("cloudwatch").set_alarm_state(AlarmName=by_hand, StateValue="ALARM", StateReason="a drill")
    assert wait_for_event(emulator, url, by_hand)["detail"]["state"]["reason"] == "a drill"


def test_an_embedded_metric_printed_by_a_function_raises_its_alarm(emulator: Emulator) -> None:
    metric = name()
    guard = alarm(emulator, MetricName=metric, Dimensions=[{"Name": "stage", "Value": "local"}, {"Name": "arm", "Value": "canary"}])
    code = f"""
        import json, time
        def handler(event, context):
            metrics = [{{"Name": "{metric}", "Unit": "None"}}]
            directive = {{"Namespace": "Test", "Dimensions": [["stage", "arm"], ["stage"]], "Metrics": metrics}}
            print("not a metric")
            print(json.dumps({{"_aws": {{"Timestamp": int(time.time() * 1000), "CloudWatchMetrics": [directive]}},
                               "stage": "local", "arm": event["arm"], "tenant": "acme", "{metric}": event["values"]}}))
    """
    call = emulator.function(f"f-{metric}", code)
    call({"arm": "control", "values": 0.0})
    assert state(emulator, guard) == "INSUFFICIENT_DATA"
    call({"arm": "canary", "values": [0.9, 0.7]})
    assert state(emulator, guard) == "OK"
    statistics = emulator.client("cloudwatch").get_metric_statistics(
        Namespace="Test",
        MetricName=metric,
        Dimensions=[{"Name": "stage", "Value": "local"}],
        StartTime=time.time() - 3600,
        EndTime=time.time() + 60,
        Period=3600,
        Statistics=["SampleCount", "Sum"],
    )["Datapoints"]
    assert sum(point["SampleCount"] for point in statistics) == 3
    call({"arm": "canary", "values": [0.0, 0.0, 0.0]})
    assert state(emulator, guard) == "ALARM"
