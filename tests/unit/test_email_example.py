"""The email example's back end drafts for its own page alone."""

import http.client
import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

HERE = Path(__file__).resolve().parents[2] / "examples" / "email_draft"


class Drafts:
    """Stands in for RLaaS, and counts drafts."""

    api_url = "http://api.example"

    def __init__(self) -> None:
        self.drafts_made = 0

    def prepare(self) -> None:
        pass

    def publishable_key(self, origins: list[str]) -> str:
        return f"rlk_page {origins}"

    def draft(self, email: dict[str, Any]) -> dict[str, Any]:
        self.drafts_made += 1
        return {"draft": "Hi"}


@pytest.fixture
def inbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr(sys, "path", [str(HERE), *sys.path])
    import server

    with server.Inbox(0, cast(Any, Drafts())) as inbox:
        thread = threading.Thread(target=inbox.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield inbox
        inbox.shutdown()
        thread.join()


def send_request(inbox: Any, method: str, path: str, headers: dict[str, str]) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", inbox.server_port, timeout=10)
    email = next(iter(inbox.emails))
    sent_headers = {name: value.replace("{port}", str(inbox.server_port)) for name, value in headers.items()}
    connection.request(method, path, json.dumps({"email_id": email}) if method == "POST" else None, sent_headers)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


@pytest.mark.parametrize(
    "headers", [{}, {"Origin": "http://127.0.0.1:{port}"}, {"Host": "localhost:{port}", "Origin": "http://localhost:{port}"}]
)
def test_its_page_gets_a_draft(inbox: Any, headers: dict[str, str]) -> None:
    assert send_request(inbox, "POST", "/api/drafts", headers)[0] == 200
    assert send_request(inbox, "GET", "/api/inbox", headers)[0] == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Host": "evil.example:{port}"},
        {"Host": "evil.example:{port}", "Origin": "http://evil.example:{port}"},
        {"Host": "127.0.0.1"},
    ],
)
def test_another_page_gets_neither_a_draft_nor_the_key(inbox: Any, headers: dict[str, str]) -> None:
    assert send_request(inbox, "POST", "/api/drafts", {**headers, "Content-Type": "text/plain"})[0] == 403
    status, body = send_request(inbox, "GET", "/api/inbox", headers)
    assert (status, "rlk_page" in body) == (403, False)
    assert inbox.rlaas.drafts_made == 0
