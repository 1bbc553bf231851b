"""Roles that a function lends itself or others, narrowed in each session to what it is for."""

from collections.abc import Mapping, Sequence

from aws_cdk import Duration
from aws_cdk import aws_iam as iam
from constructs import Construct

from infra.acknowledge import acknowledge_wildcards
from infra.constructs.python_function import PythonFunction
from infra.constructs.vllm_endpoint import ADAPTERS_ARE_DATA, VllmEndpoint
from rlaas.runtime.environment import GrantingEnvironment


class LentRole(iam.Role):
    """A role that `lent_by` alone may assume; tell the function its ARN."""

    def __init__(self, scope: Construct, id: str, *, description: str, lent_by: PythonFunction) -> None:
        lender = lent_by.function.role
        assert lender is not None
        super().__init__(
            scope,
            id,
            assumed_by=iam.ArnPrincipal(lender.role_arn),
            description=description,
            max_session_duration=Duration.hours(1),
        )
        lent_by.allow("sts:AssumeRole", on=[self.role_arn])

    def allow(
        self, *actions: str, on: Sequence[str], conditions: Mapping[str, object] | None = None, wildcard_because: str | None = None
    ) -> None:
        """The most that any session may do on the resources `on`; one that holds a `*` needs its reason."""
        self.add_to_policy(iam.PolicyStatement(actions=list(actions), resources=list(on), conditions=conditions))
        acknowledge_wildcards(self, on, wildcard_because)


class GrantRole(LentRole):
    """May ask the endpoint's models by bearer token and nothing else; a session that `/v1/decide` lends, one model."""

    def __init__(self, scope: Construct, id: str, *, endpoint: VllmEndpoint, lent_by: PythonFunction) -> None:
        about = "Lent to callers who ask a model themselves, a quarter of an hour and one model at a time"
        super().__init__(scope, id, description=about, lent_by=lent_by)
        lent_by.tell(GrantingEnvironment.model_construct(stage=lent_by.config.name, grant_role_arn=self.role_arn))
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
