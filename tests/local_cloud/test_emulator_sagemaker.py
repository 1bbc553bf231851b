"""The local SageMaker: jobs, endpoints, inference components, and what CloudFormation and Step Functions make of
them."""

from __future__ import annotations

import base64
import io
import json
import re
import tarfile
import uuid
from datetime import UTC, datetime
from functools import partial
from typing import Any

import boto3
import httpx
import pytest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from infra.state_machines.definitions import read_definition
from local.cloud import read_faults
from local.demo_evidence import DeployedStack
from rlaas import ids
from rlaas.adapters.aws.grants import ModelGrants, _bearer_token
from rlaas.adapters.aws.inference_components import SageMakerAdapters
from rlaas.errors import Conflict
from rlaas.policies.backend import SageMakerBackend
from tests.local_cloud.conftest import ROLE, Emulator, until

IMAGE = "000000000000.dkr.ecr.us-east-1.amazonaws.com/stage/{}:1"


def name(kind: str = "x") -> str:
    return f"{kind}-{uuid.uuid4().hex[:8]}"


@pytest.fixture(scope="module")
def bucket(emulator: Emulator) -> str:
    s3, bucket_name = emulator.client("s3"), name("bucket")
    s3.create_bucket(Bucket=bucket_name)
    for key, text in {"data/a.txt": "one", "data/deep/b.txt": "two", "model/config.json": "{}", "database/c.txt": "other"}.items():
        s3.put_object(Bucket=bucket_name, Key=key, Body=text)
    return bucket_name


def training_job(bucket: str, **settings: Any) -> dict[str, Any]:
    return {
        "TrainingJobName": name("train"),
        "RoleArn": ROLE,
        "AlgorithmSpecification": {
            "TrainingImage": IMAGE.format("learning"),
            "TrainingInputMode": "File",
            "ContainerEntrypoint": ["python", "-m", "job"],
            "MetricDefinitions": [{"Name": "loss", "Regex": "loss=([0-9.]+)"}],
        },
        "HyperParameters": {},
        "InputDataConfig": [
            {
                "ChannelName": "train",
                "DataSource": {
                    "S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{bucket}/data/", "S3DataDistributionType": "FullyReplicated"}
                },
            }
        ],
        "OutputDataConfig": {"S3OutputPath": f"s3://{bucket}/out/"},
        "ResourceConfig": {"InstanceCount": 1, "InstanceType": "ml.m5.large", "VolumeSizeInGB": 1},
        "StoppingCondition": {"MaxRuntimeInSeconds": 60},
        **settings,
    }


def wait_until_ended(emulator: Emulator, job: str) -> dict[str, Any]:
    sagemaker = emulator.client("sagemaker")
    description: dict[str, Any] = until(
        lambda: (
            answer
            if (answer := sagemaker.describe_training_job(TrainingJobName=job))["TrainingJobStatus"] not in ("InProgress", "Stopping")
            else None
        )
    )
    return description


def content(emulator: Emulator, bucket: str, key: str) -> dict[str, str]:
    data = emulator.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {member.name: tar.extractfile(member).read().decode() for member in tar if member.isfile()}


def test_a_training_job_sees_opt_ml_and_its_outputs_are_stored(emulator: Emulator, bucket: str) -> None:
    job = training_job(bucket, HyperParameters={"rate": "0.1"})
    emulator.client("sagemaker").create_training_job(**job)
    description = wait_until_ended(emulator, job["TrainingJobName"])
    assert description["TrainingJobStatus"] == "Completed", description.get("FailureReason")
    assert [step["Status"] for step in description["SecondaryStatusTransitions"]] == [
        "Starting",
        "Downloading",
        "Training",
        "Uploading",
        "Completed",
    ]
    prefix = f"out/{job['TrainingJobName']}/output"
    assert description["ModelArtifacts"]["S3ModelArtifacts"] == f"s3://{bucket}/{prefix}/model.tar.gz"
    assert content(emulator, bucket, f"{prefix}/model.tar.gz") == {"weights": "onetwo"}
    assert json.loads(content(emulator, bucket, f"{prefix}/output.tar.gz")["report.json"]) == {"rate": "0.1", "credentials": True}

    assert description["FinalMetricDataList"][0]["Value"] == pytest.approx(0.25)
    events = emulator.client("logs").filter_log_events(
        logGroupName="/aws/sagemaker/TrainingJobs", logStreamNamePrefix=job["TrainingJobName"]
    )["events"]
    assert [event["message"] for event in events] == ["loss=0.25"]


def test_an_isolated_job_has_no_credentials_and_its_data_comes_and_goes_all_the_same(emulator: Emulator, bucket: str) -> None:
    job = training_job(bucket, EnableNetworkIsolation=True)
    emulator.client("sagemaker").create_training_job(**job)
    assert wait_until_ended(emulator, job["TrainingJobName"])["TrainingJobStatus"] == "Completed"
    prefix = f"out/{job['TrainingJobName']}/output"
    assert json.loads(content(emulator, bucket, f"{prefix}/output.tar.gz")["report.json"]) == {"credentials": False}


def test_a_prefix_without_a_slash_reads_every_key_that_begins_so(emulator: Emulator, bucket: str) -> None:
    for key in ("sets/v1/rows", "sets/v10/rows"):
        emulator.client("s3").put_object(Bucket=bucket, Key=key, Body=f"{key};".encode())
    for uri, read in (("sets/v1", "sets/v1/rows;sets/v10/rows;"), ("sets/v1/", "sets/v1/rows;")):
        job = training_job(bucket)
        job["InputDataConfig"][0]["DataSource"]["S3DataSource"]["S3Uri"] = f"s3://{bucket}/{uri}"
        emulator.client("sagemaker").create_training_job(**job)
        description = wait_until_ended(emulator, job["TrainingJobName"])
        prefix = description["ModelArtifacts"]["S3ModelArtifacts"].removeprefix(f"s3://{bucket}/")
        assert content(emulator, bucket, prefix) == {"weights": read}


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"do": "fail", "reason": "no pairs in the dataset"}, "AlgorithmError: no pairs in the dataset, exit code: 1"),
        ({"do": "fail"}, "AlgorithmError: , exit code: 1"),
    ],
)
def test_a_failed_job_names_its_reason(emulator: Emulator, bucket: str, settings: dict[str, str], reason: str) -> None:
    job = training_job(bucket, HyperParameters=settings)
    emulator.client("sagemaker").create_training_job(**job)
    description = wait_until_ended(emulator, job["TrainingJobName"])
    assert description["TrainingJobStatus"] == "Failed"
    assert description["FailureReason"] == reason


def test_a_job_is_stopped_by_its_time_limit_and_by_hand(emulator: Emulator, bucket: str) -> None:
    sagemaker = emulator.client("sagemaker")
    late = training_job(bucket, HyperParameters={"do": "sleep"}, StoppingCondition={"MaxRuntimeInSeconds": 1})
    sagemaker.create_training_job(**late)
    description = wait_until_ended(emulator, late["TrainingJobName"])
    assert (description["TrainingJobStatus"], description["SecondaryStatus"]) == ("Stopped", "MaxRuntimeExceeded")
    by_hand = training_job(bucket, HyperParameters={"do": "sleep"})
    sagemaker.create_training_job(**by_hand)
    until(lambda: sagemaker.describe_training_job(TrainingJobName=by_hand["TrainingJobName"])["SecondaryStatus"] == "Training")
    sagemaker.stop_training_job(TrainingJobName=by_hand["TrainingJobName"])
    assert wait_until_ended(emulator, by_hand["TrainingJobName"])["TrainingJobStatus"] == "Stopped"


def test_an_empty_channel_a_taken_name_and_a_malformed_request_are_refused_as_on_aws(emulator: Emulator, bucket: str) -> None:
    sagemaker = emulator.client("sagemaker")
    job = training_job(bucket)
    job["InputDataConfig"][0]["DataSource"]["S3DataSource"]["S3Uri"] = f"s3://{bucket}/nothing/"
    sagemaker.create_training_job(**job)
    assert "No S3 objects found" in wait_until_ended(emulator, job["TrainingJobName"])["FailureReason"]
    with pytest.raises(sagemaker.exceptions.ResourceInUse):
        sagemaker.create_training_job(**job)
    with pytest.raises(ClientError, match="regular expression pattern"):
        sagemaker.create_training_job(**{**job, "TrainingJobName": "../escape"})
    with pytest.raises(ClientError, match="has no stand-in"):
        sagemaker.create_training_job(
            **training_job(bucket, AlgorithmSpecification={"TrainingImage": "a/unknown:1", "TrainingInputMode": "File"})
        )


def test_an_error_of_the_emulators_own_fails_the_job_at_once(emulator: Emulator, bucket: str) -> None:
    channel = {
        "ChannelName": "train",
        "DataSource": {
            "FileSystemDataSource": {
                "FileSystemId": "fs-01234567890",
                "FileSystemAccessMode": "ro",
                "FileSystemType": "EFS",
                "DirectoryPath": "/",
            }
        },
    }
    job = training_job(bucket, InputDataConfig=[channel])
    emulator.client("sagemaker").create_training_job(**job)
    description = wait_until_ended(emulator, job["TrainingJobName"])
    assert description["TrainingJobStatus"] == "Failed"
    assert "KeyError: 'S3DataSource'" in description["FailureReason"]


def test_a_metric_that_is_no_number_does_not_hold_up_the_job(emulator: Emulator, bucket: str) -> None:
    job = training_job(bucket, HyperParameters={"do": "talk"})
    job["AlgorithmSpecification"]["MetricDefinitions"] = [{"Name": "loss", "Regex": "(nothing much)"}]
    emulator.client("sagemaker").create_training_job(**job)
    assert wait_until_ended(emulator, job["TrainingJobName"])["TrainingJobStatus"] == "Completed"


def processing_job(bucket: str, *arguments: str) -> dict[str, Any]:
    return {
        "ProcessingJobName": name("process"),
        "RoleArn": ROLE,
        "AppSpecification": {
            "ImageUri": IMAGE.format("learning"),
            "ContainerEntrypoint": ["python", "-m", "job"],
            **({"ContainerArguments": list(arguments)} if arguments else {}),
        },
        "ProcessingResources": {"ClusterConfig": {"InstanceCount": 1, "InstanceType": "ml.m5.large", "VolumeSizeInGB": 1}},
        "ProcessingInputs": [
            {
                "InputName": "data",
                "S3Input": {
                    "S3Uri": f"s3://{bucket}/data",
                    "LocalPath": "/opt/ml/processing/input/data",
                    "S3DataType": "S3Prefix",
                    "S3InputMode": "File",
                },
            }
        ],
        "ProcessingOutputConfig": {
            "Outputs": [
                {
                    "OutputName": "data",
                    "S3Output": {
                        "S3Uri": f"s3://{bucket}/processed",
                        "LocalPath": "/opt/ml/processing/output/data",
                        "S3UploadMode": "EndOfJob",
                    },
                }
            ]
        },
    }


def test_a_processing_job_reads_its_inputs_and_stores_its_outputs(emulator: Emulator, bucket: str) -> None:
    sagemaker, job = emulator.client("sagemaker"), processing_job(bucket)
    sagemaker.create_processing_job(**job)
    until(lambda: sagemaker.describe_processing_job(ProcessingJobName=job["ProcessingJobName"])["ProcessingJobStatus"] == "Completed")
    assert emulator.client("s3").get_object(Bucket=bucket, Key="processed/a.txt")["Body"].read() == b"ONE"
    assert (
        sagemaker.list_processing_jobs(NameContains=job["ProcessingJobName"])["ProcessingJobSummaries"][0]["ProcessingJobStatus"]
        == "Completed"
    )


def pack(files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for path, text in files.items():
            member = tarfile.TarInfo(path)
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    return buffer.getvalue()


def template(bucket: str, endpoint: str, environment: dict[str, str]) -> dict[str, Any]:
    model = {
        "ExecutionRoleArn": ROLE,
        "PrimaryContainer": {
            "Image": IMAGE.format("serving"),
            "Environment": environment,
            "ModelDataSource": {"S3DataSource": {"S3Uri": f"s3://{bucket}/model/", "S3DataType": "S3Prefix", "CompressionType": "None"}},
        },
    }
    config = {
        "ExecutionRoleArn": ROLE,
        "ProductionVariants": [{"VariantName": "all", "InstanceType": "ml.m5.large", "InitialInstanceCount": "1"}],
    }
    base = {
        "InferenceComponentName": f"{endpoint}--base",
        "EndpointName": {"Fn::GetAtt": ["Endpoint", "EndpointName"]},
        "VariantName": "all",
        "Specification": {
            "ModelName": {"Fn::GetAtt": ["Model", "ModelName"]},
            "ComputeResourceRequirements": {"MinMemoryRequiredInMb": "128", "NumberOfCpuCoresRequired": 1},
        },
        "RuntimeConfig": {"CopyCount": 1},
    }
    return {
        "Resources": {
            "Model": {"Type": "AWS::SageMaker::Model", "Properties": model},
            "Config": {"Type": "AWS::SageMaker::EndpointConfig", "Properties": config},
            "Endpoint": {
                "Type": "AWS::SageMaker::Endpoint",
                "Properties": {"EndpointName": endpoint, "EndpointConfigName": {"Fn::GetAtt": ["Config", "EndpointConfigName"]}},
            },
            "Base": {"Type": "AWS::SageMaker::InferenceComponent", "Properties": base},
            "Group": {"Type": "AWS::SageMaker::ModelPackageGroup", "Properties": {"ModelPackageGroupName": f"{endpoint}-group"}},
        }
    }


@pytest.fixture(scope="module")
def endpoint(emulator: Emulator, bucket: str) -> str:
    """An endpoint with its base inference component, deployed by CloudFormation."""
    endpoint_name, formation = name("endpoint"), emulator.client("cloudformation")
    formation.create_stack(StackName=endpoint_name, TemplateBody=json.dumps(template(bucket, endpoint_name, {"SM_VLLM_X": "1"})))
    formation.get_waiter("stack_create_complete").wait(StackName=endpoint_name, WaiterConfig={"Delay": 1})
    return endpoint_name


def adapter(emulator: Emulator, bucket: str, endpoint: str, archive: bytes, adapter_name: str | None = None) -> dict[str, Any]:
    """Load an adapter; its description once it is InService or Failed."""
    adapter_name = adapter_name or f"acme--{name('skill')}--v1"
    emulator.client("s3").put_object(Bucket=bucket, Key=f"adapters/{adapter_name}.tar.gz", Body=archive)
    sagemaker = emulator.client("sagemaker")
    container = {"ArtifactUrl": f"s3://{bucket}/adapters/{adapter_name}.tar.gz"}
    sagemaker.create_inference_component(
        InferenceComponentName=adapter_name,
        EndpointName=endpoint,
        Specification={"BaseInferenceComponentName": f"{endpoint}--base", "Container": container},
    )
    description: dict[str, Any] = until(lambda: description_if_settled(emulator, adapter_name))
    return description


def description_if_settled(emulator: Emulator, component: str) -> dict[str, Any] | None:
    """The component's description once it is no longer being created."""
    description: dict[str, Any] = emulator.client("sagemaker").describe_inference_component(InferenceComponentName=component)
    return description if description["InferenceComponentStatus"] != "Creating" else None


def invoke(emulator: Emulator, endpoint: str, component: str, body: dict[str, Any]) -> Any:
    runtime = emulator.client("sagemaker-runtime")
    answer = runtime.invoke_endpoint(
        EndpointName=endpoint, InferenceComponentName=component, ContentType="application/json", Body=json.dumps(body)
    )
    assert answer["ContentType"] == "application/json"
    return json.loads(answer["Body"].read())


def test_the_base_component_serves_the_models_files_with_its_settings(emulator: Emulator, endpoint: str) -> None:
    answer = invoke(emulator, endpoint, f"{endpoint}--base", {"messages": []})
    assert answer == {"asked": {"messages": []}, "adapter": None, "loaded": [], "model": ["config.json"], "settings": "1"}


def test_an_adapter_is_loaded_asked_by_name_and_unloaded(emulator: Emulator, bucket: str, endpoint: str) -> None:
    description = adapter(emulator, bucket, endpoint, pack({"adapter_config.json": "{}", "adapter_model.safetensors": ""}))
    adapter_name = description["InferenceComponentName"]
    assert description["InferenceComponentStatus"] == "InService"
    assert invoke(emulator, endpoint, adapter_name, {})["adapter"] == adapter_name
    sagemaker = emulator.client("sagemaker")
    with pytest.raises(ClientError, match="with adapters on it"):
        sagemaker.delete_inference_component(InferenceComponentName=f"{endpoint}--base")
    sagemaker.delete_inference_component(InferenceComponentName=adapter_name)
    until(lambda: not sagemaker.list_inference_components(NameContains=adapter_name)["InferenceComponents"])
    assert adapter_name not in invoke(emulator, endpoint, f"{endpoint}--base", {})["loaded"]
    with pytest.raises(ClientError, match="not found") as error:
        invoke(emulator, endpoint, adapter_name, {})
    assert error.value.response["Error"]["Code"] == "ValidationError"


def test_a_base_without_copies_has_no_capacity_for_its_adapters_either_until_it_is_given_one(
    emulator: Emulator, bucket: str, endpoint: str
) -> None:
    base, sagemaker = f"{endpoint}--base", emulator.client("sagemaker")
    adapter_name = adapter(emulator, bucket, endpoint, pack({"adapter_config.json": "{}"}))["InferenceComponentName"]

    def scale_to(copies: int) -> bool:
        sagemaker.update_inference_component_runtime_config(InferenceComponentName=base, DesiredRuntimeConfig={"CopyCount": copies})
        if copies:  # which takes as long as the container takes to start
            with pytest.raises(ClientError, match="while it is in status Updating"):
                sagemaker.update_inference_component_runtime_config(InferenceComponentName=base, DesiredRuntimeConfig={"CopyCount": 1})
        description = until(
            lambda: (
                component
                if (component := sagemaker.describe_inference_component(InferenceComponentName=base))["InferenceComponentStatus"]
                == "InService"
                else None
            )
        )
        return bool(description["RuntimeConfig"] == {"DesiredCopyCount": copies, "CurrentCopyCount": copies})

    assert scale_to(0)
    for component in (base, adapter_name):
        with pytest.raises(ClientError, match="has no capacity to process this request") as error:
            invoke(emulator, endpoint, component, {})
        assert error.value.response["Error"]["Code"] == "ValidationError"
    with pytest.raises(ClientError, match="with 0 copies"):
        adapter(emulator, bucket, endpoint, pack({"adapter_config.json": "{}"}))
    assert scale_to(1)
    assert invoke(emulator, endpoint, adapter_name, {})["adapter"] == adapter_name
    sagemaker.delete_inference_component(InferenceComponentName=adapter_name)
    until(lambda: not sagemaker.list_inference_components(NameContains=adapter_name)["InferenceComponents"])


def test_a_stages_adapters_are_listed_loaded_and_unloaded(emulator: Emulator, bucket: str, endpoint: str) -> None:
    """`Adapters` as `tests.fakes.adapters.MemoryAdapters` has it, on SageMaker's own refusals."""
    sagemaker = emulator.client("sagemaker")
    adapters, adapter_name = SageMakerAdapters(endpoint, sagemaker), ids.make_adapter_name(endpoint, "acme", name("skill"), 1)
    emulator.client("s3").put_object(Bucket=bucket, Key="adapters/own.tar.gz", Body=pack({"adapter_config.json": "{}"}))
    others = adapter(emulator, bucket, endpoint, pack({"adapter_config.json": "{}"}))["InferenceComponentName"]
    assert (adapters.base_is_awake(), adapters.find(adapter_name)) == (True, None)
    for _ in range(2):
        adapters.load(adapter_name, f"s3://{bucket}/adapters/own.tar.gz")
    until(lambda: (own := adapters.find(adapter_name)) is not None and own.status == "InService")
    assert [other.name for other in adapters.iterate_loaded()] == [adapter_name]
    with pytest.raises(Conflict, match="does not load the adapter"):
        SageMakerAdapters(f"{endpoint}-gone", sagemaker).load(f"{adapter_name}0", f"s3://{bucket}/adapters/own.tar.gz")
    for _ in range(2):
        adapters.unload(adapter_name)
    until(lambda: adapters.find(adapter_name) is None)
    adapters.unload(adapter_name)
    sagemaker.delete_inference_component(InferenceComponentName=others)
    until(lambda: not sagemaker.list_inference_components(NameContains=others)["InferenceComponents"])


def test_components_are_listed_by_pages(emulator: Emulator, bucket: str, endpoint: str) -> None:
    sagemaker = emulator.client("sagemaker")
    mark = name("paged")
    for number in range(11):
        adapter(emulator, bucket, endpoint, pack({"adapter_config.json": "{}"}), f"acme--{mark}--v{number + 1}")
    first = sagemaker.list_inference_components(NameContains=mark)
    assert (len(first["InferenceComponents"]), "NextToken" in first) == (10, True)
    pages = [*sagemaker.get_paginator("list_inference_components").paginate(NameContains=mark, PaginationConfig={"PageSize": 4})]
    assert [len(page["InferenceComponents"]) for page in pages] == [4, 4, 3]
    for entry in [each for page in pages for each in page["InferenceComponents"]]:
        sagemaker.delete_inference_component(InferenceComponentName=entry["InferenceComponentName"])
    until(lambda: not sagemaker.list_inference_components(NameContains=mark)["InferenceComponents"])


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"adapter_config.json": "{}", "broken": ""}, "rank is too large"),
        ({"weights": ""}, "no adapter_config.json"),
        ({"../../escape": "x"}, "Failed to extract"),
    ],
)
def test_a_bad_adapter_fails_with_its_reason(emulator: Emulator, bucket: str, endpoint: str, files: dict[str, str], reason: str) -> None:
    description = adapter(emulator, bucket, endpoint, pack(files))
    assert description["InferenceComponentStatus"] == "Failed"
    assert reason in description["FailureReason"]
    emulator.client("sagemaker").delete_inference_component(InferenceComponentName=description["InferenceComponentName"])


def test_an_error_of_the_emulators_own_fails_the_adapter_at_once_and_names_the_log(emulator: Emulator, bucket: str, endpoint: str) -> None:
    sagemaker, adapter_name = emulator.client("sagemaker"), name("adapter")
    sagemaker.create_inference_component(
        InferenceComponentName=adapter_name,
        EndpointName=endpoint,
        Specification={"BaseInferenceComponentName": f"{endpoint}--base", "Container": {"ArtifactUrl": f"s3://{bucket}/"}},
    )
    description = until(lambda: description_if_settled(emulator, adapter_name), seconds=10)
    assert description["InferenceComponentStatus"] == "Failed"
    log = emulator.home / "log" / "faults.log"
    assert "ParamValidationError" in description["FailureReason"]
    assert description["FailureReason"].endswith(str(log))
    [fault] = [fault for fault in read_faults(log.parent) if adapter_name in fault]
    assert "Invalid length for parameter Key" in fault
    assert "Traceback" in log.read_text()
    sagemaker.delete_inference_component(InferenceComponentName=adapter_name)


def test_a_container_that_dies_in_service_fails_all_that_lives_in_it_with_its_last_words(emulator: Emulator, bucket: str) -> None:
    endpoint, formation = name("endpoint"), emulator.client("cloudformation")
    formation.create_stack(StackName=endpoint, TemplateBody=json.dumps(template(bucket, endpoint, {})))
    formation.get_waiter("stack_create_complete").wait(StackName=endpoint, WaiterConfig={"Delay": 1})
    adapter_name = adapter(emulator, bucket, endpoint, pack({"adapter_config.json": "{}"}))["InferenceComponentName"]
    with pytest.raises(ClientError, match="ServiceUnavailable"):
        invoke(emulator, endpoint, adapter_name, {"exit": 3})
    for component in (f"{endpoint}--base", adapter_name):
        description = until(
            lambda component=component: (
                state if (state := description_if_settled(emulator, component)) and "FailureReason" in state else None
            )
        )
        assert description["InferenceComponentStatus"] == "Failed"
        assert "no memory left for the cache" in description["FailureReason"]
        assert description["FailureReason"].endswith(f"endpoint-{endpoint}--base.log")
    emulator.client("sagemaker").delete_inference_component(InferenceComponentName=adapter_name)
    until(lambda: not emulator.client("sagemaker").list_inference_components(NameContains=adapter_name)["InferenceComponents"])
    formation.delete_stack(StackName=endpoint)
    formation.get_waiter("stack_delete_complete").wait(StackName=endpoint, WaiterConfig={"Delay": 1})


def test_the_models_own_errors_come_as_model_errors(emulator: Emulator, endpoint: str) -> None:
    with pytest.raises(emulator.client("sagemaker-runtime").exceptions.ClientError) as error:
        invoke(emulator, endpoint, f"{endpoint}--base", {"fail": 400})
    assert error.value.response["Error"]["Code"] == "ModelError"
    assert error.value.response["OriginalStatusCode"] == 400
    assert "asked to" in error.value.response["OriginalMessage"]


def test_an_answer_streams_as_payload_parts(emulator: Emulator, endpoint: str) -> None:
    answer = emulator.client("sagemaker-runtime").invoke_endpoint_with_response_stream(
        EndpointName=endpoint, InferenceComponentName=f"{endpoint}--base", ContentType="application/json", Body=json.dumps({"stream": True})
    )
    assert answer["ContentType"] == "text/event-stream"
    parts = [event["PayloadPart"]["Bytes"] for event in answer["Body"]]
    assert b"".join(parts) == b"data: one\n\ndata: two\n\ndata: [DONE]\n\n"
    assert len(parts) == 3


def make_role(emulator: Emulator, *, models: str = "arn:aws:sagemaker:*:*:*") -> str:
    """The ARN of a role that may ask the models `asks` by bearer token."""
    iam, role = emulator.client("iam"), name("role")
    trust = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}]}
    arn: str = iam.create_role(RoleName=role, AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
    statements = [
        {"Effect": "Allow", "Action": ["sagemaker:InvokeEndpoint", "sagemaker:InvokeEndpointWithResponseStream"], "Resource": models},
        {"Effect": "Allow", "Action": "sagemaker:CallWithBearerToken", "Resource": "*"},
    ]
    iam.put_role_policy(RoleName=role, PolicyName="ask", PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": statements}))
    return arn


def test_a_grant_asks_its_own_model_and_no_other(emulator: Emulator, bucket: str, endpoint: str) -> None:
    theirs = adapter(emulator, bucket, endpoint, pack({"adapter_config.json": "{}"}))["InferenceComponentName"]
    grants = ModelGrants(make_role(emulator), sts=emulator.client("sts"), runtime_url=emulator.url)
    grant = grants.make(SageMakerBackend(endpoint=endpoint, component=f"{endpoint}--base"), tenant_id="acme", now=datetime.now(UTC))

    def status_of(component: str) -> int:
        url = f"{emulator.url}/endpoints/{endpoint}/inference-components/{component}/openai/v1/chat/completions"
        body = {"model": "", "messages": [{"role": "user", "content": "hello"}]}
        return httpx.post(url, json=body, headers={"Authorization": f"Bearer {grant.api_key}"}).status_code

    assert (status_of(f"{endpoint}--base"), status_of(theirs)) == (200, 403)
    emulator.client("sagemaker").delete_inference_component(InferenceComponentName=theirs)


def test_what_sts_lent_invokes_what_its_role_and_its_session_allow(emulator: Emulator, endpoint: str) -> None:
    arn = f"arn:aws:sagemaker:us-east-1:000000000000:endpoint/{endpoint}"
    policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sagemaker:InvokeEndpoint", "Resource": arn.lower()}]}
    for session in ({}, {"Policy": json.dumps(policy)}):
        lease = emulator.client("sts").assume_role(RoleArn=make_role(emulator), RoleSessionName="session", **session)["Credentials"]
        runtime = boto3.client(
            "sagemaker-runtime",
            endpoint_url=emulator.url,
            region_name="us-east-1",
            aws_access_key_id=lease["AccessKeyId"],
            aws_secret_access_key=lease["SecretAccessKey"],
            aws_session_token=lease["SessionToken"],
        )
        ask = partial(runtime.invoke_endpoint, EndpointName=endpoint, InferenceComponentName=f"{endpoint}--base", Body="{}")
        if not session:
            assert ask()["ResponseMetadata"]["HTTPStatusCode"] == 200
            continue
        with pytest.raises(ClientError) as error:  # the session's policy names the endpoint alone
            ask()
        assert error.value.response["Error"]["Code"] == "AccessDeniedException"


def test_an_openai_client_asks_a_component_with_a_token_and_nobody_without(emulator: Emulator, endpoint: str) -> None:
    grants = ModelGrants(make_role(emulator), sts=emulator.client("sts"), runtime_url=emulator.url)
    backend = SageMakerBackend(endpoint=endpoint, component=f"{endpoint}--base")
    grant = grants.make(backend, tenant_id="acme", now=datetime.now(UTC))
    body = {"model": "", "messages": [{"role": "user", "content": "hello"}]}
    url = f"{grant.base_url}/chat/completions"
    answer = httpx.post(url, json=body, headers={"Authorization": f"Bearer {grant.api_key}"})
    assert answer.status_code == 200, answer.text
    stream_answer = httpx.post(url, json={**body, "stream": True}, headers={"Authorization": f"Bearer {grant.api_key}"})
    assert stream_answer.headers["content-type"].startswith("text/event-stream")
    assert httpx.post(url, json=body, headers={"Authorization": "Bearer nonsense"}).status_code == 403
    for key in ("ASIAAAAAAAAAAAAAAAAA", "000000000000", "test"):
        token = _bearer_token(Credentials(key, "guessed", "guessed"), "us-east-1")
        assert httpx.post(url, json=body, headers={"Authorization": f"Bearer {token}"}).status_code == 403
    old = grants.make(backend, tenant_id="acme", now=datetime.now(UTC)).api_key
    text = base64.b64decode(old.removeprefix("sagemaker-api-key-")).decode()
    late = re.sub(r"X-Amz-Date=2\d{3}", "X-Amz-Date=2020", text)
    token = f"sagemaker-api-key-{base64.b64encode(late.encode()).decode()}"
    assert httpx.post(url, json=body, headers={"Authorization": f"Bearer {token}"}).status_code == 403


def test_a_changed_model_starts_the_base_anew_and_gives_it_its_adapters_back(emulator: Emulator, bucket: str) -> None:
    endpoint, formation = name("endpoint"), emulator.client("cloudformation")
    formation.create_stack(StackName=endpoint, TemplateBody=json.dumps(template(bucket, endpoint, {"SM_VLLM_X": "1"})))
    formation.get_waiter("stack_create_complete").wait(StackName=endpoint, WaiterConfig={"Delay": 1})
    adapter_name = adapter(emulator, bucket, endpoint, pack({"adapter_config.json": "{}"}))["InferenceComponentName"]
    formation.update_stack(StackName=endpoint, TemplateBody=json.dumps(template(bucket, endpoint, {"SM_VLLM_X": "2"})))
    formation.get_waiter("stack_update_complete").wait(StackName=endpoint, WaiterConfig={"Delay": 1})
    answer = invoke(emulator, endpoint, adapter_name, {})
    assert (answer["settings"], answer["loaded"]) == ("2", [adapter_name])
    emulator.client("sagemaker").delete_inference_component(InferenceComponentName=adapter_name)
    until(lambda: not emulator.client("sagemaker").list_inference_components(NameContains=adapter_name)["InferenceComponents"])
    formation.delete_stack(StackName=endpoint)
    formation.get_waiter("stack_delete_complete").wait(StackName=endpoint, WaiterConfig={"Delay": 1})
    assert not emulator.client("sagemaker").list_endpoints(NameContains=endpoint)["Endpoints"]


def test_a_container_that_dies_fails_its_stack_with_its_last_words(emulator: Emulator, bucket: str) -> None:
    endpoint, formation = name("endpoint"), emulator.client("cloudformation")
    formation.create_stack(StackName=endpoint, TemplateBody=json.dumps(template(bucket, endpoint, {"SM_VLLM_CRASH": "1"})))
    until(lambda: formation.describe_stacks(StackName=endpoint)["Stacks"][0]["StackStatus"] == "ROLLBACK_COMPLETE")
    reasons = [event.get("ResourceStatusReason", "") for event in formation.describe_stack_events(StackName=endpoint)["StackEvents"]]
    assert any("no memory left for the cache" in reason for reason in reasons)


def run(emulator: Emulator, state: dict[str, Any]) -> dict[str, Any]:
    """Run a state machine of one task; the execution's description."""
    states = emulator.client("stepfunctions")
    definition = {"QueryLanguage": "JSONata", "StartAt": "Task", "States": {"Task": {"Type": "Task", "End": True, **state}}}
    machine = states.create_state_machine(name=name("machine"), definition=json.dumps(definition), roleArn=ROLE)["stateMachineArn"]
    execution = states.start_execution(stateMachineArn=machine, input="{}")["executionArn"]
    description: dict[str, Any] = until(
        lambda: answer if (answer := states.describe_execution(executionArn=execution))["status"] != "RUNNING" else None
    )
    return description


def test_a_state_machine_waits_for_its_job_and_gets_its_description(emulator: Emulator, bucket: str) -> None:
    job = training_job(bucket)
    job["StoppingCondition"] = {"MaxRuntimeInSeconds": "{% $number('60') %}"}
    execution = run(emulator, {"Resource": "arn:aws:states:::sagemaker:createTrainingJob.sync", "Arguments": job})
    assert execution["status"] == "SUCCEEDED", execution
    output = json.loads(execution["output"])
    assert output["TrainingJobStatus"] == "Completed"
    assert output["ModelArtifacts"]["S3ModelArtifacts"].endswith("/output/model.tar.gz")


def test_a_failed_job_fails_its_task_with_its_description_as_cause(emulator: Emulator, bucket: str) -> None:
    job = processing_job(bucket, "do=fail", "reason=nothing to read")
    execution = run(emulator, {"Resource": "arn:aws:states:::sagemaker:createProcessingJob.sync", "Arguments": job})
    assert execution["error"] == "States.TaskFailed"
    description = json.loads(execution["cause"])
    assert (description["FailureReason"], description["ExitMessage"]) == ("AlgorithmError: , exit code: 1", "nothing to read")


def test_a_processing_jobs_message_is_shown_up_to_a_kilobyte_and_has_to_be_utf_8(emulator: Emulator, bucket: str) -> None:
    for words, message in (("reason=€ times=600", "€" * 341), ("reason=é encoding=latin-1", None)):
        job = processing_job(bucket, "do=fail", *words.split())
        task = {"Resource": "arn:aws:states:::sagemaker:createProcessingJob.sync", "Arguments": job}
        description = json.loads(run(emulator, task)["cause"])
        assert description.get("ExitMessage") == message
        assert description["FailureReason"].startswith("AlgorithmError" if message else "ClientError")


def test_a_task_that_times_out_stops_its_job(emulator: Emulator, bucket: str) -> None:
    job = training_job(bucket, HyperParameters={"do": "sleep"})
    task = {"Resource": "arn:aws:states:::sagemaker:createTrainingJob.sync", "Arguments": job, "TimeoutSeconds": 2}
    assert run(emulator, task)["error"] == "States.Timeout"
    assert wait_until_ended(emulator, job["TrainingJobName"])["TrainingJobStatus"] == "Stopped"


def test_errors_have_the_names_step_functions_gives_them(emulator: Emulator, bucket: str) -> None:
    job = training_job(bucket)
    emulator.client("sagemaker").create_training_job(**job)
    execution = run(emulator, {"Resource": "arn:aws:states:::sagemaker:createTrainingJob.sync", "Arguments": job})
    assert execution["error"] == "SageMaker.ResourceInUseException"
    unknown = {
        "Resource": "arn:aws:states:::aws-sdk:sagemaker:describeInferenceComponent",
        "Arguments": {"InferenceComponentName": "nobody"},
    }
    assert run(emulator, unknown)["error"] == "SageMaker.SageMakerException"


def test_a_state_machine_describes_a_component_through_the_sdk(emulator: Emulator, endpoint: str) -> None:
    task = {
        "Resource": "arn:aws:states:::aws-sdk:sagemaker:describeInferenceComponent",
        "Arguments": {"InferenceComponentName": f"{endpoint}--base"},
    }
    description = json.loads(run(emulator, task)["output"])
    assert (description["InferenceComponentStatus"], description["RuntimeConfig"]["CurrentCopyCount"]) == ("InService", 1)


def test_an_archive_is_made_from_a_template(emulator: Emulator) -> None:
    formation, stack = emulator.client("cloudformation"), name("archive")
    properties = {
        "ArchiveName": stack,
        "SourceArn": "arn:aws:events:us-east-1:000000000000:event-bus/default",
        "EventPattern": {"source": ["rlaas"]},
    }
    body = {"Resources": {"Archive": {"Type": "AWS::Events::Archive", "Properties": properties}}}
    formation.create_stack(StackName=stack, TemplateBody=json.dumps(body))
    formation.get_waiter("stack_create_complete").wait(StackName=stack, WaiterConfig={"Delay": 1})
    assert json.loads(emulator.client("events").describe_archive(ArchiveName=stack)["EventPattern"]) == {"source": ["rlaas"]}


def test_a_state_machines_logging_is_what_its_template_says(emulator: Emulator) -> None:
    formation, stack = emulator.client("cloudformation"), name("machine")
    machine = {
        "StateMachineName": stack,
        "RoleArn": ROLE,
        "DefinitionString": json.dumps({"StartAt": "A", "States": {"A": {"Type": "Succeed"}}}),
        "LoggingConfiguration": {
            "Level": "ALL",
            "IncludeExecutionData": False,
            "Destinations": [{"CloudWatchLogsLogGroup": {"LogGroupArn": "arn:aws:logs:us-east-1:000000000000:log-group:x:*"}}],
        },
    }
    resources = {"M": {"Type": "AWS::StepFunctions::StateMachine", "Properties": machine}}
    formation.create_stack(StackName=stack, TemplateBody=json.dumps({"Resources": resources}))
    formation.get_waiter("stack_create_complete").wait(StackName=stack, WaiterConfig={"Delay": 1})
    arn = f"arn:aws:states:us-east-1:000000000000:stateMachine:{stack}"
    description = emulator.client("stepfunctions").describe_state_machine(stateMachineArn=arn)["loggingConfiguration"]
    assert description["level"] == "ALL"
    assert description["destinations"][0]["cloudWatchLogsLogGroup"]["logGroupArn"].endswith("log-group:x:*")


def test_the_jobs_logs_get_an_end_once_they_are_there(emulator: Emulator, bucket: str) -> None:
    job = training_job(bucket)
    emulator.client("sagemaker").create_training_job(**job)
    wait_until_ended(emulator, job["TrainingJobName"])
    states = read_definition("compaction")["States"]
    limit = {field: states["LimitTrainingLogs"][field] for field in ("Resource", "Arguments")}
    assert run(emulator, limit)["status"] == "SUCCEEDED"
    group = limit["Arguments"]["LogGroupName"]
    [log_group] = emulator.client("logs").describe_log_groups(logGroupNamePrefix=group)["logGroups"]
    assert log_group["retentionInDays"] == limit["Arguments"]["RetentionInDays"]
    emulator.client("logs").delete_log_group(logGroupName=group)
    assert run(emulator, limit)["error"] == "CloudWatchLogs.ResourceNotFoundException"


def test_the_demo_knows_where_an_execution_is_and_why_it_ended(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    for setting, value in {"ENDPOINT_URL": emulator.url, "REGION": "us-east-1", "DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{setting}", value)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    sdk = "arn:aws:states:::aws-sdk:sagemaker"
    looks = {
        "Look": {
            "Type": "Task",
            "Resource": f"{sdk}:listInferenceComponents",
            "Arguments": {},
            "Output": "{% $states.input %}",
            "Next": "Last",
        },
        "Last": {"Type": "Choice", "Choices": [{"Condition": "{% $states.input = 40 %}", "Next": "Nobody"}], "Default": "Done"},
        "Nobody": {
            "Type": "Task",
            "Resource": f"{sdk}:describeInferenceComponent",
            "Arguments": {"InferenceComponentName": "nobody"},
            "End": True,
        },
        "Done": {"Type": "Succeed"},
    }
    load = {
        "Type": "Map",
        "Items": "{% [1..40] %}",
        "MaxConcurrency": 1,
        "ItemProcessor": {"ProcessorConfig": {"Mode": "INLINE"}, "StartAt": "Look", "States": looks},
        "End": True,
    }
    definition = {"QueryLanguage": "JSONata", "StartAt": "LoadAdapters", "States": {"LoadAdapters": load}}
    states, stage = emulator.client("stepfunctions"), name("stage")
    machine = states.create_state_machine(name=f"rlaas-{stage}-learning", definition=json.dumps(definition), roleArn=ROLE)
    states.start_execution(stateMachineArn=machine["stateMachineArn"], name="run_1", input="{}")
    stack = DeployedStack(stage=stage, tenant_id="acme")
    failure = until(lambda: stack.find_failure("learning", "run_1"))
    assert failure.startswith("FAILED: SageMaker.SageMakerException: Could not find")
    assert stack.find_current_state("learning", "run_1") == "LoadAdapters"
