"""The endpoint's upkeep, called by its schedule, at the ends of learning runs and by an operator."""

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import boto3
import botocore.session
import pytest

from functions.reconcile_adapters import handler as upkeep
from rlaas.clock import utc_now
from rlaas.ids import make_adapter_name
from rlaas.runtime.stage import current_stage
from tests.fakes.adapters import MemoryAdapters
from tests.fakes.gateway import TimeLeft
from tests.fakes.loopback import QuietHandler, serve_handler
from tests.fakes.worlds import SKILL, TENANT
from tests.unit.functions.conftest import Stage

WAITS = {"StartAt": "Wait", "States": {"Wait": {"Type": "Wait", "Seconds": 60, "End": True}}}
LET_SLEEP = {
    "ServiceNamespace": "sagemaker",
    "ResourceId": "inference-component/rlaas-test--base",
    "ScalableDimension": "sagemaker:inference-component:DesiredCopyCount",
    "MinCapacity": 0,
}
GONE = make_adapter_name("rlaas-test", TENANT, SKILL, 1)


@pytest.fixture
def machine(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> str:
    """The learning state machine's ARN."""
    role = "arn:aws:iam::123456789012:role/learning"
    answer = boto3.client("stepfunctions").create_state_machine(name="learning", definition=json.dumps(WAITS), roleArn=role)
    monkeypatch.setenv("LEARNING_STATE_MACHINE_ARN", answer["stateMachineArn"])
    monkeypatch.setenv("ENDPOINT_NAME", "rlaas-test")
    monkeypatch.setenv("SCALE_TO_ZERO", "true")
    return str(answer["stateMachineArn"])


@pytest.fixture
def adapters(machine: str, monkeypatch: pytest.MonkeyPatch) -> MemoryAdapters:
    adapters = MemoryAdapters()
    adapters.add(GONE, utc_now() - timedelta(days=2))
    monkeypatch.setattr(current_stage(), "adapters", adapters)
    return adapters


@pytest.fixture
def scaling(machine: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """The requests to Application Auto Scaling; moto's does not support inference components."""
    requests: list[dict[str, Any]] = []

    class Scaling(QuietHandler):
        def do_POST(self) -> None:
            assert self.headers["X-Amz-Target"] == "AnyScaleFrontendService.RegisterScalableTarget"
            requests.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.answer(200, b"{}")

    with serve_handler(Scaling) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_APPLICATION_AUTO_SCALING", url)
        yield requests


def test_the_endpoint_is_kept_awake_for_the_run_that_goes_on_and_sleeps_after_the_last(
    machine: str, adapters: MemoryAdapters, scaling: list[dict[str, Any]]
) -> None:
    runs = boto3.client("stepfunctions")
    first, second = (runs.start_execution(stateMachineArn=machine, name=name)["executionArn"] for name in ("run_1", "run_2"))
    runs.stop_execution(executionArn=first)
    ended = {"detail-type": "Step Functions Execution Status Change", "detail": {"name": "run_1", "status": "ABORTED"}}
    upkeep.handler(ended, TimeLeft(600_000))
    assert scaling == []
    runs.stop_execution(executionArn=second)
    upkeep.handler({}, TimeLeft(600_000))  # by the schedule, without an event
    assert scaling == [LET_SLEEP]
    dimension: Any = botocore.session.get_session().get_service_model("application-autoscaling").shape_for("ScalableDimension")
    assert LET_SLEEP["ScalableDimension"] in dimension.enum


def test_an_endpoint_that_never_sleeps_is_not_let(
    adapters: MemoryAdapters, scaling: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCALE_TO_ZERO", "false")
    upkeep.handler({}, TimeLeft(600_000))
    assert scaling == []


def test_a_look_says_what_it_unloaded_by_name_and_counts_it(
    adapters: MemoryAdapters, scaling: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    report = upkeep.handler({}, TimeLeft(600_000))
    assert (report["unloaded"], report["kept"], report["left"]) == ((GONE,), 0, 0)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    (metrics,) = [line for line in lines if "_aws" in line]
    assert (metrics["AdaptersUnloaded"], metrics["AdaptersFailed"]) == (1, 0)
    assert metrics["_aws"]["CloudWatchMetrics"][0]["Dimensions"] == [["stage"]]
    adapters.settle()
    upkeep.handler({}, TimeLeft(600_000))
    assert "_aws" not in capsys.readouterr().out  # nothing was done, and an hour of a metric costs


def test_a_dry_run_leaves_adapters_and_the_endpoint_alone(adapters: MemoryAdapters, scaling: list[dict[str, Any]]) -> None:
    assert upkeep.handler({"dry_run": True}, TimeLeft(600_000))["unloaded"] == (GONE,)
    assert (adapters.requests, scaling) == ([], [])


def test_an_operator_unloads_all_before_the_endpoint_is_deleted(adapters: MemoryAdapters, monkeypatch: pytest.MonkeyPatch) -> None:
    adapters.add(make_adapter_name("rlaas-test", TENANT, SKILL, 2))
    monkeypatch.setattr("time.sleep", lambda _: adapters.settle())
    report = upkeep.handler({"unload": "all"}, TimeLeft(600_000))
    assert (len(adapters.by_name), report["left"]) == (0, 0)


@pytest.mark.parametrize("request_", [{"unload": "some"}, {"dry_run": "perhaps"}])
def test_what_nobody_can_ask_is_refused(adapters: MemoryAdapters, request_: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(request_))):
        upkeep.handler(request_, TimeLeft(600_000))
    assert adapters.requests == []
