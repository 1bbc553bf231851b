"""The office against a small server that keeps all events, drops connections on purpose and refuses on request."""

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Any

import pytest

from local.office import traffic
from local.office.templates import iterate_cases, week
from local.office.traffic import Ledger, Office


class Service(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.lock = threading.Lock()
        self.events: dict[str, dict[str, Any]] = {}
        self.replays = 0
        self.keys: set[str] = set()
        self.dropped_answers: Iterator[bool] = iter(())
        self.refuse_feedback = False
        self.statuses: Iterator[int] = iter(())

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/local"


class _Handler(BaseHTTPRequestHandler):
    server: Service
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        service = self.server
        infer = self.path == "/local/v1/infer"
        event_id = body["interaction_id"] if infer else body["feedback_id"]
        with service.lock:
            service.keys.add(self.headers["Authorization"])
            service.replays += event_id in service.events
            assert service.events.setdefault(event_id, body) == body
            drop = next(service.dropped_answers, False)
        if drop:
            self.close_connection = True
            return
        status = 409 if service.refuse_feedback and not infer else next(service.statuses, 200)
        answer = json.dumps({"output_id": f"out_{event_id}", "text": "Dear customer, no."} if infer else {"event_id": event_id}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:
        del format, args


@pytest.fixture
def service() -> Iterator[Service]:
    with Service() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def work(service: Service, amount: int, desks: int = 4) -> Ledger:
    async def run() -> Ledger:
        async with Office(api_url=service.url, api_key="rlk_a_b", skill="support-email-draft", desks=desks, seed=1) as office:
            await office.work(week(1, amount, 0), week="one")
            return office.ledger

    return asyncio.run(run())


def test_every_email_becomes_an_interaction_an_edit_and_an_action_in_one_thread_of_its_own(service: Service) -> None:
    ledger = work(service, 9)
    by_thread: dict[str, list[object]] = {}
    for body in service.events.values():
        by_thread.setdefault(str(body["thread_id"]), []).append(body.get("kind", "infer"))
    assert sorted(by_thread) == [f"one-{n:04d}" for n in range(9)]
    assert all(kinds == ["infer", "edit", "action"] for kinds in by_thread.values())
    assert len(ledger.acknowledged) == len(set(ledger.acknowledged)) == 4 * 9
    assert service.keys == {"Bearer rlk_a_b"}
    assert ledger.refusals == []


def test_only_held_out_issues_are_tagged_to_be_kept_from_training(service: Service) -> None:
    async def run() -> None:
        async with Office(api_url=service.url, api_key="rlk_a_b", skill="s", desks=2, seed=1) as office:
            await office.work(week(1, 5, 4), week="one")

    asyncio.run(run())
    requests = [body for body in service.events.values() if "inputs" in body]
    splits = Counter((body["metadata"]["split"], *body["tags"]) for body in requests)
    assert splits == {("train",): 5, ("held_out", "held-out"): 4}


def test_a_lost_answer_is_asked_for_again_with_the_same_id_and_acknowledged_once(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traffic, "FIRST_PAUSE_SECONDS", 0.0)
    service.dropped_answers = (n % 5 == 0 for n in count())
    ledger = work(service, 10, desks=2)
    assert ledger.reconnects == service.replays > 0
    assert len(ledger.acknowledged) == len(set(ledger.acknowledged)) == 40
    assert len(service.events) == 30
    assert ledger.refusals == []


def test_a_refused_request_is_reported_and_not_acknowledged(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traffic, "PAUSE_AFTER_REFUSAL_SECONDS", 0.0)
    service.refuse_feedback = True
    ledger = work(service, 3, desks=1)
    assert [(refusal.path, refusal.status) for refusal in ledger.refusals] == [("v1/feedback.submit", 409)] * 3
    assert len(ledger.acknowledged) == 2 * 3


def test_a_busy_service_is_asked_again_with_the_same_id_and_each_refusal_is_remembered(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traffic, "FIRST_PAUSE_SECONDS", 0.0)
    service.statuses = iter([503, 429])
    ledger = work(service, 1, desks=1)
    assert [refusal.status for refusal in ledger.refusals] == [503, 429]
    assert service.replays == 2
    assert len(ledger.acknowledged) == 4


def test_a_service_that_is_gone_is_a_refusal_after_all_attempts(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traffic, "FIRST_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(traffic, "PAUSE_AFTER_REFUSAL_SECONDS", 0.0)
    service.dropped_answers = (True for _ in count())
    ledger = work(service, 1, desks=1)
    assert [refusal.status for refusal in ledger.refusals] == [0]
    assert ledger.requests == traffic.ATTEMPTS
    assert ledger.acknowledged == []


def test_endless_mail_stops_at_the_bell_with_every_case_finished(service: Service) -> None:
    async def run() -> Ledger:
        bell = asyncio.Event()
        done = count(1)

        def each(_: bool) -> None:
            if next(done) == 6:
                bell.set()

        async with Office(api_url=service.url, api_key="rlk_a_b", skill="s", desks=3, seed=1) as office:
            answered_count = await office.work(iterate_cases("held_out", 1), week="live", stop=bell, each=each)
            assert 6 <= answered_count <= 8
            return office.ledger

    ledger = asyncio.run(run())
    assert len(ledger.acknowledged) % 4 == 0
