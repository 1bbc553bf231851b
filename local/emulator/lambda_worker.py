"""The process one execution environment of a Python function runs in; started with `python -I -S`, standard library
only.

Isolation (-I, -S) is the point: no environment variable, user directory or site-packages adds to `sys.path`, so a
handler can import the standard library, its own code and its layers, and nothing else, as on AWS.

Speaks one JSON object a line. In: an init message, then invocations. Out, on a duplicate of file descriptor 1:
`{"status": "ready"}` or `{"status": "error", ...}`, then one answer an invocation, and before it the parts of one that
is streamed. Everything that the handler prints, to either stream, goes to file descriptor 2; a line that starts with
`MARK` and the request id ends an invocation's log, so that the reader waits for nothing and loses nothing.
"""

import decimal
import importlib
import json
import os
import queue
import site
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

MARK = "\x1e"
Handler = Callable[[Any, "Context"], Any]


class Context:
    """The context object of AWS's Python runtime."""

    def __init__(self, call: dict[str, Any]) -> None:
        self.aws_request_id = call["request_id"]
        self.invoked_function_arn = call["invoked_function_arn"]
        self.function_name = os.environ["AWS_LAMBDA_FUNCTION_NAME"]
        self.function_version = os.environ["AWS_LAMBDA_FUNCTION_VERSION"]
        self.memory_limit_in_mb = int(os.environ["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"])
        self.log_group_name = os.environ["AWS_LAMBDA_LOG_GROUP_NAME"]
        self.log_stream_name = os.environ["AWS_LAMBDA_LOG_STREAM_NAME"]
        self.identity = None
        self.client_context = None
        self._deadline = time.monotonic() + call["timeout_seconds"]

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds until the function is stopped."""
        return max(0, int((self._deadline - time.monotonic()) * 1000))


def _number(value: object) -> float:
    if isinstance(value, decimal.Decimal):
        return float(value)
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def _error(kind: str, message: str, stack: list[str]) -> dict[str, Any]:
    print(f"[ERROR] {kind}: {message}", *stack, sep="\n", file=sys.stderr)
    return {"status": "error", "errorType": kind, "errorMessage": message, "stackTrace": stack}


def _failure(problem: BaseException) -> dict[str, Any]:
    """What AWS's runtime answers when `problem` left the handler: the class's own name, which Retry and Catch match
    on."""
    stack = traceback.format_list(traceback.extract_tb(problem.__traceback__)[1:])
    return _error(type(problem).__name__, str(problem), [line.rstrip("\n") for line in stack])


def _load(init: dict[str, Any]) -> tuple[Handler | None, dict[str, Any] | None]:
    """Import the handler; returns (handler, None) or (None, the error to answer every invocation with)."""
    for layer in init["layers"]:  # each goes before those that came earlier: a later layer wins
        root = Path(layer, "python")
        sys.path.insert(0, str(root))
        for packages in sorted(root.glob("lib/*/site-packages")):
            site.addsitedir(str(packages))
    sys.path.insert(0, init["code"])
    path, _, name = init["handler"].rpartition(".")
    try:
        module = importlib.import_module(path.replace("/", "."))
    except ImportError as problem:
        return None, _error(
            "Runtime.ImportModuleError", f"Unable to import module '{path}': {problem}", traceback.format_exc().splitlines()
        )
    except SyntaxError as problem:
        return None, _error("Runtime.UserCodeSyntaxError", f"Syntax error in module '{path}': {problem}", [])
    except Exception as problem:
        return None, _failure(problem)
    if not hasattr(module, name):
        return None, _error("Runtime.HandlerNotFound", f"Handler '{name}' missing on module '{path}'", [])
    return getattr(module, name), None


def _snapshot_hooks() -> None:
    """SnapStart: the hooks before the snapshot (last registered first), then those after the restore."""
    try:
        from snapshot_restore_py import get_after_restore, get_before_snapshot
    except ImportError:
        return
    for hook, arguments, keywords in [*reversed(get_before_snapshot()), *get_after_restore()]:
        hook(*arguments, **keywords)


def _start_web_server(init: dict[str, Any]) -> tuple[Any, dict[str, Any] | None]:
    """A function behind Lambda Web Adapter: its script's server in place of a handler. This process imports nothing of
    the function's."""
    sys.path.insert(0, str(Path(__file__).parent))
    adapter = importlib.import_module("web_adapter")
    try:
        return adapter.WebServer(init), None
    except (OSError, adapter.WebServerFailed) as problem:
        return None, _error("Runtime.ExitError", str(problem), [])


def _invoke(handler: Handler, call: dict[str, Any], send: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    if call.get("trace_id"):
        os.environ["_X_AMZN_TRACE_ID"] = call["trace_id"]
    try:
        if call.get("stream") and hasattr(handler, "stream"):
            handler.stream(call["event"], Context(call), send)
            return {"status": "ok", "result": None}
        result = handler(call["event"], Context(call))
    except Exception as problem:
        return _failure(problem)
    except SystemExit as problem:
        os.environ["_RLAAS_EXIT"] = "1"
        return _error("Runtime.ExitError", f"RequestId: {call['request_id']} Error: Runtime exited with code {problem.code}", [])
    try:
        return {"status": "ok", "result": json.loads(json.dumps(result, default=_number, allow_nan=False))}
    except (TypeError, ValueError) as problem:
        return _error("Runtime.MarshalError", f"Unable to marshal response: {problem}", [])


def main() -> None:
    """Serve invocations until the emulator is gone."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    requests = os.fdopen(os.dup(0), encoding="utf-8")
    os.dup2(2, 1)
    with Path(os.devnull).open() as nothing:
        os.dup2(nothing.fileno(), 0)
    sys.stdout = sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115
    pending: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()

    def receive() -> None:
        for line in requests:
            pending.put(json.loads(line))
        os._exit(0)  # the emulator is gone, however it went: no handler outlives it

    def send(message: dict[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    def answer(message: dict[str, Any], request_id: str) -> None:
        sys.stderr.flush()
        os.write(2, f"{MARK}{request_id}\n".encode())
        send(message)

    threading.Thread(target=receive, daemon=True).start()
    init = pending.get()
    behind_adapter = os.environ.get("AWS_LAMBDA_EXEC_WRAPPER") == "/opt/bootstrap"
    handler: Any
    handler, problem = _start_web_server(init) if behind_adapter else _load(init)
    if problem is None and init["snapstart"] and not behind_adapter:
        try:
            _snapshot_hooks()
        except Exception as error:
            problem = _failure(error)
    answer(problem or {"status": "ready"}, "init")
    while handler is not None and problem is None:
        call = pending.get()
        answer(_invoke(handler, call, send), call["request_id"])
        if os.environ.get("_RLAAS_EXIT"):
            break


if __name__ == "__main__":
    main()
