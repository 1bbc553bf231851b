"""A service on loopback for the SDK's tests: `/v1/events:batch` with idempotency by id, and faults as scripted."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Fault = Callable[["Handler"], None]
KEY = "rlk_test_secret"
ID_FIELDS = {"interaction": "interaction_id", "output": "output_id", "feedback": "feedback_id", "task_result": "task_result_id"}


class StubService:
    """Stores events by id. Each request uses up one of `faults`, the first one first; `statuses` maps an event's id to
    its next statuses; a batch of more than `most` events is stored and answered 504."""

    def __init__(self, port: int = 0) -> None:
        self.stored: dict[str, dict[str, object]] = {}
        self.received: list[str] = []
        self.batches: list[int] = []
        self.faults: list[Fault] = []
        self.statuses: dict[str, list[int]] = {}
        self.keys: set[str] = set()
        self.most = 500
        self.infers: list[dict[str, object]] = []
        self.lock = threading.Lock()
        self.over = threading.Event()
        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.server.daemon_threads = True
        self.server.service = self
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def take(self, events: list[dict[str, object]]) -> list[dict[str, object]]:
        with self.lock:
            self.batches.append(len(events))
            return [self._take(event) for event in events]

    def _take(self, event: dict[str, object]) -> dict[str, object]:
        identifier = str(event[ID_FIELDS[str(event["type"])]])
        self.received.append(identifier)
        if left := self.statuses.get(identifier):
            return {"status": left.pop(0), "error": {"code": "scripted", "message": "scripted", "param": None}}
        replay = identifier in self.stored
        if replay and self.stored[identifier] != event:
            return {"status": 409, "error": {"code": "conflict", "message": "another payload", "param": None}}
        self.stored[identifier] = event
        return {"status": 200 if replay else 201, "id": identifier, "idempotent_replay": replay, "pending": False}

    def stop(self) -> None:
        self.over.set()
        self.server.shutdown()
        self.server.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ThreadingHTTPServer

    def do_POST(self) -> None:
        service: StubService = self.server.service
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        service.keys.add(str(self.headers["Authorization"]))
        with service.lock:
            fault = service.faults.pop(0) if service.faults else None
        if fault is not None:
            fault(self)
        elif self.path == "/v1/events:batch":
            results = service.take(body["events"])
            if len(results) > service.most:
                self.answer(504, {"error": {"code": "scripted", "message": "scripted"}})
            else:
                self.answer(200, {"results": results})
        elif self.path == "/v1/feedback.token":
            self.answer(200, {"feedback_token": f"for {body['output_id']}"})
        elif self.path == "/v1/infer":
            service.infers.append({**body, "key": self.headers["Idempotency-Key"]})
            ulid = body["interaction_id"][4:]
            self.answer(
                200,
                {
                    "interaction_id": body["interaction_id"],
                    "output_id": f"out_{ulid}",
                    "text": "Hello",
                    "policy_id": "p@v1",
                    "feedback_token": "t",
                },
            )
        else:
            self.answer(404, {"error": {"code": "not_found", "message": "no such path"}})

    def answer(self, status: int, body: object, **headers: str) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: object) -> None:
        pass


def fail(status: int, **headers: str) -> Fault:
    return lambda handler: handler.answer(status, {"error": {"code": "scripted", "message": "scripted"}}, **headers)


def die_mid_answer(handler: Handler) -> None:
    """Store nothing, promise an answer, and cut it off."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"results": [')
    handler.close_connection = True


def hang(handler: Handler) -> None:
    """Answer nothing until the test is over."""
    handler.server.service.over.wait()
    handler.close_connection = True
