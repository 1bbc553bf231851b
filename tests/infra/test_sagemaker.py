"""What SageMaker would refuse, or break without an error, long after CloudFormation accepted it."""

import json
import re
from pathlib import Path
from typing import Any

import botocore.session

from functions.ask_held_out import handler as ask_held_out
from infra.config import STAGES
from infra.state_machines.definitions import read_definition
from local.setup import TORCH
from rlaas.adapters.aws.lent_sessions import LIFETIME
from tests.infra.template import Resource, Template

ROOT = Path(__file__).parents[2]
VARIANT = botocore.session.get_session().get_service_model("sagemaker").shape_for("ProductionVariant")


def resource(templates: list[Template], stage: str, kind: str) -> Resource:
    """The stage's only SageMaker resource of this kind."""
    resources = [one for template in templates if template.stage == stage for one in template.resources(f"AWS::SageMaker::{kind}").values()]
    [only] = resources
    return only


def documented_cuda(ami: str) -> str:
    """The CUDA version of the AMI's driver, from botocore's copy of the API reference."""
    text = re.sub(r"<[^>]+>|\s+", " ", VARIANT.members["InferenceAmiVersion"].documentation)
    _, _, about = text.partition(f" {ami} ")
    match = re.search(r"CUDA version: ([\d.]+)", about)
    assert match is not None, f"AWS documents no CUDA of {ami}"
    return match[1]


def test_a_gpu_endpoint_boots_a_driver_that_runs_its_image_and_another_names_none(templates: list[Template]) -> None:
    image = re.search(r"^ARG CUDA=(\S+)$", (ROOT / "containers/vllm/Dockerfile").read_text(), re.M)
    assert image is not None
    for config in STAGES:
        [variant] = resource(templates, config.id, "EndpointConfig")["Properties"]["ProductionVariants"]
        ami = variant.get("InferenceAmiVersion")
        assert (ami is not None) == variant["InstanceType"].startswith(("ml.g", "ml.p")) == (config.serving.accelerators > 0), config.id
        if ami is not None:
            assert config.serving.system is not None
            assert ami in VARIANT.members["InferenceAmiVersion"].enum
            assert documented_cuda(ami) == config.serving.system.cuda == image[1], config.id


def test_the_base_component_reserves_no_more_than_fits_beside_sagemakers_own(templates: list[Template]) -> None:
    for config in STAGES:
        requirements = resource(templates, config.id, "InferenceComponent")["Properties"]["Specification"]["ComputeResourceRequirements"]
        assert requirements["MinMemoryRequiredInMb"] == 1_024
        assert requirements["NumberOfCpuCoresRequired"] == 1
        assert requirements.get("NumberOfAcceleratorDevicesRequired", 0) == config.serving.accelerators
        assert "MaxMemoryRequiredInMb" not in requirements, "it would be a limit, and the kernel would end vLLM there"


def test_the_base_models_prefix_is_no_other_models(templates: list[Template]) -> None:
    for config in STAGES:
        [source] = resource(templates, config.id, "Model")["Properties"]["PrimaryContainer"]["ModelDataSource"].values()
        assert source["S3DataType"] == "S3Prefix"
        assert json.dumps(source["S3Uri"]).rstrip('"]}').endswith(f"models/{config.serving.base_model}/"), config.id


def test_the_learning_image_takes_the_projects_torch_in_a_build_for_old_drivers() -> None:
    base = re.search(r"^FROM pytorch/pytorch:(\S+?)-cuda(\d+)\.\d+-", (ROOT / "containers/learning/Dockerfile").read_text(), re.M)
    assert base is not None
    assert f"torch=={base[1]}" == TORCH
    assert base[2] == "12", "CUDA 13 takes driver 580, and nobody can choose a training instance's driver"
    assert "torch" not in re.findall(r"^[\w-]+", (ROOT / "requirements/learning.lock").read_text(), re.M), "it would replace the base's"


def definition(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = read_definition(name)["States"]
    return loaded


def jobs() -> dict[str, dict[str, Any]]:
    """The arguments of each job, by its module."""
    requests = [
        state["Arguments"]
        for name in ("learning", "compaction")
        for state in definition(name).values()
        if "Job.sync" in str(state.get("Resource"))
    ]
    entrypoints = [
        arguments.get("AppSpecification", arguments.get("AlgorithmSpecification"))["ContainerEntrypoint"] for arguments in requests
    ]
    return {entrypoint[-1].rpartition(".")[2]: arguments for entrypoint, arguments in zip(entrypoints, requests, strict=True)}


def test_a_container_has_a_network_only_where_its_code_calls_aws(templates: list[Template]) -> None:
    """Without a network it has no credentials either, and sees only the data that SageMaker downloads for it."""
    networked = {
        name for name, arguments in jobs().items() if not (arguments.get("NetworkConfig") or arguments).get("EnableNetworkIsolation")
    }
    asks_aws = {
        name for name in jobs() if re.search(r"boto3|awswrangler|rlaas\.adapters", (ROOT / f"training_jobs/{name}/job.py").read_text())
    }
    assert networked == asks_aws == {"compact"}
    assert not [name for name in jobs().keys() - networked if "AWS_DEFAULT_REGION" in json.dumps(jobs()[name])]
    for config in STAGES:
        assert resource(templates, config.id, "Model")["Properties"]["EnableNetworkIsolation"] is True


def allowed_by(policy: Resource) -> list[tuple[str, str]]:
    """Each action with each resource, as JSON."""
    return [
        (action, json.dumps(one))
        for statement in policy["Properties"]["PolicyDocument"]["Statement"]
        for action in ([statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"])
        for one in (statement["Resource"] if isinstance(statement["Resource"], list) else [statement["Resource"]])
    ]


def test_each_job_may_touch_what_it_reads_and_writes_and_nothing_of_the_others(templates: list[Template]) -> None:
    """By role, what a job may do to which prefix of which bucket; log groups, images and metrics apart."""
    data = {
        "Dataset": {
            ("s3:GetObject", "lake/athena/unload/*"),
            *((f"s3:{verb}", "artifacts/tenants/*/datasets/*") for verb in ("PutObject", "AbortMultipartUpload")),
        },
        "Train": {
            ("s3:GetObject", "artifacts/models/*"),
            ("s3:GetObject", "artifacts/tenants/*/datasets/*"),
            *((f"s3:{verb}", "artifacts/tenants/*/runs/*") for verb in ("PutObject", "AbortMultipartUpload")),
        },
        "Evaluate": {
            ("s3:GetObject", "artifacts/tenants/*/datasets/*"),
            ("s3:GetObject", "artifacts/tenants/*/runs/*/answers/*"),
            *((f"s3:{verb}", "artifacts/tenants/*/runs/*/evaluation/*") for verb in ("PutObject", "AbortMultipartUpload")),
        },
    }
    services: dict[str, set[str]] = {"Dataset": set(), "Train": set(), "Evaluate": set()}
    for config in STAGES:
        [learning] = [template for template in templates if (template.stage, template.stack) == (config.id, "learning")]
        for job, allowed in data.items():
            [policy] = [p for name, p in learning.resources("AWS::IAM::Policy").items() if name.startswith(f"Learning{job}RolePolicy")]
            statements = allowed_by(policy)
            assert objects(statements) == allowed, (config.id, job)
            others = {action.partition(":")[0] for action, _ in statements} - {"s3", "ecr", "logs", "cloudwatch"}
            assert others == services[job], (config.id, job)


def test_the_state_machine_may_have_athena_read_the_lake_and_write_below_its_answers(templates: list[Template]) -> None:
    for config in STAGES:
        [learning] = [template for template in templates if (template.stage, template.stack) == (config.id, "learning")]
        policies = learning.resources("AWS::IAM::Policy").items()
        [policy] = [p for name, p in policies if name.startswith("LearningStateMachineRoleDefaultPolicy")]
        statements = allowed_by(policy)
        assert objects(statements) == {
            ("s3:GetObject", "lake/events/*"),
            *((f"s3:{verb}", "lake/athena/*") for verb in ("GetObject", "PutObject", "AbortMultipartUpload", "ListMultipartUploadParts")),
        }
        queries = {(action, resource.rpartition(":")[2].strip('"]}')) for action, resource in statements if action.startswith("athena:")}
        assert queries == {
            *((f"athena:{verb}QueryExecution", f"workgroup/rlaas-{config.name}") for verb in ("Start", "Get", "Stop")),
            ("athena:GetDataCatalog", "datacatalog/AwsDataCatalog"),
        }


def test_whoever_asks_held_out_prompts_may_do_so_only_by_a_session_that_it_lends_itself(templates: list[Template]) -> None:
    for config in STAGES:
        [learning] = [template for template in templates if (template.stage, template.stack) == (config.id, "learning")]
        policies, roles = learning.resources("AWS::IAM::Policy"), learning.resources("AWS::IAM::Role")
        [own] = [name for name in roles if name.startswith("LearningAskerFunctionRole")]
        [lent] = [name for name in roles if name.startswith("LearningAskerRole")]
        by_role = {role: [policy for policy in policies.values() if {"Ref": role} in policy["Properties"]["Roles"]] for role in (own, lent)}
        assert all("ManagedPolicyArns" not in roles[role]["Properties"] for role in (own, lent))
        may = {(action, text) for policy in by_role[own] for action, text in allowed_by(policy)}
        assert {action for action, _ in may} == {"sts:AssumeRole", "logs:CreateLogStream", "logs:PutLogEvents"}
        assert {text for action, text in may if action == "sts:AssumeRole"} == {json.dumps({"Fn::GetAtt": [lent, "Arn"]})}
        [trust] = roles[lent]["Properties"]["AssumeRolePolicyDocument"]["Statement"]
        assert (trust["Action"], trust["Principal"]) == ("sts:AssumeRole", {"AWS": {"Fn::GetAtt": [own, "Arn"]}})
        [policy] = by_role[lent]
        most = {(action, re.sub(r'.*-artifacts-.*-\d/([^"]+)".*', r"\1", text)) for action, text in allowed_by(policy)}
        data = {(action, key) for action, key in most if action.endswith("Object")}
        assert data == {
            ("s3:GetObject", "tenants/*/datasets/*"),
            ("s3:GetObject", "tenants/*/runs/*/answers/*"),
            ("s3:PutObject", "tenants/*/runs/*/answers/*"),
        }
        assert {action for action, _ in most - data} == {"s3:ListBucket", "sagemaker:InvokeEndpoint"}
        [listing] = [one for one in policy["Properties"]["PolicyDocument"]["Statement"] if one["Action"] == "s3:ListBucket"]
        assert listing["Condition"] == {"StringLike": {"s3:prefix": "tenants/*/runs/*/answers/"}}
        [function] = [one for name, one in learning.resources("AWS::Lambda::Function").items() if name.startswith("LearningAsker")]
        assert function["Properties"]["Role"] == {"Fn::GetAtt": [own, "Arn"]}
        assert function["Properties"]["Timeout"] < LIFETIME.total_seconds(), "its session would end before it does"
        assert function["Properties"]["Timeout"] < definition("learning")["AskHeldOut"]["TimeoutSeconds"]
        assert function["Properties"]["Timeout"] / 2 > ask_held_out._NEEDED_MS / 1_000


def objects(statements: list[tuple[str, str]]) -> set[tuple[str, str]]:
    """Each action on S3 objects with the objects, as `<bucket>/<pattern>`."""
    return {
        (action, f"{match[1]}/{match[2]}")
        for action, resource in statements
        if action.startswith("s3:") and (match := re.search(r'-(lake|artifacts)-.*-\d/([^"]+)"', resource))
    }


def test_the_endpoints_logs_end_with_the_stages_retention(templates: list[Template]) -> None:
    """SageMaker would make these groups itself, without a retention."""
    for config in STAGES:
        retentions = {
            group["Properties"]["LogGroupName"]: group["Properties"]["RetentionInDays"]
            for template in templates
            if template.stage == config.id
            for group in template.resources("AWS::Logs::LogGroup").values()
            if "/aws/sagemaker/" in str(group["Properties"]["LogGroupName"])
        }
        endpoint, base = (resource(templates, config.id, kind)["Properties"] for kind in ("Endpoint", "InferenceComponent"))
        names = (
            f"/aws/sagemaker/Endpoints/{endpoint['EndpointName']}",
            f"/aws/sagemaker/InferenceComponents/{base['InferenceComponentName']}",
        )
        assert retentions == dict.fromkeys(names, config.log_retention_days)


def test_every_group_that_jobs_log_to_is_limited_and_may_be(templates: list[Template]) -> None:
    """All stages of an account share them, so a state sets their retention, the same for all stages."""
    states = definition("compaction").values()
    limited = [state["Arguments"] for state in states if state.get("Resource", "").endswith(":putRetentionPolicy")]
    assert {arguments["LogGroupName"] for arguments in limited} == {"/aws/sagemaker/ProcessingJobs", "/aws/sagemaker/TrainingJobs"}
    assert len({arguments["RetentionInDays"] for arguments in limited}) == 1
    for config in STAGES:
        [learning] = [template for template in templates if (template.stage, template.stack) == (config.id, "learning")]
        policies = json.dumps(learning.resources("AWS::IAM::Policy"))
        assert all(f":log-group:{arguments['LogGroupName']}:*" in policies for arguments in limited)
