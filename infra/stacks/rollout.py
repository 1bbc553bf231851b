"""The stack of trials: candidates as shadows, in rollouts and in bandits; and the rollback."""

from constructs import Construct

from infra.config import StageConfig
from infra.constructs.allocation import Allocation
from infra.constructs.entity_finder import EntityFinder
from infra.constructs.guarded_rollout import GuardedRollout
from infra.constructs.shadows import Shadows
from infra.constructs.vllm_endpoint import VllmEndpoint
from infra.stacks.data import DataStack
from infra.stacks.rlaas_stack import RlaasStack


class RolloutStack(RlaasStack):
    """The rollout state machine and its guard, the bandits' allocation, and the shadows."""

    def __init__(self, scope: Construct, *, config: StageConfig, data: DataStack, endpoint: VllmEndpoint, finder: EntityFinder) -> None:
        super().__init__(scope, "rollout", config=config)
        self.rollout = GuardedRollout(
            self, "Rollout", config=config, registry=data.registry, events_table=data.events, counters=data.counters
        )
        self.allocation = Allocation(self, "Allocation", config=config, registry=data.registry, events=data.events, counters=data.counters)
        self.shadows = Shadows(
            self,
            "Shadows",
            config=config,
            registry=data.registry,
            events=data.events,
            counters=data.counters,
            endpoint=endpoint,
            finder=finder,
            waiting=data.shadow_queue,
        )
