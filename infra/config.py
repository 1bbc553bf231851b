"""The stages' settings: literals only, so that every stage synthesizes without an account, credentials or a network."""

import platform
import re
import sys
from dataclasses import dataclass, replace
from typing import Literal

Architecture = Literal["arm64", "x86_64"]

_LONGEST_NAME = 8
"""Characters of a stage's name: the name of an adapter's inference component has stage, tenant, skill and version in 63
(`rlaas.ids.make_adapter_name`)."""


@dataclass(frozen=True, kw_only=True)
class RuntimeConfig:
    """The runtime of the functions, for which the layers are built."""

    python: str
    """Minor version, such as `3.13`."""
    architecture: Architecture
    snap_start: bool
    """Publish versions from a snapshot behind the alias `live`, for the functions that a user waits for; 4 USD a month
    for each GiB (decision 23)."""
    reserved: bool
    """Reserve concurrency for the functions that must run while a tenant floods the others; the account needs a quota
    of 1,000."""


@dataclass(frozen=True, kw_only=True)
class ApiConfig:
    """The public API's limits."""

    authorizer_ttl_seconds: int
    """How long API Gateway caches the authorizer's answer for a key; a revoked key works that much longer."""
    rate_per_second: int
    burst: int
    tenant_rate_per_second: int
    """Requests that one tenant may send in a second, over all its keys; on AWS a tenth of what the API takes, so that
    no tenant's flood makes the others wait (`make bench-fairness`)."""
    firewall: bool
    """A WAF web ACL in front of the API; 5 USD a month, and 1 USD for each rule (decision 23)."""
    stream_seconds: int = 120
    """Seconds that a streamed answer may take; API Gateway allows up to 900."""
    reservation_seconds: int | None = None
    """Seconds that a budget waits for a request to settle; after one to two times as long it frees the reservation.
    None: the function's timeout."""


@dataclass(frozen=True, kw_only=True)
class PrivacyConfig:
    """The function that finds names in texts."""

    memory_mib: int
    """Lambda gives one virtual processor for 1,769 MiB."""
    at_once: int
    """Calls at the same time for one request whose texts are too long for one call."""


@dataclass(frozen=True, kw_only=True)
class GpuSystem:
    """The system image with which SageMaker starts a GPU instance. Without one it uses the instance type's own: g5's
    driver 470 runs no current container image."""

    ami: str
    cuda: str
    """The CUDA version of its driver, from `InferenceAmiVersion` in SageMaker's API reference; the container image's
    own is in containers/vllm/Dockerfile."""


@dataclass(frozen=True, kw_only=True)
class ServingConfig:
    """The vLLM endpoint: one base model and its adapters."""

    base_model: str
    """Directory under `models/` in the artifacts bucket."""
    image_tag: str
    instance_type: str
    accelerators: int
    """GPUs for one copy of the base model."""
    system: GpuSystem | None
    """None without a GPU."""
    max_instances: int
    scale_to_zero: bool
    """Scale to no instance when there are no requests; the first request after that waits for an instance."""
    vllm: tuple[tuple[str, str], ...]
    """Options of `vllm serve`, as containers/vllm reads them."""


@dataclass(frozen=True, kw_only=True)
class LearningConfig:
    """Learning runs: their machines, and how long each step may take."""

    image_tag: str
    training_instance_type: str
    processing_instance_type: str
    training_volume_gib: int
    processing_volume_gib: int
    training_max_seconds: int
    processing_max_seconds: int
    component_poll_seconds: int
    """Seconds between two looks at an adapter that is being loaded."""
    settings: tuple[tuple[str, int | float | str | bool], ...] = ()
    """Defaults of a learning run that this stage changes (LEARNING_SETTINGS)."""


@dataclass(frozen=True, kw_only=True)
class RolloutConfig:
    """Rollouts: how often they look, and how long a decision waits for its outcome."""

    settings: tuple[tuple[str, int | float | str | bool], ...]
    """The stage's time scales and defaults of a rollout (ROLLOUT_SETTINGS)."""


@dataclass(frozen=True, kw_only=True)
class ShadowConfig:
    """Mirrored requests: how many at the same time, for how long, and how often each is tried."""

    batch_size: int = 5
    """Tasks that one call of the function does, one after the other."""
    timeout_seconds: int = 240
    retry_seconds: int = 1_440
    """Seconds until a task is tried again: six times the function's timeout, as Lambda's guide recommends for
    queues."""
    attempts: int = 3
    concurrency: int = 10
    """Calls at the same time, which limits what shadows take of the models' capacity."""


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """One deployment of RLaaS: a stage in a region."""

    name: str
    region: str
    account: str | None = None
    """None: the account of the credentials at deploy time."""
    keep_data: bool
    """Tables, buckets and keys survive their stack, and stacks refuse to be deleted."""
    log_retention_days: int
    lake_buffer_seconds: int
    """Seconds that Firehose collects events before it writes a Parquet file."""
    event_ttl_days: int
    """Days that events stay in the hot store; the lake keeps them for ever."""
    athena_scan_limit_gib: int
    runtime: RuntimeConfig
    api: ApiConfig
    privacy: PrivacyConfig
    serving: ServingConfig
    learning: LearningConfig
    rollout: RolloutConfig
    shadow: ShadowConfig = ShadowConfig()
    allowed_models: tuple[str, ...] = ("*",)
    """The models that policies may ask: patterns as in docs/security.md, such as `sagemaker:*` or
    `bedrock:*anthropic.*`."""
    follow_ups_at_once: int = 10
    """Calls at the same time for events beyond their tenant's share of the stream; SQS takes 2 and more."""
    alarm_email: str | None = None
    """Who gets the alarms. None: nobody, until somebody subscribes to the topic; each deployment prints how
    (docs/operate.md)."""

    def __post_init__(self) -> None:
        """Raises: ValueError for a name that could make two stages' resources clash or adapters' names too long, and
        for an `allowed_models` that is no pattern."""
        if len(self.name) > _LONGEST_NAME or not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", self.name):
            expected = f"lower-case words joined by single hyphens, at most {_LONGEST_NAME} characters"
            raise ValueError(f"the stage's name {self.name!r} is not {expected}")
        if malformed := [pattern for pattern in self.allowed_models if pattern != "*" and not re.fullmatch(r"[^\s:]+:\S+", pattern)]:
            raise ValueError(f"allowed_models are `*` or `<vendor>:<model>`, and {malformed[0]!r} is neither")

    @property
    def prefix(self) -> str:
        """The prefix of the names of this stage's resources."""
        return f"rlaas-{self.name}"

    @property
    def id(self) -> str:
        """The stage's id in the CDK app: `local`, or its name and region."""
        return self.name if self.name == "local" else f"{self.name}-{self.region}"


def find_host_architecture() -> Architecture:
    """The machine's own architecture, on which the laptop cloud's functions run."""
    return "arm64" if platform.machine() in ("arm64", "aarch64") else "x86_64"


AWS_RUNTIME = RuntimeConfig(python="3.13", architecture="arm64", snap_start=True, reserved=True)
# A new account's quota of 10 calls at the same time leaves none to reserve, and its first stage must deploy.
_DEV_RUNTIME = replace(AWS_RUNTIME, reserved=False, snap_start=False)

_HERMES_TOOLS = (("enable_auto_tool_choice", "true"), ("tool_call_parser", "hermes_closed"))
"""How models call tools that write calls as `<tool_call>` JSON, which Qwen's and SmolLM's instruct models do."""

LOCAL = StageConfig(
    name="local",
    region="us-east-1",
    account="000000000000",
    keep_data=False,
    log_retention_days=1,
    lake_buffer_seconds=60,
    event_ttl_days=30,
    athena_scan_limit_gib=1,
    runtime=RuntimeConfig(
        python=f"{sys.version_info.major}.{sys.version_info.minor}", architecture=find_host_architecture(), snap_start=False, reserved=False
    ),
    api=ApiConfig(
        authorizer_ttl_seconds=0, rate_per_second=1_000, burst=2_000, tenant_rate_per_second=500, firewall=False, reservation_seconds=15
    ),
    privacy=PrivacyConfig(memory_mib=1_769, at_once=1),
    serving=ServingConfig(
        base_model="smollm2-135m-instruct",
        image_tag="local",
        instance_type="ml.m5.large",
        accelerators=0,
        system=None,
        max_instances=1,
        scale_to_zero=False,
        vllm=(("max_model_len", "1024"), ("max_loras", "4"), ("max_lora_rank", "16"), *_HERMES_TOOLS),
    ),
    learning=LearningConfig(
        image_tag="local",
        training_instance_type="ml.m5.large",
        processing_instance_type="ml.m5.large",
        training_volume_gib=1,
        processing_volume_gib=1,
        training_max_seconds=1_800,
        processing_max_seconds=900,
        component_poll_seconds=1,
        settings=(
            # Two processor cores: small batches and few steps, about three minutes in all.
            ("batch_size", 2),
            ("sft_steps", 8),
            ("sft_learning_rate", 8e-4),
            ("dpo_steps", 16),
            ("dpo_learning_rate", 8e-4),
        ),
    ),
    shadow=ShadowConfig(batch_size=10, timeout_seconds=15, retry_seconds=15, concurrency=4),
    follow_ups_at_once=2,
    # The demo's weeks pass in minutes.
    rollout=RolloutConfig(
        settings=(
            ("poll_seconds", 1),
            ("window_hours", 20 / 3_600),
            ("lag_seconds", 10),
            ("max_wait_seconds", 600),
            ("alarm_period_seconds", 10),
        )
    ),
)

_VLLM = (("max_model_len", "8192"), ("max_loras", "16"), ("max_cpu_loras", "64"), ("max_lora_rank", "16"), *_HERMES_TOOLS)
_CUDA_13 = GpuSystem(ami="al2023-ami-sagemaker-inference-gpu-4-1", cuda="13.0")  # driver 580; read 2026-11-27
_AWS_PRIVACY = PrivacyConfig(memory_mib=1_769, at_once=16)
_AWS_SERVING = ServingConfig(
    base_model="qwen3-4b-instruct-2507",
    image_tag="0.1.0",
    instance_type="ml.g5.xlarge",
    accelerators=1,
    system=_CUDA_13,
    max_instances=1,
    scale_to_zero=True,
    vllm=_VLLM,
)
_AWS_LEARNING = LearningConfig(
    image_tag="0.1.0",
    training_instance_type="ml.g5.2xlarge",
    processing_instance_type="ml.m5.xlarge",
    training_volume_gib=100,
    processing_volume_gib=50,
    training_max_seconds=6 * 3_600,
    processing_max_seconds=2 * 3_600,
    component_poll_seconds=15,
)

DEV = StageConfig(
    name="dev",
    region="us-east-1",
    keep_data=True,
    log_retention_days=14,
    lake_buffer_seconds=60,
    event_ttl_days=30,
    athena_scan_limit_gib=10,
    runtime=_DEV_RUNTIME,
    api=ApiConfig(authorizer_ttl_seconds=60, rate_per_second=200, burst=400, tenant_rate_per_second=20, firewall=False),
    privacy=_AWS_PRIVACY,
    serving=_AWS_SERVING,
    learning=_AWS_LEARNING,
    rollout=RolloutConfig(settings=()),
)


def _prod(region: str) -> StageConfig:
    return StageConfig(
        name="prod",
        region=region,
        keep_data=True,
        log_retention_days=90,
        lake_buffer_seconds=300,
        event_ttl_days=90,
        athena_scan_limit_gib=100,
        runtime=AWS_RUNTIME,
        api=ApiConfig(authorizer_ttl_seconds=60, rate_per_second=2_000, burst=4_000, tenant_rate_per_second=200, firewall=True),
        privacy=_AWS_PRIVACY,
        serving=ServingConfig(
            base_model=_AWS_SERVING.base_model,
            image_tag=_AWS_SERVING.image_tag,
            instance_type="ml.g5.2xlarge",
            accelerators=1,
            system=_CUDA_13,
            max_instances=4,
            scale_to_zero=True,
            vllm=_VLLM,
        ),
        learning=_AWS_LEARNING,
        rollout=RolloutConfig(settings=()),
    )


STAGES: tuple[StageConfig, ...] = (LOCAL, DEV, _prod("us-east-1"), _prod("eu-west-1"))
"""Every deployment, one per region."""
