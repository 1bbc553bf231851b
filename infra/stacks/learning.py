"""The stack of learning runs, and of the lake's compaction."""

from constructs import Construct

from infra.config import StageConfig
from infra.constructs.adapter_upkeep import AdapterUpkeep
from infra.constructs.compaction import Compaction
from infra.constructs.learning_pipeline import LearningPipeline
from infra.constructs.vllm_endpoint import VllmEndpoint
from infra.stacks.data import DataStack
from infra.stacks.rlaas_stack import RlaasStack


class LearningStack(RlaasStack):
    """The learning state machine, the upkeep of the adapters it makes, and the lake's daily compaction."""

    def __init__(self, scope: Construct, *, config: StageConfig, data: DataStack, endpoint: VllmEndpoint) -> None:
        super().__init__(scope, "learning", config=config)
        self.pipeline = LearningPipeline(
            self,
            "Learning",
            config=config,
            registry=data.registry,
            artifacts=data.artifacts,
            lake=data.lake,
            images=data.learning_images,
            endpoint=endpoint,
        )
        self.upkeep = AdapterUpkeep(self, "Adapters", config=config, registry=data.registry, endpoint=endpoint, learning=self.pipeline)
        self.compaction = Compaction(self, "Compaction", config=config, lake=data.lake, images=data.learning_images)
