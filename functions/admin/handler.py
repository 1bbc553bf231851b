"""The admin API under `/v1/admin`: FastAPI behind API Gateway, by Mangum."""

from collections.abc import Mapping
from typing import Any, cast

from aws_lambda_powertools.utilities.typing import LambdaContext
from mangum import Mangum

from rlaas.api.admin.app import admin_app
from rlaas.api.admin.services import Services
from rlaas.api.admission import admit_caller
from rlaas.clock import utc_now
from rlaas.runtime.environment import AdminEnvironment
from rlaas.runtime.paths import tidy_path
from rlaas.runtime.stage import current_stage, import_ahead

import_ahead(
    "adapters.aws.audit_log",
    "adapters.aws.counters",
    "adapters.aws.events",
    "adapters.aws.executions",
    "adapters.aws.inference_components",
    "adapters.aws.metrics_alarms",
    "adapters.aws.redrive",
    "adapters.aws.registry",
    "adapters.aws.secrets",
    "adapters.aws.tenants",
    "adapters.aws.trials",
    "adapters.aws.usage",
)


def build_services() -> Services:
    """The stage's services."""
    stage = current_stage()
    settings = stage.settings(AdminEnvironment)
    return Services(
        records=stage.registry,
        tenants=stage.tenants,
        events=stage.events,
        audit=stage.audit,
        guards=stage.guards,
        trials=stage.trials,
        counters=stage.counters,
        usage=stage.usage,
        learning=stage.learning,
        rollout=stage.rollouts,
        adapters=stage.adapters,
        redriver=stage.redriver,
        clock=utc_now,
        endpoint=settings.endpoint_name,
        base_model=settings.base_model,
        learning_settings=settings.learning_settings,
        rollout_settings=settings.rollout_settings,
        secrets=stage.secrets,
        allowed=stage.allowed,
    )


_answer = Mangum(admin_app(build_services, admit_caller), lifespan="off")


def handler(event: Mapping[str, object], context: LambdaContext) -> dict[str, object]:
    """The Lambda entry point."""
    tidy_event = {**event, "path": tidy_path(str(event["path"]))}
    return cast(dict[str, object], _answer(cast(Any, tidy_event), cast(Any, context)))
