"""The function that finds names of people and places in texts."""

from aws_cdk import Duration
from constructs import Construct

from infra.config import StageConfig
from infra.constructs.python_function import PythonFunction


class EntityFinder(PythonFunction):
    """Reachable by lambda:Invoke only, for the functions that store texts: give them `settings` and let them `serve`."""

    def __init__(self, scope: Construct, id: str, *, config: StageConfig) -> None:
        super().__init__(
            scope,
            id,
            config=config,
            name="find_entities",
            description="Finds names of people and places in texts, before they are stored",
            environment={},
            timeout=Duration.seconds(10),
            memory_mib=config.privacy.memory_mib,
            packages=("deps", "entities"),
        )

    @property
    def settings(self) -> dict[str, str]:
        """What a function that asks it is told."""
        return {"FIND_ENTITIES_FUNCTION": self.target.function_arn, "FIND_ENTITIES_AT_ONCE": str(self.config.privacy.at_once)}

    def serve(self, function: PythonFunction) -> None:
        """Let `function` ask."""
        function.allow("lambda:InvokeFunction", on=[self.target.function_arn])
