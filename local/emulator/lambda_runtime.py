"""Lambda as AWS runs it: handlers that see only their layers, real error types, every log line, and warm calls that do
not wait.

Stock ministack (core/lambda_runtime.py):
- runs handlers on its own interpreter with its own site-packages and environment, so an import missing from the layers
  works locally and fails on AWS. Here: `python -I -S` and an environment of AWS's variables and the function's own.
- reports every exception as `Runtime.HandlerError`, so Retry and Catch by error name never match. Here: the exception's
  class.
- kills the worker after each exception, so the next call is a cold start. Here: only after a timeout or an exit, as on
  AWS.
- waits up to 50 ms after each call for a handler that logged nothing, and 250 ms at most for one that logs much, then
  loses the rest. Here: the worker marks the end of its log.
- unzips code and layers for each worker. Here: once, by hash, so their byte code is compiled once, too.
- initializes nothing before the first call. Here: one environment of each deployed function, as AWS may do, so that a
  guard's first call does not wait for imports.
- loads the function anew for each environment. Here: once; its environments are forks (`lambda_templates.py`).
- treats another account's layer as empty, Lambda Web Adapter's too, and answers in one piece. Here: `web_adapter.py`
  does what that layer does, and `streaming_to` gets an answer's parts as they arrive.
"""

from __future__ import annotations

import contextvars
import functools
import hashlib
import io
import json
import logging
import os
import queue
import select
import shutil
import stat
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ministack.core import lambda_runtime as stock
from ministack.services import lambda_svc
from ministack.services.cloudformation import provisioners

from local.emulator import lambda_templates
from local.emulator.lambda_templates import Environment, InitError, Log

INIT_SECONDS = 60.0
streaming_to: contextvars.ContextVar[Callable[[dict[str, Any]], None] | None] = contextvars.ContextVar("streaming_to", default=None)
"""Called with the parts of the answer to an invocation in this context: a head with statusCode and headers, chunks with
base64 data, and an end where the function did not fail."""
logger = logging.getLogger("rlaas.lambda")
_deployed_functions: queue.SimpleQueue[tuple[contextvars.Context, str]] = queue.SimpleQueue()
_unpack_locks: dict[str, threading.Lock] = {}
_unpack_guard = threading.Lock()


def unpack(archive: bytes) -> Path:
    """The directory `archive` (a zip) is unpacked in; one for equal archives, shared by all workers like AWS's
    /var/task and /opt."""
    digest = _compute_digest(archive)
    directory = Path(tempfile.gettempdir()) / "lambda" / digest
    with _unpack_guard:
        lock = _unpack_locks.setdefault(digest, threading.Lock())
    with lock:
        if not directory.exists():
            unfinished = directory.with_suffix(".part")
            shutil.rmtree(unfinished, ignore_errors=True)
            with zipfile.ZipFile(io.BytesIO(archive)) as content:
                for entry in content.infolist():
                    path = content.extract(entry, unfinished)  # drops `..` and absolute paths by itself, and a script's x
                    if entry.external_attr >> 16 & stat.S_IXUSR and not entry.is_dir():
                        Path(path).chmod(0o755)
            unfinished.rename(directory)
    return directory


@functools.lru_cache(maxsize=64)
def _compute_digest(archive: bytes) -> str:
    """The name of an archive's directory; of a layer of 40 MB it takes a tenth of a second, so once."""
    return hashlib.sha256(archive).hexdigest()[:24]


def make_environment(config: dict[str, Any], code: Path, scratch: str) -> dict[str, str]:
    """The environment variables a function sees: AWS's reserved ones, the function's own, and where AWS is."""
    _, region = stock._account_region_from_function_config(config)
    name = config["FunctionName"]
    snapstart = (config.get("SnapStart") or {}).get("OptimizationStatus") == "On"
    reserved = {
        "PATH": os.environ["PATH"],
        "LANG": "en_US.UTF-8",
        "TZ": ":UTC",
        "TMPDIR": scratch,
        "HOME": scratch,
        "LAMBDA_TASK_ROOT": str(code),
        "_HANDLER": config["Handler"],
        "AWS_EXECUTION_ENV": f"AWS_Lambda_{config['Runtime']}",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "snap-start" if snapstart else "on-demand",
        "AWS_LAMBDA_FUNCTION_NAME": name,
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(config.get("MemorySize", 128)),
        "AWS_LAMBDA_FUNCTION_VERSION": config.get("Version", "$LATEST"),
        "AWS_LAMBDA_LOG_GROUP_NAME": (config.get("LoggingConfig") or {}).get("LogGroup") or f"/aws/lambda/{name}",
        "AWS_LAMBDA_LOG_STREAM_NAME": f"{time.strftime('%Y/%m/%d')}/[{config.get('Version', '$LATEST')}]{os.urandom(16).hex()}",
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
        "AWS_ACCESS_KEY_ID": os.environ["AWS_ACCESS_KEY_ID"],
        "AWS_SECRET_ACCESS_KEY": os.environ["AWS_SECRET_ACCESS_KEY"],
        "AWS_SESSION_TOKEN": "",
    }
    own = config.get("Environment", {}).get("Variables", {})
    defaults = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{os.environ['GATEWAY_PORT']}",
        stock.HOST_PREFIX_ENV: "true",
        "RLAAS_CLOUD": os.environ.get("RLAAS_CLOUD", ""),
    }
    seen: dict[str, str] = defaults | own | reserved
    return seen


class LayersOnlyWorker(stock.Worker):  # type: ignore[misc]  # ministack carries no types
    """One execution environment: a process that answers one invocation at a time."""

    def __init__(self, func_name: str, config: dict[str, Any], code_zip: bytes) -> None:
        super().__init__(func_name, config, code_zip)
        self._log: Log
        self._init_log: list[str] = []
        self._answers = b""
        self._proc: Environment | None = None

    def _spawn(self) -> None:
        """Start the process, with the handler loaded.

        Raises: InitError with the runtime's own error when the module cannot be loaded.
        """
        self._discard_tmpdir()
        self._tmpdir = tempfile.mkdtemp(prefix=f"lambda-{self.func_name}-")
        code = unpack(self.code_zip)
        references = [layer if isinstance(layer, str) else layer["Arn"] for layer in self.config.get("Layers") or []]
        layers = [str(unpack(content)) for content in map(lambda_svc._resolve_layer_zip, references) if content]
        snapstart = (self.config.get("SnapStart") or {}).get("OptimizationStatus") == "On"
        init = {"code": str(code), "layers": layers, "handler": self.config["Handler"], "snapstart": snapstart}
        key = stock._worker_key(self.func_name, self.config, self.config.get("Version", "$LATEST"))
        environment = make_environment(self.config, code, self._tmpdir)
        self._proc, self._init_log = lambda_templates.fork(key, init, environment, seconds=INIT_SECONDS)
        self._log, self._answers = Log(self._proc.stderr, self.func_name), b""
        answer = self._receive(time.monotonic() + INIT_SECONDS)
        if answer is None or answer["status"] != "ready":
            log = self._log_until("init")
            self._stop()
            answer = answer or {"errorType": "Runtime.ExitError", "errorMessage": "Runtime exited during initialization"}
            raise InitError({**answer, "status": "error", "log": log})
        self._start_time = time.time()

    def invoke(
        self,
        event: object,
        request_id: str,
        *,
        trace_id: str | None = None,
        depth: int | None = None,
        durable: dict[str, str] | None = None,
        invoked_function_arn: str | None = None,
    ) -> dict[str, Any]:
        """Run one invocation; `status` is `ok` with `result`, or `error` with AWS's errorType, errorMessage and
        stackTrace."""
        parts = streaming_to.get()
        with self._lock:
            cold = self._proc is None or self._proc.poll() is not None
            if cold:
                try:
                    self._spawn()
                except InitError as problem:
                    return {**problem.answer, "cold_start": True}
                self._cold = False
            timeout = float(self.config.get("Timeout", 3))
            self._send(
                {
                    "event": event,
                    "request_id": request_id,
                    "invoked_function_arn": invoked_function_arn or self.config.get("FunctionArn", ""),
                    "timeout_seconds": timeout,
                    "trace_id": trace_id,
                    "stream": parts is not None,
                }
            )
            deadline = time.monotonic() + timeout
            answer = self._receive(deadline)
            while parts and answer and answer["status"] in ("head", "chunk"):
                parts(answer)
                answer = self._receive(deadline)
            if parts and answer and answer["status"] == "ok":
                parts({"status": "end"})
            if answer is None and time.monotonic() >= deadline:
                self._stop()
                message = f"RequestId: {request_id} Error: Task timed out after {timeout:.2f} seconds"
                answer = {"status": "error", "errorType": "Sandbox.Timedout", "errorMessage": message}
            elif answer is None:
                status = self._stop()
                message = f"RequestId: {request_id} Error: Runtime exited with error: exit status {status}"
                answer = {"status": "error", "errorType": "Runtime.ExitError", "errorMessage": message}
            return {**answer, "cold_start": cold, "log": self._log_until(request_id)}

    def _send(self, message: dict[str, Any]) -> None:
        assert self._proc is not None
        try:
            self._proc.stdin.write(json.dumps(message).encode() + b"\n")
            self._proc.stdin.flush()
        except BrokenPipeError:
            pass  # the process is gone: _receive says so

    def _receive(self, deadline: float) -> dict[str, Any] | None:
        """The next answer, or None when the deadline passed or the process ended."""
        assert self._proc is not None
        poller = select.poll()
        poller.register(self._proc.stdout, select.POLLIN)
        while b"\n" not in self._answers:
            if not poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
                return None
            chunk = os.read(self._proc.stdout.fileno(), 1 << 20)
            if not chunk:
                return None
            self._answers += chunk
        line, _, self._answers = self._answers.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _log_until(self, request_id: str) -> str:
        """The log lines up to the mark of `request_id`, or to the end of a process that ended; of the first invocation
        also those from when the function was loaded."""
        lines, self._init_log = [*self._init_log, *self._log.read_until(request_id)], []
        return "\n".join(lines)

    def _stop(self) -> int:
        """Kill the process with what it started; returns its exit status."""
        process, self._proc = self._proc, None
        assert process is not None
        process.kill()
        return process.wait()


def execute(func: dict[str, Any], event: object, request_id: str) -> dict[str, Any]:
    """Run a Python function in a free environment of its pool; the shape of lambda_svc._execute_function_warm's
    result."""
    config = func.get("config") or func
    if not str(config.get("Runtime", "")).startswith("python") or not func.get("code_zip"):
        result: dict[str, Any] = _stock_execute(func, event, request_id)
        return result
    lambda_svc._ensure_reaper_thread()
    worker, _ = stock.acquire_worker(config["FunctionName"], config, func["code_zip"], qualifier=config.get("Version", "$LATEST"))
    try:
        answer = worker.invoke(
            event,
            request_id,
            trace_id=lambda_svc._xray_trace_id_for_invocation(config),
            invoked_function_arn=config.get("FunctionArn", ""),
        )
    finally:
        stock.release_worker(worker)
    if answer["status"] == "ok":
        return {"body": answer["result"], "log": answer["log"]}
    body = {key: answer[key] for key in ("errorMessage", "errorType", "stackTrace") if key in answer}
    return {"body": body | {"requestId": request_id}, "error": True, "log": answer["log"]}


def _initialize_ahead() -> None:
    """Start an environment of each function on the queue, one after the other, so that a deployment does not stall the
    machine."""
    while True:
        context, name = _deployed_functions.get()
        try:
            context.run(_initialize, name)
        except (InitError, OSError, RuntimeError) as problem:
            logger.warning("function %s cannot be initialized: %s", name, problem)
        except Exception:
            logger.exception("function %s cannot be initialized", name)


def _initialize(name: str) -> None:
    function = lambda_svc._functions.get(name)
    if not function or not function.get("code_zip") or not str(function["config"].get("Runtime", "")).startswith("python"):
        return
    config = function["config"]
    worker, _ = stock.acquire_worker(name, config, function["code_zip"], qualifier=config.get("Version", "$LATEST"))
    try:
        stock.ensure_spawned(worker)
    finally:
        stock.release_worker(worker)


def _then_initialize(provision: Callable[..., tuple[str, dict[str, Any]]]) -> Callable[..., tuple[str, dict[str, Any]]]:
    """CloudFormation's create or update of a function, which also puts its name on the queue."""

    def provision_and_queue(*arguments: Any) -> tuple[str, dict[str, Any]]:
        name, attributes = provision(*arguments)
        _deployed_functions.put((contextvars.copy_context(), name))
        return name, attributes

    return provision_and_queue


_stock_execute = lambda_svc._execute_function_warm
_stock_worker_class = stock._worker_class_for


def _worker_class(config: dict[str, Any]) -> type:
    if str(config.get("Runtime", "")).startswith("python"):
        return LayersOnlyWorker
    worker_class: type = _stock_worker_class(config)
    return worker_class


def install() -> None:
    """Hook in, and start the thread that initializes what is deployed."""
    stock._worker_class_for = _worker_class
    lambda_svc._execute_function_warm = execute
    handlers = provisioners._RESOURCE_HANDLERS["AWS::Lambda::Function"]
    handlers |= {way: _then_initialize(handlers[way]) for way in ("create", "update")}
    threading.Thread(target=_initialize_ahead, daemon=True, name="initialize").start()
