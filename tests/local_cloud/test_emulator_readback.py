"""The check after a deployment: sets what CloudFormation dropped, and names what it cannot set."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

from local import readback
from tests.local_cloud.conftest import Emulator


def deploy_stack(emulator: Emulator) -> tuple[str, dict[str, Any]]:
    """A stack with a table that expires and recovers; its name and template."""
    stack = f"r-{uuid.uuid4().hex[:8]}"
    table = {
        "TableName": stack,
        "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}],
        "AttributeDefinitions": [{"AttributeName": "pk", "AttributeType": "S"}],
        "BillingMode": "PAY_PER_REQUEST",
        "TimeToLiveSpecification": {"AttributeName": "expires_at", "Enabled": True},
        "PointInTimeRecoverySpecification": {"PointInTimeRecoveryEnabled": True},
    }
    template: dict[str, Any] = {"Resources": {"Table": {"Type": "AWS::DynamoDB::Table", "Properties": table}}}
    formation = emulator.client("cloudformation")
    formation.create_stack(StackName=stack, TemplateBody=json.dumps(template))
    formation.get_waiter("stack_create_complete").wait(StackName=stack, WaiterConfig={"Delay": 1})
    return stack, template


def test_what_was_dropped_is_set_once(emulator: Emulator) -> None:
    stack, template = deploy_stack(emulator)
    repairs = readback.check({stack: template}, emulator.client)
    assert [line.split()[1:3] for line in repairs] == [
        [f"{stack}/Table", "TimeToLiveSpecification,"],
        [f"{stack}/Table", "PointInTimeRecoverySpecification,"],
    ]
    assert readback.check({stack: template}, emulator.client) == []
    description = emulator.client("dynamodb").describe_time_to_live(TableName=stack)["TimeToLiveDescription"]
    assert description == {"TimeToLiveStatus": "ENABLED", "AttributeName": "expires_at"}


def test_what_cannot_be_set_is_named(emulator: Emulator) -> None:
    stack, template = deploy_stack(emulator)
    template["Resources"]["Table"]["Properties"]["StreamSpecification"] = {"StreamViewType": "NEW_IMAGE"}
    template["Resources"]["Other"] = {"Type": "AWS::SQS::Queue"}
    with pytest.raises(readback.Dropped) as problem:
        readback.check({stack: template}, emulator.client)
    assert f"{stack}/Table StreamSpecification: the template says 'NEW_IMAGE', deployed is None" in str(problem.value)
    assert f"{stack}/Other: not deployed" in str(problem.value)


def test_a_reference_stands_for_anything_that_is_set() -> None:
    expected = [{"Name": "QueueName", "Value": {"Fn::GetAtt": ["Queue", "QueueName"]}}]
    assert readback.agrees(expected, [{"Name": "QueueName", "Value": "q-1"}])
    assert not readback.agrees(expected, [{"Name": "QueueName"}])
    assert not readback.agrees(expected, [])
