"""`rlaas import` where RLaaS is not: it ends soon, says what it tried and what to do, and prints no traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes.strangers import NOWHERE, PAGE, serve_answer, serve_untrusted_tls
from tests.unit.imports.conftest import KEY, SKILL, Command, CommandResult, Fault, Service, write_log


def import_into(rlaas_import: Command, url: str, **env: str) -> CommandResult:
    log = write_log(rlaas_import.home / "log.jsonl", 5)
    result = rlaas_import("openai", log, "--skill", SKILL, "--concurrency", "1", env={"RLAAS_API_URL": url, **env})
    assert "Traceback" not in result.err
    assert KEY not in result.err
    assert "private page" not in result.err
    return result


def test_a_service_that_is_not_there_is_tried_a_few_times_and_each_wait_says_why(rlaas_import: Command) -> None:
    result = import_into(rlaas_import, NOWHERE)
    assert result.status == 1
    assert "Connection refused; trying again, for " in result.err
    assert f"{NOWHERE} took nothing (5 tries in " in result.err
    assert "check --api-url and that the service runs, then run the same command again" in result.err


def test_a_proxy_without_a_service_behind_it_is_given_up_soon(rlaas_import: Command) -> None:
    with serve_answer(502) as url:
        result = import_into(rlaas_import, url)
    assert result.status == 1
    assert "HTTP 502 (text/html), and the response is not one of RLaaS's; trying again" in result.err
    assert "(5 tries in " in result.err


def test_a_service_that_answers_that_it_is_busy_is_not_given_up_soon(service: Service, rlaas_import: Command) -> None:
    service.faults = {n: Fault(503) for n in range(1, 8)}
    result = import_into(rlaas_import, service.url)
    assert (result.status, result.row("new")) == (0, 10)
    assert "HTTP 503: not now; trying again, for " in result.err


@pytest.mark.parametrize(
    ("status", "headers", "expected"),
    [
        (200, {}, "answered HTTP 200 (text/html), and the response is not one of RLaaS's; is this RLaaS's address?"),
        (200, {"Content-Type": "application/json"}, "is this RLaaS's address?"),
        (400, {}, "answered HTTP 400 (text/html), and the response is not one of RLaaS's; check --api-url"),
        (403, {}, "answered HTTP 403 (text/html), and the response is not one of RLaaS's; check --api-url"),
        (404, {}, "answered HTTP 404 (text/html)"),
        (301, {"Location": "https://rlaas.example/v1/events:batch"}, "sent on to https://rlaas.example/v1/events:batch; give that address"),
    ],
)
def test_what_another_site_answers_ends_the_import_at_once(
    status: int, headers: dict[str, str], expected: str, rlaas_import: Command
) -> None:
    content = b"null" if "Content-Type" in headers else PAGE
    with serve_answer(status, content, headers) as url:
        result = import_into(rlaas_import, url)
    assert result.status == 2
    assert expected in result.err
    assert "rows were refused" not in result.err


def test_a_certificate_that_is_not_trusted_ends_the_import_at_once_and_says_how_to_trust_it(rlaas_import: Command, tmp_path: Path) -> None:
    with serve_untrusted_tls(tmp_path) as url:
        result = import_into(rlaas_import, url)
        trusted = import_into(rlaas_import, url, SSL_CERT_FILE=str(tmp_path / "own.pem"))
    assert result.status == 2
    assert "the certificate is not trusted (self-signed certificate); SSL_CERT_FILE names" in result.err
    assert "answered HTTP 501" in trusted.err


def test_tls_with_a_server_that_has_none_is_said_so(service: Service, rlaas_import: Command) -> None:
    result = import_into(rlaas_import, service.url.replace("http:", "https:"))
    assert (result.status, "an address without TLS begins with http://" in result.err) == (2, True)


def test_the_blanks_and_line_breaks_around_the_address_and_the_key_are_not_theirs(service: Service, rlaas_import: Command) -> None:
    result = import_into(rlaas_import, f" {service.url}/\n", RLAAS_API_KEY=f"{KEY}\r\n")
    assert (result.status, result.row("new")) == (0, 10)


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({"RLAAS_API_KEY": f"{KEY}\n{KEY}"}, "the key holds characters that no key has"),
        ({"RLAAS_API_KEY": "“rlk_1_secret”"}, "the key holds characters that no key has"),
        ({"RLAAS_API_URL": "http://127.0.0.1:port"}, "is no address: Invalid port"),
        ({"RLAAS_API_URL": "https://"}, "is no address"),
        ({"SSL_CERT_FILE": "/nowhere/ca.pem"}, "no connection can be made with what the environment says"),
        ({"ALL_PROXY": "gopher://proxy"}, "no connection can be made with what the environment says"),
    ],
)
def test_settings_that_cannot_be_used_are_named(env: dict[str, str], expected: str, service: Service, rlaas_import: Command) -> None:
    result = rlaas_import("openai", write_log(rlaas_import.home / "log.jsonl", 1), "--skill", SKILL, env=env)
    assert (result.status, "Traceback" in result.err, KEY in result.err) == (2, False, False)
    assert expected in result.err
