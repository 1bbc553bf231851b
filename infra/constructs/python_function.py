"""A Lambda function of `functions/<name>` on the shared layers."""

import json
from collections.abc import Mapping, Sequence

from aws_cdk import AssetHashType, Duration, RemovalPolicy, Stack
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_lambda_destinations as destinations
from aws_cdk import aws_lambda_event_sources as sources
from aws_cdk import aws_logs as logs
from constructs import Construct

from infra import bundling
from infra.acknowledge import acknowledge, acknowledge_wildcards
from infra.config import StageConfig
from infra.constructs.failures import BATCHES, Failures, KeptRecords, find_failure_queue
from rlaas.ids import METRICS_NAMESPACE
from rlaas.runtime.environment import Environment

_RLAAS = bundling.ROOT / "layers" / "rlaas"
_STREAM_KEEPS = Duration.hours(23)
"""DynamoDB keeps a stream's records for 24 hours; older ones may be gone before Lambda has written them to S3."""
_EXCLUDED = ["**/__pycache__", "**/*.pyc"]


class PythonLayers(Construct):
    """The `rlaas` package and third-party packages, as layers.

    Each stack has its own: a layer's ARN changes with every version, and a stack that got it from another stack would
    keep the old version until its own template changed.
    """

    def __init__(self, scope: Construct, id: str, *, config: StageConfig) -> None:
        super().__init__(scope, id)
        self._config = config
        self._rlaas = self._version("Rlaas", "The rlaas package", lambda_.Code.from_asset(str(_RLAAS), exclude=_EXCLUDED))
        self._third_party: dict[bundling.Packages, lambda_.LayerVersion] = {}

    def versions(self, name: str, packages: Sequence[bundling.Packages]) -> list[lambda_.ILayerVersion]:
        """The layers of the function `name`: those of `packages`, and `rlaas`.

        Raises: bundling.LayersTooLarge when Lambda would not take them together.
        """
        if Stack.of(self).bundling_required:
            archives = [bundling.build_layer(each, self._config.runtime) for each in packages]
            bundling.check_size(name, [*archives, _RLAAS, bundling.ROOT / "functions" / name])
        return [*map(self._of_packages, packages), self._rlaas]

    def _of_packages(self, packages: bundling.Packages) -> lambda_.LayerVersion:
        if packages not in self._third_party:
            runtime = self._config.runtime
            # `cdk deploy` bundles the stacks it deploys. Where CDK bundles nothing (tests, `make synth`), the lock
            # replaces the layer, so that neither pip nor a network is needed; its hash differs, so that it is never
            # deployed as the layer.
            content, fingerprint = bundling.find_lock(packages).parent, f"unbuilt-{bundling.compute_fingerprint(packages, runtime)}"
            if Stack.of(self).bundling_required:
                content, fingerprint = bundling.build_layer(packages, runtime), bundling.compute_fingerprint(packages, runtime)
            self._third_party[packages] = self._version(
                {"deps": "Dependencies", "entities": "Entities"}[packages],
                f"Third-party packages (layers/{packages}) for Python {runtime.python} on {runtime.architecture}",
                lambda_.Code.from_asset(str(content), asset_hash=fingerprint, asset_hash_type=AssetHashType.CUSTOM),
            )
        return self._third_party[packages]

    def _version(self, id: str, description: str, code: lambda_.Code) -> lambda_.LayerVersion:
        return lambda_.LayerVersion(
            self,
            id,
            description=description,
            code=code,
            compatible_runtimes=[find_runtime(self._config)],
            compatible_architectures=[find_architecture(self._config)],
            removal_policy=RemovalPolicy.DESTROY,
        )

    @classmethod
    def of(cls, scope: Construct, config: StageConfig) -> "PythonLayers":
        """The layers of the stack that contains `scope`."""
        stack = Stack.of(scope)
        existing = stack.node.try_find_child("Layers")
        return existing if isinstance(existing, cls) else cls(stack, "Layers", config=config)


class PythonFunction(Construct):
    """`functions/<name>/handler.py` as the function `rlaas-<stage>-<name>`: own role, own log group, the layers of
    `packages` and `rlaas`.

    With `web_server` the runtime starts `functions/<name>/run.sh` behind Lambda Web Adapter, and streams its answers.

    The role may only write to the function's own log group; `allow` adds other rights. Callers use `target`: the alias
    `live` of the newest version where the stage has SnapStart and `user_facing` is set, else the function itself. Where
    the stage reserves concurrency, `reserved_concurrency` calls at the same time are reserved for the function, and it
    never runs more.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        config: StageConfig,
        name: str,
        description: str,
        environment: Environment,
        timeout: Duration,
        memory_mib: int = 512,
        user_facing: bool = False,
        web_server: bool = False,
        reserved_concurrency: int | None = None,
        packages: Sequence[bundling.Packages] = ("deps",),
    ) -> None:
        super().__init__(scope, id)
        self.config = config
        function_name = f"{config.prefix}-{name}"
        self.log_group = add_log_group(self, "Logs", config=config, name=f"/aws/lambda/{function_name}")
        role = iam.Role(
            self,
            "Role",
            assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"),
            description=f"What functions/{name} may do",
        )
        write_logs = self.log_group.grant_write(role)
        snap_start = config.runtime.snap_start and user_facing
        self.function = lambda_.Function(
            self,
            "Function",
            function_name=function_name,
            description=description,
            runtime=find_runtime(config),
            architecture=find_architecture(config),
            handler="run.sh" if web_server else "handler.handler",
            code=lambda_.Code.from_asset(str(bundling.ROOT / "functions" / name), exclude=_EXCLUDED),
            layers=[*PythonLayers.of(self, config).versions(name, packages), *([find_web_adapter(self, config)] if web_server else [])],
            role=role,
            timeout=timeout,
            memory_size=memory_mib,
            reserved_concurrent_executions=reserved_concurrency if config.runtime.reserved else None,
            log_group=self.log_group,
            logging_format=lambda_.LoggingFormat.JSON,
            # Its lines about each start and end repeat the metrics, and cost as much as the function's own lines.
            system_log_level_v2=lambda_.SystemLogLevel.WARN,
            snap_start=lambda_.SnapStartConf.ON_PUBLISHED_VERSIONS if snap_start else None,
            environment={
                "POWERTOOLS_SERVICE_NAME": name,
                "POWERTOOLS_METRICS_NAMESPACE": METRICS_NAMESPACE,
                "POWERTOOLS_LOG_LEVEL": "INFO",
                **(_WEB_SERVER if web_server else {}),
                **_variables(environment),
            },
        )
        write_logs.apply_before(self.function)
        if snap_start:
            acknowledge(self.function, "The alias below publishes a version.", "@aws-cdk/aws-lambda:snapStartRequirePublish")
        self.target: lambda_.IFunction = (
            lambda_.Alias(self, "Live", alias_name="live", version=self.function.current_version) if snap_start else self.function
        )
        acknowledge(
            self.function,
            "Python 3.13 is the newest runtime whose wheels (pydantic-core, rapidfuzz) and SnapStart we test on; the laptop cloud runs the "
            "functions on the machine's own Python.",
            "AwsSolutions-L1",
        )

    def add_environment(self, environment: Environment) -> None:
        """Add variables to the function's environment, for values that are known only after it was made."""
        for name, value in _variables(environment).items():
            self.function.add_environment(name, value)

    def allow(
        self, *actions: str, on: Sequence[str], conditions: Mapping[str, object] | None = None, wildcard_because: str | None = None
    ) -> None:
        """Allow the function `actions` on the resources `on`; a resource with a `*` needs its reason."""
        self.function.add_to_role_policy(iam.PolicyStatement(actions=list(actions), resources=list(on), conditions=conditions))
        acknowledge_wildcards(self, on, wildcard_because)

    def read_stream_of(
        self,
        table: dynamodb.ITable,
        *,
        filters: Sequence[Mapping[str, object]],
        batch_size: int,
        batching: Duration,
        failures: Failures,
        lanes: int = 1,
    ) -> None:
        """Call the function with `table`'s changes, in order within a partition key; up to `lanes` calls at the same
        time share a shard's keys.

        A batch that fails is tried again for 23 of the 24 hours that the stream keeps it; then Lambda writes it whole
        into the bucket of `failures`. A record that no retry can help is set aside by the function itself, at once
        (`rlaas.adapters.aws.stream_batches`), so that later records do not wait for it.
        """
        self.function.add_event_source(
            sources.DynamoEventSource(
                table,
                starting_position=lambda_.StartingPosition.TRIM_HORIZON,
                filters=[lambda_.FilterCriteria.filter(dict(pattern)) for pattern in filters],
                batch_size=batch_size,
                max_batching_window=batching,
                parallelization_factor=lanes,
                bisect_batch_on_error=True,
                report_batch_item_failures=True,
                max_record_age=_STREAM_KEEPS,
                on_failure=KeptRecords(failures.bucket),
            )
        )
        acknowledge_wildcards(self, [failures.bucket.objects(BATCHES)], "Lambda names each batch itself; the prefix is what can be named.")
        acknowledge(
            self,
            "dynamodb:ListStreams takes no resource: it can only be allowed on all streams, and it lists names.",
            "AwsSolutions-IAM5[Resource::*]",
        )

    def keep_failed_calls(self) -> lambda_.IFunction:
        """Send calls by EventBridge that still fail after two retries whole to the stage's queue. Returns `target`.

        A rule's own dead letter queue gets only events that could not be handed to the function at all.
        """
        self.target.configure_async_invoke(on_failure=destinations.SqsDestination(find_failure_queue(self, self.config)), retry_attempts=2)
        return self.target


def _variables(environment: Environment) -> dict[str, str]:
    """The fields of `environment` that are set, as the process reads them. CDK knows some values only at deployment, so
    nothing is validated."""
    fields = environment.model_dump(by_alias=True, exclude_unset=True)
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in fields.items()}


def find_web_adapter(scope: Construct, config: StageConfig) -> lambda_.ILayerVersion:
    """Lambda Web Adapter, which turns invocations into HTTP requests: AWS's own layer, at a version that supports
    SnapStart (1.1.0)."""
    name = {"arm64": "LambdaAdapterLayerArm64", "x86_64": "LambdaAdapterLayerX86"}[config.runtime.architecture]
    arn = f"arn:{Stack.of(scope).partition}:lambda:{config.region}:{_WEB_ADAPTER_ACCOUNT}:layer:{name}:{_WEB_ADAPTER_VERSION}"
    return lambda_.LayerVersion.from_layer_version_arn(scope, "WebAdapter", arn)


def add_log_group(scope: Construct, id: str, *, config: StageConfig, name: str) -> logs.LogGroup:
    """A log group that keeps lines for the stage's retention and is deleted with its stack."""
    return logs.LogGroup(
        scope,
        id,
        log_group_name=name,
        retention=_RETENTION[config.log_retention_days],
        removal_policy=RemovalPolicy.DESTROY,
    )


def find_runtime(config: StageConfig) -> lambda_.Runtime:
    """The stage's Lambda runtime."""
    return lambda_.Runtime(
        f"python{config.runtime.python}", lambda_.RuntimeFamily.PYTHON, supports_inline_code=True, supports_snap_start=True
    )


def find_architecture(config: StageConfig) -> lambda_.Architecture:
    """The stage's processor architecture."""
    return lambda_.Architecture.ARM_64 if config.runtime.architecture == "arm64" else lambda_.Architecture.X86_64


_WEB_ADAPTER_ACCOUNT, _WEB_ADAPTER_VERSION = "753240598075", 30
_WEB_SERVER = {
    "AWS_LAMBDA_EXEC_WRAPPER": "/opt/bootstrap",
    "AWS_LWA_INVOKE_MODE": "response_stream",
    "AWS_LWA_PORT": "8080",
    "AWS_LWA_READINESS_CHECK_PATH": "/ready",
    "AWS_LWA_READINESS_CHECK_HEALTHY_STATUS": "200",
}
_RETENTION = {
    1: logs.RetentionDays.ONE_DAY,
    14: logs.RetentionDays.TWO_WEEKS,
    90: logs.RetentionDays.THREE_MONTHS,
}
