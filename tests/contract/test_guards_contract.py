from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import boto3
import pytest
from moto import mock_aws

from rlaas.adapters.aws.metrics_alarms import CloudWatchGuards
from rlaas.rollout.conduct import RollbackAlarm, RollbackAlarms
from tests.fakes.guards import MemoryGuards

if TYPE_CHECKING:
    from types_boto3_cloudwatch import CloudWatchClient

GUARD = RollbackAlarm(tenant_id="acme", skill="reply", rollout_id="rol_1", arm="reply@v2", threshold=20.0, period_seconds=60)
NEXT = RollbackAlarm("acme", "reply", "rol_2", "reply@v3", 20.0, 60)


@pytest.fixture
def cloudwatch(monkeypatch: pytest.MonkeyPatch) -> Iterator[CloudWatchClient]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        yield boto3.client("cloudwatch", region_name="us-east-1")


class Watched:
    """The alarms, and which rollout is watched."""

    def __init__(self, guards: RollbackAlarms, cloudwatch: CloudWatchClient | None) -> None:
        self.guards = guards
        self._cloudwatch = cloudwatch

    def rollouts(self) -> list[str]:
        if isinstance(self.guards, MemoryGuards):
            return [guard.rollout_id for guard in self.guards.guards.values()]
        assert self._cloudwatch is not None
        alarms = self._cloudwatch.describe_alarms()["MetricAlarms"]
        return [dimension["Value"] for alarm in alarms for dimension in alarm["Dimensions"] if dimension["Name"] == "rollout"]


@pytest.fixture(params=["fake", "moto"])
def watched(request: pytest.FixtureRequest) -> Watched:
    if request.param == "fake":
        return Watched(MemoryGuards(), None)
    cloudwatch = request.getfixturevalue("cloudwatch")
    return Watched(CloudWatchGuards("test", cloudwatch), cloudwatch)


def test_a_guard_watches_until_it_is_deleted(watched: Watched) -> None:
    watched.guards.put(GUARD)
    watched.guards.put(GUARD)
    assert watched.rollouts() == ["rol_1"]
    watched.guards.delete("acme", "reply", "rol_1")
    watched.guards.delete("acme", "reply", "rol_1")
    assert watched.rollouts() == []


def test_an_older_rollout_cannot_delete_the_guard_of_the_next(watched: Watched) -> None:
    watched.guards.put(GUARD)
    watched.guards.put(NEXT)
    watched.guards.delete("acme", "reply", "rol_1")
    assert watched.rollouts() == ["rol_2"]


def test_the_alarm_is_on_the_evidence_that_the_candidate_of_this_rollout_does_harm(cloudwatch: CloudWatchClient) -> None:
    CloudWatchGuards("test", cloudwatch).put(GUARD)
    (alarm,) = cloudwatch.describe_alarms()["MetricAlarms"]
    assert alarm["AlarmName"] == "rlaas-test-guard--acme--reply"
    assert {dimension["Name"]: dimension["Value"] for dimension in alarm["Dimensions"]} == {
        "stage": "test",
        "rollout": "rol_1",
        "arm": "reply@v2",
    }
    assert (alarm["Namespace"], alarm["MetricName"], alarm["Statistic"]) == ("RLaaS", "HarmEvidence", "Maximum")
    assert (alarm["ComparisonOperator"], alarm["Threshold"]) == ("GreaterThanOrEqualToThreshold", 20.0)
    assert (alarm["Period"], alarm["EvaluationPeriods"], alarm["DatapointsToAlarm"]) == (60, 1, 1)
    assert alarm["TreatMissingData"] == "notBreaching"
