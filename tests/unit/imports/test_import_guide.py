"""Runs the examples of docs/import.md as they are."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.unit.imports.conftest import KEY, SDK, Service

GUIDE = Path(__file__).parents[3] / "docs" / "import.md"
_FENCE = re.compile(r"^```(\w+)(?: ([^\n]+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_guides_examples_do_what_they_show(service: Service, tmp_path: Path) -> None:
    commands = tmp_path / "bin"
    commands.mkdir()
    rlaas = commands / "rlaas"
    rlaas.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m rlaas_sdk.cli "$@"\n')
    rlaas.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{commands}:{os.environ['PATH']}",
        "PYTHONPATH": str(SDK),
        "PYTHONIOENCODING": "utf-8",
        "RLAAS_API_URL": service.url,
        "RLAAS_API_KEY": KEY,
        "XDG_STATE_HOME": str(tmp_path / "state"),
    }
    commands_run, printed = 0, ""
    for language, info, body in _FENCE.findall(GUIDE.read_text()):
        if language in ("jsonl", "csv"):
            (tmp_path / info).write_text(body)
        elif language == "bash" and info.startswith("run"):
            expected = int(info.partition("exit=")[2] or 0)
            process = subprocess.run(["bash", "-c", body], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
            assert process.returncode == expected, process.stderr
            commands_run, printed = commands_run + 1, process.stdout
        elif language == "text":
            assert [line.rstrip() for line in printed.splitlines()] == body.splitlines()
    assert commands_run == 5
    assert len(service.of_type("task_result")) == 2
