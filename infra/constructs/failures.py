"""Where failed work is kept whole until `rlaas redrive` plays it again, and who may write there."""

import jsii
from aws_cdk import Duration, Stack
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from infra.acknowledge import acknowledge
from infra.config import StageConfig
from infra.constructs.private_bucket import PrivateBucket

BATCHES = "aws/lambda/*"
"""The keys of the objects in which Lambda keeps failed batches."""


def add_dead_letter_queue(scope: Construct, id: str, *, name: str | None = None) -> sqs.Queue:
    """A queue for messages that could not be handled, kept for two weeks."""
    queue = sqs.Queue(
        scope, id, queue_name=name, enforce_ssl=True, encryption=sqs.QueueEncryption.SQS_MANAGED, retention_period=Duration.days(14)
    )
    acknowledge(queue, "This queue is itself where failures end.", "AwsSolutions-SQS3")
    return queue


def find_failure_queue(scope: Construct, config: StageConfig) -> sqs.IQueue:
    """The stage's queue of failed calls, by its name: rules of every stack send to it, and by object its policy would
    depend on all of them."""
    return sqs.Queue.from_queue_arn(scope, "FailureQueue", Stack.of(scope).format_arn(service="sqs", resource=_queue_name(config)))


@jsii.implements(lambda_.IEventSourceDlq)
class KeptRecords:
    """The bucket as the destination of a stream's failed batches. CDK's own destination would also allow the function
    to read and delete there."""

    def __init__(self, bucket: PrivateBucket) -> None:
        self._bucket = bucket

    def bind(self, target: lambda_.IEventSourceMapping, target_handler: lambda_.IFunction) -> lambda_.DlqDestinationConfig:
        """Allow the function's role to write, since Lambda writes with that role."""
        for action, resource in (("s3:PutObject", self._bucket.objects(BATCHES)), ("s3:ListBucket", self._bucket.bucket_arn)):
            target_handler.add_to_role_policy(iam.PolicyStatement(actions=[action], resources=[resource]))
        return lambda_.DlqDestinationConfig(destination=self._bucket.bucket_arn)


class Failures(Construct):
    """The bucket `rlaas-<stage>-failures-...` for stream records, and the queue `rlaas-<stage>-failures` for calls by
    EventBridge.

    Lambda writes whole batches into the bucket (below `aws/lambda/`), where they stay until they are played again or
    deleted by hand.
    """

    def __init__(self, scope: Construct, id: str, *, config: StageConfig, access_logs: s3.IBucket) -> None:
        super().__init__(scope, id)
        self.bucket = PrivateBucket(self, "Bucket", config=config, name="failures", access_logs=access_logs)
        self.queue = add_dead_letter_queue(self, "Queue", name=_queue_name(config))
        stack = Stack.of(self)
        rules = stack.format_arn(service="events", resource="rule", resource_name=f"{config.prefix}-*")
        self.queue.add_to_resource_policy(
            iam.PolicyStatement(
                principals=[iam.ServicePrincipal("events.amazonaws.com")],
                actions=["sqs:SendMessage"],
                resources=[self.queue.queue_arn],
                conditions={"ArnLike": {"aws:SourceArn": rules}},
            )
        )


def _queue_name(config: StageConfig) -> str:
    return f"{config.prefix}-failures"
