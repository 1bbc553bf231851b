"""Mirrored requests: the events' stream -> lake_writer -> queue -> shadow -> events, and the check that none is
lost."""

from aws_cdk import Duration
from aws_cdk import aws_events as rules
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_lambda_event_sources as sources
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from infra.config import StageConfig
from infra.constructs.answering_function import AnsweringFunction
from infra.constructs.entity_finder import EntityFinder
from infra.constructs.failures import add_dead_letter_queue, find_failure_queue
from infra.constructs.python_function import PythonFunction
from infra.constructs.tenant_table import TenantTable
from infra.constructs.vllm_endpoint import VllmEndpoint
from rlaas.runtime.environment import MirrorEnvironment, ReconcileEnvironment


class ShadowQueue(Construct):
    """The queue where mirrored requests wait for their shadow, and the queue of those that no shadow could answer."""

    def __init__(self, scope: Construct, id: str, *, config: StageConfig) -> None:
        super().__init__(scope, id)
        self.dead_letters = add_dead_letter_queue(self, "DeadLetters")
        self.queue = sqs.Queue(
            self,
            "Queue",
            queue_name=f"{config.prefix}-shadows",
            enforce_ssl=True,
            encryption=sqs.QueueEncryption.SQS_MANAGED,
            retention_period=Duration.days(4),
            visibility_timeout=Duration.seconds(config.shadow.retry_seconds),
            dead_letter_queue=sqs.DeadLetterQueue(queue=self.dead_letters, max_receive_count=config.shadow.attempts),
        )

    def allow_sending(self, function: PythonFunction, ledger: TenantTable) -> None:
        """Allow `function` to send tasks and enter them into the ledger."""
        environment = MirrorEnvironment.model_construct(
            stage=function.config.name, shadow_queue_url=self.queue.queue_url, counters_table=ledger.table_name
        )
        function.add_environment(environment)
        function.allow("sqs:SendMessage", on=[self.queue.queue_arn])
        function.allow("dynamodb:BatchWriteItem", on=[ledger.table_arn])


class Shadows(Construct):
    """The function `shadow`, which does the queue's tasks, and the function `reconcile_shadows`."""

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        config: StageConfig,
        registry: TenantTable,
        events: TenantTable,
        counters: TenantTable,
        endpoint: VllmEndpoint,
        finder: EntityFinder,
        waiting: ShadowQueue,
    ) -> None:
        super().__init__(scope, id)
        settings = config.shadow
        self.shadow = AnsweringFunction(
            self,
            "Shadow",
            config=config,
            registry=registry,
            events=events,
            counters=counters,
            endpoint=endpoint,
            finder=finder,
            name="shadow",
            description="Has a shadow policy answer a request that another has answered",
            timeout=Duration.seconds(settings.timeout_seconds),
            user_facing=False,
        )
        self.shadow.allow("dynamodb:DeleteItem", on=[counters.table_arn])
        self.shadow.function.add_event_source(
            sources.SqsEventSource(
                waiting.queue, batch_size=settings.batch_size, report_batch_item_failures=True, max_concurrency=settings.concurrency
            )
        )
        self.check = PythonFunction(
            self,
            "Check",
            config=config,
            name="reconcile_shadows",
            description="Checks that sampled = outputs + dead letters + what is under way",
            environment=ReconcileEnvironment.model_construct(
                stage=config.name,
                counters_table=counters.table_name,
                shadow_queue_url=waiting.queue.queue_url,
                dead_letter_queue_url=waiting.dead_letters.queue_url,
            ),
            timeout=Duration.minutes(5),
        )
        self.check.allow("dynamodb:Query", on=[counters.table_arn])
        self.check.allow("sqs:GetQueueAttributes", on=[waiting.queue.queue_arn, waiting.dead_letters.queue_arn])
        rules.Rule(
            self,
            "Hourly",
            description="Check that no mirrored request is lost",
            schedule=rules.Schedule.rate(Duration.hours(1)),
            targets=[
                targets.LambdaFunction(
                    self.check.keep_failed_calls(),
                    dead_letter_queue=find_failure_queue(self, config),
                    retry_attempts=2,
                    max_event_age=Duration.hours(1),
                )
            ],
        )
