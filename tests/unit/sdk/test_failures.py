"""The Python SDK where RLaaS is not, or refuses: what it logs and raises says what happened, and loses no event."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from rlaas_sdk import AsyncClient, Client
from rlaas_sdk.errors import InferenceFailed, NotConfigured
from rlaas_sdk.inference import Retry, Tries
from tests.fakes.strangers import NOWHERE, serve_answer, serve_untrusted_tls

KEY = "rlk_test_secret"


def ask(url: str, spool: Path) -> InferenceFailed:
    with pytest.raises(InferenceFailed) as failed:
        Client(url, KEY, spool=spool, strict=True, infer_timeout_s=0.6).infer("emails", inputs={})
    return failed.value


def ask_async(url: str, spool: Path) -> InferenceFailed:
    async def infer() -> None:
        await AsyncClient(url, KEY, spool=spool, strict=True, infer_timeout_s=0.6).infer("emails", inputs={})

    with pytest.raises(InferenceFailed) as failed:
        asyncio.run(infer())
    return failed.value


@pytest.fixture(params=[ask, ask_async], ids=["sync", "async"])
def way(request: pytest.FixtureRequest) -> Callable[[str, Path], InferenceFailed]:
    ask_once: Callable[[str, Path], InferenceFailed] = request.param
    return ask_once


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool.db"


def test_an_answer_that_never_comes_says_how_often_it_was_asked_and_why_not(
    way: Callable[[str, Path], InferenceFailed], spool: Path
) -> None:
    with serve_answer(502) as url:
        error = way(url, spool)
    assert str(error).startswith("no answer within 0.6 s; ")
    assert "failed, the last: HTTP 502 (text/html), and the response is not one of RLaaS's" in str(error)
    assert error.status == 502


def test_an_address_that_refuses_three_times_is_given_up_long_before_the_time_is_over(spool: Path) -> None:
    with pytest.raises(InferenceFailed) as failed:
        Client(NOWHERE, KEY, spool=spool, strict=True, infer_timeout_s=600).infer("emails", inputs={})

    async def infer() -> None:
        await AsyncClient(NOWHERE, KEY, spool=spool, strict=True, infer_timeout_s=600).infer("emails", inputs={})

    with pytest.raises(InferenceFailed) as failed_async:
        asyncio.run(infer())
    for error in (failed.value, failed_async.value):
        assert str(error).startswith(f"nothing listens at {NOWHERE}: 3 tries in a row were refused, the last: ConnectError")
        assert error.status is None


def test_an_address_is_not_given_up_while_something_answers_between_refusals() -> None:
    tries = Tries(NOWHERE)
    refusal, busy = Retry("ConnectError", refused=True), Retry("HTTP 503", status=503)
    for result in (refusal, refusal, busy, refusal, refusal):
        tries.note(result)
    with pytest.raises(InferenceFailed, match="3 tries in a row"):
        tries.note(refusal)


@pytest.mark.parametrize("status", [200, 301, 403, 404])
def test_another_sites_answer_is_said_to_be_one_without_its_text(
    status: int, way: Callable[[str, Path], InferenceFailed], spool: Path
) -> None:
    with serve_answer(status, headers={"Location": "https://elsewhere.example"} if status == 301 else None) as url:
        error = way(url, spool)
    assert str(error).startswith(f"HTTP {status}")
    assert "not one of RLaaS's" in str(error) or "https://elsewhere.example; give that address" in str(error)
    assert "private page" not in str(error)
    assert error.status == status


def test_a_certificate_that_is_not_trusted_is_asked_once(way: Callable[[str, Path], InferenceFailed], spool: Path, tmp_path: Path) -> None:
    with serve_untrusted_tls(tmp_path) as url:
        error = way(url, spool)
    assert str(error).startswith("the certificate is not trusted (self-signed certificate)")


@pytest.mark.parametrize("status", [400, 401, 404, 422, 502])
def test_events_that_another_site_refuses_are_kept_and_the_log_says_why(status: int, spool: Path, caplog: pytest.LogCaptureFixture) -> None:
    with serve_answer(status) as url, caplog.at_level(logging.WARNING, "rlaas_sdk"):
        client = Client(url, KEY, spool=spool)
        for _ in range(3):
            client.log_interaction("emails", inputs={"email": "hi"})
        assert not client.flush(0.5)
        stats = client.stats()
        client.close(0)
    assert (stats.waiting, stats.dropped) == (3, {})
    assert f"HTTP {status} (text/html), and the response is not one of RLaaS's" in caplog.text
    assert KEY not in caplog.text
    assert "private page" not in caplog.text


def test_blanks_and_line_breaks_around_the_address_and_the_key_are_not_theirs(spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    body = b'{"feedback_token": "t"}'
    with serve_answer(200, body, {"Content-Type": "application/json"}, seen=seen) as url:
        monkeypatch.setenv("RLAAS_API_URL", f"{url}/ \n")
        monkeypatch.setenv("RLAAS_API_KEY", f" {KEY}\n")
        assert Client(spool=spool, strict=True).feedback_token("emails", "out_1") == "t"
    assert seen == [f"Bearer {KEY}"]


@pytest.mark.parametrize(
    ("url", "key", "expected"),
    [
        ("http://127.0.0.1:port", KEY, "is no address: Invalid port"),
        ("https://", KEY, "is no address"),
        ("rlaas.example", KEY, "begins with https://"),
        (NOWHERE, f"{KEY}\nX-Other: 1", "characters that no key has"),
        (NOWHERE, "rlk_tést_secret", "characters that no key has"),
        (NOWHERE, " \n", "no key is given"),
    ],
)
def test_an_address_or_a_key_that_cannot_be_used_is_refused_at_once_without_repeating_the_key(url: str, key: str, expected: str) -> None:
    with pytest.raises(NotConfigured, match=expected) as refused:
        Client(url, key, strict=True)
    assert "secret" not in str(refused.value)
