"""The role of a SageMaker container, with the rights that every container needs."""

from collections.abc import Mapping, Sequence

from aws_cdk import ArnFormat, Stack
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_iam as iam
from constructs import Construct

from infra.acknowledge import acknowledge_wildcards


class SageMakerRole(iam.Role):
    """A role for SageMaker containers of `images` that log to `log_groups`. All its rights are in `policy`.

    Resources for which SageMaker checks the role at once (models, endpoints) must depend on `policy`.
    """

    def __init__(self, scope: Construct, id: str, *, description: str, images: ecr.IRepository, log_groups: Sequence[str]) -> None:
        super().__init__(scope, id, assumed_by=iam.ServicePrincipal("sagemaker.amazonaws.com"), description=description)
        stack = Stack.of(self)
        self.policy = iam.Policy(self, "Policy", roles=[self])
        self.allow("ecr:BatchCheckLayerAvailability", "ecr:GetDownloadUrlForLayer", "ecr:BatchGetImage", on=[images.repository_arn])
        self.allow("ecr:GetAuthorizationToken", on=["*"], wildcard_because="The registry's login takes no resource.")
        self.allow(
            "logs:CreateLogGroup",
            "logs:CreateLogStream",
            "logs:DescribeLogStreams",
            "logs:PutLogEvents",
            on=[
                stack.format_arn(service="logs", resource="log-group", resource_name=name, arn_format=ArnFormat.COLON_RESOURCE_NAME)
                for name in log_groups
            ],
            wildcard_because="SageMaker makes the log groups and names the streams after its jobs and components.",
        )
        self.allow(
            "cloudwatch:PutMetricData",
            on=["*"],
            conditions={"StringLike": {"cloudwatch:namespace": "/aws/sagemaker/*"}},
            wildcard_because="Metrics are no resources; the condition holds the container to SageMaker's own namespaces.",
        )

    def allow(
        self, *actions: str, on: Sequence[str], conditions: Mapping[str, object] | None = None, wildcard_because: str | None = None
    ) -> None:
        """Allow the container `actions` on the resources `on`; a resource with a `*` needs its reason."""
        self.policy.add_statements(iam.PolicyStatement(actions=list(actions), resources=list(on), conditions=conditions))
        acknowledge_wildcards(self, on, wildcard_because)
