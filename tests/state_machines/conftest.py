"""The real definitions on the emulator's Step Functions; every Task's answer is a case's, by SFN_MOCK_CONFIG, and waits
take no time."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from infra.state_machines.definitions import read_definition
from tests.local_cloud.conftest import ROLE, Emulator, start, until
from tests.state_machines.cases import COMPACTION, LEARNING, LEARNING_ALWAYS_ON, ROLLOUT, Case

MACHINES: Mapping[str, Sequence[Case]] = {
    "rollout": ROLLOUT,
    "learning": LEARNING,
    "learning--always-on": LEARNING_ALWAYS_ON,
    "compaction": COMPACTION,
}
SUBSTITUTIONS: Mapping[str, Mapping[str, str]] = {"learning": {"ScaleToZero": "true"}, "learning--always-on": {"ScaleToZero": "false"}}


def definition_name(machine: str) -> str:
    """The name of the definition that `machine` is of: the same one with other substitutions has more after two
    hyphens."""
    return machine.partition("--")[0]


def text_of(machine: str) -> str:
    """The state machine's definition as it is deployed, `${...}` and all."""
    return json.dumps(read_definition(definition_name(machine)))


def definition(machine: str) -> dict[str, Any]:
    """The state machine as written, `${...}` and all."""
    return dict(json.loads(text_of(machine)))


def placeholders(machine: str) -> set[str]:
    """The substitutions that a definition needs."""
    return set(re.findall(r"\$\{(\w+)\}", text_of(machine)))


@dataclass
class Ended:
    """An execution that is over."""

    status: str
    output: Any
    error: str | None
    cause: str | None
    path: list[str]
    failures: list[str]


def mock_config() -> dict[str, Any]:
    """Every case in the format of Step Functions Local."""
    responses: dict[str, Any] = {}
    machines: dict[str, Any] = {}
    for machine, cases in MACHINES.items():
        tests = machines.setdefault(machine, {"TestCases": {}})["TestCases"]
        for case in cases:
            tests[case.name] = {state: f"{machine}-{case.name}-{state}" for state in case.answers}
            for state, answers in case.answers.items():
                last = len(answers) - 1
                attempts = {str(number): answer for number, answer in enumerate(answers)}
                attempts[f"{last + 1}-999"] = answers[last]
                responses[f"{machine}-{case.name}-{state}"] = attempts
    return {"StateMachines": machines, "MockedResponses": responses}


def create(emulator: Emulator, machine: str, *, name: str, **substitutions: str) -> None:
    """Create the state machine `machine` as `name`; what has no substitution gets its own name, or 1 where a number is
    due."""
    text = text_of(machine)
    for placeholder in placeholders(machine):
        value = substitutions.get(placeholder, "1" if placeholder.endswith(("Gib", "Seconds")) else placeholder)
        text = text.replace(f"${{{placeholder}}}", value)
    emulator.client("stepfunctions").create_state_machine(name=name, definition=text, roleArn=ROLE)


@pytest.fixture(scope="session")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    home: Path = tmp_path_factory.mktemp("state-machines")
    config = home / "answers.json"
    config.write_text(json.dumps(mock_config()))
    emulator = start("ministack.app", home / "emulator", SFN_MOCK_CONFIG=str(config), SFN_WAIT_SCALE="0")
    for machine in MACHINES:
        create(emulator, machine, name=machine, **SUBSTITUTIONS.get(machine, {}))
    yield emulator
    emulator.stop()


def run(emulator: Emulator, machine: str, case: Case) -> Ended:
    """Execute `case` to its end."""
    states = emulator.client("stepfunctions")
    arn = f"arn:aws:states:us-east-1:000000000000:stateMachine:{machine}"
    payload = {"tenant_id": "acme", "skill": "reply", "policy_id": "reply@v2"}
    case_of = f"#{case.name}" if case.answers else ""
    execution = states.start_execution(stateMachineArn=f"{arn}{case_of}", name=case.name, input=json.dumps(payload))["executionArn"]

    def describe_if_over() -> Any:
        description = states.describe_execution(executionArn=execution)
        return description if description["status"] != "RUNNING" else None

    description = until(describe_if_over, seconds=40)
    events: list[Any] = []
    for page in states.get_paginator("get_execution_history").paginate(executionArn=execution):
        events += page["events"]
    return Ended(
        status=description["status"],
        output=json.loads(description["output"]) if description["status"] == "SUCCEEDED" else None,
        error=description.get("error"),
        cause=description.get("cause"),
        path=[event["stateEnteredEventDetails"]["name"] for event in events if event["type"].endswith("StateEntered")],
        failures=[event["taskFailedEventDetails"]["error"] for event in events if event["type"] == "TaskFailed"],
    )
