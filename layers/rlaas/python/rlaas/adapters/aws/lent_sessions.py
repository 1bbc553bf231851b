"""Short sessions of a role, each narrowed to what it is for."""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config
from botocore.credentials import Credentials

from rlaas.adapters.aws.clients import dependency
from rlaas.errors import InvalidInput

if TYPE_CHECKING:
    from types_boto3_sts import STSClient

Statement = Mapping[str, object]
"""A statement of an IAM policy."""
LIFETIME = timedelta(minutes=15)
"""The shortest session that AWS gives."""
_PATTERNS = frozenset("*?$")


def lend_session(role_arn: str, statements: Sequence[Statement], *, name: str, sts: "STSClient") -> Credentials:
    """Credentials of a session of the role, called `name`, for `LIFETIME`: it may do what both the role's policies and
    `statements` allow.

    Raises: DependencyUnavailable.
    """
    policy = {"Version": "2012-10-17", "Statement": list(statements)}
    with dependency("STS"):
        credentials = sts.assume_role(
            RoleArn=role_arn,
            RoleSessionName=name,
            DurationSeconds=int(LIFETIME.total_seconds()),
            Policy=json.dumps(policy, separators=(",", ":")),  # AWS takes 2,048 characters
        )["Credentials"]
    return Credentials(credentials["AccessKeyId"], credentials["SecretAccessKey"], credentials["SessionToken"])


def list_model_arns(role_arn: str, region: str, *, endpoint: str, components: Iterable[str]) -> list[str]:
    """The ARNs of the endpoint and its components in the role's account, in lower case, as IAM checks InvokeEndpoint.
    Raises: InvalidInput as `check_no_pattern`."""
    _, partition, _, _, account, _ = role_arn.split(":", 5)
    resources = [
        f"endpoint/{check_no_pattern(endpoint)}",
        *(f"inference-component/{check_no_pattern(component)}" for component in components),
    ]
    return [f"arn:{partition}:sagemaker:{region}:{account}:{name}".lower() for name in resources]


def check_no_pattern(name: str) -> str:
    """`name`, for a policy's resource. Raises: InvalidInput for a name that a policy would read as a pattern that
    matches others too."""
    if characters := _PATTERNS & set(name):
        raise InvalidInput(f"a policy's resource may not contain {', '.join(sorted(characters))}")
    return name


@cache
def sts_client() -> "STSClient":
    """The process's client of STS."""
    sts: STSClient = boto3.client("sts", config=Config(connect_timeout=1, read_timeout=3, retries={"mode": "standard", "max_attempts": 2}))
    return sts
