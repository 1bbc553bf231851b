"""After a deployment: does the cloud have what the templates say?

The emulator's CloudFormation reports success for properties it drops (a table's TTL and point-in-time recovery, a
function's dead letter queue). Each check here reads one such property back by the service's own API, sets it by API
where it differs, reads again, and names what still differs. On AWS there is nothing to do.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Client = Callable[[str], Any]
Properties = Mapping[str, Any]

NOT_HERE = {
    "AWS::StepFunctions::StateMachine TracingConfiguration": "there is no X-Ray on a laptop",
}
"""Properties without a counterpart here, and why that does no harm."""


class Dropped(Exception):
    """The deployed resources differ from their templates; one line each."""


@dataclass(frozen=True)
class Check:
    """One property of one resource type: what its template says, what is deployed, and how to set it (None: cannot)."""

    type: str
    property: str
    expected: Callable[[Properties], Any]
    actual: Callable[[Client, str], Any]
    mend: Callable[[Client, str, Any], object] | None = None


def agrees(expected: Any, actual: Any) -> bool:
    """Whether `actual` is what the template says; a reference, which only CloudFormation can resolve, equals any value
    but None."""
    if isinstance(expected, dict):
        if any(key == "Ref" or key.startswith("Fn::") for key in expected):
            return actual is not None
        return isinstance(actual, dict) and all(agrees(inner, actual.get(key)) for key, inner in expected.items())
    if isinstance(expected, list):
        return isinstance(actual, list) and len(actual) == len(expected) and all(map(agrees, expected, actual))
    return bool(expected == actual)


def _replica(properties: Properties) -> Properties:
    """A table's own settings: beside its schema in a Table, per replica in a GlobalTable."""
    replicas = properties.get("Replicas") or [{}]
    return {**replicas[0], **properties}


def _ttl(client: Client, table: str) -> Any:
    description = client("dynamodb").describe_time_to_live(TableName=table)["TimeToLiveDescription"]
    return description.get("AttributeName") if description["TimeToLiveStatus"] in ("ENABLED", "ENABLING") else None


def _recovery(client: Client, table: str) -> Any:
    description = client("dynamodb").describe_continuous_backups(TableName=table)["ContinuousBackupsDescription"]
    return description["PointInTimeRecoveryDescription"]["PointInTimeRecoveryStatus"] == "ENABLED" or None


def _table(client: Client, table: str) -> Any:
    return client("dynamodb").describe_table(TableName=table)["Table"]


def _function(client: Client, function: str) -> Any:
    return client("lambda").get_function_configuration(FunctionName=function)


def _mapping(client: Client, identifier: str) -> Any:
    return client("lambda").get_event_source_mapping(UUID=identifier)


def _machine(client: Client, arn: str) -> Any:
    return client("stepfunctions").describe_state_machine(stateMachineArn=arn)


def _destination(client: Client, stream: str) -> Any:
    description = client("firehose").describe_delivery_stream(DeliveryStreamName=stream)["DeliveryStreamDescription"]
    return description["Destinations"][0]["ExtendedS3DestinationDescription"]


def _bucket(client: Client, operation: str, bucket: str, field: str) -> Any:
    s3 = client("s3")
    try:
        return getattr(s3, operation)(Bucket=bucket).get(field)
    except s3.exceptions.ClientError as problem:
        if problem.response["Error"]["Code"].startswith("NoSuch") or "NotFound" in problem.response["Error"]["Code"]:
            return None
        raise


def _lifecycle_rule(rule: Properties) -> dict[str, Any]:
    """A template's lifecycle rule as S3's API writes it."""
    settings: dict[str, Any] = {"ID": rule["Id"], "Status": rule["Status"], "Filter": {"Prefix": rule.get("Prefix", "")}}
    if days := rule.get("ExpirationInDays"):
        settings["Expiration"] = {"Days": days}
    if transitions := rule.get("Transitions"):
        settings["Transitions"] = [{"StorageClass": move["StorageClass"], "Days": move["TransitionInDays"]} for move in transitions]
    for key in ("AbortIncompleteMultipartUpload", "NoncurrentVersionExpiration"):
        if key in rule:
            settings[key] = rule[key]
    return settings


def _alarm(client: Client, alarm: str) -> Any:
    return client("cloudwatch").describe_alarms(AlarmNames=[alarm])["MetricAlarms"][0]


def _mapping_check(key: str, default: Any = None) -> Check:
    return Check(
        "AWS::Lambda::EventSourceMapping",
        key,
        lambda properties: properties.get(key),
        lambda client, id: _mapping(client, id).get(key) or default,
    )


def _function_check(key: str, *nested: str) -> Check:
    def dig(value: Any) -> Any:
        for name in nested:
            value = (value or {}).get(name)
        return value

    return Check(
        "AWS::Lambda::Function",
        ".".join((key, *nested)),
        lambda properties: dig(properties.get(key)),
        lambda client, id: dig(_function(client, id).get(key)),
    )


def _delivery_check(key: str) -> Check:
    """Whether one of a delivery stream's abilities is switched on."""

    def expected(properties: Properties) -> Any:
        return ((properties.get("ExtendedS3DestinationConfiguration") or {}).get(key) or {}).get("Enabled")

    return Check(
        "AWS::KinesisFirehose::DeliveryStream", key, expected, lambda client, id: (_destination(client, id).get(key) or {}).get("Enabled")
    )


def _alarm_check(key: str) -> Check:
    return Check("AWS::CloudWatch::Alarm", key, lambda properties: properties.get(key), lambda client, id: _alarm(client, id).get(key))


def _tables(type: str) -> list[Check]:
    return [
        Check(
            type,
            "TimeToLiveSpecification",
            lambda properties: (properties.get("TimeToLiveSpecification") or {}).get("AttributeName"),
            _ttl,
            lambda client, id, value: client("dynamodb").update_time_to_live(
                TableName=id, TimeToLiveSpecification={"Enabled": True, "AttributeName": value}
            ),
        ),
        Check(
            type,
            "PointInTimeRecoverySpecification",
            lambda properties: (
                (_replica(properties).get("PointInTimeRecoverySpecification") or {}).get("PointInTimeRecoveryEnabled") or None
            ),
            _recovery,
            lambda client, id, value: client("dynamodb").update_continuous_backups(
                TableName=id, PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": value}
            ),
        ),
        Check(
            type,
            "StreamSpecification",
            lambda properties: (properties.get("StreamSpecification") or {}).get("StreamViewType"),
            lambda client, id: (_table(client, id).get("StreamSpecification") or {}).get("StreamViewType"),
        ),
        Check(
            type,
            "GlobalSecondaryIndexes",
            lambda properties: sorted(index["IndexName"] for index in properties.get("GlobalSecondaryIndexes") or []) or None,
            lambda client, id: sorted(index["IndexName"] for index in _table(client, id).get("GlobalSecondaryIndexes") or []) or None,
        ),
        Check(
            type,
            "DeletionProtectionEnabled",
            lambda properties: _replica(properties).get("DeletionProtectionEnabled") or None,
            lambda client, id: _table(client, id).get("DeletionProtectionEnabled") or None,
            lambda client, id, value: client("dynamodb").update_table(TableName=id, DeletionProtectionEnabled=value),
        ),
    ]


CHECKS: tuple[Check, ...] = (
    *_tables("AWS::DynamoDB::Table"),
    *_tables("AWS::DynamoDB::GlobalTable"),
    *(_function_check(key) for key in ("Timeout", "MemorySize", "Handler", "Runtime", "Architectures")),
    _function_check("TracingConfig", "Mode"),
    Check(
        "AWS::Lambda::Function",
        "Environment",
        lambda properties: sorted((properties.get("Environment") or {}).get("Variables") or {}) or None,
        lambda client, id: sorted((_function(client, id).get("Environment") or {}).get("Variables") or {}) or None,
    ),
    Check(
        "AWS::Lambda::Function",
        "Layers",
        lambda properties: len(properties.get("Layers") or []) or None,
        lambda client, id: len(_function(client, id).get("Layers") or []) or None,
    ),
    Check(
        "AWS::Lambda::Function",
        "DeadLetterConfig",
        lambda properties: (properties.get("DeadLetterConfig") or {}).get("TargetArn"),
        lambda client, id: (_function(client, id).get("DeadLetterConfig") or {}).get("TargetArn"),
    ),
    Check(
        "AWS::Lambda::Function",
        "ReservedConcurrentExecutions",
        lambda properties: properties.get("ReservedConcurrentExecutions"),
        lambda client, id: client("lambda").get_function_concurrency(FunctionName=id).get("ReservedConcurrentExecutions"),
        lambda client, id, value: client("lambda").put_function_concurrency(FunctionName=id, ReservedConcurrentExecutions=value),
    ),
    *(
        _mapping_check(key)
        for key in (
            "BatchSize",
            "MaximumRetryAttempts",
            "MaximumRecordAgeInSeconds",
            "BisectBatchOnFunctionError",
            "FunctionResponseTypes",
            "StartingPosition",
        )
    ),
    _mapping_check("MaximumBatchingWindowInSeconds", 0),
    Check(
        "AWS::Lambda::EventSourceMapping",
        "FilterCriteria",
        lambda properties: (properties.get("FilterCriteria") or {}).get("Filters"),
        lambda client, id: (_mapping(client, id).get("FilterCriteria") or {}).get("Filters"),
    ),
    Check(
        "AWS::Lambda::EventSourceMapping",
        "DestinationConfig",
        lambda properties: ((properties.get("DestinationConfig") or {}).get("OnFailure") or {}).get("Destination"),
        lambda client, id: ((_mapping(client, id).get("DestinationConfig") or {}).get("OnFailure") or {}).get("Destination"),
    ),
    Check(
        "AWS::StepFunctions::StateMachine",
        "LoggingConfiguration",
        lambda properties: (properties.get("LoggingConfiguration") or {}).get("Level"),
        lambda client, id: (_machine(client, id).get("loggingConfiguration") or {}).get("level"),
    ),
    Check(
        "AWS::StepFunctions::StateMachine",
        "TracingConfiguration",
        lambda properties: (properties.get("TracingConfiguration") or {}).get("Enabled") or None,
        lambda client, id: (_machine(client, id).get("tracingConfiguration") or {}).get("enabled") or None,
    ),
    Check(
        "AWS::S3::Bucket",
        "VersioningConfiguration",
        lambda properties: (properties.get("VersioningConfiguration") or {}).get("Status"),
        lambda client, id: _bucket(client, "get_bucket_versioning", id, "Status"),
        lambda client, id, value: client("s3").put_bucket_versioning(Bucket=id, VersioningConfiguration={"Status": value}),
    ),
    Check(
        "AWS::S3::Bucket",
        "PublicAccessBlockConfiguration",
        lambda properties: properties.get("PublicAccessBlockConfiguration"),
        lambda client, id: _bucket(client, "get_public_access_block", id, "PublicAccessBlockConfiguration"),
        lambda client, id, value: client("s3").put_public_access_block(Bucket=id, PublicAccessBlockConfiguration=value),
    ),
    Check(
        "AWS::S3::Bucket",
        "LifecycleConfiguration",
        lambda properties: [_lifecycle_rule(rule) for rule in (properties.get("LifecycleConfiguration") or {}).get("Rules") or []] or None,
        lambda client, id: _bucket(client, "get_bucket_lifecycle_configuration", id, "Rules"),
        lambda client, id, value: client("s3").put_bucket_lifecycle_configuration(Bucket=id, LifecycleConfiguration={"Rules": value}),
    ),
    Check(
        "AWS::KinesisFirehose::DeliveryStream",
        "Prefix",
        lambda properties: (properties.get("ExtendedS3DestinationConfiguration") or {}).get("Prefix"),
        lambda client, id: _destination(client, id).get("Prefix"),
    ),
    *(_delivery_check(key) for key in ("DataFormatConversionConfiguration", "DynamicPartitioningConfiguration", "ProcessingConfiguration")),
    *(
        _alarm_check(key)
        for key in (
            "Period",
            "EvaluationPeriods",
            "DatapointsToAlarm",
            "Threshold",
            "ComparisonOperator",
            "TreatMissingData",
            "Statistic",
            "Namespace",
        )
    ),
    Check(
        "AWS::CloudWatch::Alarm",
        "Dimensions",
        lambda properties: properties.get("Dimensions"),
        lambda client, id: _alarm(client, id).get("Dimensions") or None,
    ),
    Check(
        "AWS::Events::Rule",
        "EventPattern",
        lambda properties: properties.get("EventPattern"),
        lambda client, id: json.loads(client("events").describe_rule(Name=id.rpartition("|")[2]).get("EventPattern") or "null"),
    ),
    Check(
        "AWS::Events::Rule",
        "Targets",
        lambda properties: len(properties.get("Targets") or []) or None,
        lambda client, id: len(client("events").list_targets_by_rule(Rule=id.rpartition("|")[2])["Targets"]) or None,
    ),
    Check(
        "AWS::Logs::LogGroup",
        "RetentionInDays",
        lambda properties: properties.get("RetentionInDays"),
        lambda client, id: client("logs").describe_log_groups(logGroupNamePrefix=id)["logGroups"][0].get("retentionInDays"),
        lambda client, id, value: client("logs").put_retention_policy(logGroupName=id, retentionInDays=value),
    ),
    Check(
        "AWS::Athena::WorkGroup",
        "EnforceWorkGroupConfiguration",
        lambda properties: (properties.get("WorkGroupConfiguration") or {}).get("EnforceWorkGroupConfiguration"),
        lambda client, id: client("athena").get_work_group(WorkGroup=id)["WorkGroup"]["Configuration"].get("EnforceWorkGroupConfiguration"),
    ),
)


def _methods(template: Properties, physical: Mapping[str, str], client: Client) -> Iterator[tuple[str, Any, Any]]:
    """(property, expected, actual) of API Gateway's methods, which have no id of their own to describe them by."""
    api = client("apigateway")
    for logical_id, resource in template["Resources"].items():
        properties = resource.get("Properties", {})
        if resource["Type"] == "AWS::ApiGateway::Method":
            rest, parent = physical.get(_ref(properties["RestApiId"])), properties["ResourceId"]
            resource_id = physical.get(_ref(parent))
            if "Fn::GetAtt" in parent:
                roots = [item for item in api.get_resources(restApiId=rest, limit=500)["items"] if item["path"] == "/"]
                resource_id = roots[0]["id"]
            method = api.get_method(restApiId=rest, resourceId=resource_id, httpMethod=properties["HttpMethod"])
            yield f"{logical_id} AuthorizationType", properties.get("AuthorizationType"), method.get("authorizationType")
            for property_name, answer_key in (("RequestValidatorId", "requestValidatorId"), ("AuthorizerId", "authorizerId")):
                if properties.get(property_name):
                    yield f"{logical_id} {property_name}", physical.get(_ref(properties[property_name])), method.get(answer_key)
            mode = (properties.get("Integration") or {}).get("ResponseTransferMode")
            if mode:
                yield f"{logical_id} ResponseTransferMode", mode, method["methodIntegration"].get("responseTransferMode")
            if properties.get("RequestModels"):
                yield f"{logical_id} RequestModels", sorted(properties["RequestModels"]), sorted(method.get("requestModels") or {})


def _ref(value: Any) -> str:
    if isinstance(value, dict):
        return str(value.get("Ref") or (value.get("Fn::GetAtt") or [""])[0])
    return str(value)


def check(templates: Mapping[str, Properties], client: Client) -> list[str]:
    """Compare every deployed resource with its template and set what was dropped; returns a line for each repair.

    Raises: Dropped with a line for each property that is still not what its template says.
    """
    repairs, differences = [], []
    for stack, template in templates.items():
        pages = client("cloudformation").get_paginator("list_stack_resources").paginate(StackName=stack)
        physical = {entry["LogicalResourceId"]: entry["PhysicalResourceId"] for page in pages for entry in page["StackResourceSummaries"]}
        resources: Mapping[str, Any] = template["Resources"]
        missing = [logical_id for logical_id, entry in resources.items() if logical_id not in physical and "Condition" not in entry]
        differences += [f"{stack}/{logical_id}: not deployed" for logical_id in missing]
        for logical_id, resource in resources.items():
            for entry in CHECKS:
                if entry.type != resource["Type"] or logical_id not in physical or f"{entry.type} {entry.property}" in NOT_HERE:
                    continue
                expected = entry.expected(resource.get("Properties", {}))
                if expected is None:
                    continue
                actual = entry.actual(client, physical[logical_id])
                what = f"{stack}/{logical_id} {entry.property}"
                if not agrees(expected, actual) and entry.mend:
                    entry.mend(client, physical[logical_id], expected)
                    actual = entry.actual(client, physical[logical_id])
                    if agrees(expected, actual):
                        repairs.append(f"set {what}, which CloudFormation dropped here")
                if not agrees(expected, actual):
                    differences.append(f"{what}: the template says {expected!r}, deployed is {actual!r}")
        for what, expected, actual in _methods(template, physical, client):
            if expected != actual:
                differences.append(f"{stack}/{what}: the template says {expected!r}, deployed is {actual!r}")
    if differences:
        raise Dropped("deployed resources differ from their templates:\n" + "\n".join(differences))
    return repairs
