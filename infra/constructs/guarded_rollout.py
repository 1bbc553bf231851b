"""Rollouts in steps, and the guard that rolls one back when its alarm fires."""

from aws_cdk import ArnFormat, Duration, Stack
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from constructs import Construct

from infra.config import StageConfig
from infra.constructs.failures import find_failure_queue
from infra.constructs.python_function import PythonFunction
from infra.constructs.state_machine import StateMachine
from infra.constructs.tenant_table import TenantTable
from rlaas.runtime.environment import RegistryEnvironment, RolloutEnvironment

EVERY = Duration.minutes(1)
"""Between two checks for harm."""
GUARDS_ARE_DATA = "Each rollout puts its own guard alarm; the prefix is what can be named."


class GuardedRollout(Construct):
    """The state machine `rlaas-<stage>-rollout`, and the rollback on an alarm
    `rlaas-<stage>-guard--<tenant>--<skill>`.

    The rollback does not go through the state machine: EventBridge calls a function that writes the route once.
    """

    def __init__(
        self, scope: Construct, id: str, *, config: StageConfig, registry: TenantTable, events_table: TenantTable, counters: TenantTable
    ) -> None:
        super().__init__(scope, id)
        guards = f"{config.prefix}-guard--"
        self.guard_alarms = Stack.of(self).format_arn(
            service="cloudwatch", resource="alarm", resource_name=f"{guards}*", arn_format=ArnFormat.COLON_RESOURCE_NAME
        )
        """The ARN of every rollout's guard alarm, for IAM policies."""
        environment = RolloutEnvironment.model_construct(
            stage=config.name,
            registry_table=registry.table_name,
            events_table=events_table.table_name,
            counters_table=counters.table_name,
            event_ttl_days=config.event_ttl_days,
            rollout_settings=dict(config.rollout.settings),
        )
        self.steps = PythonFunction(
            self,
            "Steps",
            config=config,
            name="rollout_steps",
            description="Plans a rollout, moves its weights, weighs its evidence, closes it",
            environment=environment,
            timeout=Duration.seconds(55),
            memory_mib=1_024,
        )
        self.steps.allow("dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:Query", on=[registry.table_arn])
        self.watch = PythonFunction(
            self,
            "Watch",
            config=config,
            name="watch_rollouts",
            description="Weighs the evidence that candidates on trial do harm",
            environment=environment,
            timeout=Duration.minutes(5),
            memory_mib=1_024,
        )
        self.watch.allow("dynamodb:GetItem", on=[registry.table_arn])
        self.watch.allow("dynamodb:Query", on=[registry.index_arn("trials")])
        for function in (self.steps, self.watch):
            function.allow("dynamodb:GetItem", "dynamodb:PutItem", on=[counters.table_arn])
            function.allow(
                "dynamodb:Query",
                on=[events_table.table_arn, *(events_table.index_arn(index) for index in ("by_day", "by_trial", "by_unit"))],
            )
            function.allow("dynamodb:BatchGetItem", on=[events_table.table_arn])
        self.steps.allow(
            "cloudwatch:PutMetricAlarm",
            "cloudwatch:DeleteAlarms",
            "cloudwatch:DescribeAlarms",
            on=[self.guard_alarms],
            wildcard_because=GUARDS_ARE_DATA,
        )
        self.state_machine = StateMachine(
            self,
            "StateMachine",
            config=config,
            name="rollout",
            substitutions={"RolloutStepsFunctionArn": self.steps.target.function_arn},
        )
        self.state_machine.allow_invoke(self.steps.target)
        self.failures = find_failure_queue(self, config)
        self.state_machine.close_by(self.steps, failures=self.failures)

        events.Rule(
            self,
            "EveryMinute",
            description="Look at every rollout for harm",
            schedule=events.Schedule.rate(EVERY),
            targets=[
                targets.LambdaFunction(
                    self.watch.keep_failed_calls(), dead_letter_queue=self.failures, retry_attempts=0, max_event_age=EVERY
                )
            ],
        )

        self.guard = PythonFunction(
            self,
            "Guard",
            config=config,
            name="guard_rollback",
            description="Puts a skill's route back on its last good version when its guard alarm fires",
            environment=RegistryEnvironment.model_construct(stage=config.name, registry_table=registry.table_name),
            timeout=Duration.seconds(30),
            user_facing=True,  # users get the bad policy's answers until it has run
            reserved_concurrency=5,
        )
        self.guard.allow("dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:UpdateItem", on=[registry.table_arn])
        events.Rule(
            self,
            "GuardAlarm",
            rule_name=f"{config.prefix}-guard",
            description="A rollout's guard alarm fired: roll back",
            event_pattern=events.EventPattern(
                source=["aws.cloudwatch"],
                detail_type=["CloudWatch Alarm State Change"],
                detail={"alarmName": [{"prefix": guards}], "state": {"value": ["ALARM"]}},
            ),
            targets=[
                targets.LambdaFunction(
                    self.guard.keep_failed_calls(), dead_letter_queue=self.failures, retry_attempts=10, max_event_age=Duration.minutes(15)
                )
            ],
        )
