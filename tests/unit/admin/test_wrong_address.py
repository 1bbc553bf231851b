"""The commands of the admin API where RLaaS is not, or refuses: one line that says what to do, and no traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from rlaas_sdk.learning import learn_command
from rlaas_sdk.redrive import redrive_command
from rlaas_sdk.rollouts import rollout_command
from tests.fakes.strangers import NOWHERE, PAGE, serve_answer, serve_untrusted_tls

KEY = "rlk_k_secret"
SKILL = ("--skill", "support-email-draft")
READS = [(learn_command, (*SKILL, "show")), (learn_command, (*SKILL, "show", "run_1")), (rollout_command, (*SKILL, "show", "rollout_1"))]
CHANGES = [
    (learn_command, (*SKILL, "start", "--wait")),
    (rollout_command, (*SKILL, "plan", "policy@v1")),
    (rollout_command, (*SKILL, "start", "policy@v1")),
    (redrive_command, ()),
    (redrive_command, ("--dry-run",)),
]
VERBS = [*READS, *CHANGES]


def run(command: click.Command, arguments: tuple[str, ...], url: str, key: str = KEY) -> Result:
    result = CliRunner().invoke(command, arguments, env={"RLAAS_API_URL": url, "RLAAS_API_KEY": key}, terminal_width=200)
    assert isinstance(result.exception, SystemExit), result.exception
    assert "secret" not in result.output
    assert "private page" not in result.output
    return result


@contextmanager
def serve_json(status: int, content: bytes, seen: list[str] | None = None) -> Iterator[str]:
    with serve_answer(status, content, {"Content-Type": "application/json"}, seen=seen) as url:
        yield url


@pytest.mark.parametrize(("command", "arguments"), VERBS)
def test_each_verb_says_that_nobody_is_there_and_asks_whether_the_address_is_right(
    command: click.Command, arguments: tuple[str, ...]
) -> None:
    result = run(command, arguments, NOWHERE)
    assert result.exit_code == 1
    assert f"Connection refused; is {NOWHERE} the service's address?" in result.output


@pytest.mark.parametrize(("command", "arguments"), VERBS)
@pytest.mark.parametrize(
    ("status", "content"),
    [(200, PAGE), (200, b"null"), (200, b"[]"), (200, b'{"status": "ok"}'), (200, b'{"data": [{}]}'), (404, PAGE), (403, PAGE)],
)
def test_each_verb_knows_another_sites_answer(status: int, content: bytes, command: click.Command, arguments: tuple[str, ...]) -> None:
    with serve_answer(status, content) as url:
        result = run(command, arguments, url)
    assert result.exit_code == 1
    assert "the service's address" in result.output


@pytest.mark.parametrize(("command", "arguments"), READS)
def test_a_question_is_asked_three_times_of_a_proxy_and_each_time_says_why(command: click.Command, arguments: tuple[str, ...]) -> None:
    seen: list[str] = []
    with serve_answer(502, seen=seen) as url:
        result = run(command, arguments, url)
    assert len(seen) == 3
    assert result.output.count("HTTP 502 (text/html), and the response is not one of RLaaS's; trying again") == 2


@pytest.mark.parametrize(("command", "arguments"), CHANGES)
def test_a_change_is_asked_for_once(command: click.Command, arguments: tuple[str, ...]) -> None:
    seen: list[str] = []
    with serve_answer(502, seen=seen) as url:
        result = run(command, arguments, url)
    assert (len(seen), "HTTP 502" in result.output) == (1, True)


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_said_with_the_services_words(status: int) -> None:
    with serve_json(status, b'{"error": {"code": "forbidden", "message": "the key has no scope admin", "param": null}}') as url:
        result = run(learn_command, (*SKILL, "show"), url)
    assert f"Error: HTTP {status}: the key has no scope admin; check --api-key" in result.output


def test_a_key_and_an_address_are_taken_without_blanks_and_line_breaks_around_them() -> None:
    seen: list[str] = []
    with serve_json(200, b'{"data": []}', seen) as url:
        result = run(learn_command, (*SKILL, "show"), f" {url}\n", f"{KEY} \r\n")
    assert "no learning run yet" in result.output
    assert seen == [f"Bearer {KEY}"]


def test_a_certificate_that_is_not_trusted_is_named(tmp_path: Path) -> None:
    with serve_untrusted_tls(tmp_path) as url:
        result = run(learn_command, (*SKILL, "show"), url)
    assert "the certificate is not trusted (self-signed certificate)" in result.output
    assert "trying again" not in result.output
