"""The state machines of this folder, whole: each task retried as `retries.json` says of what it calls."""

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
_INTEGRATION = "arn:aws:states:::"


def read_definition(name: str) -> dict[str, Any]:
    """What `<name>.asl.json` defines, `${...}` and all. A task that names its own `Retry` keeps it."""
    definition: dict[str, Any] = json.loads((HERE / f"{name}.asl.json").read_text())
    _add_retries(definition["States"], json.loads((HERE / "retries.json").read_text()))
    return definition


def _add_retries(states: dict[str, Any], retries: dict[str, list[dict[str, Any]]]) -> None:
    for state in states.values():
        if "ItemProcessor" in state:
            _add_retries(state["ItemProcessor"]["States"], retries)
        if state["Type"] != "Task" or "Retry" in state:
            continue
        called = state["Resource"].removeprefix(_INTEGRATION)
        retry = next((retry for prefix, retry in retries.items() if called.startswith(prefix)), None)
        if retry is None:
            raise ValueError(f"retries.json says nothing of {called}")
        state["Retry"] = retry
