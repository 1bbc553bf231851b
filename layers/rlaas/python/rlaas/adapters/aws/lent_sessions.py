"""Sessions of a role, lent for a while and narrowed to what each is for."""

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
"""One of an IAM policy."""
LIFETIME = timedelta(minutes=15)
"""The shortest that AWS lends a role for."""
_PATTERNS = frozenset("*?$")


def lend(role_arn: str, allowed: Sequence[Statement], *, name: str, sts: "STSClient") -> Credentials:
    """A session of the role, called `name`, for `LIFETIME`: it may do what the role may and `allowed` says.

    Raises: DependencyUnavailable.
    """
    policy = {"Version": "2012-10-17", "Statement": list(allowed)}
    with dependency("STS"):
        lent = sts.assume_role(
            RoleArn=role_arn,
            RoleSessionName=name,
            DurationSeconds=int(LIFETIME.total_seconds()),
            Policy=json.dumps(policy, separators=(",", ":")),  # AWS takes 2,048 characters
        )["Credentials"]
    return Credentials(lent["AccessKeyId"], lent["SecretAccessKey"], lent["SessionToken"])


def model_arns(role_arn: str, region: str, *, endpoint: str, components: Iterable[str]) -> list[str]:
    """The endpoint and its components where the role is, as InvokeEndpoint is checked: in lower case. Raises:
    InvalidInput as `plain`."""
    _, partition, _, _, account, _ = role_arn.split(":", 5)
    asked = [f"endpoint/{plain(endpoint)}", *(f"inference-component/{plain(component)}" for component in components)]
    return [f"arn:{partition}:sagemaker:{region}:{account}:{name}".lower() for name in asked]


def plain(name: str) -> str:
    """`name`, for a policy's resource. Raises: InvalidInput for one that a policy would take for a pattern, and so for
    others' too."""
    if found := _PATTERNS & set(name):
        raise InvalidInput(f"a name that is to be asked or read holds {', '.join(sorted(found))}")
    return name


@cache
def sts_client() -> "STSClient":
    """The process's client of STS, in its own name."""
    sts: STSClient = boto3.client("sts", config=Config(connect_timeout=1, read_timeout=3, retries={"mode": "standard", "max_attempts": 2}))
    return sts
