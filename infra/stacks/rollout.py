"""How a candidate reaches users, and how it is taken back."""

from constructs import Construct

from infra.config import StageConfig
from infra.constructs.guarded_rollout import GuardedRollout
from infra.stacks.data import DataStack
from infra.stacks.rlaas_stack import RlaasStack


class RolloutStack(RlaasStack):
    """The rollout state machine and its guard."""

    def __init__(self, scope: Construct, *, config: StageConfig, data: DataStack) -> None:
        super().__init__(scope, "rollout", config=config)
        self.rollout = GuardedRollout(self, "Rollout", config=config, registry=data.registry, events_table=data.events)
