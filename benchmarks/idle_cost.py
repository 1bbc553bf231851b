"""What a stage costs in a month in which nobody calls it, from its synthesized templates.

Every type of resource is either counted or named in `FREE` with the reason why it costs nothing until it is used; any
other type is an error, so that nothing new is overlooked. Assumed, because no template says it: how long a scheduled
call takes, how long the daily compaction runs, how often Lambda polls an empty queue.

Not included, because no template makes them: images, the base model, and the events, adapters and logs that are kept.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from benchmarks.prices import usd
from benchmarks.telemetry_price import invocation_usd

Resource = Mapping[str, Any]

HOURS = 730.0
"""Hours in a month."""
SECONDS = HOURS * 3600
SCHEDULED_CALL_S, COLD_START_S = 0.1, 1.5
"""Assumed, as billed: a scheduled call with nothing to do, and the additional time of a cold start."""
STAYS_WARM_S = 300
POLLS_PER_MINUTE = 15
"""Lambda polls a queue by five connections of twenty seconds each."""
COMPACTION_S = 300
"""Assumed: a job from its instance's start to its end when there is little to do."""
FREE_ALARM_METRICS, FREE_DASHBOARDS, FREE_QUEUE_REQUESTS = 10, 3, 1_000_000
"""What AWS gives every account each month, for ever."""

FREE = {
    **dict.fromkeys(("AWS::IAM::Role", "AWS::IAM::Policy", "AWS::Lambda::Permission", "AWS::SQS::QueuePolicy"), "permissions"),
    **dict.fromkeys(("AWS::SNS::TopicPolicy", "AWS::S3::BucketPolicy", "AWS::Logs::ResourcePolicy"), "permissions"),
    **dict.fromkeys(("AWS::Lambda::LayerVersion", "AWS::Lambda::Alias", "AWS::Lambda::EventInvokeConfig"), "only calls are paid"),
    **dict.fromkeys(("AWS::SageMaker::Model", "AWS::SageMaker::Endpoint"), "only instances are paid"),
    **dict.fromkeys(("AWS::SageMaker::InferenceComponent", "AWS::ApplicationAutoScaling::ScalableTarget"), "only instances are paid"),
    **dict.fromkeys(("AWS::DynamoDB::Table", "AWS::S3::Bucket", "AWS::ECR::Repository"), "only what is kept and asked is paid"),
    **dict.fromkeys(("AWS::Logs::LogGroup", "AWS::Logs::LogStream"), "only lines are paid: counted with the calls that write them"),
    **dict.fromkeys(("AWS::Glue::Database", "AWS::Glue::Table"), "the first million objects are free"),
    **dict.fromkeys(("AWS::KinesisFirehose::DeliveryStream", "AWS::Athena::WorkGroup"), "only bytes are paid"),
    **dict.fromkeys(("AWS::SNS::Topic", "AWS::SNS::Subscription", "AWS::SQS::Queue"), "only requests are paid"),
    **dict.fromkeys(("AWS::StepFunctions::StateMachine", "AWS::Events::EventBus"), "only transitions and events are paid"),
    **{
        f"AWS::ApiGateway::{kind}": "only requests are paid"
        for kind in ("RestApi", "Account", "Deployment", "Stage", "Resource", "Method", "GatewayResponse", "Authorizer")
    },
    "AWS::WAFv2::WebACLAssociation": "the web ACL is paid",
    "AWS::CDK::Metadata": "nothing that runs",
}


# A price list: a kind a case, and none touches another.
def idle_lines(templates: Iterable[Mapping[str, Any]]) -> dict[str, float]:  # noqa: C901
    """USD a month of one stage's `templates`, by what is paid.

    Raises: ValueError for a resource whose price is not known here.
    """
    resources = {name: resource for template in templates for name, resource in template["Resources"].items()}
    lines: dict[str, float] = defaultdict(float)
    for name, resource in resources.items():
        properties = resource.get("Properties", {})
        match resource["Type"]:
            case "AWS::Lambda::Function":
                pass  # a version's snapshot and scheduled calls are counted with the version and the rule
            case "AWS::Lambda::Version":
                lines["snap_start"] += _snapshot_usd(name, resource, resources)
            case "AWS::WAFv2::WebACL":
                lines["firewall"] += usd("waf_acl_month") + len(properties["Rules"]) * usd("waf_rule_month")
            case "AWS::CloudWatch::Alarm":
                lines["alarms"] += _alarm_usd(properties)
            case "AWS::CloudWatch::CompositeAlarm":
                lines["alarms"] += usd("composite_alarm_month")
            case "AWS::ApplicationAutoScaling::ScalingPolicy":
                lines["scaling_alarms"] += _scaling_alarms_usd(properties)
            case "AWS::CloudWatch::Dashboard":
                lines["dashboards"] += usd("dashboard_month")
            case "AWS::Lambda::EventSourceMapping":
                lines["queue_polls"] += 0.0 if "StartingPosition" in properties else POLLS_PER_MINUTE * SECONDS / 60 * usd("sqs_request")
            case "AWS::Events::Rule":
                for line, price in _scheduled_usd(properties, resources):
                    lines[line] += price
            case "AWS::SageMaker::EndpointConfig":
                lines["endpoint"] += sum(map(_instances_usd, properties["ProductionVariants"]))
            case kind if kind not in FREE:
                raise ValueError(f"{kind} ({name}): give it a price in benchmarks/idle_cost.py, or say in FREE why it costs nothing")
    return dict(lines)


def given_free(templates: Iterable[Mapping[str, Any]], lines: Mapping[str, float]) -> float:
    """USD a month of `lines` that are free for an account with nothing else in it."""
    kinds = [resource["Type"] for template in templates for resource in template["Resources"].values()]
    return (
        min(lines["alarms"], FREE_ALARM_METRICS * usd("alarm_metric_month"))
        + min(kinds.count("AWS::CloudWatch::Dashboard"), FREE_DASHBOARDS) * usd("dashboard_month")
        + min(lines["queue_polls"], FREE_QUEUE_REQUESTS * usd("sqs_request"))
    )


def _snapshot_usd(name: str, version: Resource, resources: Mapping[str, Resource]) -> float:
    """USD a month of a version's snapshot, which has the size of the function's memory."""
    function = resources[version["Properties"]["FunctionName"]["Ref"]]["Properties"]
    if "SnapStart" not in function:
        return 0.0
    if version.get("DeletionPolicy", "Delete") != "Delete":
        raise ValueError(f"{name} is kept when a newer version replaces it, and so is what it costs: let CloudFormation delete it")
    gib: float = function["MemorySize"] / 1024
    return gib * SECONDS * usd("snap_start_cache_gb_second")


def _alarm_usd(alarm: Resource) -> float:
    """USD a month of an alarm: each metric that it reads is paid, expressions over metrics are not."""
    periods = [alarm["Period"]] if "MetricName" in alarm else [it["MetricStat"]["Period"] for it in alarm["Metrics"] if "MetricStat" in it]
    return sum(usd("fast_alarm_metric_month" if period < 60 else "alarm_metric_month") for period in periods)


def _scaling_alarms_usd(policy: Resource) -> float:
    """USD a month of the two alarms, to grow and to shrink, that Application Auto Scaling makes for a policy that
    tracks a metric; other policies have their alarms in the template."""
    if policy["PolicyType"] != "TargetTrackingScaling":
        return 0.0
    metric_type = policy["TargetTrackingScalingPolicyConfiguration"]["PredefinedMetricSpecification"]["PredefinedMetricType"]
    return 2 * usd("fast_alarm_metric_month" if metric_type.endswith("HighResolution") else "alarm_metric_month")


def _instances_usd(variant: Resource) -> float:
    scaling = variant.get("ManagedInstanceScaling", {})
    least = scaling.get("MinInstanceCount", variant["InitialInstanceCount"])
    return float(least and least * HOURS * usd(f"hosting_hour_{variant['InstanceType']}"))


def _scheduled_usd(rule: Resource, resources: Mapping[str, Resource]) -> Iterable[tuple[str, float]]:
    if "ScheduleExpression" not in rule:
        return
    every = _seconds_between(rule["ScheduleExpression"])
    for target in rule["Targets"]:
        resource = resources[_logical_id(target["Arn"], resources)]
        if resource["Type"] == "AWS::Lambda::Alias":
            resource = resources[resource["Properties"]["FunctionName"]["Ref"]]
        properties = resource["Properties"]
        if resource["Type"] == "AWS::Lambda::Function":
            call_s = SCHEDULED_CALL_S + (COLD_START_S if every > STAYS_WARM_S else 0)
            yield "scheduled_calls", SECONDS / every * (invocation_usd(call_s, properties["MemorySize"] / 1024) + usd("dynamodb_read_unit"))
        else:
            substitutions = properties["DefinitionSubstitutions"]
            volume = int(substitutions["ProcessingVolumeGib"]) * usd("ml_volume_gb_month") / SECONDS
            job = COMPACTION_S * (usd(f"processing_hour_{substitutions['ProcessingInstanceType']}") / 3600 + volume)
            yield "compaction", SECONDS / every * (job + 5 * usd("state_transition"))


def _logical_id(arn: object, resources: Mapping[str, Resource]) -> str:
    """The logical id that a target's address names, in its own stack or (weakly) in another one."""
    (name,) = {str(word) for word in re.findall(r"[A-Za-z0-9]+", json.dumps(arn)) if word in resources}
    return name


def _seconds_between(schedule: str) -> float:
    """Raises: ValueError for a schedule that is no rate and not daily."""
    if rate := re.fullmatch(r"rate\((\d+) (minute|hour|day)s?\)", schedule):
        return int(rate[1]) * {"minute": 60.0, "hour": 3600.0, "day": 86400.0}[rate[2]]
    if re.fullmatch(r"cron\(\d+ \d+ \* \* \? \*\)", schedule):
        return 86400.0
    raise ValueError(f"cannot tell how often {schedule} is")


def total(lines: Mapping[str, float]) -> float:
    """USD a month."""
    return sum(lines.values())
