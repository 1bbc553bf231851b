"""Images, sounds and files as each door of the functions takes or refuses them."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from rlaas.api import web
from tests.fakes.gateway import make_proxy_event
from tests.fakes.model_server import ModelServer
from tests.fakes.worlds import SKILL
from tests.unit.functions.conftest import serve_doors

LINK = "https://pictures.example/a.png"
DOORS: dict[str, Any] = {
    "/v1/chat/completions": ("messages", {"type": "image_url", "image_url": {"url": LINK}}),
    "/v1/responses": ("input", {"type": "input_image", "image_url": LINK}),
    "/v1/messages": ("messages", {"type": "image", "source": {"type": "url", "url": LINK}}),
}


@pytest.fixture
def url(model: ModelServer) -> Iterator[str]:
    with serve_doors() as url:
        yield url


def post(url: str, path: str, **body: Any) -> httpx.Response:
    headers = {web.CONTEXT_HEADER: json.dumps(make_proxy_event("/", {})["requestContext"])}
    return httpx.post(f"{url}{path}", json={"model": f"rlaas::{SKILL}", **body}, headers=headers)


@pytest.mark.parametrize("path", DOORS)
def test_more_parts_than_are_taken_are_refused_at_every_door(url: str, model: ModelServer, path: str) -> None:
    field, part = DOORS[path]
    more = {"max_tokens": 64} if path == "/v1/messages" else {}
    answer = post(url, path, **{field: [{"role": "user", "content": [part] * 101}]}, **more)
    error = answer.json()["error"]
    assert (answer.status_code, model.requests) == (400, [])
    assert "more than 100 images, sounds and files" in error["message"]
    assert error.get("param", field) == field
