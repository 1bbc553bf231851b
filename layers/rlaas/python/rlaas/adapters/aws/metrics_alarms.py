"""Guard alarms on CloudWatch, and the event a raised one sends through EventBridge."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Self

from pydantic import BaseModel, Field

from rlaas.adapters.aws.clients import client, dependency
from rlaas.errors import InvalidInput
from rlaas.ids import METRICS_NAMESPACE
from rlaas.rollout.conduct import HARM_METRIC, RollbackAlarm

if TYPE_CHECKING:
    from types_boto3_cloudwatch import CloudWatchClient
    from types_boto3_cloudwatch.type_defs import DimensionTypeDef


class CloudWatchGuards:
    """`RollbackAlarms` as alarms named `rlaas-<stage>-guard--<tenant>--<skill>` on the largest `HarmEvidence {stage,
    rollout, arm}` of a period."""

    def __init__(self, stage: str, cloudwatch: "CloudWatchClient | None" = None) -> None:
        self._stage = stage
        self._cloudwatch = cloudwatch or client("cloudwatch")

    def put(self, guard: RollbackAlarm) -> None:
        """Put the alarm; it starts without data, which is not an alarm."""
        with dependency("CloudWatch"):
            self._cloudwatch.put_metric_alarm(
                AlarmName=self._name(guard.tenant_id, guard.skill),
                AlarmDescription=(
                    f"Takes {guard.skill} of {guard.tenant_id} back to its control when the evidence that {guard.arm} does harm reaches "
                    f"{guard.threshold:g}: by chance at most once in {guard.threshold:g} rollouts of a candidate that does none."
                ),
                Namespace=METRICS_NAMESPACE,
                MetricName=HARM_METRIC,
                Dimensions=[
                    {"Name": "stage", "Value": self._stage},
                    {"Name": "rollout", "Value": guard.rollout_id},
                    {"Name": "arm", "Value": guard.arm},
                ],
                Statistic="Maximum",
                ComparisonOperator="GreaterThanOrEqualToThreshold",
                Threshold=guard.threshold,
                Period=guard.period_seconds,
                EvaluationPeriods=1,
                DatapointsToAlarm=1,
                TreatMissingData="notBreaching",
            )

    def delete(self, tenant_id: str, skill: str, rollout_id: str) -> None:
        """Delete the alarm if it watches this rollout."""
        name = self._name(tenant_id, skill)
        with dependency("CloudWatch"):
            alarms = self._cloudwatch.describe_alarms(AlarmNames=[name], AlarmTypes=["MetricAlarm"])["MetricAlarms"]
            if any(_dimension(alarm.get("Dimensions", []), "rollout") == rollout_id for alarm in alarms):
                self._cloudwatch.delete_alarms(AlarmNames=[name])

    def _name(self, tenant_id: str, skill: str) -> str:
        return f"rlaas-{self._stage}-guard--{tenant_id}--{skill}"


def _dimension(dimensions: "Sequence[DimensionTypeDef]", name: str) -> str | None:
    return next((dimension["Value"] for dimension in dimensions if dimension["Name"] == name), None)


class GuardRaised(BaseModel):
    """A guard alarm's change of state: whose guard it is, its new state, since when and why."""

    alarm: str
    tenant_id: str
    skill: str
    rollout_id: str
    state: str
    at: datetime
    reason: str

    @classmethod
    def from_event(cls, event: Mapping[str, object]) -> Self:
        """Read an EventBridge event `CloudWatch Alarm State Change`. Raises: InvalidInput when it is not a guard's."""
        detail = _AlarmEvent.model_validate(event).detail
        owner = re.fullmatch(r"rlaas-[a-z0-9]+-guard--(.+?)--(.+)", detail.alarm_name)
        rollouts = [
            metric.metric_stat.metric.dimensions["rollout"]
            for metric in detail.configuration.metrics
            if metric.metric_stat is not None and "rollout" in metric.metric_stat.metric.dimensions
        ]
        if owner is None or not rollouts:
            raise InvalidInput(f"{detail.alarm_name!r} is not a guard alarm of a rollout")
        return cls(
            alarm=detail.alarm_name,
            tenant_id=owner[1],
            skill=owner[2],
            rollout_id=rollouts[0],
            state=detail.state.value,
            at=detail.state.timestamp,
            reason=detail.state.reason,
        )


class _Metric(BaseModel):
    dimensions: dict[str, str] = {}


class _MetricStat(BaseModel):
    metric: _Metric


class _MetricQuery(BaseModel):
    metric_stat: _MetricStat | None = Field(default=None, alias="metricStat")


class _Configuration(BaseModel):
    metrics: list[_MetricQuery] = []


class _State(BaseModel):
    value: str
    timestamp: datetime
    reason: str = ""


class _Detail(BaseModel):
    alarm_name: str = Field(alias="alarmName")
    state: _State
    configuration: _Configuration


class _AlarmEvent(BaseModel):
    detail: _Detail
