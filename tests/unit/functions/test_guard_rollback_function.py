from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from functions.guard_rollback import handler as guard_rollback
from rlaas.errors import InvalidInput
from rlaas.rollout.steps import Rollout, RolloutSettings
from rlaas.tenancy.registry import rollout_key
from tests.fakes.gateway import make_lambda_context
from tests.fakes.worlds import CHANGE, NOW, SKILL, TENANT
from tests.unit.functions.conftest import Stage


def alarm(state: str = "ALARM", rollout_id: str = "rol_1") -> dict[str, Any]:
    """As CloudWatch sends it (Amazon CloudWatch User Guide, "Alarm events and EventBridge")."""
    metric = {
        "namespace": "RLaaS",
        "name": "Reward",
        "dimensions": {"stage": "test", "rollout": rollout_id, "arm": f"{SKILL}@v2"},
    }
    return {
        "source": "aws.cloudwatch",
        "detail-type": "CloudWatch Alarm State Change",
        "detail": {
            "alarmName": f"rlaas-test-guard--{TENANT}--{SKILL}",
            "state": {"value": state, "reason": "Threshold Crossed: 2 of 3", "timestamp": "2026-03-01T12:00:09.120+0000"},
            "previousState": {"value": "OK"},
            "configuration": {"metrics": [{"id": "m1", "metricStat": {"metric": metric, "period": 60, "stat": "Average"}}]},
        },
    }


def raise_(event: dict[str, Any]) -> dict[str, object]:
    return guard_rollback.handler(event, make_lambda_context())


def record(stage: Stage) -> Rollout:
    return stage.registry.get(Rollout, TENANT, rollout_key(SKILL, "rol_1")).record


@pytest.fixture
def rolling(furnished_stage: Stage) -> Stage:
    """A stage whose route belongs to the rollout `rol_1`, which is recorded."""
    rollout = Rollout(
        rollout_id="rol_1",
        tenant_id=TENANT,
        skill=SKILL,
        control=f"{SKILL}@v1",
        candidate=f"{SKILL}@v2",
        settings=RolloutSettings(),
        status="running",
        reason="try it",
        created_at=NOW,
    )
    furnished_stage.registry.put(TENANT, rollout_key(SKILL, "rol_1"), rollout, CHANGE)
    return furnished_stage


def test_an_alarm_takes_the_route_back_and_the_rollout_tells_when_and_why(rolling: Stage) -> None:
    assert raise_(alarm()) == {"rolled_back": True, "route_version": 2}
    route = rolling.registry.get_route(TENANT, SKILL)
    assert (route.control, route.arms, route.mode) == (f"{SKILL}@v1", (), "rolled_back")
    assert route.changed_by == f"alarm:rlaas-test-guard--{TENANT}--{SKILL}"
    rollout = record(rolling)
    assert (rollout.status, rollout.rolled_back_at) == ("rolled_back", route.changed_at)
    assert rollout.alarm_at == datetime.fromisoformat("2026-03-01T12:00:09.120+00:00")
    assert rollout.reason == "guard alarm: Threshold Crossed: 2 of 3"


def test_the_same_alarm_again_writes_nothing(rolling: Stage) -> None:
    raise_(alarm())
    before = rolling.items("registry")
    assert raise_(alarm()) == {"rolled_back": True, "route_version": 2}
    assert rolling.items("registry") == before


@pytest.mark.parametrize("event", [alarm("OK"), alarm("INSUFFICIENT_DATA"), alarm(rollout_id="rol_0")])
def test_other_states_and_alarms_of_other_rollouts_change_nothing(rolling: Stage, event: dict[str, Any]) -> None:
    before = rolling.items("registry")
    assert raise_(event)["rolled_back"] is False
    assert rolling.items("registry") == before


def test_a_rollout_without_a_record_is_taken_back_all_the_same(furnished_stage: Stage) -> None:
    assert raise_(alarm())["rolled_back"] is True


def test_an_event_that_is_no_guards_alarm_is_refused(rolling: Stage) -> None:
    stranger = alarm()
    stranger["detail"]["alarmName"] = "somebody-elses-alarm"
    with pytest.raises(InvalidInput):
        raise_(stranger)
