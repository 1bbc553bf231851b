"""The role whose leave to ask a model is lent to callers of `/v1/decide`."""

from aws_cdk import Duration
from aws_cdk import aws_iam as iam
from constructs import Construct

from infra.acknowledge import acknowledge_wildcards
from infra.constructs.python_function import PythonFunction
from infra.constructs.vllm_endpoint import ADAPTERS_ARE_DATA, VllmEndpoint


class GrantRole(iam.Role):
    """May ask the endpoint's models by bearer token and nothing else. `lent_by` narrows it to one model in each session that it lends."""

    def __init__(self, scope: Construct, id: str, *, endpoint: VllmEndpoint, lent_by: PythonFunction) -> None:
        lender = lent_by.function.role
        assert lender is not None
        super().__init__(
            scope,
            id,
            assumed_by=iam.ArnPrincipal(lender.role_arn),
            description="Lent to callers who ask a model themselves, a quarter of an hour and one model at a time",
            max_session_duration=Duration.hours(1),
        )
        self.add_to_policy(
            iam.PolicyStatement(
                actions=["sagemaker:InvokeEndpoint", "sagemaker:InvokeEndpointWithResponseStream"], resources=list(endpoint.arns)
            )
        )
        self.add_to_policy(iam.PolicyStatement(actions=["sagemaker:CallWithBearerToken"], resources=["*"]))
        because = f"{ADAPTERS_ARE_DATA} CallWithBearerToken takes no resource; InvokeEndpoint says what the token may ask."
        acknowledge_wildcards(self, [*endpoint.arns, "*"], because)
        lent_by.allow("sts:AssumeRole", on=[self.role_arn])
        lent_by.function.add_environment("GRANT_ROLE_ARN", self.role_arn)
