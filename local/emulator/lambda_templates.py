"""Templates: a function loaded once, from which each of its execution environments is a fork.

AWS starts environments on machines of their own. On a laptop a burst of 32 requests starts 60 of them on the same few
cores: loading each anew took half a minute of CPU, and a fork takes milliseconds. A fork has what its function's module
made while it was loaded, as an environment has that SnapStart restores. `lambda_worker.py` runs in the processes.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import select
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Any

WORKER = Path(__file__).with_name("lambda_worker.py")
MARK = "\x1e"
LOG_SECONDS = 2.0
MOST_BYTES = 65536
"""The longest message to or from a template."""


class InitError(RuntimeError):
    """The function's module could not be loaded; carries what the worker answered."""

    def __init__(self, answer: dict[str, Any]) -> None:
        super().__init__(answer["errorMessage"])
        self.answer = answer


class Log:
    """What a process prints, invocation by invocation."""

    def __init__(self, stream: IO[bytes], name: str) -> None:
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, args=(stream,), daemon=True, name=f"log-{name}").start()

    def _read(self, stream: IO[bytes]) -> None:
        with stream:
            for line in stream:
                self._lines.put(line.decode("utf-8", "replace").rstrip("\n"))
        self._lines.put(None)

    def read_until(self, request_id: str) -> list[str]:
        """The lines up to the mark of `request_id`, or to the end of a process that ended."""
        lines: list[str] = []
        while True:
            try:
                line = self._lines.get(timeout=LOG_SECONDS)
            except queue.Empty:  # the process is gone and something it started still holds its log open
                return lines
            if line is None:
                return lines
            text, mark, ended_id = line.partition(MARK)
            if not mark or text:
                lines.append(text)
            if mark and ended_id == request_id:
                return lines


class Environment:
    """An execution environment's process, with what is used here and by stock of a `subprocess.Popen`. Its parent is
    the template, which writes the exit status to `status`."""

    def __init__(self, pid: int, stdin: int, stdout: int, stderr: int, status: int) -> None:
        self.pid = pid
        self.stdin, self.stdout, self.stderr = os.fdopen(stdin, "wb"), os.fdopen(stdout, "rb", 0), os.fdopen(stderr, "rb")
        self._status = os.fdopen(status, "rb", 0)
        self._guard = threading.Lock()
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit status, a signal's number negative; None while it runs."""
        return self._wait(0)

    def wait(self, timeout: float | None = None) -> int:
        """The exit status. Raises: subprocess.TimeoutExpired after `timeout` seconds."""
        status = self._wait(timeout)
        if status is None:
            raise subprocess.TimeoutExpired(str(WORKER), timeout or 0)
        return status

    def _wait(self, timeout: float | None) -> int | None:
        with self._guard:
            if self.returncode is None and _can_be_read(self._status, timeout):
                text = self._status.read(16)
                self.returncode = int(text) if text else -signal.SIGKILL  # its template was killed
                for file in (self._status, self.stdin, self.stdout):
                    with contextlib.suppress(OSError):
                        file.close()
            return self.returncode

    def terminate(self) -> None:
        """End it with what it started, by SIGTERM."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it with what it started, by SIGKILL."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, how)


def _can_be_read(file: IO[bytes], timeout: float | None) -> bool:
    """Whether there is something to read, or the end, within `timeout` seconds."""
    poller = select.poll()  # not `select`, which takes no descriptor over 1023
    poller.register(file, select.POLLIN)
    return bool(poller.poll(None if timeout is None else timeout * 1000))


class Template:
    """A process that has loaded a function and runs nothing of it."""

    def __init__(self, init: dict[str, Any], environment: dict[str, str], *, name: str, seconds: float) -> None:
        """Start it and load the function within `seconds`.

        Raises: InitError with the runtime's own error when the module cannot be loaded.
        """
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._guard = threading.Lock()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(WORKER)],
                cwd=init["code"],
                env=environment,
                stdin=theirs.fileno(),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        assert self._process.stdout is not None
        log = Log(self._process.stdout, name)
        answer = self._ask(init, [], seconds)
        if answer is None or answer["status"] != "ready":
            self.stop()
            answer = answer or {"errorType": "Runtime.ExitError", "errorMessage": "Runtime exited during initialization"}
            raise InitError({**answer, "status": "error", "log": "\n".join(log.read_until("init"))})
        self.log = log.read_until("init")
        """What the function printed while it was loaded."""

    def fork(self, variables: dict[str, str]) -> Environment | None:
        """An execution environment that sees `variables`, too; None when the template is gone."""
        ours, theirs = zip(*(_pipe(reads) for reads in (False, True, True, True)), strict=True)
        try:
            answer = self._ask(variables, list(theirs), LOG_SECONDS)
        finally:
            for end in theirs:
                os.close(end)
        if answer is None:
            for end in ours:
                os.close(end)
            self.stop()
            return None
        return Environment(answer["pid"], *ours)

    def _ask(self, message: dict[str, Any], descriptors: list[int], seconds: float) -> dict[str, Any] | None:
        with self._guard:
            self._control.settimeout(seconds)
            try:
                socket.send_fds(self._control, [json.dumps(message).encode()], descriptors)
                text = self._control.recv(MOST_BYTES)
            except OSError:
                return None
        answer: dict[str, Any] | None = json.loads(text) if text else None
        return answer

    def stop(self) -> None:
        """End it; its environments live on."""
        self._control.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def _pipe(reads: bool) -> tuple[int, int]:
    """(our end, the other process's end) of a new pipe; `reads` says that ours is read."""
    reading, writing = os.pipe()
    return (reading, writing) if reads else (writing, reading)


_templates: dict[str, tuple[str, Template]] = {}
_guards: dict[str, threading.Lock] = {}
_guard = threading.Lock()


def fork(key: str, init: dict[str, Any], environment: dict[str, str], *, seconds: float) -> tuple[Environment, list[str]]:
    """A new execution environment of the function `key`, loaded from `init` and with `environment`, and what loading it
    printed. Raises: InitError."""
    own = {name: environment[name] for name in ("TMPDIR", "HOME", "AWS_LAMBDA_LOG_STREAM_NAME")}
    fingerprint = json.dumps([init, {name: value for name, value in environment.items() if name not in own}], sort_keys=True)
    with _guard:
        guard = _guards.setdefault(key, threading.Lock())
    with guard:
        earlier_fingerprint, earlier = _templates.pop(key, ("", None))
        if earlier and earlier_fingerprint == fingerprint and (process := earlier.fork(own)):
            _templates[key] = fingerprint, earlier
            return process, earlier.log
        if earlier:
            earlier.stop()
        template = Template(init, environment, name=key, seconds=seconds)
        _templates[key] = fingerprint, template
        process = template.fork(own)
    if process is None:
        raise InitError({"errorType": "Runtime.ExitError", "errorMessage": "Runtime exited during initialization"})
    return process, template.log
