"""The stack of the models."""

from constructs import Construct

from infra.config import StageConfig
from infra.constructs.entity_finder import EntityFinder
from infra.constructs.vllm_endpoint import VllmEndpoint
from infra.stacks.data import DataStack
from infra.stacks.rlaas_stack import RlaasStack


class ServingStack(RlaasStack):
    """The vLLM endpoint, and the small model that finds names.

    Deploy it when the image is pushed and the base model is in the artifacts bucket.
    """

    def __init__(self, scope: Construct, *, config: StageConfig, data: DataStack) -> None:
        super().__init__(scope, "serving", config=config)
        self.endpoint = VllmEndpoint(self, "Vllm", config=config, artifacts=data.artifacts, images=data.serving_images)
        self.finder = EntityFinder(self, "FindEntities", config=config)
