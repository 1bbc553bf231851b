"""Reads the state machines of this folder, and adds to each task the retries that `retries.json` has for its action."""

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
_INTEGRATION = "arn:aws:states:::"


def read_definition(name: str) -> dict[str, Any]:
    """The definition in `<name>.asl.json`, with its `${...}`. A task with a `Retry` of its own keeps it. Raises:
    ValueError for a task for which `retries.json` has no retries."""
    definition: dict[str, Any] = json.loads((HERE / f"{name}.asl.json").read_text())
    _add_retries(definition["States"], json.loads((HERE / "retries.json").read_text()))
    return definition


def _add_retries(states: dict[str, Any], retries: dict[str, list[dict[str, Any]]]) -> None:
    for state in states.values():
        if "ItemProcessor" in state:
            _add_retries(state["ItemProcessor"]["States"], retries)
        if state["Type"] != "Task" or "Retry" in state:
            continue
        action = state["Resource"].removeprefix(_INTEGRATION)
        retry = next((retry for prefix, retry in retries.items() if action.startswith(prefix)), None)
        if retry is None:
            raise ValueError(f"retries.json has no retries for {action}")
        state["Retry"] = retry
