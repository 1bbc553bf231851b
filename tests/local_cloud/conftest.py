"""A throw-away emulator with our additions, and a stock one beside it."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
import textwrap
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from local import processes

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".rlaas/venvs/emulator/bin/python"
IMAGES = Path(__file__).parent / "images"
ROLE = "arn:aws:iam::000000000000:role/test"


@dataclass
class Emulator:
    """A running emulator."""

    port: int
    home: Path
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, service: str) -> Any:
        return boto3.client(
            service,
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
            config=Config(retries={"max_attempts": 0}, read_timeout=120, s3={"addressing_style": "path"}),
        )

    def function(self, name: str, code: str, **settings: Any) -> Any:
        """Deploy `code`, whose handler is `handler`, as function `name`; returns a caller of it."""
        client = self.client("lambda")
        runtime = f"python{sys.version_info.major}.{sys.version_info.minor}"
        client.create_function(
            FunctionName=name, Runtime=runtime, Role=ROLE, Handler="main.handler", Code={"ZipFile": archive({"main.py": code})}, **settings
        )
        client.get_waiter("function_active_v2").wait(FunctionName=name, WaiterConfig={"Delay": 1})

        def call(payload: object = None, **options: Any) -> Any:
            answer = client.invoke(FunctionName=name, Payload=json.dumps(payload), **options)
            return json.loads(answer["Payload"].read())

        return call

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def archive(files: dict[str, str]) -> bytes:
    """A zip of `files`, dedented."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as zip_file:
        for name, text in files.items():
            zip_file.writestr(name, textwrap.dedent(text))
    return buffer.getvalue()


def start(module: str, home: Path, **settings: str) -> Emulator:
    """Start `python -m module` on a free port with its state under `home`, ready to answer."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    for name in ("state", "s3", "tmp", "log"):
        (home / name).mkdir(parents=True)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "GATEWAY_PORT": str(port),
        "BIND_HOST": "127.0.0.1",
        "STATE_DIR": str(home / "state"),
        "S3_DATA_DIR": str(home / "s3"),
        "TMPDIR": str(home / "tmp"),
        "RLAAS_LOG_DIR": str(home / "log"),
        "RLAAS_CLOUD": str(home),
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "IOT_MTLS_ENABLED": "0",
        "SFTP_ENABLED": "0",
        **settings,
    }
    with (home / "log" / "emulator.log").open("wb") as log:
        process = subprocess.Popen(
            [str(PYTHON), "-m", module],
            cwd=ROOT,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            preexec_fn=processes.end_with_parent,
        )
    emulator = Emulator(port, home, process)
    until(lambda: _ready(emulator), seconds=60)
    return emulator


def _ready(emulator: Emulator) -> bool:
    assert emulator.process.poll() is None, (emulator.home / "log/emulator.log").read_text()[-3000:]
    try:
        with urllib.request.urlopen(f"{emulator.url}/_ministack/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def until(condition: Callable[[], Any], *, seconds: float = 30) -> Any:
    """What `condition` returns as soon as it is true.

    Raises: AssertionError after `seconds`.
    """
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not true after {seconds} s"
        time.sleep(0.02)
    return value


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """The emulator with our additions, for the whole session: tests use names of their own."""
    images = {
        "learning": {"python": sys.executable, "cwd": str(IMAGES)},
        "serving": {"python": sys.executable, "cwd": str(IMAGES), "serve": ["python", "container.py"]},
        "repository": {"python": sys.executable, "cwd": str(ROOT), "env": {"PYTHONPATH": ".:layers/rlaas/python"}},
    }
    running_emulator = start(
        "local.emulator", tmp_path_factory.mktemp("emulator"), RLAAS_IMAGES=json.dumps(images), RLAAS_FIREHOSE_SECONDS="0.2"
    )
    yield running_emulator
    running_emulator.stop()


@pytest.fixture(scope="session")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """ministack without our additions."""
    stock_emulator = start("ministack.app", tmp_path_factory.mktemp("stock"))
    yield stock_emulator
    stock_emulator.stop()
