"""The scheduled function on moto: it finds the routes with a bandit, allocates, and answers what it did."""

from datetime import UTC, datetime, timedelta

import pytest

from functions.allocate.handler import handler
from rlaas.adapters.aws.trials import DynamoBandits
from rlaas.routing.assign import assign
from rlaas.routing.bandit_settings import BanditSettings
from rlaas.routing.route import Arm
from rlaas.telemetry.events import FeedbackSubmitted, OutputProduced
from rlaas.telemetry.ingest import prepare
from tests.fakes.gateway import TimeLeft
from tests.fakes.worlds import SKILL, TENANT
from tests.unit.functions.conftest import Stage

V1, V2 = f"{SKILL}@v1", f"{SKILL}@v2"


ENOUGH, ALMOST_OVER = TimeLeft(900_000), TimeLeft(5)


def with_bandit(stage: Stage, at: datetime) -> None:
    current = stage.registry.get_route(TENANT, SKILL)
    settings = BanditSettings(window_hours=1, min_samples_per_arm=3)
    arm = Arm(policy_id=V2, mode="bandit", weight=0.5)
    now = current.succeed(
        control=V1, arms=(arm,), last_good=None, rollout_id=None, changed_by="key:1", reason="go", changed_at=at, bandit=settings
    )
    stage.registry.write_route(now, expected_version=current.version)


def served(stage: Stage, number: int, at: datetime) -> None:
    decision = assign(stage.registry.get_route(TENANT, SKILL), f"t{number}", decision_id="d", decided_at=at)
    output = OutputProduced(
        output_id=f"o{number}", interaction_id=f"i{number}", skill=SKILL, text="Hi", policy_id=decision.policy_id, decision=decision
    )
    stage.events.put_new(prepare(output, TENANT, received_at=at))
    good = number % 10 != 0 if decision.policy_id == V2 else number % 3 == 0
    feedback = FeedbackSubmitted(
        feedback_id=f"f{number}",
        interaction_id=f"i{number}",
        output_id=f"o{number}",
        skill=SKILL,
        kind="action",
        action="sent" if good else "discarded",
    )
    stage.events.put_new(prepare(feedback, TENANT, received_at=at + timedelta(minutes=1)))


def test_the_schedule_moves_the_traffic_and_a_second_run_changes_nothing(
    furnished_stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    start = datetime.now(UTC) - timedelta(hours=3)
    assert handler({}, ENOUGH) == {"looked_at": 0, "changed": 0, "failed": 0, "left": 0}
    assert capsys.readouterr().out == ""  # a metric is paid for each hour in which it is sent
    with_bandit(furnished_stage, start)
    for number in range(40):
        served(furnished_stage, number, start + timedelta(minutes=number + 1))
    assert handler({}, ALMOST_OVER) == {"looked_at": 0, "changed": 0, "failed": 0, "left": 1}
    assert handler({}, ENOUGH) == {"looked_at": 1, "changed": 1, "failed": 0, "left": 0}
    route = furnished_stage.registry.get_route(TENANT, SKILL)
    assert (route.changed_by, route.arms[0].weight > 0.6) == ("bandit", True)
    assert handler({}, ENOUGH) == {"looked_at": 1, "changed": 0, "failed": 0, "left": 0}
    statistics = DynamoBandits("counters").load(TENANT, SKILL)
    assert statistics is not None
    assert sum(arm.settled for arm in statistics.arms.values()) == 40
    assert '"AllocationsLeft":1' in capsys.readouterr().out
