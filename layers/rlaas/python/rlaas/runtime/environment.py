"""The functions' environment variables, as typed settings, by what they are for. CDK writes them; a process reads them
through its stage."""

from pydantic import BaseModel, ConfigDict, Field, Json, JsonValue

API_GATEWAY_SECONDS = 29
"""Seconds that API Gateway waits for a whole answer."""


class Environment(BaseModel):
    """The variables of every function. Field aliases are the variables' names."""

    model_config = ConfigDict(frozen=True, extra="ignore", validate_by_name=True, defer_build=True)

    stage: str = Field(alias="RLAAS_STAGE")


class RegistryEnvironment(Environment):
    """For functions that read or change the registry."""

    registry_table: str = Field(alias="REGISTRY_TABLE")


class EventsEnvironment(RegistryEnvironment):
    """For functions that read or write events."""

    events_table: str = Field(alias="EVENTS_TABLE")
    event_ttl_days: int = Field(default=365, ge=1, alias="EVENT_TTL_DAYS")


class IngestEnvironment(EventsEnvironment):
    """For functions that scrub what they store."""

    find_entities_function: str = Field(alias="FIND_ENTITIES_FUNCTION")
    find_entities_at_once: int = Field(default=1, ge=1, alias="FIND_ENTITIES_AT_ONCE")


class CountersEnvironment(Environment):
    """For functions that count budgets or usage."""

    counters_table: str = Field(alias="COUNTERS_TABLE")


class RateEnvironment(RegistryEnvironment, CountersEnvironment):
    """For functions that take tenants' requests."""

    tenant_requests_per_second: int = Field(ge=1, alias="TENANT_REQUESTS_PER_SECOND")


class FailuresEnvironment(Environment):
    """For stream consumers that set aside records they can never handle."""

    failures_bucket: str = Field(alias="FAILURES_BUCKET")


class RewardEnvironment(EventsEnvironment, CountersEnvironment, FailuresEnvironment):
    """For the reward writer."""


class FollowUpsEnvironment(Environment):
    """For the reward writer: the queue for events beyond their tenant's share of a batch."""

    follow_ups_queue_url: str = Field(alias="FOLLOW_UPS_QUEUE_URL")


class RedriveEnvironment(FailuresEnvironment):
    """For the function that plays failed work again: where it is kept, and the ARNs of the functions to call.
    `in_order` is one of `consumers`."""

    failures_queue_url: str = Field(alias="FAILURES_QUEUE_URL")
    lake_bucket: str = Field(alias="LAKE_BUCKET")
    delivery_stream: str = Field(alias="DELIVERY_STREAM")
    shadow_queue_url: str = Field(alias="SHADOW_QUEUE_URL")
    dead_letter_queue_url: str = Field(alias="DEAD_LETTER_QUEUE_URL")
    consumers: Json[tuple[str, ...]] = Field(alias="CONSUMERS")
    in_order: str = Field(alias="IN_ORDER")


class ModelsEnvironment(Environment):
    """For functions that ask models, or store policies that name them: the models that the stage allows
    (`rlaas.policies.allowed_models`), and the one that its own endpoint serves, with adapters or without."""

    allowed_models: Json[tuple[str, ...]] = Field(default=("*",), alias="ALLOWED_MODELS")
    base_model: str = Field(default="", alias="BASE_MODEL")


class InferenceEnvironment(IngestEnvironment, CountersEnvironment, ModelsEnvironment):
    """For functions that answer. What a process reserved of a budget before it died is free again after one to two
    times `reservation_seconds`."""

    reservation_seconds: int = Field(default=60, ge=1, alias="RESERVATION_SECONDS")


class TelemetryEnvironment(IngestEnvironment, RateEnvironment):
    """For the function that receives events."""


class AnsweringEnvironment(InferenceEnvironment, RateEnvironment):
    """For functions that answer requests; a call may take `function_seconds`."""

    function_seconds: int = Field(default=API_GATEWAY_SECONDS, ge=15, alias="FUNCTION_SECONDS")


class GrantingEnvironment(Environment):
    """For the function that gives callers grants to ask models themselves, of the role `grant_role_arn`."""

    grant_role_arn: str = Field(alias="GRANT_ROLE_ARN")


class AllocationEnvironment(EventsEnvironment, CountersEnvironment):
    """For the function that sets the bandits' shares."""


class MirrorEnvironment(CountersEnvironment):
    """For the functions that send mirrored requests to the shadows and check that none was lost."""

    shadow_queue_url: str = Field(alias="SHADOW_QUEUE_URL")


class ReconcileEnvironment(MirrorEnvironment):
    """For the check of the mirrored requests."""

    dead_letter_queue_url: str = Field(alias="DEAD_LETTER_QUEUE_URL")


class LakeEnvironment(FailuresEnvironment):
    """For the lake writer, which also mirrors (`MirrorEnvironment`)."""

    delivery_stream: str = Field(alias="DELIVERY_STREAM")


class AuditEnvironment(Environment):
    """For the audit writer."""

    audit_table: str = Field(alias="AUDIT_TABLE")


class RolloutEnvironment(EventsEnvironment, CountersEnvironment):
    """For the rollout's steps: the stage's rollout settings, which a rollout's own override."""

    rollout_settings: Json[dict[str, JsonValue]] = Field(default={}, alias="ROLLOUT_SETTINGS")


class EndpointEnvironment(Environment):
    """For functions that use the model endpoint."""

    endpoint_name: str = Field(alias="ENDPOINT_NAME")


class RunsEnvironment(Environment):
    """For functions that start learning runs, or ask whether one is running."""

    learning_state_machine_arn: str = Field(alias="LEARNING_STATE_MACHINE_ARN")


class LearningEnvironment(RegistryEnvironment, EndpointEnvironment):
    """For the learning run's steps: the stage's learning settings, which a run's own override."""

    artifacts_bucket: str = Field(alias="ARTIFACTS_BUCKET")
    lake_bucket: str = Field(alias="LAKE_BUCKET")
    base_model: str = Field(alias="BASE_MODEL")
    learning_settings: Json[dict[str, JsonValue]] = Field(default={}, alias="LEARNING_SETTINGS")


class AskingEnvironment(Environment):
    """For the function that asks held-out prompts, by sessions of the role `asking_role_arn`."""

    asking_role_arn: str = Field(alias="ASKING_ROLE_ARN")


class AdaptersEnvironment(RegistryEnvironment, EndpointEnvironment, RunsEnvironment):
    """For the function that loads and unloads the endpoint's adapters; `scale_to_zero` says whether an idle endpoint
    scales to no machine."""

    scale_to_zero: bool = Field(alias="SCALE_TO_ZERO")


class AdminEnvironment(RolloutEnvironment, RateEnvironment, ModelsEnvironment, AuditEnvironment, EndpointEnvironment, RunsEnvironment):
    """For the admin API."""

    rollout_state_machine_arn: str = Field(alias="ROLLOUT_STATE_MACHINE_ARN")
    redrive_function: str = Field(alias="REDRIVE_FUNCTION")
    learning_settings: Json[dict[str, JsonValue]] = Field(default={}, alias="LEARNING_SETTINGS")
