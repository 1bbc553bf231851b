"""The queue for events beyond their tenant's share of a batch of the stream: they wait here, and no other tenant waits
for them."""

from aws_cdk import Duration
from aws_cdk import aws_lambda_event_sources as sources
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from infra.config import StageConfig
from infra.constructs.failures import Failures
from infra.constructs.python_function import PythonFunction
from rlaas.runtime.environment import FollowUpsEnvironment

_ATTEMPTS = 5


class FollowUps(Construct):
    """A queue that `writer` fills from the stream and empties itself, `follow_ups_at_once` messages at the same time.

    It is a standard queue whose messages have their tenant as group, so SQS hands out first the messages of tenants
    with few under way (a fair queue).
    """

    def __init__(self, scope: Construct, id: str, *, config: StageConfig, writer: PythonFunction, failures: Failures) -> None:
        super().__init__(scope, id)
        timeout = writer.function.timeout or Duration.minutes(1)
        self.queue = sqs.Queue(
            self,
            "Queue",
            queue_name=f"{config.prefix}-follow-ups",
            enforce_ssl=True,
            encryption=sqs.QueueEncryption.SQS_MANAGED,
            retention_period=Duration.days(4),
            visibility_timeout=Duration.seconds(6 * timeout.to_seconds()),  # as Lambda's guide recommends for queues
            dead_letter_queue=sqs.DeadLetterQueue(queue=failures.queue, max_receive_count=_ATTEMPTS),
        )
        writer.add_environment(FollowUpsEnvironment.model_construct(stage=config.name, follow_ups_queue_url=self.queue.queue_url))
        writer.allow("sqs:SendMessage", on=[self.queue.queue_arn])
        writer.function.add_event_source(
            sources.SqsEventSource(self.queue, batch_size=1, report_batch_item_failures=True, max_concurrency=config.follow_ups_at_once)
        )
