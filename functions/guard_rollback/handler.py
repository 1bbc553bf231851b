"""Takes a skill back to its last good route when its guard alarm is raised: one conditional write, then the rollout's
record of it."""

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
    """Roll back on ALARM. An alarm that comes twice or late (its rollout no longer has the route) changes nothing.
    Raises: InvalidInput for an event of another alarm, DependencyUnavailable."""
    alarm = GuardRaised.from_event(event)
    if alarm.state != "ALARM":
        return {"rolled_back": False, "reason": f"the guard is {alarm.state}"}
    change = Change(actor=f"alarm:{alarm.alarm}", reason=f"guard alarm: {alarm.reason}", at=utc_now())
    try:
        route = take_back(
            current_stage().registry,
            tenant_id=alarm.tenant_id,
            skill=alarm.skill,
            change=change,
            rollout_id=alarm.rollout_id,
            alarm_at=alarm.at,
        )
    except Conflict as late:
        logger.info("alarm ignored", alarm=alarm.alarm, rollout_id=alarm.rollout_id, detail=late.detail)
        return {"rolled_back": False, "reason": late.detail}
    logger.info("rolled back", alarm=alarm.alarm, rollout_id=alarm.rollout_id, route_version=route.version)
    return {"rolled_back": True, "route_version": route.version}
