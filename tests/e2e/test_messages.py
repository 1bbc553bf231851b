"""Anthropic's own client, as it comes, against `/v1/messages` of the deployed laptop cloud, by either header."""

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx
import pytest

from tests.laptop_cloud import SKILL, LaptopCloud, Tenant

MODEL = f"rlaas::{SKILL}"
HELLO: Any = [{"role": "user", "content": "I was charged twice."}]


@pytest.fixture(scope="module")
def key(tenant: Tenant) -> str:
    return str(tenant.http.headers["Authorization"]).removeprefix("Bearer ")


@pytest.fixture(scope="module", params=["api_key", "auth_token"])
def client(cloud: LaptopCloud, key: str, request: pytest.FixtureRequest) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=cloud.api_url.rstrip("/"), max_retries=0, **{request.param: key}) as connected:
        yield connected


def test_a_message_comes_whole_and_streamed_and_takes_feedback(client: anthropic.Anthropic, tenant: Tenant) -> None:
    message = client.messages.create(model=MODEL, max_tokens=12, messages=HELLO, system="Write the reply.")
    assert message.stop_reason in ("end_turn", "max_tokens")
    assert message.usage.input_tokens > 0
    with client.messages.stream(model=MODEL, max_tokens=12, messages=HELLO) as stream:
        streamed = stream.get_final_message()
    for each in (message, streamed):
        feedback = {"skill": SKILL, "output_id": each.id, "kind": "action", "action": "sent"}
        assert tenant.post("v1/feedback.submit", feedback).status_code == 201
    assert client.messages.count_tokens(model=MODEL, messages=HELLO).input_tokens > 0


def test_a_wrong_key_is_the_clients_authentication_error(cloud: LaptopCloud) -> None:
    with (
        anthropic.Anthropic(base_url=cloud.api_url.rstrip("/"), api_key="rlk_wrong", max_retries=0) as stranger,
        pytest.raises(anthropic.AuthenticationError),
    ):
        stranger.messages.create(model=MODEL, max_tokens=12, messages=HELLO)


def test_a_client_that_sends_its_key_in_x_api_key_is_answered_event_by_event(cloud: LaptopCloud, key: str) -> None:
    url = f"{cloud.api_url.rstrip('/')}/v1/messages?beta=true"
    headers = {"x-api-key": key, "anthropic-version": "2023-06-01", "anthropic-beta": "interleaved-thinking-2025-05-14"}
    body = {"model": MODEL, "max_tokens": 12, "messages": HELLO, "stream": True}
    with httpx.stream("POST", url, json=body, headers=headers, timeout=60) as answer:
        assert answer.status_code == 200
        lines = [line for line in answer.iter_lines() if line]
    names = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
    assert names == [json.loads(line.removeprefix("data: "))["type"] for line in lines if line.startswith("data: ")]
    assert (names[0], names[-2:]) == ("message_start", ["message_delta", "message_stop"])
    assert httpx.post(url, json=body, headers={"x-api-key": "rlk_wrong"}).status_code == 401
    assert httpx.post(url, json=body).status_code == 401
