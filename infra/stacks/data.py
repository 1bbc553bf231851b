"""The stack of what must not be lost: tables, lake, artifacts, images; and the functions that read the tables'
streams."""

from aws_cdk import Duration
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_s3 as s3
from constructs import Construct

from infra.acknowledge import acknowledge
from infra.config import StageConfig
from infra.constructs.event_lake import EventLake, filter_new_events
from infra.constructs.failures import Failures
from infra.constructs.follow_ups import FollowUps
from infra.constructs.image_repository import ImageRepository
from infra.constructs.private_bucket import PrivateBucket
from infra.constructs.python_function import PythonFunction
from infra.constructs.shadows import ShadowQueue
from infra.constructs.tenant_table import TenantTable
from infra.stacks.rlaas_stack import RlaasStack
from rlaas.runtime.environment import AuditEnvironment, RewardEnvironment

_LANES = 10
"""Calls at the same time for one shard, each with its own partition keys in order: an interaction's events, a tenant's
records."""


class DataStack(RlaasStack):
    """The stateful stack: its resources stay when it is deleted (except on the laptop), and a test checks that their
    logical ids do not change."""

    def __init__(self, scope: Construct, *, config: StageConfig) -> None:
        super().__init__(scope, "data", config=config)
        self.registry = TenantTable(
            self,
            "Registry",
            config=config,
            name="registry",
            stream=dynamodb.StreamViewType.NEW_AND_OLD_IMAGES,
            indexes={"trials": ("gsi_trial", "pk")},
        )
        self.events = TenantTable(
            self,
            "Events",
            config=config,
            name="events",
            expires_at="expires_at",
            stream=dynamodb.StreamViewType.NEW_IMAGE,
            indexes={
                "by_day": ("gsi_day", "received_at"),
                "by_trial": ("gsi_trial", "decided_at"),
                "by_unit": ("gsi_unit", "decided_at"),
            },
        )
        self.counters = TenantTable(self, "Counters", config=config, name="counters", expires_at="expires_at")
        self.audit = TenantTable(self, "Audit", config=config, name="audit")

        access_logs = PrivateBucket(
            self,
            "AccessLogs",
            config=config,
            name="access-logs",
            access_logs=None,
            lifecycle=(s3.LifecycleRule(id="forget", expiration=Duration.days(90)),),
        )
        acknowledge(access_logs, "This bucket is itself where the access logs go.", "AwsSolutions-S1")
        self.artifacts = PrivateBucket(self, "Artifacts", config=config, name="artifacts", access_logs=access_logs)
        self.failures = Failures(self, "Failures", config=config, access_logs=access_logs)
        self.lake = EventLake(self, "Lake", config=config, events=self.events, failures=self.failures, access_logs=access_logs)
        self.learning_images = ImageRepository(self, "LearningImages", config=config, name="rlaas-learning")
        self.serving_images = ImageRepository(self, "ServingImages", config=config, name="rlaas-vllm")

        self.shadow_queue = ShadowQueue(self, "ShadowQueue", config=config)
        self.shadow_queue.allow_sending(self.lake.writer, ledger=self.counters)
        self.reward_writer = self._reward_writer()
        self.follow_ups = FollowUps(self, "FollowUps", config=config, writer=self.reward_writer, failures=self.failures)
        self.audit_writer = self._audit_writer()
        self.reward_writer.read_stream_of(
            self.events,
            filters=[filter_new_events("interaction", "output", "feedback", "task_result")],
            batch_size=100,
            batching=Duration.seconds(0),
            failures=self.failures,
            lanes=_LANES,
        )
        self.audit_writer.read_stream_of(
            self.registry,
            filters=[{"dynamodb": {"Keys": {"pk": {"S": [{"prefix": "T#"}]}}}}],
            batch_size=100,
            batching=Duration.seconds(0),
            failures=self.failures,
            lanes=_LANES,
        )

    def _reward_writer(self) -> PythonFunction:
        writer = PythonFunction(
            self,
            "RewardWriter",
            config=self.config,
            name="reward_writer",
            description="Turns feedback into rewards and outputs into usage",
            environment=RewardEnvironment.model_construct(
                stage=self.config.name,
                counters_table=self.counters.table_name,
                events_table=self.events.table_name,
                registry_table=self.registry.table_name,
                event_ttl_days=self.config.event_ttl_days,
                failures_bucket=self.failures.bucket.bucket_name,
            ),
            timeout=Duration.minutes(1),
        )
        writer.allow("dynamodb:GetItem", on=[self.registry.table_arn])
        writer.allow("dynamodb:PutItem", "dynamodb:UpdateItem", on=[self.counters.table_arn])
        writer.allow(
            *("dynamodb:Query", "dynamodb:GetItem", "dynamodb:BatchGetItem", "dynamodb:PutItem", "dynamodb:UpdateItem"),
            on=[self.events.table_arn],
        )
        return writer

    def _audit_writer(self) -> PythonFunction:
        writer = PythonFunction(
            self,
            "AuditWriter",
            config=self.config,
            name="audit_writer",
            description="Appends every change of the registry to its tenant's audit chain",
            environment=AuditEnvironment.model_construct(stage=self.config.name, audit_table=self.audit.table_name),
            timeout=Duration.minutes(1),
        )
        # Append-only: it may put entries, and read them to find the chain's end, but not update or delete them.
        writer.allow("dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:Query", on=[self.audit.table_arn])
        return writer
