"""The lake's daily compaction: a schedule -> a state machine -> one SageMaker processing job."""

from aws_cdk import ArnFormat, Duration, Stack
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_iam as iam
from constructs import Construct

from infra.acknowledge import acknowledge_wildcards
from infra.config import StageConfig
from infra.constructs.event_lake import EventLake
from infra.constructs.failures import find_failure_queue
from infra.constructs.image_repository import ImageRepository
from infra.constructs.sagemaker_role import SageMakerRole
from infra.constructs.state_machine import StateMachine

# The rule by which Step Functions learns that a job has ended (`.sync`); it makes the rule itself under this name.
_SYNC_RULE = "StepFunctionsGetEventsForSageMakerProcessingJobsRule"


class Compaction(Construct):
    """The state machine `rlaas-<stage>-compaction`, started every day at 03:30 UTC, hours after the last events of the
    day before were delivered."""

    def __init__(self, scope: Construct, id: str, *, config: StageConfig, lake: EventLake, images: ImageRepository) -> None:
        super().__init__(scope, id)
        learning = config.learning
        job = self._job_role(lake=lake, images=images)
        self.state_machine = StateMachine(
            self,
            "StateMachine",
            config=config,
            name="compaction",
            substitutions={
                "Prefix": config.prefix,
                "LakeBucket": lake.bucket.fixed_name,
                "SageMakerRoleArn": job.role_arn,
                "LearningImageUri": images.image(learning.image_tag),
                "Region": Stack.of(self).region,
                "ProcessingInstanceType": learning.processing_instance_type,
                "ProcessingVolumeGib": str(learning.processing_volume_gib),
                "ProcessingMaxSeconds": str(learning.processing_max_seconds),
            },
        )
        self._allow_job(config, job)
        self.failures = find_failure_queue(self, config)
        events.Rule(
            self,
            "Daily",
            description="The lake's small files of past days become large ones",
            schedule=events.Schedule.cron(hour="3", minute="30"),
            targets=[
                targets.SfnStateMachine(
                    self.state_machine, dead_letter_queue=self.failures, retry_attempts=10, max_event_age=Duration.hours(12)
                )
            ],
        )

    def _allow_job(self, config: StageConfig, role: iam.IRole) -> None:
        """Allow the state machine to start compaction jobs of this stage with `role`, and to set how long the jobs'
        logs are kept."""
        stack = Stack.of(self)
        jobs = stack.format_arn(service="sagemaker", resource="processing-job", resource_name=f"{config.prefix}-compaction-*")
        logs = [
            stack.format_arn(
                service="logs", resource="log-group", resource_name=f"/aws/sagemaker/{kind}Jobs:*", arn_format=ArnFormat.COLON_RESOURCE_NAME
            )
            for kind in ("Processing", "Training")
        ]
        for statement in (
            iam.PolicyStatement(
                actions=[*(f"sagemaker:{verb}ProcessingJob" for verb in ("Create", "Describe", "Stop")), "sagemaker:AddTags"],
                resources=[jobs],
            ),
            iam.PolicyStatement(
                actions=["iam:PassRole"],
                resources=[role.role_arn],
                conditions={"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}},
            ),
            iam.PolicyStatement(
                actions=["events:PutTargets", "events:PutRule", "events:DescribeRule"],
                resources=[stack.format_arn(service="events", resource="rule", resource_name=_SYNC_RULE)],
            ),
            iam.PolicyStatement(actions=["logs:PutRetentionPolicy"], resources=logs),
        ):
            self.state_machine.add_to_role_policy(statement)
        acknowledge_wildcards(self.state_machine, [jobs], "Jobs are named after when they begin; the prefix holds them to this stage.")
        acknowledge_wildcards(self.state_machine, logs, "IAM takes a log group as its name and `:*`; it is one group all the same.")

    def _job_role(self, *, lake: EventLake, images: ImageRepository) -> SageMakerRole:
        """The role of the job's container: it may list the lake, and read, write and delete its event files."""
        role = SageMakerRole(
            self, "JobRole", description="What the lake's compaction may do", images=images, log_groups=["/aws/sagemaker/ProcessingJobs*"]
        )
        role.allow(
            "s3:GetObject",
            "s3:PutObject",
            "s3:DeleteObject",
            on=[lake.bucket.objects("events/*")],
            wildcard_because="Event files are data; the prefix is what can be named.",
        )
        role.allow("s3:ListBucket", on=[lake.bucket.bucket_arn])
        return role
