"""Learning runs: dataset -> training -> evaluation -> decision, as SageMaker jobs that a state machine calls."""

from collections.abc import Sequence

from aws_cdk import Duration, Stack
from aws_cdk import aws_iam as iam
from constructs import Construct

from infra.acknowledge import acknowledge_wildcards
from infra.config import StageConfig
from infra.constructs.event_lake import EventLake
from infra.constructs.failures import find_failure_queue
from infra.constructs.held_out_asker import HeldOutAsker
from infra.constructs.image_repository import ImageRepository
from infra.constructs.private_bucket import PrivateBucket
from infra.constructs.python_function import PythonFunction
from infra.constructs.sagemaker_role import SageMakerRole
from infra.constructs.state_machine import StateMachine
from infra.constructs.tenant_table import TenantTable
from infra.constructs.vllm_endpoint import ADAPTERS_ARE_DATA, TARGETS_HAVE_NO_NAMES, VllmEndpoint
from rlaas.runtime.environment import LearningEnvironment

# The rules by which Step Functions learns that a job has ended (`.sync`); it makes them itself under these names.
_SYNC_RULES = ("StepFunctionsGetEventsForSageMakerTrainingJobsRule", "StepFunctionsGetEventsForSageMakerProcessingJobsRule")


class LearningPipeline(Construct):
    """The state machine `rlaas-<stage>-learning` and what it calls."""

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        config: StageConfig,
        registry: TenantTable,
        artifacts: PrivateBucket,
        lake: EventLake,
        images: ImageRepository,
        endpoint: VllmEndpoint,
    ) -> None:
        super().__init__(scope, id)
        learning = config.learning
        dataset, train, evaluate = self._job_roles(artifacts=artifacts, lake=lake, images=images)
        self.steps = PythonFunction(
            self,
            "Steps",
            config=config,
            name="learning_steps",
            description="Begins, decides and closes learning runs",
            environment=LearningEnvironment.model_construct(
                stage=config.name,
                registry_table=registry.table_name,
                artifacts_bucket=artifacts.bucket_name,
                lake_bucket=lake.bucket.bucket_name,
                endpoint_name=endpoint.endpoint_name,
                base_model=endpoint.base_model,
                learning_settings=dict(learning.settings),
            ),
            timeout=Duration.seconds(30),
        )
        self.steps.allow("dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:Query", on=[registry.table_arn])
        self.steps.allow(
            "s3:GetObject", on=[artifacts.objects("tenants/*")], wildcard_because="Each run's report is data under its tenant's prefix."
        )
        self.steps.allow("s3:ListBucket", on=[artifacts.bucket_arn])  # without it, S3 answers 403 for a missing report
        self.asker = HeldOutAsker(self, "Asker", config=config, artifacts=artifacts, endpoint=endpoint).function
        self.state_machine = StateMachine(
            self,
            "StateMachine",
            config=config,
            name="learning",
            substitutions={
                "LearningStepsFunctionArn": self.steps.target.function_arn,
                "LakeDatabase": lake.database_name,
                "LakeWorkgroup": lake.workgroup_name,
                "AskHeldOutFunctionArn": self.asker.target.function_arn,
                "DatasetRoleArn": dataset.role_arn,
                "TrainRoleArn": train.role_arn,
                "EvaluateRoleArn": evaluate.role_arn,
                "LearningImageUri": images.image(learning.image_tag),
                "EndpointName": endpoint.endpoint_name,
                "ScaleToZero": "true" if config.serving.scale_to_zero else "false",
                "TrainingInstanceType": learning.training_instance_type,
                "TrainingVolumeGib": str(learning.training_volume_gib),
                "TrainingMaxSeconds": str(learning.training_max_seconds),
                "ProcessingInstanceType": learning.processing_instance_type,
                "ProcessingVolumeGib": str(learning.processing_volume_gib),
                "ProcessingMaxSeconds": str(learning.processing_max_seconds),
                "ComponentPollSeconds": str(learning.component_poll_seconds),
            },
        )
        self.state_machine.allow_invoke(self.steps.target)
        self.state_machine.allow_invoke(self.asker.target)
        self.failures = find_failure_queue(self, config)
        self.state_machine.close_by(self.steps, failures=self.failures)
        self._allow_selections(lake)
        self._allow_jobs(config, roles=[dataset, train, evaluate], endpoint=endpoint)

    def _allow_selections(self, lake: EventLake) -> None:
        """Allow the state machine to have Athena write events to files. Athena reads the table and the files, and
        writes results, with the rights of its caller.

        At the location of results it needs the actions that AWS's guides list.
        """
        stack = Stack.of(self)
        events, answers = lake.bucket.objects("events/*"), lake.bucket.objects("athena/*")
        catalog = stack.format_arn(service="athena", resource="datacatalog", resource_name="AwsDataCatalog")
        query = [f"athena:{verb}QueryExecution" for verb in ("Start", "Get", "Stop")]
        write = ["s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"]
        list_bucket = ["s3:GetBucketLocation", "s3:ListBucket", "s3:ListBucketMultipartUploads"]
        for actions, resources in (
            (query, [lake.workgroup_arn]),
            (["athena:GetDataCatalog"], [catalog]),
            (["glue:GetDatabase", "glue:GetTable", "glue:GetPartitions"], lake.catalog_arns),
            (["s3:GetObject"], [events]),
            (write, [answers]),
            (list_bucket, [lake.bucket.bucket_arn]),
        ):
            self.state_machine.add_to_role_policy(iam.PolicyStatement(actions=actions, resources=resources))
        acknowledge_wildcards(self.state_machine, [events, answers], "The lake's files are data, and so are those that Athena writes.")

    def _allow_jobs(self, config: StageConfig, *, roles: Sequence[iam.IRole], endpoint: VllmEndpoint) -> None:
        """Allow the state machine to start this stage's jobs, with the jobs' roles, and to load adapters on this
        stage's endpoint."""
        stack = Stack.of(self)
        machine = self.state_machine
        job_arns = [
            stack.format_arn(service="sagemaker", resource=kind, resource_name=f"{config.prefix}-*")
            for kind in ("training-job", "processing-job")
        ]
        for statement in (
            iam.PolicyStatement(
                actions=[
                    *(f"sagemaker:{verb}{kind}Job" for verb in ("Create", "Describe", "Stop") for kind in ("Training", "Processing")),
                    "sagemaker:AddTags",
                ],
                resources=job_arns,
            ),
            iam.PolicyStatement(
                actions=["iam:PassRole"],
                resources=[role.role_arn for role in roles],
                conditions={"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}},
            ),
            iam.PolicyStatement(
                actions=["events:PutTargets", "events:PutRule", "events:DescribeRule"],
                resources=[stack.format_arn(service="events", resource="rule", resource_name=name) for name in _SYNC_RULES],
            ),
            iam.PolicyStatement(
                actions=["sagemaker:CreateInferenceComponent", "sagemaker:DescribeInferenceComponent"], resources=endpoint.arns
            ),
            iam.PolicyStatement(actions=["sagemaker:DeleteInferenceComponent"], resources=[endpoint.adapter_arns]),
            *endpoint.copies_statements(),
        ):
            machine.add_to_role_policy(statement)
        acknowledge_wildcards(machine, job_arns, "Jobs are named when they begin; the prefix holds them to this stage.")
        acknowledge_wildcards(machine, endpoint.arns, ADAPTERS_ARE_DATA)
        for statement in endpoint.copies_statements():
            acknowledge_wildcards(machine, statement.resources, TARGETS_HAVE_NO_NAMES)

    def _job_roles(
        self, *, artifacts: PrivateBucket, lake: EventLake, images: ImageRepository
    ) -> tuple[SageMakerRole, SageMakerRole, SageMakerRole]:
        """The roles for building a dataset, for training and for evaluation: what SageMaker may read and write for
        each.

        The containers of these jobs have no credentials: SageMaker downloads what they read and uploads what they write
        (decision 38).
        """
        datasets, runs = artifacts.objects("tenants/*/datasets/*"), artifacts.objects("tenants/*/runs/*")
        data = "The objects are data: base models, each run's events, dataset and adapters. The prefix is what can be named."

        dataset = self._job_role(
            "DatasetRole", "What SageMaker may do for building a dataset, whose container is isolated", "Processing", images
        )
        dataset.allow("s3:GetObject", on=[lake.bucket.objects("athena/unload/*")], wildcard_because=data)
        dataset.allow("s3:PutObject", "s3:AbortMultipartUpload", on=[datasets], wildcard_because=data)
        dataset.allow("s3:ListBucket", "s3:GetBucketLocation", on=[artifacts.bucket_arn, lake.bucket.bucket_arn])

        train = self._job_role("TrainRole", "What SageMaker may do for training, whose container is isolated", "Training", images)
        train.allow("s3:GetObject", on=[artifacts.objects("models/*"), datasets], wildcard_because=data)
        train.allow("s3:PutObject", "s3:AbortMultipartUpload", on=[runs], wildcard_because=data)
        train.allow("s3:ListBucket", "s3:GetBucketLocation", on=[artifacts.bucket_arn])

        evaluate = self._job_role("EvaluateRole", "What SageMaker may do for evaluation, whose container is isolated", "Processing", images)
        evaluate.allow("s3:GetObject", on=[datasets, artifacts.objects("tenants/*/runs/*/answers/*")], wildcard_because=data)
        evaluate.allow(
            "s3:PutObject", "s3:AbortMultipartUpload", on=[artifacts.objects("tenants/*/runs/*/evaluation/*")], wildcard_because=data
        )
        evaluate.allow("s3:ListBucket", "s3:GetBucketLocation", on=[artifacts.bucket_arn])
        return dataset, train, evaluate

    def _job_role(self, id: str, description: str, kind: str, images: ImageRepository) -> SageMakerRole:
        return SageMakerRole(self, id, description=description, images=images, log_groups=[f"/aws/sagemaker/{kind}Jobs*"])
