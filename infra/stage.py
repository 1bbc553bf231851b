"""One stage in one region."""

from aws_cdk import Stage
from constructs import Construct

from infra.config import StageConfig
from infra.stacks.api import ApiStack
from infra.stacks.data import DataStack
from infra.stacks.learning import LearningStack
from infra.stacks.observability import ObservabilityStack
from infra.stacks.rollout import RolloutStack
from infra.stacks.serving import ServingStack


class RlaasStage(Stage):
    """All stacks of `config`; each gets the objects that it needs of the others."""

    def __init__(self, scope: Construct, id: str, *, config: StageConfig) -> None:
        super().__init__(scope, id)
        data = DataStack(self, config=config)
        serving = ServingStack(self, config=config, data=data)
        endpoint, finder = serving.endpoint, serving.finder
        learning_stack = LearningStack(self, config=config, data=data, endpoint=endpoint)
        learning = learning_stack.pipeline
        trials = RolloutStack(self, config=config, data=data, endpoint=endpoint, finder=finder)
        rollout = trials.rollout
        api = ApiStack(
            self,
            config=config,
            data=data,
            endpoint=endpoint,
            finder=finder,
            learning=learning,
            upkeep=learning_stack.upkeep,
            rollout=rollout,
        )
        ObservabilityStack(
            self,
            config=config,
            data=data,
            endpoint=endpoint,
            learning=learning,
            upkeep=learning_stack.upkeep,
            compaction=learning_stack.compaction,
            trials=trials,
            api=api,
        )
