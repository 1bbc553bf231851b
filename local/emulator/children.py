"""Processes the emulator starts for jobs and endpoints: supervised, their output to a file and to CloudWatch Logs."""

from __future__ import annotations

import collections
import contextvars
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ministack.core import responses
from ministack.services import cloudwatch_logs

SUPERVISOR = Path(__file__).with_name("supervisor.py")
TAIL_LINES = 40
logger = logging.getLogger("rlaas.children")


class LogStream:
    """A CloudWatch Logs stream of the request's account and region."""

    def __init__(self, group: str, stream: str) -> None:
        self.group, self.stream = group, stream
        cloudwatch_logs._create_log_group({"logGroupName": group})
        cloudwatch_logs._create_log_stream({"logGroupName": group, "logStreamName": stream})

    def write(self, line: str) -> None:
        """Append one line."""
        event = {"timestamp": int(time.time() * 1000), "message": line}
        cloudwatch_logs._put_log_events({"logGroupName": self.group, "logStreamName": self.stream, "logEvents": [event]})


class Child:
    """A running command. Its output goes to `log_file`, to `stream`, and line by line to `on_line`."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        cwd: str,
        environment: Mapping[str, str],
        log_file: Path,
        stream: LogStream,
        stop_seconds: float,
        on_line: Callable[[str], None] | None = None,
    ) -> None:
        log_file.parent.mkdir(parents=True, exist_ok=True)
        self.log_file = log_file
        self.tail: collections.deque[str] = collections.deque(maxlen=TAIL_LINES)
        self._stop_seconds = stop_seconds
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(SUPERVISOR), *command],
            cwd=cwd,
            env={**environment, "RLAAS_STOP_SECONDS": str(stop_seconds)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        pump = contextvars.copy_context().run
        self._pump = threading.Thread(target=pump, args=(self._read, stream, on_line), daemon=True, name=f"log-{stream.stream}")
        self._pump.start()

    def _read(self, stream: LogStream, on_line: Callable[[str], None] | None) -> None:
        assert self._process.stdout is not None
        with self.log_file.open("ab", buffering=0) as file:
            for raw in self._process.stdout:
                line = raw.decode("utf-8", "replace").rstrip("\n")
                self.tail.append(line)
                try:
                    file.write(raw)
                    stream.write(line)
                    if on_line:
                        on_line(line)
                except Exception:  # a command whose output nobody reads any more would stand still
                    logger.exception("a line of %s is lost", self.log_file.name)

    def poll(self) -> int | None:
        """The exit status, None while it runs."""
        return self._process.poll()

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the command and its log; returns the exit status.

        Raises: subprocess.TimeoutExpired after `timeout` seconds.
        """
        status = self._process.wait(timeout)
        self._pump.join(2.0)
        return status

    def stop(self) -> None:
        """End the command: SIGTERM, and SIGKILL to all it started after `stop_seconds`. Returns when it is gone."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(self._stop_seconds + 5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def make_environment(*, isolated: bool = False) -> dict[str, str]:
    """Variables with which a container reaches this cloud by an unchanged boto3, and `local down` finds and ends it.

    An `isolated` container gets no credentials, as on AWS, where it has no network either.
    """
    names = ("PATH", "HOME", "LANG", "TMPDIR", "RLAAS_CLOUD")
    own = {name: os.environ[name] for name in names if name in os.environ} | {"AWS_EC2_METADATA_DISABLED": "true", "PYTHONUNBUFFERED": "1"}
    if isolated:
        return own
    endpoint = f"http://127.0.0.1:{os.environ['GATEWAY_PORT']}"
    return own | {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_REGION": responses.get_region(),
        "AWS_DEFAULT_REGION": responses.get_region(),
        "AWS_ACCESS_KEY_ID": os.environ["AWS_ACCESS_KEY_ID"],
        "AWS_SECRET_ACCESS_KEY": os.environ["AWS_SECRET_ACCESS_KEY"],
    }


def run_in_background(work: Callable[..., Any], *arguments: object, name: str) -> threading.Thread:
    """Run `work` on a thread of its own, in this request's account and region."""
    thread = threading.Thread(target=contextvars.copy_context().run, args=(work, *arguments), daemon=True, name=name)
    thread.start()
    return thread
