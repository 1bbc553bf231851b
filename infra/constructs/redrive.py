"""The function that plays failed work again, and counts it."""

from collections.abc import Sequence

from aws_cdk import Duration
from aws_cdk import aws_events as rules
from aws_cdk import aws_events_targets as targets
from constructs import Construct

from infra.config import StageConfig
from infra.constructs.event_lake import EventLake
from infra.constructs.failures import BATCHES, Failures, find_failure_queue
from infra.constructs.python_function import PythonFunction
from infra.constructs.shadows import ShadowQueue
from rlaas.runtime.environment import RedriveEnvironment

COUNT_EVERY = Duration.minutes(15)
_KEPT = "Lambda and Firehose name what they keep; the prefix is what can be named."


class Redrive(Construct):
    """The function `redrive`: it plays a page of work in each call of the admin API, and emits the metric `Unhandled`
    every quarter of an hour."""

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        config: StageConfig,
        failures: Failures,
        lake: EventLake,
        shadows: ShadowQueue,
        consumers: Sequence[PythonFunction],
        in_order: PythonFunction,
    ) -> None:
        """The function may call `consumers`; it calls the one that is `in_order` only until it fails."""
        super().__init__(scope, id)
        self.function = PythonFunction(
            self,
            "Function",
            config=config,
            name="redrive",
            description="Plays failed work again, and counts it",
            environment=RedriveEnvironment.model_construct(
                stage=config.name,
                failures_bucket=failures.bucket.bucket_name,
                failures_queue_url=failures.queue.queue_url,
                lake_bucket=lake.bucket.bucket_name,
                delivery_stream=lake.delivery_stream.ref,
                shadow_queue_url=shadows.queue.queue_url,
                dead_letter_queue_url=shadows.dead_letters.queue_url,
                consumers=tuple(function.target.function_arn for function in consumers),
                in_order=in_order.target.function_arn,
            ),
            timeout=Duration.seconds(28),  # the admin API waits for it, and API Gateway waits 29 s for the admin API
        )
        function = self.function
        for bucket, prefix in ((failures.bucket, BATCHES), (lake.bucket, "errors/*")):
            function.allow("s3:ListBucket", on=[bucket.bucket_arn], conditions={"StringLike": {"s3:prefix": prefix}})
            function.allow("s3:GetObject", "s3:DeleteObject", on=[bucket.objects(prefix)], wildcard_because=_KEPT)
        function.allow(
            *("sqs:GetQueueAttributes", "sqs:ReceiveMessage", "sqs:DeleteMessage"),
            on=[failures.queue.queue_arn, shadows.dead_letters.queue_arn],
        )
        function.allow("sqs:SendMessage", on=[shadows.queue.queue_arn])
        function.allow("firehose:PutRecordBatch", on=[lake.delivery_stream.attr_arn])
        function.allow("lambda:InvokeFunction", on=[consumer.target.function_arn for consumer in consumers])
        rules.Rule(
            self,
            "Count",
            description="Count the failed work that has not been handled",
            schedule=rules.Schedule.rate(COUNT_EVERY),
            targets=[
                targets.LambdaFunction(
                    function.keep_failed_calls(),
                    event=rules.RuleTargetInput.from_object({"action": "count"}),
                    dead_letter_queue=find_failure_queue(self, config),
                    retry_attempts=0,
                    max_event_age=COUNT_EVERY,
                )
            ],
        )
