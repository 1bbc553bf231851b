"""Logs name fields of schemas, and nothing that a client chose."""

import logging
from typing import NoReturn

import pytest

from rlaas.api.hot_paths import make_handler
from rlaas.api.http import GatewayEvent, parse
from rlaas.errors import NotFound
from rlaas.inference.chat_completions import ChatRequest
from rlaas.inference.decide import InferRequest
from rlaas.runtime.log import mask_path
from rlaas.telemetry.events import InteractionCreated
from tests.fakes.gateway import make_lambda_context, make_proxy_event


@pytest.mark.parametrize(
    ("param", "logged"),
    [
        (None, None),
        ("inputs.ada@example.com", "inputs.*.*"),
        ("inputs.4111111111111111", "inputs.*"),
        ("ada@example.com", "*.*"),
        ("messages.0.content", "messages.*.content"),
        ("rlaas::tags", "rlaas::tags"),
        ("Idempotency-Key", "Idempotency-Key"),
        ("prompt.ada.template", "prompt.*.template"),
    ],
)
def test_a_logged_path_holds_declared_names_only(param: str | None, logged: str | None) -> None:
    assert InferRequest.model_fields
    assert ChatRequest.model_fields
    assert mask_path(param) == logged


def test_a_refusal_tells_the_caller_the_key_and_the_log_the_schema() -> None:
    lines: list[str] = []

    class LineHandler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(str(vars(record)))

    body = {"skill": "reply", "inputs": {"ada@example.com": 1}, "4111111111111111": 1}

    def handle(event: GatewayEvent) -> NoReturn:
        parse(InteractionCreated, event)
        raise NotFound("reached")

    line_handler = LineHandler()
    logging.getLogger("rlaas").addHandler(line_handler)
    try:
        answer = make_handler({"POST /v1/x": handle})(make_proxy_event("/v1/x", body, scopes="telemetry"), make_lambda_context())
    finally:
        logging.getLogger("rlaas").removeHandler(line_handler)
    assert "ada@example.com" in str(answer["body"])
    [line] = lines
    assert "inputs.*" in line
    assert "ada@" not in line
    assert "4111" not in line
