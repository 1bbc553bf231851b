"""The door of the serving container, where it stands beside a browser."""

import asyncio
from typing import Any

import pytest

from tests.unit.serving.test_serve import SERVE, loaded


def status(door: Any, kind: str, headers: list[tuple[bytes, bytes]]) -> Any:
    """What is answered to a request: None where it is passed on."""
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def receive() -> dict[str, Any]:
        return {}

    asyncio.run(door({"type": kind, "path": "/invocations", "headers": headers}, receive, send))
    return sent[0].get("status", sent[0]["type"]) if sent else None


async def inside(scope: Any, receive: Any, send: Any) -> None:
    """vLLM."""


def test_who_lacks_the_key_that_is_asked_for_is_not_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLAAS_HOSTING_KEY", "k")
    door = loaded(SERVE.with_name("one_door.py")).ChatByInvocations(inside)
    assert status(door, "http", [(b"x-rlaas-hosting-key", b"k")]) is None
    for headers in ([], [(b"x-rlaas-hosting-key", b"")], [(b"x-rlaas-hosting-key", b"other")]):
        assert status(door, "http", headers) == 403
        assert status(door, "websocket", headers) == "websocket.close"
    assert status(door, "lifespan", []) is None


def test_in_a_container_of_its_own_no_key_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RLAAS_HOSTING_KEY", raising=False)
    assert status(loaded(SERVE.with_name("one_door.py")).ChatByInvocations(inside), "http", []) is None
