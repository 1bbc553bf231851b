"""boto3 clients, made once per process, and their failures as RLaaS's own errors."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Literal, cast, overload

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from rlaas.errors import DependencyUnavailable

if TYPE_CHECKING:
    from types_boto3_cloudwatch import CloudWatchClient
    from types_boto3_dynamodb import DynamoDBClient
    from types_boto3_firehose import FirehoseClient
    from types_boto3_s3 import S3Client
    from types_boto3_sagemaker import SageMakerClient
    from types_boto3_sqs import SQSClient
    from types_boto3_stepfunctions import SFNClient

CONNECTIONS = 16
"""Requests that one client may run at the same time; beyond that, each request would open a connection and throw it
away."""
CONFIG = Config(connect_timeout=1, read_timeout=5, retries={"mode": "standard", "max_attempts": 3}, max_pool_connections=CONNECTIONS)

_THROTTLED = {"ProvisionedThroughputExceededException", "ProvisionedThroughputExceeded", "ThrottlingException", "ThrottlingError"}


@overload
def client(service: Literal["dynamodb"]) -> "DynamoDBClient": ...
@overload
def client(service: Literal["firehose"]) -> "FirehoseClient": ...
@overload
def client(service: Literal["s3"]) -> "S3Client": ...
@overload
def client(service: Literal["sagemaker"]) -> "SageMakerClient": ...
@overload
def client(service: Literal["sqs"]) -> "SQSClient": ...
@overload
def client(service: Literal["stepfunctions"]) -> "SFNClient": ...
@overload
def client(service: Literal["cloudwatch"]) -> "CloudWatchClient": ...


def client(service: str) -> object:
    """The process's client of `service`: 1 s to connect, 5 s to answer, three attempts."""
    return _client(service)


@cache
def _client(service: str) -> object:
    return boto3.client(service, config=CONFIG)


def read_error_code(error: ClientError) -> str:
    """The service's own code, such as `ConditionalCheckFailedException`."""
    return error.response["Error"]["Code"]


def is_throttled(error: ClientError) -> bool:
    """Whether the service refused because it is asked too often, alone or in a transaction."""
    reasons = {reason.get("Code") for reason in error.response.get("CancellationReasons", [])}
    return bool({read_error_code(error), *reasons} & _THROTTLED)


def condition_failed(error: ClientError) -> bool:
    """Whether a conditional write found its condition false, alone or in a transaction."""
    if read_error_code(error) == "TransactionCanceledException":
        reasons = {reason.get("Code") for reason in error.response.get("CancellationReasons", [])}
        return bool(reasons & {"ConditionalCheckFailed", "TransactionConflict"})
    return read_error_code(error) == "ConditionalCheckFailedException"


def read_failed_item(error: ClientError) -> Mapping[str, Mapping[str, object]]:
    """The item on which a condition failed (with `ReturnValuesOnConditionCheckFailure`); empty when there is none."""
    response = cast(Mapping[str, Mapping[str, Mapping[str, object]]], error.response)
    return response.get("Item", {})


@contextmanager
def dependency(name: str) -> Iterator[None]:
    """Raises: DependencyUnavailable for what botocore raises inside, naming the service and its error code.

    A failed condition passes through as the `ClientError` it is: it is an answer, not a failure.
    """
    try:
        yield
    except ClientError as error:
        if condition_failed(error):
            raise
        raise DependencyUnavailable(f"{name} answered {read_error_code(error)}") from error
    except BotoCoreError as error:
        raise DependencyUnavailable(f"{name} could not be reached: {type(error).__name__}") from error
