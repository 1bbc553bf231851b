"""Bandits' shares: a schedule -> a function that writes routes."""

from aws_cdk import Duration
from aws_cdk import aws_events as rules
from aws_cdk import aws_events_targets as targets
from constructs import Construct

from infra.config import StageConfig
from infra.constructs.failures import find_failure_queue
from infra.constructs.python_function import PythonFunction
from infra.constructs.tenant_table import TenantTable
from rlaas.runtime.environment import AllocationEnvironment

EVERY = Duration.minutes(5)
"""Between two allocations, and so how much later a bad arm may lose its traffic."""


class Allocation(Construct):
    """The function `allocate`, called every five minutes."""

    def __init__(
        self, scope: Construct, id: str, *, config: StageConfig, registry: TenantTable, events: TenantTable, counters: TenantTable
    ) -> None:
        super().__init__(scope, id)
        self.function = PythonFunction(
            self,
            "Allocate",
            config=config,
            name="allocate",
            description="Sets the shares of bandits' arms from the outcomes of their decisions",
            environment=AllocationEnvironment.model_construct(
                stage=config.name,
                registry_table=registry.table_name,
                events_table=events.table_name,
                event_ttl_days=config.event_ttl_days,
                counters_table=counters.table_name,
            ),
            timeout=Duration.minutes(10),
            memory_mib=1_024,
        )
        self.function.allow(
            "dynamodb:Query", on=[registry.index_arn("trials"), events.index_arn("by_trial"), events.index_arn("by_unit"), events.table_arn]
        )
        self.function.allow("dynamodb:BatchGetItem", on=[events.table_arn])
        self.function.allow("dynamodb:GetItem", "dynamodb:PutItem", on=[registry.table_arn, counters.table_arn])
        self.failures = find_failure_queue(self, config)
        rules.Rule(
            self,
            "Schedule",
            description="Allocate bandits' shares",
            schedule=rules.Schedule.rate(EVERY),
            targets=[
                targets.LambdaFunction(
                    self.function.keep_failed_calls(), dead_letter_queue=self.failures, retry_attempts=0, max_event_age=EVERY
                )
            ],
        )
