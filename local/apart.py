"""A laptop cloud apart from the user's: its own state and port, the 2,048-token model, gone at the end. For tests and
benchmarks."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from local import base_model, processes
from local.cloud import Cloud
from local.deployment import ROOT


@contextmanager
def start_cloud(state: Path, *, model: Path | None = None) -> Iterator[Cloud]:
    """Run `python -m local up` as a user does, with its state in `state`, and `down` afterwards, which must leave
    nothing. `model` is the base model's directory, where it is not the tiny one.

    When this process ends before that, by SIGKILL even, the cloud ends with it.

    Raises: RuntimeError with what the command printed, or when something is left.
    """
    state = state.resolve()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    owner = processes.Process.of(os.getpid())
    assert owner is not None
    environment = {
        **os.environ,
        processes.OWNER: owner.text,
        "RLAAS_STATE": str(state),
        "RLAAS_PORT": str(port),
        "RLAAS_BASE_MODEL": str(model or base_model.ensure_base_model(ROOT / ".rlaas" / "models" / "tiny", tiny=True)),
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "layers/rlaas/python")]),
    }

    def local(command: str) -> None:
        command_line = [sys.executable, "-m", "local", command]
        result = subprocess.run(
            command_line,
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=processes.end_with_parent,
        )
        if result.returncode:
            raise RuntimeError(result.stdout + result.stderr)

    try:
        local("up")
        yield Cloud(**json.loads((state / "run" / "cloud.json").read_text()))
    finally:
        local("down")
    with socket.socket() as probe:
        if processes.list_marked(state) or probe.connect_ex(("127.0.0.1", port)) == 0:
            raise RuntimeError(f"something of the laptop cloud in {state} still runs")


def make_tenant(running: Cloud, tenant_id: str, *, scopes: tuple[str, ...] = ("telemetry", "admin")) -> Cloud:
    """`running` with another tenant's id and a new key of that tenant from the bootstrap function."""
    request = json.dumps({"tenant_id": tenant_id, "scopes": scopes}).encode()
    answer = running.client("lambda").invoke(FunctionName="rlaas-local-bootstrap", Payload=request)
    return replace(running, tenant_id=tenant_id, api_key=str(json.loads(answer["Payload"].read())["api_key"]))
