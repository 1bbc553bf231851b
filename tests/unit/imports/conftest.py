"""A real HTTP server on the loopback that takes batches as the service does: with the service's own models, one payload
per id, and references to events that come later."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from rlaas.telemetry.events import REPORTED
from tests.fakes.loopback import QuietHandler, serve_handler

SKILL = "support-email-draft"
KEY = "rlk_1_secret"
SAMPLES = Path(__file__).parent / "samples"
PROGRAM = ("-m", "rlaas_sdk.cli")
SDK = Path(__file__).parents[3] / "clients" / "python" / "src"


@dataclass
class Fault:
    """What the server does instead of taking a request's events: it answers a status with headers, or nothing until
    `hold` is set."""

    status: int = 503
    headers: dict[str, str] = field(default_factory=lambda: {"Retry-After": "0"})
    hold: threading.Event | None = None


@dataclass
class Service:
    """What the server received, and what it will do. Each of `busy_ids` is answered 503 once."""

    url: str = ""
    metrics: set[str] = field(default_factory=lambda: {"helpful", "user_feedback", "quality"})
    events: dict[str, dict[str, Any]] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)
    batches: list[list[dict[str, Any]]] = field(default_factory=list)
    faults: dict[int, Fault] = field(default_factory=dict)
    busy_ids: set[str] = field(default_factory=set)
    requests: int = 0
    largest_body: int = 0
    reached: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def of_type(self, event_type: str) -> list[dict[str, Any]]:
        return [event for event in self.events.values() if event["type"] == event_type]

    def take(self, event: dict[str, Any]) -> dict[str, Any]:
        body = {name: value for name, value in event.items() if name != "type"}
        try:
            REPORTED[event["type"]].model_validate_json(json.dumps(body))
        except ValidationError as error:
            return build_refusal(400, "invalid_input", error.errors()[0]["msg"], ".".join(map(str, error.errors()[0]["loc"])))
        if event["skill"] != SKILL:
            return build_refusal(404, "not_found", f"there is no skill {event['skill']!r}", "skill")
        if event.get("metric") is not None and event["metric"] not in self.metrics:
            return build_refusal(400, "invalid_input", f"no metric {event['metric']!r}; there are {sorted(self.metrics)}", "metric")
        id_field = f"{event['type']}_id"
        event_id = event[id_field]
        if event_id in self.busy_ids:
            self.busy_ids.remove(event_id)
            return build_refusal(503, "dependency_unavailable", "try again", None)
        references = {event.get(name) for name in ("interaction_id", "output_id")} - {None, event_id}
        pending = any(name not in self.events for name in references)
        receipt = {"id": event_id, "pending": pending}
        if event.get("dryrun"):
            return {"status": 202 if pending else 201, "idempotent_replay": False, **receipt}
        existing = self.events.setdefault(event_id, event)
        if existing != event:
            return build_refusal(409, "conflict", f"the id {event_id!r} holds another payload", id_field)
        replay = event_id in self.order
        self.order.append(event_id)
        return {"status": 200 if replay else 202 if pending else 201, "idempotent_replay": replay, **receipt}


def build_refusal(status: int, code: str, message: str, param: str | None) -> dict[str, Any]:
    return {
        "status": status,
        "error": {"type": "invalid_request_error", "code": code, "message": message, "param": param, "request_id": "r"},
    }


@pytest.fixture
def service() -> Iterator[Service]:
    state = Service()

    class Handler(QuietHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with state.lock:
                state.requests += 1
                fault = state.faults.get(state.requests)
                state.largest_body = max(state.largest_body, len(body))
            if fault is not None and fault.hold is not None:
                state.reached.set()
                fault.hold.wait()
                self.close_connection = True
                return
            if fault is not None:
                self.send_json(fault.status, build_refusal(fault.status, "unavailable", "not now", None), fault.headers)
            elif self.path != "/v1/events:batch":
                self.send_json(404, build_refusal(404, "not_found", "no such path", None))
            elif self.headers["Authorization"] != f"Bearer {KEY}":
                self.send_json(401, build_refusal(401, "unauthorized", "the key is not known", None))
            else:
                events = json.loads(body)["events"]
                assert 1 <= len(events) <= 500
                assert len(body) <= 4 * 1024 * 1024
                with state.lock:
                    state.batches.append(events)
                    results = [state.take(event) for event in events]
                self.send_json(200, {"results": results})

        def send_json(self, status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> None:
            self.answer(status, json.dumps(body).encode(), headers)

    with serve_handler(Handler) as state.url:
        yield state
        for fault in state.faults.values():
            if fault.hold is not None:
                fault.hold.set()


@dataclass
class CommandResult:
    """A command that ended: its exit status, and what it wrote."""

    status: int
    out: str
    err: str

    def row(self, label: str) -> int:
        """The number in the summary's row `label`."""
        line = next(line for line in self.out.splitlines() if label in line)
        return int(line.strip("│┃| ").split()[-1].replace(",", ""))


def let_interrupts_through() -> None:
    """Let Ctrl-C stop the process: shells make processes in the background ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@dataclass
class Command:
    """`rlaas import` as a person runs it, in a process of its own."""

    home: Path
    url: str

    def start(
        self, *arguments: str | Path, env: dict[str, str] | None = None, stderr: int = subprocess.PIPE, program: tuple[str, ...] = PROGRAM
    ) -> subprocess.Popen[str]:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("RLAAS_")},
            "RLAAS_API_URL": self.url,
            "RLAAS_API_KEY": KEY,
            "XDG_STATE_HOME": str(self.home / "state"),
            "PYTHONPATH": str(SDK),
            "PYTHONIOENCODING": "utf-8",
            **(env or {}),
        }
        command = [sys.executable, *program, *map(str, arguments)]
        return subprocess.Popen(
            command, env=environment, cwd=self.home, stdout=subprocess.PIPE, stderr=stderr, text=True, preexec_fn=let_interrupts_through
        )

    def __call__(self, *arguments: str | Path, env: dict[str, str] | None = None) -> CommandResult:
        process = self.start("import", *arguments, env=env)
        out, err = process.communicate(timeout=120)
        return CommandResult(process.returncode, out, err)


@pytest.fixture
def rlaas_import(service: Service, tmp_path: Path) -> Command:
    return Command(tmp_path, service.url)


def read_report(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def count_reasons(path: Path) -> Counter[str]:
    return Counter(line["reason"] for line in read_report(path))


def write_log(path: Path, rows: int, *, text: Callable[[int], str] = lambda n: f"answer {n}") -> Path:
    """A log of `rows` calls, one a line, each with its own id."""
    with path.open("w") as file:
        for n in range(rows):
            request = {"messages": [{"role": "user", "content": f"question {n}"}]}
            response = {"id": f"chatcmpl-{n}", "choices": [{"message": {"role": "assistant", "content": text(n)}, "finish_reason": "stop"}]}
            file.write(json.dumps({"request": request, "response": response}) + "\n")
    return path
