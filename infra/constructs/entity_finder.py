"""The function that finds names of people and places in texts."""

from aws_cdk import Duration
from constructs import Construct

from infra.config import StageConfig
from infra.constructs.python_function import PythonFunction
from rlaas.runtime.environment import Environment


class EntityFinder(PythonFunction):
    """The function `find_entities`, called by lambda:Invoke only, by the functions that it may `serve`."""

    def __init__(self, scope: Construct, id: str, *, config: StageConfig) -> None:
        super().__init__(
            scope,
            id,
            config=config,
            name="find_entities",
            description="Finds names of people and places in texts, before they are stored",
            environment=Environment.model_construct(stage=config.name),
            timeout=Duration.seconds(10),
            memory_mib=config.privacy.memory_mib,
            packages=("deps", "entities"),
        )

    def serve(self, function: PythonFunction) -> None:
        """Allow `function` to call this one."""
        function.allow("lambda:InvokeFunction", on=[self.target.function_arn])
