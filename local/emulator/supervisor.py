"""Runs one command so that none of its processes outlives the emulator: `python -I -S supervisor.py COMMAND...`,
standard library only.

The emulator holds the other end of standard input. When that closes (the emulator stops the command, or was killed),
the command gets SIGTERM, and after RLAAS_STOP_SECONDS everything it started gets SIGKILL. vLLM's engine, for example,
outlives its API server; as a subreaper this process inherits such orphans, so it finds them.
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36


def descendants() -> list[int]:
    """The ids of all living processes below this one."""
    parents = {}
    for entry in filter(str.isdigit, (path.name for path in Path("/proc").iterdir())):
        try:
            state, parent = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state != "Z":
            parents[int(entry)] = int(parent)
    family = {os.getpid()}
    while more := {child for child, parent in parents.items() if parent in family} - family:
        family |= more
    return sorted(family - {os.getpid()})


def end(numbers: list[int], which: signal.Signals) -> None:
    """Send `which` to each process that is still there."""
    for number in numbers:
        try:
            os.kill(number, which)
        except ProcessLookupError:
            continue


def main() -> int:
    """Run the command; its exit status, 128 + the signal that ended it."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    grace = float(os.environ.pop("RLAAS_STOP_SECONDS", "10"))
    command = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL).pid
    command_ended = threading.Event()

    def stop() -> None:
        os.read(0, 1)
        end([command], signal.SIGTERM)
        if not command_ended.wait(grace):
            end(descendants(), signal.SIGKILL)

    threading.Thread(target=stop, daemon=True).start()
    process = 0
    while process != command:  # orphans are reaped as they end, too: the command may wait for one to be gone
        process, wait_status = os.wait()
    command_ended.set()
    status = os.waitstatus_to_exitcode(wait_status)
    while left := descendants():
        end(left, signal.SIGKILL)
        while True:
            try:
                if os.waitpid(-1, os.WNOHANG)[0] == 0:
                    break
            except ChildProcessError:
                break
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main())
