"""Bodies, methods and paths as the deployed laptop cloud takes them: through API Gateway, not past it."""

import gzip
import json
import re

import httpx
import pytest

from rlaas.runtime.paths import METHODS
from tests.fakes.openai_server import Script
from tests.laptop_cloud import SKILL, LaptopCloud, Tenant
from tests.security.test_sizes import vendor as vendor  # a fixture

JSON = {"Content-Type": "application/json"}
CHAT = "v1/chat/completions"


ANSWER = {"message": {"role": "assistant", "content": "fine"}}


def chat_body(text: str) -> bytes:
    return json.dumps({"model": f"rlaas::{SKILL}", "messages": [{"role": "user", "content": text}]}, ensure_ascii=False).encode()


@pytest.mark.parametrize("path", [CHAT, "v1/responses", "v1/messages", "v1/infer", "v1/interaction.create", "v1/events:batch"])
def test_a_byte_that_is_no_utf_8_is_named_with_its_position(tenant: Tenant, path: str) -> None:
    answer = tenant.http.post(path, content=b'{"skill": "caf\xe9"}', headers=JSON)
    assert (answer.status_code, "byte 0xe9 at position 14" in answer.json()["error"]["message"]) == (400, True)


@pytest.mark.parametrize("path", [CHAT, "v1/interaction.create", f"v1/admin/skills/{SKILL}"])
def test_a_packed_body_is_unpacked_by_every_function(tenant: Tenant, vendor: Script, path: str) -> None:
    vendor.answer_with(ANSWER)
    body = {CHAT: chat_body("hé"), "v1/interaction.create": json.dumps({"skill": SKILL, "inputs": {"a": "b"}}).encode()}.get(path, b"{}")
    method = "PUT" if "admin" in path else "POST"
    assert tenant.http.request(method, path, content=gzip.compress(body), headers={**JSON, "Content-Encoding": "gzip"}).is_success
    refusal = tenant.http.request(method, path, content=body, headers={**JSON, "Content-Encoding": "br"})
    assert (refusal.status_code, refusal.headers["accept-encoding"]) == (415, "gzip")


def test_a_conversation_of_megabytes_reaches_the_model_whole(tenant: Tenant, vendor: Script) -> None:
    vendor.answer_with(ANSWER)
    text = "hé " * 900_000
    answer = tenant.http.post(CHAT, content=chat_body(text), headers=JSON, timeout=60)
    assert answer.status_code == 200, answer.text
    assert text in json.dumps(vendor.requests[-1], ensure_ascii=False)


def test_every_path_says_its_methods(cloud: LaptopCloud, tenant: Tenant) -> None:
    for template, methods in METHODS.items():
        path = re.sub(r"\{\w+\}", "x", template).lstrip("/")
        allowed = ", ".join((*methods, "OPTIONS"))
        preflight = httpx.options(
            f"{cloud.api_url.rstrip('/')}/{path}", headers={"Origin": "https://a.example", "Access-Control-Request-Method": methods[0]}
        )
        assert (preflight.status_code, preflight.headers["allow"]) == (204, allowed), path
        assert preflight.headers["access-control-allow-methods"] == allowed
        refusal = tenant.http.delete(path)
        assert (refusal.status_code, refusal.headers["allow"]) == (405, allowed), path
        for answer in (preflight, refusal):
            assert re.fullmatch("[0-9a-f-]{36}", answer.headers["x-request-id"])


def test_slashes_too_many_do_not_matter(tenant: Tenant, vendor: Script) -> None:
    vendor.answer_with(ANSWER)
    for path in ("v1/chat/completions/", "v1//chat/completions"):
        assert tenant.http.post(path, content=chat_body("hi"), headers=JSON).status_code == 200
    assert tenant.http.get("v1/models/").status_code == 200
    assert tenant.http.get(f"v1/admin/skills/{SKILL}/").status_code == 200


def test_what_api_gateway_refuses_has_an_id_and_pages_may_read_it(cloud: LaptopCloud, tenant: Tenant) -> None:
    url = cloud.api_url.rstrip("/")
    for answer in (httpx.post(f"{url}/{CHAT}"), httpx.get(f"{url}/nothing"), tenant.http.get("nothing"), tenant.http.head("v1/models")):
        assert re.fullmatch("[0-9a-f-]{36}", answer.headers["x-request-id"])
        assert answer.headers["access-control-allow-origin"] == "*"
