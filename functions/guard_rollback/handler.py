"""A guard alarm takes its skill back to the last good route: one conditional write, then the rollout's record of it."""

from collections.abc import Mapping

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext

from rlaas.adapters.aws.metrics_alarms import GuardRaised
from rlaas.clock import utc_now
from rlaas.errors import Conflict
from rlaas.rollout.conduct import take_back
from rlaas.runtime.stage import current_stage
from rlaas.tenancy.registry import Change

logger = Logger(service="rlaas")


def handler(event: Mapping[str, object], _: LambdaContext) -> dict[str, object]:
    """Roll back on ALARM. An alarm that comes twice or late (its rollout no longer has the route) changes nothing."""
    raised = GuardRaised.from_event(event)
    if raised.state != "ALARM":
        return {"rolled_back": False, "reason": f"the guard is {raised.state}"}
    change = Change(actor=f"alarm:{raised.alarm}", reason=f"guard alarm: {raised.reason}", at=utc_now())
    try:
        route = take_back(
            current_stage().registry,
            tenant_id=raised.tenant_id,
            skill=raised.skill,
            change=change,
            rollout_id=raised.rollout_id,
            alarm_at=raised.at,
        )
    except Conflict as late:
        logger.info("alarm ignored", alarm=raised.alarm, rollout_id=raised.rollout_id, detail=late.detail)
        return {"rolled_back": False, "reason": late.detail}
    logger.info("rolled back", alarm=raised.alarm, rollout_id=raised.rollout_id, route_version=route.version)
    return {"rolled_back": True, "route_version": route.version}
