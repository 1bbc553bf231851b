"""The laptop cloud's processes: one by its pid file, all by the mark in their environment.

A pid alone proves nothing, since the kernel uses it again; with the process's start time it names one process for
good. Everything the emulator starts (functions' workers, jobs, vLLM) carries RLAAS_CLOUD=<state directory> in its
environment, so leftovers of a cloud that was killed are found without any file.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

PR_SET_PDEATHSIG = 1
MARK = "RLAAS_CLOUD"
OWNER = "RLAAS_OWNER"
"""The variable that names the process a cloud ends with, as `Process.text`; unset for a cloud that the user started."""


@dataclass(frozen=True)
class Process:
    """One process. `started` (clock ticks since boot) tells it apart from a later process with the same `pid`."""

    pid: int
    started: int

    @staticmethod
    def of(pid: int) -> Process | None:
        """The living process with this number; zombies do not live."""
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        return None if fields[0] in "ZX" else Process(pid, int(fields[19]))

    @staticmethod
    def parse(text: str) -> Process:
        """The process that `text` names. Raises: ValueError."""
        pid, started = map(int, text.split())
        return Process(pid, started)

    @property
    def text(self) -> str:
        """Its number and when it started."""
        return f"{self.pid} {self.started}"

    def is_alive(self) -> bool:
        """Whether this very process is there."""
        return Process.of(self.pid) == self

    def send_signal(self, which: signal.Signals) -> None:
        """Send `which`, if it lives."""
        if self.is_alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, which)


def end_with_parent() -> None:
    """For a `preexec_fn`: have the kernel kill the process when the thread that started it ends, for whatever
    reason."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def write(file: Path, process: Process) -> None:
    """Remember `process` in a pid file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(process.text + "\n")


def read(file: Path) -> Process | None:
    """The living process a pid file names."""
    try:
        process = Process.parse(file.read_text())
    except (FileNotFoundError, ValueError):
        return None
    return process if process.is_alive() else None


def list_marked(state: Path, *others: str) -> list[Process]:
    """Every living process of the cloud whose state lies in `state`, except this one; with `others` ("NAME=value"),
    only those that also have these in their environment."""
    variables = {entry.encode() for entry in (f"{MARK}={state}", *others)}
    processes = []
    for entry in filter(str.isdigit, (path.name for path in Path("/proc").iterdir())):
        try:
            environment = Path(f"/proc/{entry}/environ").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if variables <= set(environment) and int(entry) != os.getpid() and (process := Process.of(int(entry))):
            processes.append(process)
    return processes


def end(state: Path, *, first: Process | None, seconds: float) -> int:
    """End the whole cloud of `state`: `first` (the emulator) by SIGTERM, so that it ends its children in order, then
    whatever is left.

    Waits up to `seconds` for `first`. Returns how many processes had to be killed.
    """
    if first:
        first.send_signal(signal.SIGTERM)
        _wait([first], seconds)
    left = list_marked(state)
    for process in left:
        process.send_signal(signal.SIGTERM)
    _wait(left, 5.0 if left else 0.0)
    kills = 0
    while left := list_marked(state):
        for process in left:
            process.send_signal(signal.SIGKILL)
            kills += 1
        _wait(left, 5.0)
    return kills


def _wait(processes: list[Process], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while any(process.is_alive() for process in processes) and time.monotonic() < deadline:
        time.sleep(0.05)
