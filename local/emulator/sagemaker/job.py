"""A training or processing job: a subprocess that sees SageMaker's directory layout.

/opt/ml is `RLAAS_ML_ROOT` here, a directory a job has to itself. Inputs are fetched before the command runs, outputs
stored after it ended well; the state, the times and the reason of a failure are described as SageMaker describes them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from ministack.core import responses

from local.emulator.children import Child, LogStream, make_environment, run_in_background
from local.emulator.sagemaker.errors import REASON_CHARACTERS, ApiError, describe_failure
from local.emulator.sagemaker.images import image

STOP_SECONDS = 5.0
JsonObject = dict[str, Any]


class Stopped(Exception):
    """StopTrainingJob or StopProcessingJob was called."""


class OutOfTime(Exception):
    """StoppingCondition's MaxRuntimeInSeconds passed."""


class Job(ABC):
    """One job: its description, its directory, and its process while there is one."""

    kind: str  # "Training" or "Processing"

    def __init__(self, request: JsonObject) -> None:
        self.request = request
        self.name: str = request[f"{self.kind}JobName"]
        self.root: Path = Path(tempfile.gettempdir()) / "ml" / f"{self.kind.lower()}-jobs" / self.name
        self.ended = threading.Event()
        self._child: Child | None = None
        self._stopping = threading.Event()
        now = time.time()
        arn = f"arn:aws:sagemaker:{responses.get_region()}:{responses.get_account_id()}:{self.kind.lower()}-job/{self.name}"
        self.record: JsonObject = {
            **request,
            f"{self.kind}JobArn": arn,
            f"{self.kind}JobStatus": "InProgress",
            "CreationTime": now,
            "LastModifiedTime": now,
        }

    @property
    def status(self) -> str:
        """InProgress, Stopping, Stopped, Completed or Failed."""
        value: str = self.record[f"{self.kind}JobStatus"]
        return value

    @property
    def log_file(self) -> Path:
        """Where the command's output is kept."""
        return Path(os.environ["RLAAS_LOG_DIR"]) / f"{self.kind.lower()}-{self.name}.log"

    def stop(self) -> None:
        """Ask the job to end."""
        if self.status != "InProgress":
            raise ApiError(
                "ValidationException", f"The request was rejected because the {self.kind.lower()} job is in status {self.status}."
            )
        self._set("Stopping")
        self._stopping.set()
        if self._child:
            run_in_background(self._child.stop, name=f"stop-{self.name}")

    def run(self) -> None:
        """Fetch, run, store; always ends in a final status, a failure with its reason."""
        try:
            self._complete_or_stop()
        except ApiError as problem:
            self._fail(f"ClientError: {problem.message}")
        except (ClientError, BotoCoreError, OSError, tarfile.TarError) as problem:
            self._fail(f"InternalServerError: {problem}")
        except subprocess.CalledProcessError as problem:
            self._fail(f"AlgorithmError: {self._reason()[: REASON_CHARACTERS - 100]}, exit code: {problem.returncode}")
        except Exception as problem:
            self._fail(describe_failure(f"{self.kind.lower()} job {self.name}", problem))
        finally:
            self.record["LastModifiedTime"] = self.record[f"{self.kind}EndTime"] = time.time()
            shutil.rmtree(self.root, ignore_errors=True)
            self.ended.set()

    def _complete_or_stop(self) -> None:
        try:
            shutil.rmtree(self.root, ignore_errors=True)
            self._prepare()
            try:
                self._execute()
            finally:
                self._read_message()
            self._collect()
            self._set("Completed")
        except Stopped:
            self._collect_after_stop()
            self._set("Stopped")
        except OutOfTime:
            self._collect_after_stop()
            self._set("Stopped", "MaxRuntimeExceeded")

    def _fail(self, reason: str) -> None:
        self.record["FailureReason"] = reason[:REASON_CHARACTERS]
        self._set("Failed")

    def _set(self, status: str, secondary: str | None = None) -> None:
        self.record[f"{self.kind}JobStatus"] = status
        self.record["LastModifiedTime"] = time.time()

    @abstractmethod
    def _prepare(self) -> None:
        """Fetch the inputs."""

    @abstractmethod
    def _command(self) -> list[str]:
        """The command line to run."""

    @abstractmethod
    def _image_uri(self) -> str:
        """The image the job names."""

    def _environment(self) -> dict[str, str]:
        return {"RLAAS_ML_ROOT": str(self.root)}

    @abstractmethod
    def _collect(self) -> None:
        """Store the outputs."""

    def _collect_after_stop(self) -> None:
        """Store what SageMaker stores of a job that was stopped."""
        return

    def _on_line(self, line: str) -> None:
        """Called with each line of output."""
        return

    def _execute(self) -> None:
        stand_in = image(self._image_uri())
        seconds = int((self.request.get("StoppingCondition") or {}).get("MaxRuntimeInSeconds", 24 * 3600))
        if self._stopping.is_set():
            raise Stopped
        self.record[f"{self.kind}StartTime"] = time.time()
        network = self.request.get("NetworkConfig") or self.request  # a processing job's, or a training job's
        aws_variables = make_environment(isolated=bool(network.get("EnableNetworkIsolation")))
        environment = aws_variables | stand_in.env | self._environment() | (self.request.get("Environment") or {})
        stream = LogStream(f"/aws/sagemaker/{self.kind}Jobs", f"{self.name}/algo-1-{int(time.time())}")
        self._child = Child(
            stand_in.command(self._command() or stand_in.serve),
            cwd=stand_in.cwd,
            environment=environment,
            log_file=self.log_file,
            stream=stream,
            stop_seconds=STOP_SECONDS,
            on_line=self._on_line,
        )
        if self._stopping.is_set():
            self._child.stop()
        try:
            status = self._child.wait(seconds)
        except subprocess.TimeoutExpired:
            self._child.stop()
            raise OutOfTime from None
        if self._stopping.is_set():
            raise Stopped
        if status:
            raise subprocess.CalledProcessError(status, self._command())

    def _reason(self) -> str:
        """The command's own words for FailureReason, where the kind of job has them."""
        return ""

    def _read_message(self) -> None:
        """Read the command's exit message, where the kind of job has one; also after a failure."""
        return

    def _write(self, path: str, content: object) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content))
