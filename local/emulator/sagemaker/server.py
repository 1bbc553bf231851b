"""A served model: one supervised `serve` process.

It gets what a SageMaker container gets (PORT 8080 there, a free one here; the model's files under /opt/ml/model; GET
/ping, POST /invocations). Adapters are loaded and unloaded by the container's own LoRA routes (POST /adapters, DELETE
/adapters/NAME), and chosen per request by the header X-Amzn-SageMaker-Adapter-Identifier. Here no container separates
the process from others such as a browser, so each process gets a key that every request must carry (RLAAS_HOSTING_KEY,
see containers/vllm/one_door.py).
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import tempfile
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import urllib3

from local.emulator.children import Child, LogStream, make_environment
from local.emulator.sagemaker import artifacts
from local.emulator.sagemaker.errors import REASON_CHARACTERS, ApiError
from local.emulator.sagemaker.images import image

START_SECONDS = 900
STOP_SECONDS = 12.0
INVOKE_SECONDS = 60.0
STREAM_SECONDS = 480.0
PING_SECONDS = 0.1
ADAPTER_HEADER = "X-Amzn-SageMaker-Adapter-Identifier"
KEY_HEADER = "X-RLAAS-Hosting-Key"

_http = urllib3.PoolManager(maxsize=64, retries=False)


class Server:
    """A `serve` process with one model's files, ready once it answers /ping."""

    def __init__(
        self,
        *,
        image_uri: str,
        artifacts_uri: str | None,
        compressed: bool,
        environment: dict[str, str],
        log_group: str,
        name: str,
        isolated: bool = False,
    ) -> None:
        self.image = image(image_uri)
        if not self.image.serve:
            raise ApiError("ValidationException", f"image {image_uri} has no serve command here")
        self.artifacts_uri, self.compressed, self.environment = artifacts_uri, compressed, environment
        self.log_group, self.name, self.isolated = log_group, name, isolated
        self.root = Path(tempfile.gettempdir()) / "ml" / "hosting" / name
        self.port = 0
        self._key = {KEY_HEADER: secrets.token_urlsafe(24)}
        self._child: Child | None = None

    def start(self, seconds: float) -> None:
        """Fetch the model, start the process, wait until it answers /ping.

        Raises: ApiError with what SageMaker gives as FailureReason.
        """
        shutil.rmtree(self.root, ignore_errors=True)
        model = self.root / "model"
        model.mkdir(parents=True)
        if self.artifacts_uri:
            (artifacts.unpack if self.compressed else artifacts.download)(self.artifacts_uri, model)
        self.port = _free_port()
        container_variables = {
            "PORT": str(self.port),
            "HOST": "127.0.0.1",
            "RLAAS_HOSTING_KEY": self._key[KEY_HEADER],
            "RLAAS_ML_ROOT": str(self.root),
            "SM_MODEL_DIR": str(model),
            "SM_VLLM_MODEL": str(model),
        }
        child = self._child = Child(
            self.image.command(self.image.serve),
            cwd=self.image.cwd,
            environment=make_environment(isolated=self.isolated) | self.image.env | self.environment | container_variables,
            log_file=Path(os.environ["RLAAS_LOG_DIR"]) / f"endpoint-{self.name}.log",
            stream=LogStream(self.log_group, f"{self.name}/i-local"),
            stop_seconds=STOP_SECONDS,
        )
        deadline = time.monotonic() + seconds
        while not self.answers_ping():
            if child.poll() is not None:
                raise ApiError("ModelError", _last_words(self.name, child))
            if time.monotonic() > deadline:
                self.stop()
                raise ApiError(
                    "ModelError",
                    f"The container for {self.name} did not pass the ping health check in {seconds:.0f} s; see {child.log_file}",
                )
            time.sleep(PING_SECONDS)

    def answers_ping(self) -> bool:
        """Whether GET /ping answers 200."""
        try:
            return _http.request("GET", f"http://127.0.0.1:{self.port}/ping", headers=self._key, timeout=5.0).status == 200
        except urllib3.exceptions.HTTPError:
            return False

    def is_running(self) -> bool:
        """Whether the process is there."""
        return self._child is not None and self._child.poll() is None

    def end(self) -> str | None:
        """How the process ended by itself; None while it runs, and after `stop`."""
        child = self._child
        return _last_words(self.name, child) if child and child.poll() is not None else None

    def stop(self) -> None:
        """End the process."""
        child, self._child = self._child, None
        if child:
            child.stop()
        shutil.rmtree(self.root, ignore_errors=True)

    def load_adapter(self, name: str, uri: str) -> None:
        """Fetch the adapter archive at `uri` and load it as `name`."""
        directory = self.root / "adapters" / name
        artifacts.unpack(uri, directory)
        if not (directory / "adapter_config.json").is_file():
            raise ApiError("ValidationException", f"{uri} has no adapter_config.json at its root")
        body = json.dumps({"name": name, "src": str(directory)})
        answer = self._ask("POST", "/adapters", body)
        if answer.status != 200:
            raise ApiError("ModelError", f"loading adapter {name}: {answer.status} {answer.data.decode(errors='replace')[:600]}")

    def unload_adapter(self, name: str) -> None:
        """Unload the adapter; one that is not loaded is no error."""
        answer = self._ask("DELETE", f"/adapters/{urllib.parse.quote(name, safe='')}", None)
        if answer.status not in (200, 404):
            raise ApiError("ModelError", f"unloading adapter {name}: {answer.status} {answer.data.decode(errors='replace')[:600]}")
        shutil.rmtree(self.root / "adapters" / name, ignore_errors=True)

    def _ask(self, method: str, path: str, body: str | None) -> urllib3.BaseHTTPResponse:
        try:
            return _http.request(
                method,
                f"http://127.0.0.1:{self.port}{path}",
                body=body,
                headers={"Content-Type": "application/json", **self._key},
                timeout=INVOKE_SECONDS,
            )
        except urllib3.exceptions.HTTPError as problem:
            raise ApiError("ModelError", self.end() or f"{method} {path}: {problem}") from problem

    def invoke(self, body: bytes, headers: dict[str, str], *, stream: bool) -> urllib3.BaseHTTPResponse:
        """POST /invocations.

        Raises: ApiError as InvokeEndpoint does: ModelError for the model's own errors, ServiceUnavailable when the
        container does not answer.
        """
        seconds = STREAM_SECONDS if stream else INVOKE_SECONDS
        try:
            answer = _http.request(
                "POST",
                f"http://127.0.0.1:{self.port}/invocations",
                body=body,
                headers={**headers, **self._key},
                timeout=urllib3.Timeout(connect=5.0, read=seconds),
                preload_content=not stream,
            )
        except urllib3.exceptions.ReadTimeoutError as problem:
            timeout_text = "Your invocation timed out while waiting for a response from container primary"
            message = f'Received server error (0) from primary with message "{timeout_text}": {problem}'
            raise ApiError("ModelError", message, 424, OriginalStatusCode=0, OriginalMessage=str(problem), LogStreamArn="") from problem
        except urllib3.exceptions.HTTPError as problem:
            raise ApiError("ServiceUnavailable", self.end() or f"the container of {self.name} does not answer: {problem}", 503) from problem
        if answer.status >= 400:
            original = answer.data.decode(errors="replace")
            side = "client" if answer.status < 500 else "server"
            message = f'Received {side} error ({answer.status}) from primary with message "{original[:800]}". See {self.log_group}.'
            raise ApiError(
                "ModelError", message, 424, OriginalStatusCode=answer.status, OriginalMessage=original, LogStreamArn=self.log_group
            )
        return answer


def _last_words(name: str, child: Child) -> str:
    log = f"; see {child.log_file}"
    tail = " | ".join(list(child.tail)[-8:])
    return f"The container for {name} exited with status {child.poll()}: {tail}"[: REASON_CHARACTERS - len(log)] + log


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def chunks(answer: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    """The answer's body in the parts that arrive."""
    try:
        yield from answer.read_chunked() if answer.headers.get("Transfer-Encoding") == "chunked" else answer.stream(65536)
    finally:
        answer.release_conn()
