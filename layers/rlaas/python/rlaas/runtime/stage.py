"""The deployed stage as a process sees it: the one place where adapters are made from the typed environment.

Each part is imported and made when it is first used, so a function that uses the registry loads nothing else.
"""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property, partial
from importlib import import_module
from typing import TYPE_CHECKING, TypeVar

from rlaas.clock import utc_now
from rlaas.runtime.environment import (
    AdminEnvironment,
    AuditEnvironment,
    CountersEnvironment,
    EndpointEnvironment,
    Environment,
    EventsEnvironment,
    FailuresEnvironment,
    FollowUpsEnvironment,
    GrantingEnvironment,
    InferenceEnvironment,
    IngestEnvironment,
    LakeEnvironment,
    MirrorEnvironment,
    ModelsEnvironment,
    RateEnvironment,
    ReconcileEnvironment,
    RedriveEnvironment,
    RegistryEnvironment,
    RunsEnvironment,
)
from rlaas.runtime.remembered import Remembered

if TYPE_CHECKING:
    from rlaas.adapters.aws.artifact_store import S3Artifacts
    from rlaas.adapters.aws.audit_log import DynamoAuditLog
    from rlaas.adapters.aws.counters import DynamoCounters
    from rlaas.adapters.aws.events import DynamoEventStore
    from rlaas.adapters.aws.executions import StateMachine
    from rlaas.adapters.aws.failed_work import Consumers
    from rlaas.adapters.aws.failures import SetAside
    from rlaas.adapters.aws.follow_ups import FollowUpQueue
    from rlaas.adapters.aws.grants import ModelGrants
    from rlaas.adapters.aws.inference_components import SageMakerAdapters
    from rlaas.adapters.aws.lake import FirehoseLake
    from rlaas.adapters.aws.metrics_alarms import CloudWatchGuards
    from rlaas.adapters.aws.rates import DynamoRates
    from rlaas.adapters.aws.redrive import KeptRedriver, LambdaRedriver
    from rlaas.adapters.aws.registry import DynamoRegistry
    from rlaas.adapters.aws.secrets import VendorKeys
    from rlaas.adapters.aws.shadows import DynamoShadowLedger, ShadowQueue
    from rlaas.adapters.aws.tenants import DynamoTenants
    from rlaas.adapters.aws.trials import DynamoBandits, DynamoTrials, RoutesOnTrial
    from rlaas.adapters.aws.usage import DynamoUsage
    from rlaas.adapters.models.moderators import Moderators
    from rlaas.inference.circuit_breakers import CircuitBreakers
    from rlaas.metering.ceilings import TenantLimits
    from rlaas.policies.allowed_models import AllowedModels
    from rlaas.policies.backend import Backend
    from rlaas.runtime.scrubbers import Scrubbers
    from rlaas.runtime.spendings import Spendings

Settings = TypeVar("Settings", bound=Environment)


class Stage:
    """The stage that `variables` describe, in its parts. Each part is made once; a test may set its own."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables
        self._settings: dict[type[Environment], Environment] = {}

    def settings(self, model: type[Settings]) -> Settings:
        """The variables as `model`, read once. Raises: pydantic.ValidationError naming each variable that is missing or
        malformed."""
        settings = self._settings.get(model)
        if not isinstance(settings, model):
            settings = self._settings[model] = model.model_validate(self._variables)
        return settings

    @cached_property
    def name(self) -> str:
        """The stage's name."""
        return self.settings(Environment).stage

    # Stores.

    @cached_property
    def registry(self) -> "DynamoRegistry":
        """Tenants' records."""
        from rlaas.adapters.aws.registry import DynamoRegistry

        return DynamoRegistry(self.settings(RegistryEnvironment).registry_table)

    @cached_property
    def tenants(self) -> "DynamoTenants":
        """All tenants."""
        from rlaas.adapters.aws.tenants import DynamoTenants

        return DynamoTenants(self.settings(RegistryEnvironment).registry_table)

    @cached_property
    def events(self) -> "DynamoEventStore":
        """The events."""
        from rlaas.adapters.aws.events import DynamoEventStore

        settings = self.settings(EventsEnvironment)
        return DynamoEventStore(settings.events_table, ttl_days=settings.event_ttl_days)

    @cached_property
    def counters(self) -> "DynamoCounters":
        """What each tenant has used of its budgets."""
        from rlaas.adapters.aws.counters import DynamoCounters

        return DynamoCounters(self.settings(CountersEnvironment).counters_table)

    @cached_property
    def usage(self) -> "DynamoUsage":
        """The tallies of usage."""
        from rlaas.adapters.aws.usage import DynamoUsage

        return DynamoUsage(self.settings(CountersEnvironment).counters_table)

    @cached_property
    def audit(self) -> "DynamoAuditLog":
        """The audit log."""
        from rlaas.adapters.aws.audit_log import DynamoAuditLog

        return DynamoAuditLog(self.settings(AuditEnvironment).audit_table)

    @cached_property
    def artifacts(self) -> "S3Artifacts":
        """The files of learning runs."""
        from rlaas.adapters.aws.artifact_store import S3Artifacts

        return S3Artifacts()

    @cached_property
    def lake(self) -> "FirehoseLake":
        """Delivers events to the lake."""
        from rlaas.adapters.aws.lake import FirehoseLake

        return FirehoseLake(self.settings(LakeEnvironment).delivery_stream)

    # For requests.

    @cached_property
    def limits(self) -> "Remembered[TenantLimits]":
        """Each tenant's budgets and ceilings."""
        from rlaas.metering.ceilings import read_limits

        return Remembered(partial(read_limits, self.registry), clock=utc_now)

    @cached_property
    def rates(self) -> "DynamoRates":
        """How many requests each tenant has sent in this second."""
        from rlaas.adapters.aws.rates import DynamoRates

        settings = self.settings(RateEnvironment)
        return DynamoRates(settings.counters_table, per_second=settings.tenant_requests_per_second, clock=utc_now)

    @cached_property
    def scrubbers(self) -> "Scrubbers":
        """Each tenant's scrubber."""
        from rlaas.adapters.aws.entity_finder import LambdaEntityFinder
        from rlaas.runtime.scrubbers import Scrubbers

        settings = self.settings(IngestEnvironment)
        finder = LambdaEntityFinder(settings.find_entities_function, at_once=settings.find_entities_at_once)
        return Scrubbers(self.registry, clock=utc_now, finder=finder)

    @cached_property
    def spendings(self) -> "Spendings":
        """Each tenant's budgets and prices."""
        from rlaas.runtime.spendings import Spendings

        lifetime_s = self.settings(InferenceEnvironment).reservation_seconds
        return Spendings(self.registry, self.counters, self.limits, clock=utc_now, lifetime_s=lifetime_s)

    @cached_property
    def allowed(self) -> "AllowedModels":
        """The models that may be asked."""
        from rlaas.policies.allowed_models import AllowedModels

        return AllowedModels(self.settings(ModelsEnvironment).allowed_models)

    @cached_property
    def secrets(self) -> "VendorKeys":
        """Tenants' vendor keys."""
        from rlaas.adapters.aws.secrets import VendorKeys

        return VendorKeys(self.name)

    @cached_property
    def backends(self) -> "Backend":
        """The connections to models. On the laptop a policy may name a server on the same machine."""
        from rlaas.adapters.models.backends import Backends
        from rlaas.runtime.waking import WakingBackend

        backends = Backends(
            self.secrets,
            private_addresses=self.name == "local",
            allowed=self.allowed,
            base_model=self.settings(ModelsEnvironment).base_model,
        )
        return WakingBackend(backends, stage=self.name)

    @cached_property
    def moderators(self) -> "Moderators":
        """The connections to the services that judge guardrails."""
        from rlaas.adapters.models.moderators import Moderators

        return Moderators(self.secrets, private_addresses=self.name == "local", allowed=self.allowed)

    @cached_property
    def breakers(self) -> "CircuitBreakers":
        """The circuit breakers of models that fail."""
        from rlaas.inference.circuit_breakers import CircuitBreakers

        return CircuitBreakers(time.perf_counter)

    @cached_property
    def grants(self) -> "ModelGrants":
        """Makes grants, with which callers ask a model themselves."""
        from rlaas.adapters.aws.grants import ModelGrants

        return ModelGrants(self.settings(GrantingEnvironment).grant_role_arn)

    # For mirrored requests.

    @cached_property
    def shadow_ledger(self) -> "DynamoShadowLedger":
        """The mirrored requests that have no output yet."""
        from rlaas.adapters.aws.shadows import DynamoShadowLedger

        return DynamoShadowLedger(self.settings(CountersEnvironment).counters_table)

    @cached_property
    def shadow_queue(self) -> "ShadowQueue":
        """The mirrored requests that wait for their shadow."""
        from rlaas.adapters.aws.shadows import ShadowQueue

        return ShadowQueue(self.settings(MirrorEnvironment).shadow_queue_url)

    @cached_property
    def dead_shadows(self) -> "ShadowQueue":
        """The mirrored requests that no shadow could answer."""
        from rlaas.adapters.aws.shadows import ShadowQueue

        return ShadowQueue(self.settings(ReconcileEnvironment).dead_letter_queue_url)

    # For learning runs and trials.

    @cached_property
    def trials(self) -> "DynamoTrials":
        """The states of rollouts' trials."""
        from rlaas.adapters.aws.trials import DynamoTrials

        return DynamoTrials(self.settings(CountersEnvironment).counters_table)

    @cached_property
    def bandits(self) -> "DynamoBandits":
        """The statistics of bandits."""
        from rlaas.adapters.aws.trials import DynamoBandits

        return DynamoBandits(self.settings(CountersEnvironment).counters_table)

    @cached_property
    def routes_on_trial(self) -> "RoutesOnTrial":
        """The routes of rollouts and bandits."""
        from rlaas.adapters.aws.trials import RoutesOnTrial

        return RoutesOnTrial(self.settings(RegistryEnvironment).registry_table)

    @cached_property
    def guards(self) -> "CloudWatchGuards":
        """The alarms that roll rollouts back."""
        from rlaas.adapters.aws.metrics_alarms import CloudWatchGuards

        return CloudWatchGuards(self.name)

    @cached_property
    def learning(self) -> "StateMachine":
        """Starts learning runs."""
        from rlaas.adapters.aws.executions import StateMachine

        return StateMachine(self.settings(RunsEnvironment).learning_state_machine_arn)

    @cached_property
    def rollouts(self) -> "StateMachine":
        """Starts rollouts."""
        from rlaas.adapters.aws.executions import StateMachine

        return StateMachine(self.settings(AdminEnvironment).rollout_state_machine_arn)

    @cached_property
    def adapters(self) -> "SageMakerAdapters":
        """The endpoint's adapters."""
        from rlaas.adapters.aws.inference_components import SageMakerAdapters

        return SageMakerAdapters(self.settings(EndpointEnvironment).endpoint_name)

    # For failed work.

    def keeper(self, function_arn: str) -> "SetAside":
        """Where the stream consumer `function_arn` sets aside records that it can never handle."""
        from rlaas.adapters.aws.failures import SetAside

        return SetAside(self.settings(FailuresEnvironment).failures_bucket, function_arn)

    def follow_ups(self, function_arn: str) -> "FollowUpQueue":
        """Where the reward writer `function_arn` puts events beyond their tenant's share of a batch."""
        from rlaas.adapters.aws.follow_ups import FollowUpQueue

        return FollowUpQueue(self.settings(FollowUpsEnvironment).follow_ups_queue_url, function_arn)

    @cached_property
    def redriver(self) -> "LambdaRedriver":
        """Has the function `redrive` play failed work again."""
        from rlaas.adapters.aws.redrive import LambdaRedriver

        return LambdaRedriver(self.settings(AdminEnvironment).redrive_function)

    @cached_property
    def consumers(self) -> "Consumers":
        """The functions that failed work is handed to again."""
        from rlaas.adapters.aws.failed_work import Consumers

        settings = self.settings(RedriveEnvironment)
        return Consumers(settings.consumers, in_order=settings.in_order)

    @cached_property
    def kept_redriver(self) -> "KeptRedriver":
        """Plays failed work again, from the places where it is kept."""
        from rlaas.adapters.aws.failed_work import DeadShadows, FailedCalls, KeptBatches, UndeliveredEvents
        from rlaas.adapters.aws.failures import BATCHES, KeptObjects
        from rlaas.adapters.aws.redrive import KeptRedriver

        settings = self.settings(RedriveEnvironment)
        return KeptRedriver(
            {
                "batches": KeptBatches(KeptObjects(settings.failures_bucket, BATCHES), self.consumers),
                "calls": FailedCalls(settings.failures_queue_url, self.consumers),
                "shadows": DeadShadows(settings.dead_letter_queue_url, settings.shadow_queue_url),
                "lake": UndeliveredEvents(KeptObjects(settings.lake_bucket, "errors/"), settings.delivery_stream),
            }
        )


_current = Stage(os.environ)


def current_stage() -> Stage:
    """The process's stage."""
    return _current


@contextmanager
def replace_stage(stage: Stage) -> Iterator[Stage]:
    """Make `stage` the process's stage until the block ends: for tests and other code with parts of its own."""
    global _current
    previous, _current = _current, stage
    try:
        yield stage
    finally:
        _current = previous


def import_ahead(*modules: str) -> None:
    """Import modules of `rlaas` that the stage's parts need, and in Lambda make their client, while the process starts,
    so that no user waits for it: making a client takes a tenth of a second of CPU, and a snapshot holds it."""
    for module in modules:
        import_module(f"rlaas.{module}")
    if "AWS_LAMBDA_FUNCTION_NAME" in os.environ:  # elsewhere the region may not be known yet
        from rlaas.adapters.aws.clients import client

        client("dynamodb")
