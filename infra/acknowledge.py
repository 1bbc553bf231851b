"""Accepts findings of cdk-nag, each beside its resource and with its reason."""

from collections.abc import Iterable

from aws_cdk import Acknowledgment, Stack, Validations
from constructs import IConstruct


def acknowledge(scope: IConstruct, reason: str, *rules: str) -> None:
    """Accept `rules` (`AwsSolutions-S1`, or `AwsSolutions-IAM5[Resource::...]` for one finding) below `scope`, for
    `reason`."""
    for rule in rules:
        Validations.of(scope).acknowledge(Acknowledgment(id=rule, reason=reason))


def acknowledge_wildcards(scope: IConstruct, arns: Iterable[str], reason: str | None) -> None:
    """Accept that policies below `scope` allow those of `arns` that contain a `*`, for `reason`.

    Raises: ValueError for an ARN with a `*` and no reason.
    """
    for arn in arns:
        text = _flatten(Stack.of(scope).resolve(arn))
        if "*" in text:
            if reason is None:
                raise ValueError(f"{scope.node.path} allows {text}: name the resource, or say why it cannot be named")
            acknowledge(scope, reason, f"AwsSolutions-IAM5[Resource::{text}]")


def _flatten(value: object) -> str:
    """A resolved template value as cdk-nag writes it into a finding's id."""
    match value:
        case str():
            return value
        case {"Fn::Join": [separator, parts]}:
            return str(separator).join(_flatten(part) for part in parts)
        case {"Fn::GetAtt": [resource, attribute]}:
            return f"<{resource}.{attribute}>"
        case {"Ref": name}:
            return f"<{name}>"
        case _:
            raise ValueError(f"cannot tell how cdk-nag names {value!r}")
