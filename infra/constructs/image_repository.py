"""Container images of one kind."""

from aws_cdk import Aws, Duration, RemovalPolicy
from aws_cdk import aws_ecr as ecr
from constructs import Construct

from infra.config import StageConfig


class ImageRepository(ecr.Repository):
    """The repository `rlaas-<stage>/<name>`, to which CI pushes. Images are scanned, and a tag never moves, so that it
    identifies what ran."""

    def __init__(self, scope: Construct, id: str, *, config: StageConfig, name: str) -> None:
        super().__init__(
            scope,
            id,
            repository_name=f"{config.prefix}/{name}",
            image_scan_on_push=True,
            image_tag_mutability=ecr.TagMutability.IMMUTABLE,
            encryption=ecr.RepositoryEncryption.AES_256,
            lifecycle_rules=[
                ecr.LifecycleRule(
                    description="Layers of interrupted pushes", tag_status=ecr.TagStatus.UNTAGGED, max_image_age=Duration.days(7)
                )
            ],
            removal_policy=RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE if config.keep_data else RemovalPolicy.DESTROY,
        )
        self._uri = f"{config.account or Aws.ACCOUNT_ID}.dkr.ecr.{config.region}.{Aws.URL_SUFFIX}/{config.prefix}/{name}"

    def image(self, tag: str) -> str:
        """The URI of the image with this tag, for any stack of this stage."""
        return f"{self._uri}:{tag}"
