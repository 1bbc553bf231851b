"""The guard's scheduled function on moto: it finds the routes in a rollout, looks, and emits the evidence that the
alarm watches."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from functions.watch_rollouts.handler import handler
from rlaas.adapters.aws.metrics_alarms import CloudWatchGuards
from rlaas.adapters.aws.trials import DynamoTrials
from rlaas.rollout.conduct import Conductor
from rlaas.rollout.request import request_rollout
from rlaas.rollout.steps import RolloutSettings, RolloutStep
from rlaas.routing.assign import assign
from rlaas.telemetry.events import InteractionCreated, OutputProduced
from rlaas.telemetry.ingest import prepare
from tests.fakes.gateway import TimeLeft
from tests.fakes.worlds import SKILL, TENANT, make_route
from tests.unit.functions.conftest import Stage

SETTINGS = RolloutSettings(steps=(RolloutStep(weight=0.3),), window_hours=1.0, units_a_day=5_000)


ENOUGH, ALMOST_OVER = TimeLeft(900_000), TimeLeft(5)


def begin(stage: Stage, at: datetime) -> Conductor:
    stage.registry.write_route(make_route(version=2), expected_version=1)
    trials = DynamoTrials("counters", stage.dynamodb)
    request_rollout(
        stage.registry,
        stage.events,
        tenant_id=TENANT,
        skill=SKILL,
        rollout_id="rol_1",
        candidate=f"{SKILL}@v2",
        settings=SETTINGS,
        actor="key:1",
        reason="try it",
        now=at,
    )
    conductor = Conductor(stage.registry, stage.events, trials, CloudWatchGuards("test"), lambda: at, TENANT, SKILL, "rol_1")
    conductor.begin()
    conductor.set_weight(0)
    return conductor


def served(stage: Stage, number: int, at: datetime) -> None:
    decision = assign(stage.registry.get_route(TENANT, SKILL), f"t{number}", decision_id="d", decided_at=at)
    interaction = InteractionCreated(interaction_id=f"i{number}", skill=SKILL, inputs={"email": "?"})
    text = "" if decision.policy_id == f"{SKILL}@v2" else "Dear customer"
    output = OutputProduced(
        output_id=f"o{number}", interaction_id=f"i{number}", skill=SKILL, text=text, policy_id=decision.policy_id, decision=decision
    )
    for event in (interaction, output):
        stage.events.put_new(prepare(event, TENANT, received_at=at))


def test_every_rollout_is_looked_at_and_its_evidence_of_harm_emitted_until_it_is_taken_back(
    furnished_stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    start = datetime.now(UTC) - timedelta(hours=3)
    conductor = begin(furnished_stage, start)
    for number in range(60):
        served(furnished_stage, number, start + timedelta(minutes=number + 1))
    assert handler({}, ALMOST_OVER) == {"looked_at": 0, "failed": 0, "left": 1}
    assert handler({}, ENOUGH) == {"looked_at": 1, "failed": 0, "left": 0}
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if "HarmEvidence" in line]
    [metric] = lines
    assert metric["_aws"]["CloudWatchMetrics"] == [
        {"Namespace": "RLaaS", "Dimensions": [["stage", "rollout", "arm"]], "Metrics": [{"Name": "HarmEvidence", "Unit": "None"}]}
    ]
    assert (metric["stage"], metric["rollout"], metric["arm"]) == ("test", "rol_1", f"{SKILL}@v2")
    assert metric["HarmEvidence"] >= 20
    state = conductor.trials.load(TENANT, SKILL, "rol_1")
    assert state is not None
    assert state.test.n == 60
    assert handler({}, ENOUGH)["looked_at"] == 1
    conductor.abort("enough")
    assert handler({}, ENOUGH) == {"looked_at": 0, "failed": 0, "left": 0}
