"""What a machine must have before anything long starts; each problem is one line that says how to solve it. Standard
library only."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PORT = int(os.environ.get("RLAAS_PORT", "4566"))
NEEDED_MEMORY_GIB = 12
NEEDED_DISK_GIB = 12


def find_problems(*, for_cloud: bool) -> list[str]:
    """What the machine lacks, a line each, worst first; empty when set-up (and, with `for_cloud`, the laptop cloud) can
    start."""
    findings = [_python(), _node(), _disk()]
    if for_cloud:
        findings += [_memory(), _port()]
    return [problem for problem in findings if problem]


def _python() -> str | None:
    if sys.version_info[:2] != (3, 11):
        return f"Python 3.11 is needed, this is {sys.version.split()[0]}: install python3.11 and run `make PYTHON=python3.11 ...`"
    if importlib.util.find_spec("ensurepip") is None:
        return "Python's venv module is missing: `apt-get install python3-venv`"
    return None


def _node() -> str | None:
    node = shutil.which("node")
    if node is None or shutil.which("npm") is None:
        return "Node.js 20 or newer with npm is needed by the CDK and was not found on PATH: install it, e.g. with a version manager"
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    if int(version.lstrip("v").split(".")[0]) < 20:
        return f"Node.js 20 or newer is needed, {node} is {version}: upgrade it"
    return None


def _disk() -> str | None:
    if (ROOT / ".venv").exists():
        return None
    free = shutil.disk_usage(ROOT).free / 2**30
    if free < NEEDED_DISK_GIB:
        return f"{NEEDED_DISK_GIB} GiB of free disk are needed under {ROOT}, there are {free:.1f}: free some"
    return None


def _memory() -> str | None:
    """Whether memory is short; not checked while a laptop cloud runs, which has its memory already."""
    if _ours_is_listening():
        return None
    fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    available = int(fields["MemAvailable"].split()[0]) / 2**20
    if available < NEEDED_MEMORY_GIB:
        return f"{NEEDED_MEMORY_GIB} GiB of free memory are needed (vLLM 5, training 7), there are {available:.1f}: close something"
    return None


def _port() -> str | None:
    if _ours_is_listening():
        return None
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", PORT))
        except OSError:
            return f"port {PORT} on 127.0.0.1 is taken by another program: stop it, or choose another with `RLAAS_PORT=4567 make ...`"
    return None


def _ours_is_listening() -> bool:
    """Whether the laptop cloud of this checkout runs (its launcher's pid file names a live process)."""
    pid_file = ROOT / ".rlaas" / "run" / "emulator.pid"
    try:
        return Path(f"/proc/{int(pid_file.read_text().split()[0])}").exists()
    except (FileNotFoundError, ValueError, IndexError):
        return False
