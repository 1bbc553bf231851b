"""OpenAI's own clients, as they come, against `/v1/responses` of the deployed laptop cloud."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from openai import OpenAI

from tests.fakes.openai_server import Script, serve_openai
from tests.laptop_cloud import PROMPT, SKILL, LaptopCloud, Tenant

ROOT = Path(__file__).resolve().parents[2]
MODEL = f"rlaas::{SKILL}"


@pytest.fixture(scope="module")
def script() -> Iterator[Script]:
    """The model server that the tenant `scripted` asks."""
    with serve_openai() as server:
        yield server


@pytest.fixture(scope="module")
def scripted(cloud: LaptopCloud, script: Script) -> Tenant:
    """A tenant whose one policy asks `script`."""
    made = cloud.tenant()
    made.admin("PUT", f"skills/{SKILL}", {})
    backend = {"kind": "openai", "model": "m", "base_url": script.url}
    policy = made.admin("POST", f"skills/{SKILL}/policies", {"prompt": PROMPT, "backend": backend})["policy_id"]
    made.admin("PUT", f"skills/{SKILL}/route", {"expected_version": 0, "control": policy, "reason": "first"})
    return made


@pytest.fixture
def model(script: Script) -> Script:
    """`script`, saying what it says by itself."""
    script.requests = []
    script.answer_with({"message": {"role": "assistant", "content": "Dear Ada"}})
    script.stream_parts({"delta": {"content": "Dear"}}, {"delta": {"content": " Ada"}}, {"delta": {}, "finish_reason": "stop"})
    return script


@pytest.fixture(scope="module")
def key(cloud: LaptopCloud, scripted: Tenant) -> str:
    return cloud.key(scripted.tenant_id, ("infer",))


@pytest.fixture(scope="module")
def client(cloud: LaptopCloud, key: str) -> OpenAI:
    return OpenAI(base_url=f"{cloud.api_url}/v1", api_key=key, max_retries=0)


def test_the_first_words_are_here_before_the_last_are_made(model: Script, client: OpenAI) -> None:
    rest = threading.Event()
    model.stream_parts({"delta": {"content": "Dear"}}, rest, {"delta": {"content": " Ada"}}, {"delta": {}, "finish_reason": "stop"})
    with client.responses.stream(model=MODEL, input="I was charged twice.") as stream:
        first = next(event for event in stream if event.type == "response.output_text.delta")
        assert first.delta == "Dear"
        assert not rest.is_set()
        rest.set()
        assert stream.get_final_response().output_text == "Dear Ada"


def test_a_response_takes_feedback_and_is_gone_on_from_by_its_tenant_alone(
    cloud: LaptopCloud, model: Script, client: OpenAI, scripted: Tenant, tenant: Tenant
) -> None:
    response = client.responses.create(model=MODEL, input="I was charged twice.")
    feedback = {"skill": SKILL, "output_id": response.id, "kind": "edit", "final_text": "Refunded."}
    answer = scripted.post("v1/feedback.submit", feedback)
    assert (answer.status_code, answer.json()["pending"]) == (201, False)
    client.responses.create(model=MODEL, input="In French.", previous_response_id=response.id)
    assert [message["content"] for message in model.requests[-1]["messages"]][-3:] == ["I was charged twice.", "Dear Ada", "In French."]
    stranger = client.with_options(api_key=cloud.key(tenant.tenant_id, ("infer",)))
    with pytest.raises(openai.NotFoundError) as refused:
        stranger.responses.create(model=MODEL, input="In French.", previous_response_id=response.id)
    assert (refused.value.code, refused.value.param) == ("previous_response_not_found", "previous_response_id")


def test_a_stream_that_breaks_off_raises(model: Script, client: OpenAI) -> None:
    model.stream_parts({"delta": {"content": "Dear"}}, breaks=True)
    with pytest.raises(openai.APIError) as broken:
        list(client.responses.create(model=MODEL, input="I was charged twice.", stream=True))
    assert broken.value.code == "dependency_unavailable"


def test_other_paths_say_what_there_is(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="POST /v1/responses"):
        client.responses.retrieve("out_1")
    with pytest.raises(openai.NotFoundError, match="POST /v1/responses"):
        client.responses.input_items.list("out_1")


def test_the_node_client_streams_and_goes_on(cloud: LaptopCloud, model: Script, key: str) -> None:
    subprocess.run(["make", "--silent", "clients/typescript/node_modules/.package-lock.json"], cwd=ROOT, check=True)
    environment = {**os.environ, "OPENAI_BASE_URL": f"{cloud.api_url}/v1", "OPENAI_API_KEY": key}
    script = str(Path(__file__).with_name("openai_responses.mjs"))
    ran = subprocess.run(["node", script, MODEL], env=environment, stdout=subprocess.PIPE, text=True, check=True)
    answer = json.loads(ran.stdout)
    assert (answer["types"][0], answer["types"][-1]) == ("response.created", "response.completed")
    assert answer["said"] == ["Dear Ada"] * 3
    assert answer["error"] == {"name": "NotFoundError", "status": 404, "code": "previous_response_not_found"}
