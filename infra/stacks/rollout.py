"""How a candidate is tried: unseen, on some of the traffic, on as much as it earns; and how it is taken back."""

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
    """The rollout state machine and its guard, the bandits' allocation, the shadows."""

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
