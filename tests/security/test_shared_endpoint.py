"""One tenant's requests to the shared model do not block the others'. Over HTTP on the laptop cloud and a real vLLM."""

import json
import time

import httpx

from tests.laptop_cloud import SKILL, Tenant


def complete(tenant: Tenant, schema: dict[str, object]) -> httpx.Response:
    form = {"type": "json_schema", "json_schema": {"name": "reply", "schema": schema}}
    body = {"model": f"rlaas::{SKILL}", "messages": [{"role": "user", "content": "Where?"}], "max_tokens": 100, "response_format": form}
    return tenant.post("v1/chat/completions", body)


def test_a_schema_is_kept_to_whatever_lengths_it_names_and_at_once(tenant: Tenant) -> None:
    """xgrammar takes three seconds for any `maxLength`, in which nobody else is answered."""
    tenant.make_skill()
    places = {"city": {"enum": ["Bern", "Basel"]}, "why": {"type": "string", "maxLength": 2_000, "pattern": "^(x{1,9}){1,9}$"}}
    schema = {"type": "object", "properties": places, "required": ["city"], "additionalProperties": False}
    started = time.monotonic()
    answer = complete(tenant, schema)
    assert answer.status_code == 200, answer.text
    assert json.loads(answer.json()["choices"][0]["message"]["content"])["city"] in ("Bern", "Basel")
    assert time.monotonic() - started < 30


def test_a_schema_that_takes_long_to_compile_is_refused_by_name(tenant: Tenant) -> None:
    tenant.make_skill()
    answer = complete(tenant, {"type": "integer", "multipleOf": 999_983})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "response_format")
