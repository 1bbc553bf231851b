"""The function that asks a learning run's models its held-out prompts, and its role."""

from aws_cdk import Duration
from constructs import Construct

from infra.config import StageConfig
from infra.constructs.lent_role import LentRole
from infra.constructs.private_bucket import PrivateBucket
from infra.constructs.python_function import PythonFunction
from infra.constructs.vllm_endpoint import ADAPTERS_ARE_DATA, VllmEndpoint
from rlaas.runtime.environment import AskingEnvironment, Environment

_DATA = "Datasets and answers are data; a session is narrowed to those of one run."


class HeldOutAsker(Construct):
    """The function `ask_held_out`, which may only assume one role, and that role, of which each run's session gets only
    a part."""

    def __init__(self, scope: Construct, id: str, *, config: StageConfig, artifacts: PrivateBucket, endpoint: VllmEndpoint) -> None:
        super().__init__(scope, id)
        self.function = PythonFunction(
            self,
            "Function",
            config=config,
            name="ask_held_out",
            description="Asks a learning run's held-out prompts, by a session for that run alone",
            environment=Environment.model_construct(stage=config.name),
            timeout=Duration.minutes(10),  # shorter than a session, which lasts a quarter of an hour
            memory_mib=1024,
        )
        description = "Assumed by ask_held_out for a quarter of an hour and one learning run at a time"
        role = LentRole(self, "Role", description=description, lender=self.function)
        self.function.add_environment(AskingEnvironment.model_construct(stage=config.name, asking_role_arn=role.role_arn))
        answers = "tenants/*/runs/*/answers/"
        role.allow("s3:GetObject", on=[artifacts.objects("tenants/*/datasets/*")], wildcard_because=_DATA)
        role.allow("s3:GetObject", "s3:PutObject", on=[artifacts.objects(f"{answers}*")], wildcard_because=_DATA)
        role.allow("s3:ListBucket", on=[artifacts.bucket_arn], conditions={"StringLike": {"s3:prefix": answers}})
        role.allow("sagemaker:InvokeEndpoint", on=endpoint.arns, wildcard_because=ADAPTERS_ARE_DATA)
