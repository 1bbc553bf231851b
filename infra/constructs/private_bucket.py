"""A private, versioned S3 bucket."""

from aws_cdk import Aws, Duration, RemovalPolicy, Stack
from aws_cdk import aws_s3 as s3
from constructs import Construct

from infra.config import StageConfig


class PrivateBucket(s3.Bucket):
    """The bucket `rlaas-<stage>-<name>-<account>-<region>`: no public access, TLS only, versioned, access logged.

    It is encrypted with S3's own keys, for the reason in `TenantTable`. Old versions are deleted after 30 days, so that
    a mistaken overwrite can be undone and a person's deleted data is gone within a month. `auto_delete_objects` is
    never set: deleting a stack keeps its data, and the laptop cloud deletes all its state itself.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        config: StageConfig,
        name: str,
        access_logs: s3.IBucket | None,
        lifecycle: tuple[s3.LifecycleRule, ...] = (),
    ) -> None:
        self.fixed_name = f"{config.prefix}-{name}-{config.account or Aws.ACCOUNT_ID}-{config.region}"
        super().__init__(
            scope,
            id,
            bucket_name=self.fixed_name,
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            encryption=s3.BucketEncryption.S3_MANAGED,
            enforce_ssl=True,
            minimum_tls_version=1.2,
            object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
            versioned=True,
            server_access_logs_bucket=access_logs,
            server_access_logs_prefix=f"{name}/" if access_logs else None,
            lifecycle_rules=[
                s3.LifecycleRule(
                    id="tidy",
                    noncurrent_version_expiration=Duration.days(30),
                    abort_incomplete_multipart_upload_after=Duration.days(7),
                ),
                *lifecycle,
            ],
            removal_policy=RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE if config.keep_data else RemovalPolicy.DESTROY,
        )

    def objects(self, pattern: str) -> str:
        """The ARN of the objects whose keys match `pattern`, for IAM policies in any stack of this stage."""
        return f"arn:{Stack.of(self).partition}:s3:::{self.fixed_name}/{pattern}"
