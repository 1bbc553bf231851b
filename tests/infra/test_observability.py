"""Every failure raises an alarm, at a price that a small stage can pay."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from infra.config import STAGES
from tests.infra.template import Template


@pytest.fixture
def watching(templates: list[Template]) -> list[Template]:
    stacks = [template for template in templates if template.stack == "observability"]
    assert len(stacks) == len(STAGES)
    return stacks


def alarms(template: Template) -> dict[str, dict[str, Any]]:
    properties = (resource["Properties"] for resource in template.resources("AWS::CloudWatch::Alarm").values())
    return {alarm["AlarmName"].rpartition("-")[2]: alarm for alarm in properties}


def test_cloudwatch_and_eventbridge_may_publish_to_the_alarms_topic(watching: list[Template]) -> None:
    for template in watching:
        [topic] = template.resources("AWS::SNS::Topic")
        [policy] = template.resources("AWS::SNS::TopicPolicy").values()
        assert policy["Properties"]["Topics"] == [{"Ref": topic}]
        statements = policy["Properties"]["PolicyDocument"]["Statement"]
        allowed = {
            statement["Principal"]["Service"]: statement
            for statement in statements
            if statement["Effect"] == "Allow" and statement["Action"] == "sns:Publish" and statement["Resource"] == {"Ref": topic}
        }
        assert allowed.keys() == {"cloudwatch.amazonaws.com", "events.amazonaws.com"}
        condition = allowed["cloudwatch.amazonaws.com"]["Condition"]
        assert condition["StringEquals"].keys() == {"aws:SourceAccount"}
        assert ":alarm:*" in json.dumps(condition["ArnLike"]["aws:SourceArn"])
        assert [statement["Condition"] for statement in statements if statement["Effect"] == "Deny"] == [
            {"Bool": {"aws:SecureTransport": "false"}}
        ]


def test_each_deployment_says_whom_alarms_wake(watching: list[Template]) -> None:
    for template in watching:
        config = next(config for config in STAGES if config.id == template.stage)
        output = json.dumps(template.body["Outputs"]["AlarmsWake"]["Value"])
        endpoints = [subscription["Properties"]["Endpoint"] for subscription in template.resources("AWS::SNS::Subscription").values()]
        assert endpoints == ([config.alarm_email] if config.alarm_email else [])
        assert config.alarm_email in output if config.alarm_email else "nobody" in output and "aws sns subscribe" in output


def test_an_execution_that_fails_or_times_out_or_is_stopped_is_told_by_name(watching: list[Template]) -> None:
    for template in watching:
        [rule] = [
            resource["Properties"]
            for resource in template.resources("AWS::Events::Rule").values()
            if any("Alarms" in json.dumps(target["Arn"]) for target in resource["Properties"]["Targets"])
        ]
        detail = rule["EventPattern"]["detail"]
        assert set(detail["status"]) == {"FAILED", "TIMED_OUT", "ABORTED"}
        assert len(detail["stateMachineArn"]) == 3
        [target] = rule["Targets"]
        assert set(target["InputTransformer"]["InputPathsMap"].values()) == {"$.detail.executionArn", "$.detail.status"}


@pytest.mark.parametrize(
    ("alarm", "metric"),
    [
        ("LambdaThrottles", {"Namespace": "AWS/Lambda", "MetricName": "Throttles"}),
        ("LakePartitions", {"Namespace": "AWS/Firehose", "MetricName": "PartitionCountExceeded"}),
        ("Unhandled", {"Namespace": "RLaaS", "MetricName": "Unhandled"}),
        ("AuditWriterDelay", {"Namespace": "AWS/Lambda", "MetricName": "IteratorAge"}),
        ("FollowUpsDelay", {"Namespace": "AWS/SQS", "MetricName": "ApproximateAgeOfOldestMessage"}),
    ],
)
def test_what_had_nobody_watching_has_an_alarm(alarm: str, metric: dict[str, str], watching: list[Template]) -> None:
    for template in watching:
        properties = alarms(template)[alarm]
        assert properties.items() >= metric.items()
        assert properties["AlarmActions"]


def test_dynamodbs_refusals_of_every_table_that_requests_wait_for_are_watched(watching: list[Template]) -> None:
    for template in watching:
        watched = [alarm for alarm in alarms(template).values() if alarm["Namespace"] == "AWS/DynamoDB"]
        assert {alarm["MetricName"] for alarm in watched} == {"ReadThrottleEvents", "WriteThrottleEvents"}
        assert len({json.dumps(alarm["Dimensions"]) for alarm in watched}) == 3


def test_a_count_that_never_comes_is_an_alarm_itself(watching: list[Template]) -> None:
    for template in watching:
        assert alarms(template)["Unhandled"]["TreatMissingData"] == "breaching"


def test_all_alarms_of_a_stage_watch_at_most_twenty_one_metrics(watching: list[Template]) -> None:
    """CloudWatch charges $0.10 a month for each; every alarm here watches one, since the laptop cloud has no metric
    math."""
    for template in watching:
        assert all("MetricName" in alarm for alarm in alarms(template).values())
        assert len(alarms(template)) <= 21


def test_the_guide_says_of_every_alarm_what_to_do(watching: list[Template]) -> None:
    guide = (Path(__file__).parents[2] / "docs/operate.md").read_text()
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|.*\|.*\|$", guide, re.MULTILINE)
    names = [name for row in rows for name in re.findall(r"`([A-Z]\w+)`", row)]
    for template in watching:
        assert sorted(names) == sorted(alarms(template))
