"""The admin API under `/v1/admin`: FastAPI behind API Gateway, by Mangum."""

from collections.abc import Mapping
from functools import cache
from typing import Any, cast

from aws_lambda_powertools.utilities.typing import LambdaContext
from mangum import Mangum

from rlaas.adapters.aws.audit_log import DynamoAuditLog
from rlaas.adapters.aws.counters import DynamoCounters
from rlaas.adapters.aws.events import DynamoEventStore
from rlaas.adapters.aws.executions import StateMachine
from rlaas.adapters.aws.inference_components import SageMakerAdapters
from rlaas.adapters.aws.metrics_alarms import CloudWatchGuards
from rlaas.adapters.aws.redrive import LambdaRedriver
from rlaas.adapters.aws.registry import DynamoRegistry
from rlaas.adapters.aws.secrets import VendorKeys
from rlaas.adapters.aws.tenants import DynamoTenants
from rlaas.adapters.aws.trials import DynamoTrials
from rlaas.adapters.aws.usage import DynamoUsage
from rlaas.api.admin.app import admin_app
from rlaas.api.admin.services import Services
from rlaas.api.admission import admitted
from rlaas.clock import utc_now
from rlaas.policies.allowed_models import AllowedModels
from rlaas.runtime.environment import AdminEnvironment, environment


@cache
def services() -> Services:
    """The stage's services, made on first use."""
    settings = environment(AdminEnvironment)
    return Services(
        records=DynamoRegistry(settings.registry_table),
        tenants=DynamoTenants(settings.registry_table),
        events=DynamoEventStore(settings.events_table, ttl_days=settings.event_ttl_days),
        audit=DynamoAuditLog(settings.audit_table),
        guards=CloudWatchGuards(settings.stage),
        trials=DynamoTrials(settings.counters_table),
        counters=DynamoCounters(settings.counters_table),
        usage=DynamoUsage(settings.counters_table),
        learning=StateMachine(settings.learning_state_machine_arn),
        rollout=StateMachine(settings.rollout_state_machine_arn),
        adapters=SageMakerAdapters(settings.endpoint_name),
        redriver=LambdaRedriver(settings.redrive_function),
        clock=utc_now,
        endpoint=settings.endpoint_name,
        base_model=settings.base_model,
        learning_settings=settings.learning_settings,
        rollout_settings=settings.rollout_settings,
        secrets=VendorKeys(settings.stage),
        allowed=AllowedModels(settings.allowed_models),
    )


_answer = Mangum(admin_app(services, admitted), lifespan="off")


def handler(event: Mapping[str, object], context: LambdaContext) -> dict[str, object]:
    """The Lambda entry point."""
    return cast(dict[str, object], _answer(cast(Any, event), cast(Any, context)))
