from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import pytest

from rlaas import errors
from tests.local_cloud.conftest import Emulator
from tests.state_machines.cases import Case
from tests.state_machines.conftest import MACHINES, create, definition, definition_name, placeholders, run

EVERY_CASE = [pytest.param(machine, case, id=f"{machine}: {case.name}") for machine, cases in MACHINES.items() for case in cases]


@pytest.mark.parametrize(("machine", "case"), EVERY_CASE)
def test_the_execution_takes_this_way_and_ends_like_this(machines: Emulator, machine: str, case: Case) -> None:
    result = run(machines, machine, case)
    states = definition(machine)["States"]  # the emulator's history leaves out what happens inside a Map
    assert result.path == [state for state in case.path.split() if state in states]
    assert (result.status, result.error, result.cause) == (case.status, case.error, case.cause)
    assert result.output == case.output
    if case.tries is not None:
        assert len(result.failures) == case.tries


TELLS_WHAT_IT_GOT = """
    import json

    ANSWERS = {
        "begin": {"steps": 2, "poll_seconds": 1},
        "set_weight": {"state": "running"},
        "analyse": {"outcome": "advance"},
        "promote": {"state": "shipped"},
        "finish": {"status": "shipped"},
    }
    got = []

    def handler(event, context):
        got.append(event)
        return {**ANSWERS[event["step"]], "rollout_id": event["rollout_id"], "reason": json.dumps(got)}
"""


def test_each_state_hands_its_function_the_rollout_and_the_step(machines: Emulator) -> None:
    machines.function("rollout-steps", TELLS_WHAT_IT_GOT)
    create(machines, "rollout", name="told", RolloutStepsFunctionArn="arn:aws:lambda:us-east-1:000000000000:function:rollout-steps")
    result = run(machines, "told", Case("run-by-hand", {}, ""))
    assert (result.status, result.path[-1]) == ("SUCCEEDED", "Shipped")
    who = {"tenant_id": "acme", "skill": "reply", "rollout_id": "run-by-hand"}  # the execution's name, as the input has no id
    assert json.loads(result.output["reason"]) == [
        {**who, "policy_id": "reply@v2", "step": "begin"},
        {**who, "step": "set_weight", "index": 0},
        {**who, "step": "analyse", "index": 0},
        {**who, "step": "set_weight", "index": 1},
        {**who, "step": "analyse", "index": 1},
        {**who, "step": "promote"},
        {**who, "step": "finish"},
    ]


def every_state(states: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any], bool]]:
    """Name and state, and whether it is inside a Map."""
    for name, state in states.items():
        yield name, state, False
        for inner, inner_state, _ in every_state(state.get("ItemProcessor", {}).get("States", {})):
            yield inner, inner_state, True


@pytest.mark.parametrize("machine", sorted(set(map(definition_name, MACHINES))))
def test_every_transition_is_walked_by_a_case(machine: str) -> None:
    cases = [case for name, cases in MACHINES.items() if definition_name(name) == machine for case in cases]
    transitions = {pair for case in cases for pair in pairwise(case.path.split())}
    missing = []
    for name, state, _ in every_state(definition(machine)["States"]):
        targets = [state.get("Next"), state.get("Default"), *(way["Next"] for way in (*state.get("Choices", []), *state.get("Catch", [])))]
        ends_inside = state["Type"] == "Map"  # its way on begins at whichever state ended its last item
        missing += [(name, target) for target in targets if target and not ends_inside and (name, target) not in transitions]
    assert missing == []


@pytest.mark.parametrize("machine", MACHINES)
def test_every_task_is_bounded_in_time_and_tries_and_says_where_its_failure_goes(machine: str) -> None:
    for name, state, inside_map in every_state(definition(machine)["States"]):
        if state["Type"] != "Task":
            continue
        assert isinstance(state["TimeoutSeconds"], int), name
        for retrier in state["Retry"]:
            assert retrier["MaxAttempts"] <= 5, name
            assert retrier["BackoffRate"] >= 2, name
            assert retrier["MaxDelaySeconds"] <= 60, name
            assert retrier["JitterStrategy"] == "FULL", name
            assert "States.ALL" not in retrier["ErrorEquals"], f"{name} retries errors that will not go away"
            own = [error for error in retrier["ErrorEquals"] if "." not in error]
            assert all(getattr(errors, error).retryable for error in own), name
        assert inside_map or state["Catch"][-1]["ErrorEquals"] == ["States.ALL"], name


@pytest.mark.parametrize("machine", MACHINES)
def test_the_comment_names_the_substitutions_the_definition_needs(machine: str) -> None:
    match = re.search(r"Substitutions: ([\w, ]+)\.", definition(machine)["Comment"])
    assert match is not None
    assert set(match[1].split(", ")) == placeholders(machine)


@pytest.mark.parametrize("machine", MACHINES)
def test_variables_of_a_map_do_not_hide_those_around_it(machine: str) -> None:
    """Step Functions refuses such a definition; the emulator does not."""

    def variables_of(state: Mapping[str, Any]) -> set[str]:
        ways = (state, *state.get("Catch", []), *state.get("Choices", []))
        return {name for way in ways for name in way.get("Assign", {})}

    states = list(every_state(definition(machine)["States"]))
    outer = set().union(*(variables_of(state) for _, state, inside in states if not inside))
    inner = set().union(*(variables_of(state) for _, state, inside in states if inside))
    assert outer & inner == set()
