"""What operators look at, what wakes them, and what others may listen to."""

from collections.abc import Sequence

from aws_cdk import Duration
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from infra.config import StageConfig
from infra.constructs.adapter_upkeep import AdapterUpkeep
from infra.constructs.compaction import Compaction
from infra.constructs.guarded_rollout import GuardedRollout
from infra.constructs.learning_pipeline import LearningPipeline
from infra.constructs.python_function import PythonFunction
from infra.constructs.vllm_endpoint import VARIANT, VllmEndpoint
from infra.stacks.api import ApiStack
from infra.stacks.data import DataStack
from infra.stacks.rlaas_stack import RlaasStack
from infra.stacks.rollout import RolloutStack

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
        self._topic = sns.Topic(self, "Alarms", topic_name=f"{config.prefix}-alarms", enforce_ssl=True)
        functions = [
            *(api.authorizer, api.telemetry, api.inference, api.chat, api.admin, api.bootstrap),
            *(data.lake.writer, data.reward_writer, data.audit_writer),
            *(learning.steps, upkeep.function, rollout.steps, rollout.watch, rollout.guard),
            *(allocation.function, shadows.shadow, shadows.check),
        ]
        alarms = [
            self._api_errors(api),
            self._endpoint_errors(endpoint),
            self._lake_delay(data),
            *self._failure_queues(
                [
                    *(*data.failure_queues, learning.failures, rollout.failures, compaction.failures),
                    *(allocation.failures, shadows.missed),
                ]
            ),
            *self._stream_delays([data.lake.writer, data.reward_writer, data.audit_writer]),
            self._lost_shadows(),
            *self._trials(),
            *self._failed_executions(learning, rollout, compaction),
        ]
        self._dashboard(api, endpoint, functions, alarms)
        self._bus(learning, rollout)

    def _alarm(self, id: str, metric: cloudwatch.Metric, *, above: float, periods: int, says: str) -> cloudwatch.Alarm:
        alarm = metric.create_alarm(
            self,
            id,
            alarm_name=f"{self.stack_name}-{id}",
            alarm_description=says,
            threshold=above,
            comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_THRESHOLD,
            evaluation_periods=periods,
            treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
        )
        alarm.add_alarm_action(actions.SnsAction(self._topic))
        return alarm

    def _api_errors(self, api: ApiStack) -> cloudwatch.Alarm:
        return self._alarm(
            "ApiErrors",
            api.public.api.metric_server_error(period=_MINUTE, statistic="Average"),
            above=0.01,
            periods=3,
            says="More than 1% of requests failed for three minutes",
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
            says="The model endpoint fails",
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
            says="Events wait longer than half an hour for the lake",
        )

    def _lost_shadows(self) -> cloudwatch.Alarm:
        return self._alarm(
            "ShadowsLost",
            self._own_metric("ShadowLost", "Maximum", period=Duration.hours(1)),
            above=0,
            periods=2,  # the queues' counts are approximate
            says="Mirrored requests have neither an output nor a dead letter, and none is under way",
        )

    def _trials(self) -> list[cloudwatch.Alarm]:
        return [
            self._alarm(
                name,
                self._own_metric(name, "Minimum", period=Duration.minutes(15)),
                above=0,
                periods=2,
                says=f"In every run of half an hour {what}",
            )
            for name, what in (
                ("AllocationsFailed", "bandits were not allocated: the function's log says why"),
                ("AllocationsLeft", "bandits were left for want of time"),
                ("WatchesFailed", "rollouts were not watched: the function's log says why"),
                ("WatchesLeft", "rollouts were left for want of time"),
            )
        ]

    def _failure_queues(self, queues: Sequence[sqs.IQueue]) -> list[cloudwatch.Alarm]:
        return [
            self._alarm(
                f"Unhandled{number}",
                queue.metric_approximate_number_of_messages_visible(period=_MINUTE, statistic="Maximum"),
                above=0,
                periods=1,
                says=f"Something could not be handled and lies in {queue.node.path}",
            )
            for number, queue in enumerate(queues, start=1)
        ]

    def _stream_delays(self, consumers: Sequence[PythonFunction]) -> list[cloudwatch.Alarm]:
        return [
            self._alarm(
                f"{consumer.node.id}Delay",
                consumer.function.metric("IteratorAge", period=_MINUTE, statistic="Maximum"),
                above=Duration.minutes(10).to_milliseconds(),
                periods=3,
                says=f"{consumer.function.node.path} is more than ten minutes behind its stream",
            )
            for consumer in consumers
        ]

    def _failed_executions(self, learning: LearningPipeline, rollout: GuardedRollout, compaction: Compaction) -> list[cloudwatch.Alarm]:
        return [
            self._alarm(
                f"{name}Failed",
                machine.metric_failed(period=Duration.minutes(5), statistic="Sum"),
                above=0,
                periods=1,
                says=f"A {name.lower()} execution failed; its last state says why",
            )
            for name, machine in (
                ("Learning", learning.state_machine),
                ("Rollout", rollout.state_machine),
                ("Compaction", compaction.state_machine),
            )
        ]

    def _dashboard(
        self, api: ApiStack, endpoint: VllmEndpoint, functions: Sequence[PythonFunction], alarms: Sequence[cloudwatch.Alarm]
    ) -> None:
        rest = api.public.api
        harm = cloudwatch.MathExpression(
            expression=f"SEARCH('{{RLaaS,arm,rollout,stage}} MetricName=\"HarmEvidence\" stage=\"{self.config.name}\"', 'Maximum', 300)",
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
            namespace="RLaaS", metric_name=name, dimensions_map={"stage": self.config.name}, statistic=statistic, period=period
        )

    def _bus(self, learning: LearningPipeline, rollout: GuardedRollout) -> None:
        """How learning runs and rollouts go and end, on one bus: rules of other teams listen there and need not know our state machines."""
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
