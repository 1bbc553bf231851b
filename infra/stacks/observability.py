"""The stack of the operators' dashboard and alarms, and of the bus for other teams."""

from collections.abc import Sequence

from aws_cdk import ArnFormat, CfnOutput, Duration
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from constructs import Construct

from infra.config import StageConfig
from infra.constructs.adapter_upkeep import AdapterUpkeep
from infra.constructs.compaction import Compaction
from infra.constructs.guarded_rollout import GuardedRollout
from infra.constructs.learning_pipeline import LearningPipeline
from infra.constructs.python_function import PythonFunction
from infra.constructs.redrive import COUNT_EVERY
from infra.constructs.state_machine import StateMachine
from infra.constructs.vllm_endpoint import VARIANT, VllmEndpoint
from infra.stacks.api import ApiStack
from infra.stacks.data import DataStack
from infra.stacks.rlaas_stack import RlaasStack
from infra.stacks.rollout import RolloutStack
from rlaas.ids import METRICS_NAMESPACE

_MINUTE = Duration.minutes(1)


class ObservabilityStack(RlaasStack):
    """Dashboard `rlaas-<stage>`, alarms to the topic `rlaas-<stage>-alarms`, and the bus `rlaas-<stage>`."""

    def __init__(
        self,
        scope: Construct,
        *,
        config: StageConfig,
        data: DataStack,
        endpoint: VllmEndpoint,
        learning: LearningPipeline,
        upkeep: AdapterUpkeep,
        compaction: Compaction,
        trials: RolloutStack,
        api: ApiStack,
    ) -> None:
        super().__init__(scope, "observability", config=config)
        rollout, allocation, shadows = trials.rollout, trials.allocation, trials.shadows
        self._topic = self._alarm_topic()
        functions = [
            *(api.authorizer, api.telemetry, api.inference, api.chat, api.admin, api.bootstrap, api.redrive.function),
            *(data.lake.writer, data.reward_writer, data.audit_writer),
            *(learning.steps, learning.asker, upkeep.function, rollout.steps, rollout.watch, rollout.guard),
            *(allocation.function, shadows.shadow, shadows.check),
        ]
        alarms = [
            self._api_errors(api),
            self._endpoint_errors(endpoint),
            self._lake_delay(data),
            self._full_partitions(data),
            self._unhandled(),
            self._refused_calls(),
            *self._refused_reads_and_writes([data.registry, data.events, data.counters]),
            *self._stream_delays([data.lake.writer, data.reward_writer, data.audit_writer]),
            self._follow_ups_delay(data),
            self._lost_shadows(),
            *self._trials(),
        ]
        self._ended_executions([learning.state_machine, rollout.state_machine, compaction.state_machine])
        self._dashboard(api, endpoint, functions, alarms)
        self._bus(learning, rollout)

    def _alarm_topic(self) -> sns.Topic:
        """The topic to which alarms are sent. Enforcing TLS gives the topic a policy, which replaces the default one
        that allows this account to publish."""
        topic = sns.Topic(self, "Alarms", topic_name=f"{self.config.prefix}-alarms", enforce_ssl=True)
        alarms = self.format_arn(service="cloudwatch", resource="alarm", resource_name="*", arn_format=ArnFormat.COLON_RESOURCE_NAME)
        topic.add_to_resource_policy(
            iam.PolicyStatement(
                principals=[iam.ServicePrincipal("cloudwatch.amazonaws.com")],
                actions=["sns:Publish"],
                resources=[topic.topic_arn],
                conditions={"StringEquals": {"aws:SourceAccount": self.account}, "ArnLike": {"aws:SourceArn": alarms}},
            )
        )
        if self.config.alarm_email is not None:
            topic.add_subscription(subscriptions.EmailSubscription(self.config.alarm_email))
        subscribe = f"aws sns subscribe --topic-arn {topic.topic_arn} --protocol email --notification-endpoint YOU@EXAMPLE.COM"
        CfnOutput(self, "AlarmsWake", value=self.config.alarm_email or f"nobody, until somebody subscribes: {subscribe}")
        return topic

    def _alarm(
        self,
        id: str,
        metric: cloudwatch.Metric,
        *,
        above: float,
        periods: int,
        description: str,
        missing: cloudwatch.TreatMissingData = cloudwatch.TreatMissingData.NOT_BREACHING,
    ) -> cloudwatch.Alarm:
        alarm = metric.create_alarm(
            self,
            id,
            alarm_name=f"{self.stack_name}-{id}",
            alarm_description=description,
            threshold=above,
            comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_THRESHOLD,
            evaluation_periods=periods,
            treat_missing_data=missing,
        )
        alarm.add_alarm_action(actions.SnsAction(self._topic))
        return alarm

    def _api_errors(self, api: ApiStack) -> cloudwatch.Alarm:
        return self._alarm(
            "ApiErrors",
            api.public.api.metric_server_error(period=_MINUTE, statistic="Average"),
            above=0.01,
            periods=3,
            description="More than 1% of requests failed for three minutes",
        )

    def _endpoint_errors(self, endpoint: VllmEndpoint) -> cloudwatch.Alarm:
        return self._alarm(
            "EndpointErrors",
            cloudwatch.Metric(
                namespace="AWS/SageMaker",
                metric_name="Invocation5XXErrors",
                dimensions_map={"EndpointName": endpoint.endpoint_name, "VariantName": VARIANT},
                statistic="Sum",
                period=_MINUTE,
            ),
            above=5,
            periods=3,
            description="The model endpoint fails",
        )

    def _lake_delay(self, data: DataStack) -> cloudwatch.Alarm:
        return self._alarm(
            "LakeDelay",
            cloudwatch.Metric(
                namespace="AWS/Firehose",
                metric_name="DeliveryToS3.DataFreshness",
                dimensions_map={"DeliveryStreamName": data.lake.delivery_stream.ref},
                statistic="Maximum",
                period=Duration.minutes(5),
            ),
            above=1_800,
            periods=1,
            description="Events wait longer than half an hour for the lake",
        )

    def _lost_shadows(self) -> cloudwatch.Alarm:
        return self._alarm(
            "ShadowsLost",
            self._own_metric("ShadowLost", "Maximum", period=Duration.hours(1)),
            above=0,
            periods=2,  # the queues' counts are approximate
            description="Mirrored requests have neither an output nor a dead letter, and none is under way",
        )

    def _trials(self) -> list[cloudwatch.Alarm]:
        return [
            self._alarm(
                name,
                self._own_metric(name, "Minimum", period=Duration.minutes(15)),
                above=0,
                periods=2,
                description=f"In every run of half an hour {problem}",
            )
            for name, problem in (
                ("AllocationsFailed", "bandits were not allocated: the function's log says why"),
                ("AllocationsLeft", "bandits were left out because time ran out"),
                ("WatchesFailed", "rollouts were not watched: the function's log says why"),
                ("WatchesLeft", "rollouts were left out because time ran out"),
            )
        ]

    def _full_partitions(self, data: DataStack) -> cloudwatch.Alarm:
        return self._alarm(
            "LakePartitions",
            cloudwatch.Metric(
                namespace="AWS/Firehose",
                metric_name="PartitionCountExceeded",
                dimensions_map={"DeliveryStreamName": data.lake.delivery_stream.ref},
                statistic="Maximum",
                period=Duration.minutes(5),
            ),
            above=0,
            periods=1,
            description="Events of more types and days at once than Firehose can write: the rest go below errors/ in the lake",
        )

    def _unhandled(self) -> cloudwatch.Alarm:
        """One metric for all failed work, since each alarm costs the same, whatever it watches."""
        return self._alarm(
            "Unhandled",
            self._own_metric("Unhandled", "Maximum", period=COUNT_EVERY),
            above=0,
            periods=2,  # one more than needed, so that a late count does not look like a missing one
            description="Something failed and waits for `rlaas redrive`, or was not counted: the log of the function redrive says what",
            missing=cloudwatch.TreatMissingData.BREACHING,
        )

    def _refused_calls(self) -> cloudwatch.Alarm:
        return self._alarm(
            "LambdaThrottles",
            cloudwatch.Metric(namespace="AWS/Lambda", metric_name="Throttles", statistic="Sum", period=_MINUTE),
            above=0,
            periods=3,
            description="Lambda refused calls for three minutes: the concurrency of this account and region is used up",
        )

    def _refused_reads_and_writes(self, tables: Sequence[dynamodb.ITable]) -> list[cloudwatch.Alarm]:
        return [
            self._alarm(
                f"{table.node.id}{kind}Throttles",
                cloudwatch.Metric(
                    namespace="AWS/DynamoDB",
                    metric_name=f"{kind}ThrottleEvents",
                    dimensions_map={"TableName": table.table_name},
                    statistic="Sum",
                    period=_MINUTE,
                ),
                above=0,
                periods=3,
                description="DynamoDB refused requests for three minutes: a partition is hot, or traffic grew faster than the table",
            )
            for table in tables
            for kind in ("Read", "Write")
        ]

    def _stream_delays(self, consumers: Sequence[PythonFunction]) -> list[cloudwatch.Alarm]:
        return [
            self._alarm(
                f"{consumer.node.id}Delay",
                consumer.function.metric("IteratorAge", period=_MINUTE, statistic="Maximum"),
                above=Duration.minutes(10).to_milliseconds(),
                periods=3,
                description=f"{consumer.function.node.path} is more than ten minutes behind its stream",
            )
            for consumer in consumers
        ]

    def _follow_ups_delay(self, data: DataStack) -> cloudwatch.Alarm:
        return self._alarm(
            "FollowUpsDelay",
            data.follow_ups.queue.metric_approximate_age_of_oldest_message(period=_MINUTE, statistic="Maximum"),
            above=Duration.hours(1).to_seconds(),
            periods=3,
            description="Rewards of a tenant that sends more than its share are more than an hour behind",
        )

    def _ended_executions(self, machines: Sequence[StateMachine]) -> None:
        """Send each execution that did not succeed to the alarms' topic, by name, which a metric does not have. A
        rollout that is rolled back does succeed."""
        execution, status = events.EventField.from_path("$.detail.executionArn"), events.EventField.from_path("$.detail.status")
        events.Rule(
            self,
            "EndedExecutions",
            rule_name=f"{self.config.prefix}-ended-executions",
            description="An execution failed, timed out or was stopped: tell the alarms' topic",
            event_pattern=events.EventPattern(
                source=["aws.states"],
                detail_type=["Step Functions Execution Status Change"],
                detail={
                    "stateMachineArn": [machine.state_machine_arn for machine in machines],
                    "status": ["FAILED", "TIMED_OUT", "ABORTED"],
                },
            ),
            targets=[
                targets.SnsTopic(
                    self._topic, message=events.RuleTargetInput.from_text(f"{execution} ended as {status}; its last state says why")
                )
            ],
        )

    def _dashboard(
        self, api: ApiStack, endpoint: VllmEndpoint, functions: Sequence[PythonFunction], alarms: Sequence[cloudwatch.Alarm]
    ) -> None:
        rest = api.public.api
        harm = cloudwatch.MathExpression(
            expression=(
                f'SEARCH(\'{{{METRICS_NAMESPACE},arm,rollout,stage}} MetricName="HarmEvidence" stage="{self.config.name}"\', '
                "'Maximum', 300)"
            ),
            label="",
            using_metrics={},
        )
        cloudwatch.Dashboard(
            self,
            "Dashboard",
            dashboard_name=self.config.prefix,
            widgets=[
                [cloudwatch.AlarmStatusWidget(title="Alarms", alarms=list(alarms), width=24)],
                [
                    cloudwatch.GraphWidget(title="Evidence of harm (rollouts in progress; 20 takes one back)", left=[harm], width=12),
                    cloudwatch.GraphWidget(
                        title="Requests and errors",
                        left=[rest.metric_count(), rest.metric_client_error(statistic="Sum"), rest.metric_server_error(statistic="Sum")],
                        width=12,
                    ),
                ],
                [
                    cloudwatch.GraphWidget(
                        title="Latency",
                        left=[rest.metric_latency(statistic="p50"), rest.metric_latency(statistic="p99")],
                        width=12,
                    ),
                    cloudwatch.GraphWidget(
                        title="Model latency",
                        left=[
                            cloudwatch.Metric(
                                namespace="AWS/SageMaker",
                                metric_name="ModelLatency",
                                dimensions_map={"EndpointName": endpoint.endpoint_name, "VariantName": VARIANT},
                                statistic=statistic,
                            )
                            for statistic in ("p50", "p99")
                        ],
                        width=12,
                    ),
                ],
                [
                    cloudwatch.GraphWidget(
                        title="Our own work per answer (p50, p99), answers by the fallback",
                        left=[self._own_metric("Overhead", "p50"), self._own_metric("Overhead", "p99")],
                        right=[self._own_metric("Fallback", "Sum")],
                        width=24,
                    )
                ],
                [
                    cloudwatch.GraphWidget(title="Function errors", left=[item.function.metric_errors() for item in functions], width=12),
                    cloudwatch.GraphWidget(
                        title="Function duration p99", left=[item.function.metric_duration(statistic="p99") for item in functions], width=12
                    ),
                ],
            ],
        )

    def _own_metric(self, name: str, statistic: str, *, period: Duration | None = None) -> cloudwatch.Metric:
        return cloudwatch.Metric(
            namespace=METRICS_NAMESPACE, metric_name=name, dimensions_map={"stage": self.config.name}, statistic=statistic, period=period
        )

    def _bus(self, learning: LearningPipeline, rollout: GuardedRollout) -> None:
        """A bus with the status changes of learning runs and rollouts: rules of other teams use it, and need not know
        our state machines."""
        bus = events.EventBus(self, "Bus", event_bus_name=self.config.prefix, description="What happens in RLaaS")
        events.Rule(
            self,
            "Executions",
            rule_name=f"{self.config.prefix}-executions",
            description="Learning runs and rollouts, to the bus",
            event_pattern=events.EventPattern(
                source=["aws.states"],
                detail_type=["Step Functions Execution Status Change"],
                detail={
                    "stateMachineArn": [learning.state_machine.state_machine_arn, rollout.state_machine.state_machine_arn],
                },
            ),
            targets=[targets.EventBus(bus)],
        )
