"""Texts that grow when they are masked are refused before any model is paid, with an error that no client retries."""

from collections.abc import Iterator

import pytest

from tests.fakes.openai_server import Script, serve_openai
from tests.laptop_cloud import SKILL, LaptopCloud, Tenant

GROWING = "1.1.1.1 " * (245 * 1024 // 8)


@pytest.fixture
def vendor(tenant: Tenant) -> Iterator[Script]:
    with serve_openai() as server:
        backend = {"kind": "openai", "model": "m", "base_url": server.url, "timeout_s": 25}
        tenant.admin("PUT", f"skills/{SKILL}", {})
        policy = tenant.admin("POST", f"skills/{SKILL}/policies", {"prompt": {"user": "{{ email }}"}, "backend": backend})["policy_id"]
        version = tenant.http.get(f"v1/admin/skills/{SKILL}/route").json().get("version", 0)
        tenant.admin("PUT", f"skills/{SKILL}/route", {"expected_version": version, "control": policy})
        yield server


def test_what_masks_make_larger_than_an_item_is_413_by_every_way_in(cloud: LaptopCloud, tenant: Tenant, vendor: Script) -> None:
    before = cloud.stored_events(tenant.tenant_id)
    event = {"skill": SKILL, "inputs": {"email": GROWING}}
    for path, body in (("v1/interaction.create", event), ("v1/infer", event)):
        answer = tenant.post(path, body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "payload_too_large"), path
        assert "masked" in answer.json()["error"]["message"]
    small = {"type": "interaction", "skill": SKILL, "inputs": {"email": "1.1.1.1"}}
    results = tenant.post("v1/events:batch", {"events": [{"type": "interaction", **event}, small]}).json()["results"]
    assert [one["status"] for one in results] == [413, 201]
    assert vendor.requests == []
    assert cloud.stored_events(tenant.tenant_id) == before + 1


def test_a_conversation_that_masks_make_larger_than_an_item_is_answered_and_left_out_of_what_is_stored(
    cloud: LaptopCloud, tenant: Tenant, vendor: Script
) -> None:
    vendor.answer_with({"message": {"role": "assistant", "content": "fine"}})
    vendor.stream_parts({"delta": {"content": "fine"}}, {"delta": {}, "finish_reason": "stop"})
    before = cloud.stored_events(tenant.tenant_id)
    for stream in (False, True):
        body = {"model": f"rlaas::{SKILL}", "messages": [{"role": "user", "content": GROWING}], "stream": stream}
        assert tenant.post("v1/chat/completions", body).status_code == 200
    assert len(vendor.requests) == 2
    assert cloud.stored_events(tenant.tenant_id) == before + 4


@pytest.mark.parametrize("text", ["x" * 2_000_000, GROWING * 4])
def test_an_answer_that_is_paid_for_is_cut_and_not_lost(tenant: Tenant, vendor: Script, text: str) -> None:
    vendor.answer_with({"message": {"role": "assistant", "content": text}})
    body = {"skill": SKILL, "inputs": {"email": "hi"}, "interaction_id": f"int-{len(text)}"}
    first, second = (tenant.post("v1/infer", body).json() for _ in range(2))
    assert len(first["text"]) > 300_000
    assert (first["finish_reason"] == "length") == (len(first["text"]) < len(text))
    assert second["idempotent_replay"] is True
    assert len(second["text"]) > 100_000
    assert len(vendor.requests) == 1


def test_a_body_of_any_depth_is_no_failure_of_ours(tenant: Tenant) -> None:
    tenant.admin("PUT", f"skills/{SKILL}", {})
    for depth in (31, 150, 300, 5_000, 60_000):
        for deep in ("[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth, "[" * depth):
            for method, path, content in (
                ("POST", "v1/interaction.create", f'{{"skill": "{SKILL}", "inputs": {{}}, "metadata": {{"a": {deep}}}}}'),
                ("POST", "v1/events:batch", f'{{"events": [{{"type": "interaction", "metadata": {{"a": {deep}}}}}]}}'),
                ("PUT", f"v1/admin/skills/{SKILL}", f'{{"metadata": {{"a": {deep}}}}}'),
                ("POST", "ofrep/v1/evaluate/flags", f'{{"context": {{"targetingKey": "k", "a": {deep}}}}}'),
            ):
                if len(content) < 250_000:
                    answer = tenant.http.request(method, path, content=content, headers={"Content-Type": "application/json"})
                    assert answer.status_code < 500, (path, depth, answer.text)
