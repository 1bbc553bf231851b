"""Roles that a function assumes in short sessions, each narrowed to what it is for."""

from collections.abc import Mapping, Sequence

from aws_cdk import Duration
from aws_cdk import aws_iam as iam
from constructs import Construct

from infra.acknowledge import acknowledge_wildcards
from infra.constructs.python_function import PythonFunction
from infra.constructs.vllm_endpoint import ADAPTERS_ARE_DATA, VllmEndpoint
from rlaas.runtime.environment import GrantingEnvironment


class LentRole(iam.Role):
    """A role that only `lender` may assume; the function still needs the role's ARN in its environment."""

    def __init__(self, scope: Construct, id: str, *, description: str, lender: PythonFunction) -> None:
        lender_role = lender.function.role
        assert lender_role is not None
        super().__init__(
            scope,
            id,
            assumed_by=iam.ArnPrincipal(lender_role.role_arn),
            description=description,
            max_session_duration=Duration.hours(1),
        )
        lender.allow("sts:AssumeRole", on=[self.role_arn])

    def allow(
        self, *actions: str, on: Sequence[str], conditions: Mapping[str, object] | None = None, wildcard_because: str | None = None
    ) -> None:
        """Allow sessions at most `actions` on the resources `on`; a resource with a `*` needs its reason."""
        self.add_to_policy(iam.PolicyStatement(actions=list(actions), resources=list(on), conditions=conditions))
        acknowledge_wildcards(self, on, wildcard_because)


class GrantRole(LentRole):
    """A role that may only ask the endpoint's models by bearer token; a session from `/v1/decide`, only one model."""

    def __init__(self, scope: Construct, id: str, *, endpoint: VllmEndpoint, lender: PythonFunction) -> None:
        description = "Lent to callers who ask a model themselves, a quarter of an hour and one model at a time"
        super().__init__(scope, id, description=description, lender=lender)
        lender.add_environment(GrantingEnvironment.model_construct(stage=lender.config.name, grant_role_arn=self.role_arn))
        self.allow(
            *("sagemaker:InvokeEndpoint", "sagemaker:InvokeEndpointWithResponseStream"),
            on=endpoint.arns,
            wildcard_because=ADAPTERS_ARE_DATA,
        )
        self.allow(
            "sagemaker:CallWithBearerToken",
            on=["*"],
            wildcard_because="CallWithBearerToken takes no resource; InvokeEndpoint says what the token may ask.",
        )
