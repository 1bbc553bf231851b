"""The processes of a Python function: its template, and the execution environments that are forked from it; started
with `python -I -S`, standard library only.

Isolation (-I, -S) is the point: no environment variable, user directory or site-packages adds to `sys.path`, so a
handler can import the standard library, its own code and its layers, and nothing else, as on AWS.

The template's standard input is a socket of messages in JSON. In: an init message, then for each environment its
variables and descriptors (standard input, output and error, and where its exit status is written). Out:
`{"status": "ready"}` or `{"status": "error", ...}`, then each environment's process id.

An environment speaks one JSON object a line. In: invocations. Out, on a duplicate of file descriptor 1: as the template
when it is ready, then one answer an invocation, and before it the parts of one that is streamed. Everything that the
handler prints, to either stream, goes to file descriptor 2; a line that starts with `MARK` and the request id ends an
invocation's log, so that the reader waits for nothing and loses nothing.
"""

import decimal
import gc
import importlib
import json
import os
import queue
import select
import shlex
import signal
import site
import socket
import sys
import tempfile
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


def _snapshot_hooks() -> tuple[list[Any], list[Any]]:
    """SnapStart: the hooks before the snapshot (last registered first), and those after the restore."""
    try:
        from snapshot_restore_py import get_after_restore, get_before_snapshot
    except ImportError:
        return [], []
    return [*reversed(get_before_snapshot())], [*get_after_restore()]


def _start_script(init: dict[str, Any], control: int) -> dict[str, Any]:
    """A function behind Lambda Web Adapter: become its script, which is to start Python's web server (web_python.py);
    returns the error when there is no such script."""
    programs = Path(tempfile.mkdtemp())
    for name in ("python", "python3"):
        command = [sys.executable, "-I", "-S", str(Path(__file__).with_name("web_python.py")), str(control), json.dumps(init["layers"])]
        (programs / name).write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
        (programs / name).chmod(0o755)
    path = str(Path(init["code"], init["handler"]))
    variables = {"AWS_LWA_PORT": "0", "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    os.set_inheritable(control, True)
    try:
        os.execve(path, [path], os.environ | variables)
    except OSError as problem:
        return _error("Runtime.ExitError", str(problem), [])


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


def fork_on_demand(control: socket.socket) -> dict[str, str]:
    """Fork an environment for each message on `control`, and write the exit status of each to its last descriptor.

    Returns in the environments: with the variables that are its own; standard input, output and error are its own, too.
    """
    gc.collect()
    gc.freeze()
    waking, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    statuses: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([control.fileno(), waking], [], [])
        if waking in ready:
            os.read(waking, 1024)
            for pid in [pid for pid in statuses if _report_end(pid, statuses[pid])]:
                del statuses[pid]
        if control.fileno() not in ready:
            continue
        message, descriptors, _, _ = socket.recv_fds(control, 65536, 4)
        if not message:
            os._exit(0)  # the emulator is gone, or wants no more of these
        pid = os.fork()
        if not pid:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.setsid()
            for place, descriptor in enumerate(descriptors[:3]):
                os.dup2(descriptor, place)
            for descriptor in (*descriptors, *statuses.values(), waking, wake):
                os.close(descriptor)
            control.close()
            variables: dict[str, str] = json.loads(message)
            return variables
        for descriptor in descriptors[:3]:
            os.close(descriptor)
        statuses[pid] = descriptors[3]
        control.send(json.dumps({"pid": pid}).encode())


def _report_end(pid: int, status_file: int) -> bool:
    """Whether the environment `pid` has ended; its exit status is then in `status_file`."""
    try:
        ended, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:  # the function's own code waited for it
        ended, status = pid, 0
    if ended:
        os.write(status_file, str(os.waitstatus_to_exitcode(status)).encode())
        os.close(status_file)
    return bool(ended)


def serve(variables: dict[str, str], begin: Callable[[], Any]) -> None:
    """Answer invocations until the emulator is gone, in a new environment with `variables`. `begin` is called first and
    returns the handler."""
    os.environ.update(variables)
    tempfile.tempdir = None
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    requests = os.fdopen(os.dup(0), encoding="utf-8")
    os.dup2(2, 1)
    with Path(os.devnull).open() as nothing:
        os.dup2(nothing.fileno(), 0)
    pending: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()

    def receive() -> None:
        for line in requests:
            pending.put(json.loads(line))
        os._exit(0)  # the emulator is gone, however it went: no handler outlives it

    def send(message: dict[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    def answer(message: dict[str, Any], request_id: str) -> None:
        mark_log(request_id)
        send(message)

    threading.Thread(target=receive, daemon=True).start()
    try:
        handler = begin()
    except Exception as error:
        answer(_failure(error), "init")
        return
    answer({"status": "ready"}, "init")
    while True:
        call = pending.get()
        answer(_invoke(handler, call, send), call["request_id"])
        if os.environ.get("_RLAAS_EXIT"):
            break


def mark_log(request_id: str) -> None:
    """End an invocation's log."""
    sys.stderr.flush()
    os.write(2, f"{MARK}{request_id}\n".encode())


def capture_output() -> None:
    """Send whatever is printed to file descriptor 2, line by line."""
    sys.stdout = sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115 (open for good)


def main() -> None:
    """Load the function, then be the template of its environments."""
    control = socket.socket(fileno=os.dup(0))
    capture_output()
    init = json.loads(control.recv(65536))
    handler: Any = None
    after: list[Any] = []
    if os.environ.get("AWS_LAMBDA_EXEC_WRAPPER") == "/opt/bootstrap":
        problem: dict[str, Any] | None = _start_script(init, control.fileno())
    else:
        handler, problem = _load(init)
    if problem is None and init["snapstart"]:
        before, after = _snapshot_hooks()
        try:
            _run_hooks(before)
        except Exception as error:
            problem = _failure(error)
    mark_log("init")
    control.send(json.dumps(problem or {"status": "ready"}).encode())
    if problem is None:
        variables = fork_on_demand(control)

        def begin() -> Any:
            _run_hooks(after)
            return handler

        serve(variables, begin)


def _run_hooks(hooks: list[Any]) -> None:
    for hook, arguments, keywords in hooks:
        hook(*arguments, **keywords)


if __name__ == "__main__":
    main()
