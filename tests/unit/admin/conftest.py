"""The admin API over the wire, for the commands that call it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest

from tests.fakes.loopback import QuietHandler, serve_handler
from tests.unit.admin.test_admin_api import Api


@pytest.fixture
def api() -> Api:
    return Api()


@pytest.fixture
def url(api: Api) -> Iterator[str]:
    """The address of `api`, which takes the last part of a key for the caller's scopes."""
    loop = asyncio.new_event_loop()

    class Gateway(QuietHandler):
        def do_GET(self) -> None:
            self._pass_on("GET")

        def do_POST(self) -> None:
            self._pass_on("POST")

        def _pass_on(self, method: str) -> None:
            text = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asyncio.set_event_loop(loop)  # Mangum runs the app in its thread's own
            scopes = self.headers["Authorization"].rpartition("_")[2]
            status, answer = api.call(method, self.path, json.loads(text) if text else None, scopes=scopes)
            self.answer(status, json.dumps(answer).encode())

    with serve_handler(Gateway) as address:
        yield address
    loop.close()
