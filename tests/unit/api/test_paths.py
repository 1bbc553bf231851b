"""What is said of a request that no function takes: another method, no such path, slashes too many."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from rlaas.api.hot_paths import Reply, make_handler
from rlaas.api.http import GatewayEvent
from rlaas.runtime.paths import EXPOSED_HEADERS, METHODS, tidy_path
from tests.fakes.gateway import make_lambda_context, make_proxy_event


def list_models(event: GatewayEvent) -> Reply:
    return Reply(200, {"data": []})


HANDLER = make_handler({"GET /v1/models": list_models})


def send(method: str, path: str, resource: str = "/{proxy+}") -> dict[str, Any]:
    return HANDLER({**make_proxy_event(path, "", method=method), "resource": resource}, make_lambda_context())


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/chat/completions", "POST, OPTIONS"),
        ("HEAD", "/v1/messages", "POST, OPTIONS"),
        ("DELETE", "//v1/responses/", "POST, OPTIONS"),
        ("POST", "/v1/models", "GET, HEAD, OPTIONS"),
        ("PUT", "/v1/models/rlaas::reply", "GET, HEAD, OPTIONS"),
        ("GET", "/ofrep/v1/evaluate/flags/reply", "POST, OPTIONS"),
    ],
)
def test_another_method_is_405_with_those_that_the_path_has(method: str, path: str, allowed: str) -> None:
    answer = send(method, path)
    assert (answer["statusCode"], answer["headers"]["Allow"]) == (405, allowed)
    assert json.loads(answer["body"])["error"]["code"] == "method_not_allowed"


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/chat", "/v1/embeddings", "/v2/models", "/v1/models/a/b", "/admin"])
def test_another_path_is_404_with_those_that_there_are(path: str) -> None:
    answer = send("POST", path)
    message = json.loads(answer["body"])["error"]["message"]
    assert answer["statusCode"] == 404
    assert all(known in message for known in METHODS)


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/", "//v1//models//", "v1/models"])
def test_slashes_too_many_do_not_matter(path: str) -> None:
    assert tidy_path(path) == "/v1/models"


def test_head_is_answered_as_get_without_the_body() -> None:
    got, head = (send(method, "/v1/models", "/v1/models") for method in ("GET", "HEAD"))
    assert (head["statusCode"], head["headers"], head["body"]) == (200, got["headers"], "")


@pytest.mark.parametrize("answer", [lambda: send("GET", "/v1/models", "/v1/models"), lambda: send("GET", "/none")])
def test_every_answer_has_its_id_and_pages_may_read_it(answer: Callable[[], dict[str, Any]]) -> None:
    headers = answer()["headers"]
    assert headers["X-Request-Id"] == headers["Request-Id"] == "req-1"
    assert (headers["Access-Control-Allow-Origin"], headers["Access-Control-Expose-Headers"]) == ("*", EXPOSED_HEADERS)
    assert {"Retry-After", "X-Request-Id"} <= set(EXPOSED_HEADERS.split(", "))
