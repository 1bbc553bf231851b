"""What is true of every synthesized template."""

import ast
import json
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, get_args

import aws_cdk as cdk
import pytest
from aws_cdk import aws_s3 as s3
from cfnlint.api import lint_file
from cfnlint.config import ManualArgs

import app
from functions.chat.handler import DOORS
from infra.config import STAGES, StageConfig
from infra.constructs import event_lake
from rlaas.adapters.aws.item_keys import authorizer_partition, tenant_partition
from rlaas.adapters.aws.lake import build_lake_record
from rlaas.api.web import READY_PATH
from rlaas.ids import METRICS_NAMESPACE, make_adapter_name, make_base_component_name
from rlaas.runtime import environment
from rlaas.runtime.paths import CHAT_PATHS, MESSAGES_PATHS
from rlaas.telemetry.events import EventType, InteractionCreated
from rlaas.telemetry.ingest import prepare
from tests.infra.template import Template

ROOT = Path(__file__).parents[2]

STATEFUL = (
    "AWS::DynamoDB::Table",
    "AWS::S3::Bucket",
    "AWS::ECR::Repository",
    "AWS::Glue::Database",
    "AWS::Glue::Table",
    "AWS::KinesisFirehose::DeliveryStream",
)
LOCKED = Path(__file__).parent / "stateful_logical_ids.json"

# Actions that IAM can only allow on `*`, and why; any other statement must name its resources.
UNNAMEABLE = {
    "sagemaker:CallWithBearerToken": "a token is no resource; what it may ask is InvokeEndpoint's",
    "sagemaker:ListInferenceComponents": "lists names",
    "cloudwatch:PutMetricData": "metrics are no resources; held to a namespace by condition",
    "ecr:GetAuthorizationToken": "the registry's login",
    "dynamodb:ListStreams": "lists names; taken by the stream's event source",
    "xray:PutTelemetryRecords": "traces are no resources",
    "xray:PutTraceSegments": "traces are no resources",
    "xray:GetSamplingRules": "traces are no resources",
    "xray:GetSamplingTargets": "traces are no resources",
    "logs:CreateLogDelivery": "log delivery, as Step Functions' guide says",
    "logs:GetLogDelivery": "log delivery, as Step Functions' guide says",
    "logs:UpdateLogDelivery": "log delivery, as Step Functions' guide says",
    "logs:DeleteLogDelivery": "log delivery, as Step Functions' guide says",
    "logs:ListLogDeliveries": "log delivery, as Step Functions' guide says",
    "logs:PutResourcePolicy": "log delivery, as Step Functions' guide says",
    "logs:DescribeResourcePolicies": "log delivery, as Step Functions' guide says",
    "logs:DescribeLogGroups": "log delivery, as Step Functions' guide says",
}


def test_every_stage_has_its_stacks(templates: list[Template]) -> None:
    stacks = {"data", "serving", "learning", "rollout", "api", "observability"}
    assert {config.id: {t.stack for t in templates if t.stage == config.id} for config in STAGES} == {c.id: stacks for c in STAGES}


def test_cdk_nag_has_no_unacknowledged_finding(cloud_assembly: Path) -> None:
    report = json.loads((cloud_assembly / "validation-report.json").read_text())
    assert report["pluginReports"] == []


def test_cdk_nag_stops_a_resource_nobody_acknowledged(tmp_path: Path) -> None:
    careless = app.build(outdir=str(tmp_path), context={"stage": "local"})
    s3.Bucket(cdk.Stack(careless, "careless"), "Bucket")
    with pytest.raises(RuntimeError, match="ValidationFailed"):
        careless.synth()
    report = json.loads((tmp_path / "validation-report.json").read_text())
    rules = {violation["ruleName"] for plugin in report["pluginReports"] for violation in plugin["violations"]}
    assert "AwsSolutions-S10" in rules


@pytest.mark.parametrize("config", STAGES, ids=lambda config: config.id)
def test_cfn_lint_finds_nothing(config: StageConfig, templates: list[Template]) -> None:
    ignored = ["W3005"]  # CDK names dependencies that references already imply
    findings = [
        f"{template.id}: {match}"
        for template in templates
        if template.stage == config.id
        for match in lint_file(template.path, ManualArgs(regions=[config.region], ignore_checks=ignored))
    ]
    assert findings == []


def test_logical_ids_of_stateful_resources_never_change(templates: list[Template]) -> None:
    """A changed logical id makes CloudFormation replace the resource: its data stays behind. To add one, add it to the
    file."""
    ids = {
        template.id: {name: resource["Type"] for name, resource in sorted(resources.items())}
        for template in templates
        if (resources := template.resources(*STATEFUL))
    }
    assert ids == json.loads(LOCKED.read_text())


def test_stateful_resources_are_kept_except_on_the_laptop(templates: list[Template]) -> None:
    for template in templates:
        for name, resource in template.resources("AWS::DynamoDB::Table", "AWS::S3::Bucket", "AWS::ECR::Repository").items():
            expected = ("Delete", "Delete") if template.stage == "local" else ("RetainExceptOnCreate", "Retain")
            assert (resource["DeletionPolicy"], resource["UpdateReplacePolicy"]) == expected, f"{template.id} {name}"


def test_stages_share_one_shape(templates: list[Template]) -> None:
    """The laptop has what is deployed: the same stateful resources in every stage."""
    shapes = {t.stage: set(t.resources(*STATEFUL)) for t in templates if t.stack == "data"}
    assert len({frozenset(shape) for shape in shapes.values()}) == 1


def test_policies_name_their_resources(templates: list[Template]) -> None:
    unnamed = [
        f"{template.id} {name}: {action}"
        for template in templates
        for name, resource in template.resources("AWS::IAM::Policy", "AWS::IAM::Role", "AWS::IAM::ManagedPolicy").items()
        for statement in _statements(resource)
        if statement["Effect"] == "Allow" and "*" in _listed(statement["Resource"])
        for action in _listed(statement["Action"])
        if action not in UNNAMEABLE
    ]
    assert unnamed == []


def test_no_policy_allows_an_action_by_wildcard(templates: list[Template]) -> None:
    wild = [
        f"{template.id} {name}: {action}"
        for template in templates
        for name, resource in template.resources("AWS::IAM::Policy", "AWS::IAM::Role").items()
        for statement in _statements(resource)
        if statement["Effect"] == "Allow"
        for action in _listed(statement["Action"])
        if "*" in action
    ]
    assert wild == []


def test_a_stage_may_touch_its_own_adapters_and_no_other_stages(templates: list[Template]) -> None:
    """Stages share an account; the names of one may begin with the name of another."""
    stages = ["dev", "prod", "dev-2", "local"]
    adapters = {
        stage: [
            make_base_component_name(f"rlaas-{stage}"),
            *(
                make_adapter_name(f"rlaas-{stage}", tenant, skill, version, sft_only=True)
                for tenant in ("acme", "t" * 20, "rlaas-prod", "base")
                for skill in ("mail", "s" * 28)
                for version in (1, 99_999_999)
            ),
        ]
        for stage in stages
    }
    for template in templates:
        for name, resource in template.resources("AWS::IAM::Policy", "AWS::IAM::Role").items():
            for statement in _statements(resource):
                patterns = [arn for arn in map(_flat, _listed(statement["Resource"])) if ":inference-component/" in arn]
                own = template.stage.partition("-")[0]
                for stage in stages if patterns else []:
                    allowed = [
                        adapter
                        for adapter in adapters[stage]
                        if any(fnmatchcase(adapter, arn.partition(":inference-component/")[2]) for arn in patterns)
                    ]
                    assert stage == own or allowed == [], f"{template.id} {name} may touch {stage}'s"
                if any("Create" in action or "Delete" in action for action in _listed(statement["Action"])) and patterns:
                    assert set(adapters[own][1:]) <= {
                        adapter
                        for adapter in adapters[own]
                        if any(fnmatchcase(adapter, arn.partition(":inference-component/")[2]) for arn in patterns)
                    }, f"{template.id} {name}"
                if "sagemaker:DeleteInferenceComponent" in _listed(statement["Action"]):
                    assert not any(fnmatchcase(adapters[own][0], arn.partition(":inference-component/")[2]) for arn in patterns)


def test_whoever_finds_the_model_asleep_wakes_one_copy_of_the_base(templates: list[Template]) -> None:
    """Adapters' requests too: SageMaker counts those under the adapter's own name, so the alarm follows the gateway's
    metric."""
    for config in STAGES:
        [serving] = [template for template in templates if (template.stage, template.stack) == (config.id, "serving")]
        alarms = serving.resources("AWS::CloudWatch::Alarm")
        targets = serving.resources("AWS::ApplicationAutoScaling::ScalableTarget")
        if not config.serving.scale_to_zero:
            assert (alarms, targets) == ({}, {})
            continue
        [alarm] = [resource["Properties"] for resource in alarms.values()]
        assert (alarm["Namespace"], alarm["MetricName"]) == (METRICS_NAMESPACE, "NoCapacity")
        assert alarm["Dimensions"] == [{"Name": "stage", "Value": config.name}]
        assert (alarm["Statistic"], alarm["Period"], alarm["EvaluationPeriods"], alarm["Threshold"]) == ("Sum", 60, 1, 1)
        assert (alarm["ComparisonOperator"], alarm["TreatMissingData"]) == ("GreaterThanOrEqualToThreshold", "notBreaching")
        [action] = alarm["AlarmActions"]
        policy = serving.resources("AWS::ApplicationAutoScaling::ScalingPolicy")[action["Ref"]]["Properties"]
        step = policy["StepScalingPolicyConfiguration"]
        # Exactly one copy: the alarm stays raised until the copy has started, and each minute would add another.
        assert (step["AdjustmentType"], step["StepAdjustments"]) == (
            "ExactCapacity",
            [{"MetricIntervalLowerBound": 0, "ScalingAdjustment": 1}],
        )
        [target] = [resource["Properties"] for resource in targets.values()]
        assert target["ResourceId"] == f"inference-component/{make_base_component_name(config.prefix)}"
        assert (target["MinCapacity"], target["MaxCapacity"]) == (0, config.serving.max_instances)


def test_no_run_that_is_over_keeps_a_machine_for_longer_than_an_hour(templates: list[Template]) -> None:
    for template in templates:
        if template.stack != "learning":
            continue
        upkeep = [name for name in template.resources("AWS::Lambda::Function") if name.startswith("AdaptersReconcile")]
        callers = [
            rule["Properties"]
            for rule in template.resources("AWS::Events::Rule").values()
            if any(target["Arn"] == {"Fn::GetAtt": [upkeep[0], "Arn"]} for target in rule["Properties"]["Targets"])
        ]
        assert sorted(rule.get("ScheduleExpression", "") for rule in callers) == ["", "rate(1 hour)"]
        [ends] = [rule["EventPattern"] for rule in callers if "EventPattern" in rule]
        assert sorted(ends["detail"]["status"]) == ["ABORTED", "FAILED", "SUCCEEDED", "TIMED_OUT"]


def test_whoever_sets_the_least_number_of_copies_may_do_so_for_inference_components_alone(templates: list[Template]) -> None:
    allowed = []
    for template in templates:
        for name, resource in template.resources("AWS::IAM::Policy").items():
            for statement in _statements(resource):
                if "application-autoscaling:RegisterScalableTarget" in _listed(statement["Action"]):
                    assert set(statement["Condition"]["StringEquals"].values()) == {
                        "sagemaker",
                        "sagemaker:inference-component:DesiredCopyCount",
                    }
                    allowed.append((template.stage, name[:8]))
    scaling = [config.id for config in STAGES if config.serving.scale_to_zero]
    assert sorted(allowed) == sorted((stage, who) for stage in scaling for who in ("Adapters", "Learning"))


@pytest.mark.parametrize("name", ["Prod", "dev_1", "dev-", "-dev", "a--b", "production", ""])
def test_a_stages_name_is_refused_when_its_resources_could_not_be_told_from_anothers(name: str) -> None:
    with pytest.raises(ValueError, match="the stage's name"):
        replace(STAGES[0], name=name)


def test_the_authorizer_reads_nothing_but_keys(templates: list[Template]) -> None:
    for template in templates:
        if template.stack == "api":
            policies = template.resources("AWS::IAM::Policy").items()
            (policy,) = (resource for name, resource in policies if name.startswith("AuthorizerFunction"))
            reads = [statement for statement in _statements(policy) if any("dynamodb" in action for action in _listed(statement["Action"]))]
            assert [statement["Action"] for statement in reads] == ["dynamodb:GetItem"]
            assert reads[0]["Condition"] == {"ForAllValues:StringLike": {"dynamodb:LeadingKeys": [authorizer_partition("*")]}}


def test_the_audit_follows_the_partitions_of_tenants(templates: list[Template]) -> None:
    of_tenants = {"dynamodb": {"Keys": {"pk": {"S": [{"prefix": tenant_partition("")}]}}}}
    filters = [
        [json.loads(each["Pattern"]) for each in mapping["Properties"]["FilterCriteria"]["Filters"]]
        for template in templates
        for name, mapping in template.resources("AWS::Lambda::EventSourceMapping").items()
        if name.startswith("AuditWriter")
    ]
    assert filters == [[of_tenants]] * len(STAGES)


FUNCTIONS = sorted(path.parent.name for path in (ROOT / "functions").glob("*/handler.py"))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_has_the_environment_its_handler_reads(name: str, templates: list[Template]) -> None:
    expected = {
        str(field.alias)
        for model in _environments(ROOT / "functions" / name / "handler.py")
        for field in getattr(environment, model).model_fields.values()
    }
    for config in STAGES:
        environments = [
            resource["Properties"]["Environment"]["Variables"]
            for template in templates
            if template.stage == config.id
            for resource in template.resources("AWS::Lambda::Function").values()
            if resource["Properties"].get("FunctionName") == f"{config.prefix}-{name}"
        ]
        assert len(environments) == 1, f"{config.id} deploys {len(environments)} functions named {name}"
        assert expected <= environments[0].keys()


def test_only_functions_that_store_texts_may_ask_for_the_names_in_them(templates: list[Template]) -> None:
    for config in STAGES:
        callers = {
            name.removesuffix(name[-8:])
            for template in templates
            if template.stage == config.id
            for name, policy in template.resources("AWS::IAM::Policy").items()
            for statement in _statements(policy)
            if "lambda:InvokeFunction" in _listed(statement["Action"]) and "FindEntities" in json.dumps(statement["Resource"])
        }
        roles = ("Telemetry", "Inference", "Chat", "ShadowsShadow")
        assert callers == {f"{role}RoleDefaultPolicy" for role in roles}


def test_every_deployed_function_has_its_code(templates: list[Template]) -> None:
    deployed = {
        resource["Properties"]["FunctionName"].removeprefix("rlaas-local-")
        for template in templates
        if template.stage == "local"
        for resource in template.resources("AWS::Lambda::Function").values()
    }
    assert deployed == set(FUNCTIONS)


def test_functions_a_user_waits_for_start_from_a_snapshot_on_aws(templates: list[Template]) -> None:
    waited_for = {"authorizer", "telemetry", "inference", "chat", "guard_rollback"}
    for config in STAGES:
        snapped = {
            resource["Properties"]["FunctionName"].removeprefix(f"{config.prefix}-")
            for template in templates
            if template.stage == config.id
            for resource in template.resources("AWS::Lambda::Function").values()
            if "SnapStart" in resource["Properties"]
        }
        assert snapped == (waited_for if config.runtime.snap_start else set())


def test_a_flood_leaves_concurrency_for_the_way_in_and_the_way_back(templates: list[Template]) -> None:
    for config in STAGES:
        own = {
            resource["Properties"]["FunctionName"].removeprefix(f"{config.prefix}-"): resource["Properties"]["ReservedConcurrentExecutions"]
            for template in templates
            if template.stage == config.id
            for resource in template.resources("AWS::Lambda::Function").values()
            if "ReservedConcurrentExecutions" in resource["Properties"]
        }
        if config.name == "prod":
            assert own.keys() == {"authorizer", "guard_rollback", "admin"}
            assert 1_000 - sum(own.values()) >= 100 + 700  # Lambda keeps 100 of the account's 1,000 for everybody; answers need the most
        else:
            assert own == {}


def test_every_function_that_takes_requests_limits_its_tenants(templates: list[Template]) -> None:
    for template in templates:
        if template.stack == "api":
            config = next(config for config in STAGES if config.id == template.stage)
            integrations = json.dumps(
                [method["Properties"]["Integration"] for method in template.resources("AWS::ApiGateway::Method").values()]
            )
            called = {name for name in template.resources("AWS::Lambda::Function", "AWS::Lambda::Alias") if f'"{name}"' in integrations}
            assert len(called) == 4
            limited = [
                resource["Properties"]["FunctionName"].removeprefix(f"{config.prefix}-")
                for resource in template.resources("AWS::Lambda::Function").values()
                if resource["Properties"]["Environment"]["Variables"].get("TENANT_REQUESTS_PER_SECOND")
                == str(config.api.tenant_rate_per_second)
            ]
            assert sorted(limited) == ["admin", "chat", "inference", "telemetry"]
            if template.stage != "local":
                assert config.api.tenant_rate_per_second * 10 <= config.api.rate_per_second


def test_a_web_server_is_started_by_its_script_and_streams_to_the_client(templates: list[Template]) -> None:
    for template in templates:
        if template.stack != "api":
            continue
        servers = {
            name: resource["Properties"]
            for name, resource in template.resources("AWS::Lambda::Function").items()
            if resource["Properties"]["Handler"] == "run.sh"
        }
        (function,) = servers.values()
        script = ROOT / "functions" / function["FunctionName"].rpartition("-")[2] / "run.sh"
        assert script.stat().st_mode & 0o111 == 0o111
        assert function["Environment"]["Variables"].items() >= {
            ("AWS_LAMBDA_EXEC_WRAPPER", "/opt/bootstrap"),
            ("AWS_LWA_INVOKE_MODE", "response_stream"),
            ("AWS_LWA_READINESS_CHECK_PATH", READY_PATH),
        }
        integrations = [method["Properties"]["Integration"] for method in template.resources("AWS::ApiGateway::Method").values()]
        streaming = [integration for integration in integrations if integration.get("ResponseTransferMode") == "STREAM"]
        assert len(streaming) == len(DOORS)
        for integration in streaming:
            assert integration["TimeoutInMillis"] == function["Timeout"] * 1_000
            assert json.dumps(integration["Uri"]).count("/response-streaming-invocations") == 1


def test_every_api_of_the_web_server_has_its_path() -> None:
    assert {*CHAT_PATHS, *MESSAGES_PATHS} == DOORS.keys()


def test_stream_consumers_never_drop_a_batch_unseen(templates: list[Template]) -> None:
    for template in templates:
        for name, resource in template.resources("AWS::Lambda::EventSourceMapping").items():
            mapping = resource["Properties"]
            assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"], name
            if "StartingPosition" not in mapping:
                continue  # a queue's: what fails is handed out again, and then the queue's own redrive policy has it
            assert mapping["BisectBatchOnFunctionError"] is True, name
            # For as long as the stream has the record: a failure that lasts two hours, or a day, loses nothing.
            assert mapping.get("MaximumRetryAttempts", -1) == -1, name
            assert 22 * 3_600 <= mapping["MaximumRecordAgeInSeconds"] < 24 * 3_600, f"{name}: at a day it may be gone"
            destination = mapping["DestinationConfig"]["OnFailure"]["Destination"]
            assert template.resources("AWS::S3::Bucket").keys() & {destination["Fn::GetAtt"][0]}, f"{name}: a queue gets numbers only"


def test_a_stream_consumer_may_add_to_what_is_kept_and_neither_read_nor_delete_it(templates: list[Template]) -> None:
    for template in templates:
        if template.stack == "data":
            for consumer in ("LakeWriter", "RewardWriter", "AuditWriter"):
                policies = template.resources("AWS::IAM::Policy").items()
                [policy] = [resource for name, resource in policies if name.startswith(f"{consumer}Role")]
                on_s3 = {
                    (action, json.dumps(statement["Resource"]).rpartition("failures")[2].count("aws/lambda/*"))
                    for statement in _statements(policy)
                    for action in _listed(statement["Action"])
                    if action.startswith("s3:")
                }
                assert on_s3 == {("s3:PutObject", 1), ("s3:ListBucket", 0)}


def test_one_poisoned_partition_key_holds_up_few_others(templates: list[Template]) -> None:
    for template in templates:
        lanes = [
            resource["Properties"]["ParallelizationFactor"]
            for name, resource in template.resources("AWS::Lambda::EventSourceMapping").items()
            if name.startswith(("RewardWriter", "AuditWriter")) and "StartingPosition" in resource["Properties"]
        ]
        assert lanes == [10] * len(lanes)


def test_what_eventbridge_calls_keeps_the_calls_that_fail(templates: list[Template]) -> None:
    """The rule's own dead letter queue gets only what could not be handed over; calls that raise three times go to the
    function's own queue."""
    called = 0
    for template in templates:
        keepers = {
            json.dumps(resource["Properties"]["FunctionName"])
            for resource in template.resources("AWS::Lambda::EventInvokeConfig").values()
            if "failures" in json.dumps(resource["Properties"]["DestinationConfig"]["OnFailure"]["Destination"])
        }
        for name, rule in template.resources("AWS::Events::Rule").items():
            for target in rule["Properties"]["Targets"]:
                arn = json.dumps(target["Arn"])
                function = next(
                    (key for key in template.resources("AWS::Lambda::Function", "AWS::Lambda::Alias") if f'"{key}"' in arn), None
                )
                if function is None:
                    continue
                alias = template.resources("AWS::Lambda::Alias").get(function)
                function = alias["Properties"]["FunctionName"]["Ref"] if alias else function
                assert json.dumps({"Ref": function}) in keepers, f"{template.id} {name}"
                assert "failures" in json.dumps(target["DeadLetterConfig"]["Arn"]), f"{template.id} {name}"
                called += 1
    assert called >= 7 * len(STAGES)


def test_rules_may_send_to_the_stages_failure_queue(templates: list[Template]) -> None:
    for template in templates:
        if template.stack == "data":
            config = next(config for config in STAGES if config.id == template.stage)
            [(queue, _)] = [
                item
                for item in template.resources("AWS::SQS::Queue").items()
                if item[1]["Properties"].get("QueueName") == f"{config.prefix}-failures"
            ]
            [allowed] = [
                statement
                for resource in template.resources("AWS::SQS::QueuePolicy").values()
                if queue in json.dumps(resource["Properties"]["Queues"])
                for statement in _statements(resource)
                if statement["Effect"] == "Allow"
            ]
            assert allowed["Principal"] == {"Service": "events.amazonaws.com"}
            assert f"rule/{config.prefix}-*" in json.dumps(allowed["Condition"])


def test_the_redrive_calls_consumers_and_nothing_else(templates: list[Template]) -> None:
    for template in templates:
        if template.stack == "api":
            policies = template.resources("AWS::IAM::Policy").items()
            [policy] = [resource for name, resource in policies if name.startswith("RedriveFunctionRole")]
            invoked = [
                json.dumps(resource)
                for statement in _statements(policy)
                if statement["Action"] == "lambda:InvokeFunction"
                for resource in _listed(statement["Resource"])
            ]
            assert len(invoked) == 7
            assert not any("*" in arn for arn in invoked)
            deleted = [
                json.dumps(resource)
                for statement in _statements(policy)
                if "s3:DeleteObject" in _listed(statement["Action"])
                for resource in _listed(statement["Resource"])
            ]
            assert len(deleted) == 2
            assert all("/errors/*" in arn or "/aws/lambda/*" in arn for arn in deleted)


def test_no_definition_keeps_an_unfilled_substitution(templates: list[Template]) -> None:
    for template in templates:
        for resource in template.resources("AWS::StepFunctions::StateMachine").values():
            name = resource["Properties"]["StateMachineName"].rpartition("-")[2]
            text = (ROOT / "infra" / "state_machines" / f"{name}.asl.json").read_text()
            substitutions = {part.partition("}")[0] for part in text.split("${")[1:]}
            assert resource["Properties"]["DefinitionSubstitutions"].keys() == substitutions


def test_nothing_but_preflights_is_public(templates: list[Template]) -> None:
    for template in templates:
        methods = [method["Properties"] for method in template.resources("AWS::ApiGateway::Method").values()]
        public = [method for method in methods if method["AuthorizationType"] != "CUSTOM"]
        assert {(method["HttpMethod"], method["Integration"]["Type"]) for method in public} <= {("OPTIONS", "MOCK")}, template.id


def test_gateway_refusals_have_the_services_error_body(templates: list[Template]) -> None:
    for template in templates:
        for name, resource in template.resources("AWS::ApiGateway::GatewayResponse").items():
            text = resource["Properties"]["ResponseTemplates"]["application/json"]
            body = json.loads(text.replace("$context.error.messageString", '"refused"'))
            assert body["error"].keys() == {"type", "code", "message", "param", "request_id"}, name


def test_the_lake_describes_what_is_delivered_to_it() -> None:
    event = InteractionCreated(interaction_id="i1", skill="drafts", inputs={"email": "Hello"})
    delivered = json.loads(build_lake_record(prepare(event, "acme", received_at=datetime(2026, 3, 1, tzinfo=UTC))))
    assert set(event_lake.EVENT_TYPES) == set(get_args(EventType))
    assert delivered.keys() == {*event_lake.COLUMNS, "event_type", "event_date"}


def _statements(resource: dict[str, Any]) -> list[dict[str, Any]]:
    properties = resource["Properties"]
    documents = [properties["PolicyDocument"]] if "PolicyDocument" in properties else []
    documents += [policy["PolicyDocument"] for policy in properties.get("Policies", [])]
    return [statement for document in documents for statement in document["Statement"]]


def _flat(arn: Any) -> str:
    """An ARN with the parts that only AWS knows as `*`."""
    return arn if isinstance(arn, str) else "".join(part if isinstance(part, str) else "*" for part in arn.get("Fn::Join", ["", ["*"]])[1])


def _listed(value: object) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _environments(handler: Path) -> set[str]:
    """The models of the environment that a handler reads, and those that the parts are made from which it takes from
    the stage."""
    room = ROOT / "layers" / "rlaas" / "python" / "rlaas"
    parts = {
        node.name: node for node in ast.walk(ast.parse((room / "runtime" / "stage.py").read_text())) if isinstance(node, ast.FunctionDef)
    }
    read: set[str] = set()
    trees: list[ast.AST] = [ast.parse(handler.read_text())]
    seen: set[str] = set()
    while trees:
        for node in ast.walk(trees.pop()):
            match node:
                case ast.Call(func=ast.Attribute(attr="settings"), args=[ast.Name(id=model)]):
                    read.add(model)
                case ast.Attribute(value=ast.Name(id="stage" | "self") | ast.Call(func=ast.Name(id="current_stage")), attr=part):
                    if part in parts and part not in seen:
                        seen.add(part)
                        trees.append(parts[part])
                case ast.ImportFrom(module=str(module), names=names) if module.startswith("rlaas.api"):
                    for name in (f"{module}.{each.name}".removeprefix("rlaas.").replace(".", "/") for each in names):
                        for path in (room / f"{name}.py", (room / name).parent.with_suffix(".py")):
                            if path.exists() and str(path) not in seen:
                                seen.add(str(path))
                                trees.append(ast.parse(path.read_text()))
    return read


def test_a_queue_that_a_function_reads_keeps_what_cannot_be_done(templates: list[Template]) -> None:
    queues = {
        (template.stage, name): resource["Properties"]
        for template in templates
        for name, resource in template.resources("AWS::SQS::Queue").items()
    }
    read = 0
    for template in templates:
        for name, resource in template.resources("AWS::Lambda::EventSourceMapping").items():
            if "StartingPosition" in resource["Properties"]:
                continue
            source = str(resource["Properties"]["EventSourceArn"])
            [queue] = [queue for (stage, queue_name), queue in queues.items() if stage == template.stage and queue_name in source]
            function = template.resources("AWS::Lambda::Function")[resource["Properties"]["FunctionName"]["Ref"]]["Properties"]
            assert queue["RedrivePolicy"]["maxReceiveCount"] >= 3, name
            assert queue["VisibilityTimeout"] >= function["Timeout"], name
            read += 1
    assert read == 2 * len(STAGES)  # shadows, and what one tenant has too much of


def test_a_stream_has_at_most_the_two_readers_that_a_shard_serves(templates: list[Template]) -> None:
    readers = Counter(
        (template.stage, json.dumps(resource["Properties"]["EventSourceArn"]))
        for template in templates
        for resource in template.resources("AWS::Lambda::EventSourceMapping").values()
        if "StartingPosition" in resource["Properties"]
    )
    assert max(readers.values()) == 2


def test_every_log_group_forgets_and_no_service_makes_one_of_its_own(templates: list[Template]) -> None:
    for template in templates:
        groups = {name: resource["Properties"] for name, resource in template.resources("AWS::Logs::LogGroup").items()}
        assert all(group["RetentionInDays"] > 0 for group in groups.values()), template.id
        for stage in template.resources("AWS::ApiGateway::Stage").values():
            api, name = stage["Properties"]["RestApiId"], stage["Properties"]["StageName"]
            errors = {"Fn::Join": ["", ["API-Gateway-Execution-Logs_", api, f"/{name}"]]}
            [error_group] = [id for id, group in groups.items() if group["LogGroupName"] == errors]
            assert error_group in stage["DependsOn"]  # else API Gateway makes it first, without a retention


def test_api_gateway_sends_no_metric_of_each_method(templates: list[Template]) -> None:
    stages = [stage for template in templates for stage in template.resources("AWS::ApiGateway::Stage").values()]
    assert stages
    assert not any(setting["MetricsEnabled"] for stage in stages for setting in stage["Properties"]["MethodSettings"])


def test_a_first_deployment_that_fails_leaves_no_name_taken(templates: list[Template]) -> None:
    name_properties = ("BucketName", "TableName", "RepositoryName")
    for template in templates:
        for name, resource in template.resources().items():
            if any(property in resource.get("Properties", {}) for property in name_properties):
                assert resource["DeletionPolicy"] != "Retain", f"{template.id} {name}"
                assert not resource["Properties"].get("DeletionProtectionEnabled"), (
                    f"{template.id} {name}: CloudFormation could not delete it"
                )


def test_what_is_unloaded_for_a_learning_run_is_gone_in_days(templates: list[Template]) -> None:
    """Its old versions too, which other rules keep for a month."""
    for template in templates:
        if template.stack == "data":
            [rules] = [
                bucket["Properties"]["LifecycleConfiguration"]["Rules"]
                for name, bucket in template.resources("AWS::S3::Bucket").items()
                if name.startswith("LakeBucket")
            ]
            [rule] = [rule for rule in rules if rule.get("Prefix") == "athena/unload/"]
            assert (rule["ExpirationInDays"], rule["NoncurrentVersionExpiration"]) == (1, {"NoncurrentDays": 1})


def test_names_that_are_global_differ_between_stages_and_regions(templates: list[Template]) -> None:
    """Buckets' and roles' names are shared by all regions; two stages of an account must not use the same name."""
    stages_by_name: dict[str, str] = {}
    for template in templates:
        for resource in template.resources("AWS::S3::Bucket", "AWS::IAM::Role").values():
            name = resource["Properties"].get("BucketName") or resource["Properties"].get("RoleName")
            if name is not None:
                assert stages_by_name.setdefault(json.dumps(name), template.stage) == template.stage
