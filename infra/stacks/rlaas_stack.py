"""A stack of one stage."""

from aws_cdk import Environment, Stack, Tags
from constructs import Construct

from infra.config import StageConfig


class RlaasStack(Stack):
    """The stack `rlaas-<stage>-<name>`, which takes its settings from `config`."""

    def __init__(self, scope: Construct, name: str, *, config: StageConfig) -> None:
        super().__init__(
            scope,
            name,
            stack_name=f"{config.prefix}-{name}",
            description=f"RLaaS {config.name}: {name}",
            env=Environment(account=config.account, region=config.region),
            termination_protection=config.keep_data,
        )
        self.config = config
        Tags.of(self).add("rlaas:stage", config.name)
