"""What a stage costs when nobody calls it, from its templates."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import cost, idle_cost
from infra.config import STAGES
from tests.infra.template import Template

GOALS_USD = {"dev": 15.0, "prod": 30.0}


def of_stage(templates: list[Template], id: str) -> list[dict[str, Any]]:
    return [template.body for template in templates if template.stage == id]


@pytest.mark.parametrize("config", [config for config in STAGES if config.name != "local"], ids=lambda config: config.id)
def test_a_month_in_which_nobody_calls_stays_below_its_goal(config: Any, templates: list[Template]) -> None:
    lines = idle_cost.idle_lines(of_stage(templates, config.id))
    assert 0 < idle_cost.total(lines) <= GOALS_USD[config.name], lines


def test_the_stages_that_are_counted_are_there() -> None:
    assert set(cost.STAGES_COUNTED.values()) <= {config.id for config in STAGES}
    assert set(cost.STAGES_COUNTED) == set(GOALS_USD)


def test_a_function_that_answers_has_the_memory_that_its_price_is_for(templates: list[Template]) -> None:
    for template in templates:
        for function in template.resources("AWS::Lambda::Function").values():
            if function["Properties"]["FunctionName"].endswith(("-inference", "-chat")):
                assert function["Properties"]["MemorySize"] == cost.ANSWERING_GIB * 1024


def test_a_resource_without_a_known_price_is_named() -> None:
    cluster = {"Resources": {"Nat": {"Type": "AWS::EC2::NatGateway", "Properties": {}}}}
    with pytest.raises(ValueError, match=r"AWS::EC2::NatGateway \(Nat\): give it a price"):
        idle_cost.idle_lines([cluster])


def test_what_is_paid_by_the_month_is_counted_by_what_aws_bills() -> None:
    stat = {"MetricStat": {"Metric": {}, "Period": 60, "Stat": "Sum"}}
    resources = {
        "Ratio": {"Type": "AWS::CloudWatch::Alarm", "Properties": {"Metrics": [{"Expression": "a / b"}, stat, stat]}},
        "Fast": {"Type": "AWS::CloudWatch::Alarm", "Properties": {"MetricName": "Errors", "Period": 10}},
        "Acl": {"Type": "AWS::WAFv2::WebACL", "Properties": {"Rules": [{}, {}, {}]}},
        "Asked": {"Type": "AWS::Lambda::Function", "Properties": {"MemorySize": 1024, "SnapStart": {}}},
        "Snapshot": {"Type": "AWS::Lambda::Version", "Properties": {"FunctionName": {"Ref": "Asked"}}},
        "Called": {"Type": "AWS::Lambda::Function", "Properties": {"MemorySize": 512}},
        "Plain": {"Type": "AWS::Lambda::Version", "Properties": {"FunctionName": {"Ref": "Called"}}},
        "Minutely": {
            "Type": "AWS::Events::Rule",
            "Properties": {"ScheduleExpression": "rate(1 minute)", "Targets": [{"Arn": {"Fn::GetAtt": ["Called", "Arn"]}}]},
        },
        "Endpoint": {
            "Type": "AWS::SageMaker::EndpointConfig",
            "Properties": {"ProductionVariants": [{"InstanceType": "ml.g5.xlarge", "InitialInstanceCount": 1}]},
        },
    }
    lines = idle_cost.idle_lines([{"Resources": resources}])
    assert lines["alarms"] == pytest.approx(0.2 + 0.3)
    assert lines["firewall"] == 8.0
    assert lines["snap_start"] == pytest.approx(730 * 3600 * 0.0000015046)
    assert lines["endpoint"] == pytest.approx(730 * 1.408)
    calls = 730 * 60
    assert lines["scheduled_calls"] == pytest.approx(calls * (0.2e-6 + 0.05 * 0.0000133334 + 0.125e-6))


def test_a_version_that_stays_behind_would_go_on_costing() -> None:
    resources = {
        "Asked": {"Type": "AWS::Lambda::Function", "Properties": {"MemorySize": 1024, "SnapStart": {}}},
        "Kept": {"Type": "AWS::Lambda::Version", "Properties": {"FunctionName": {"Ref": "Asked"}}, "DeletionPolicy": "Retain"},
    }
    with pytest.raises(ValueError, match="Kept is kept when a newer version replaces it"):
        idle_cost.idle_lines([{"Resources": resources}])


def test_every_price_says_where_it_stands_and_when_it_was_read() -> None:
    listed = json.loads((Path(idle_cost.__file__).parent / "prices.json").read_text())["prices"]
    for name, price in listed.items():
        assert price.keys() == {"usd", "per", "source", "date"}, name
        assert price["usd"] > 0, name


def test_a_million_events_with_all_that_follows_them_stays_below_its_goal() -> None:
    assert cost.events_figures()["million_events_all_usd"] <= 1.50
