"""OpenAI's own clients, as they come, against `/v1/chat/completions` of the deployed laptop cloud."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionChunk
from pydantic import BaseModel

from tests.fakes.openai_server import Script, serve_openai
from tests.laptop_cloud import PROMPT, SKILL, LaptopCloud, Tenant, until

ROOT = Path(__file__).resolve().parents[2]
MODEL = f"rlaas::{SKILL}"
MESSAGES: Any = [{"role": "user", "content": "I was charged twice."}]
HELLO = {"delta": {"role": "assistant", "content": "Dear"}}
REST = {"delta": {"content": " Ada"}}
STOP = {"delta": {}, "finish_reason": "stop"}
TOOL: Any = {
    "type": "function",
    "function": {"name": "look_up", "parameters": {"type": "object", "properties": {"order": {"type": "integer"}}}},
}


@pytest.fixture(scope="module")
def script() -> Iterator[Script]:
    """The model server of `scripted_tenant`."""
    with serve_openai() as server:
        yield server


@pytest.fixture(scope="module")
def scripted_tenant(cloud: LaptopCloud, script: Script) -> Tenant:
    """A tenant whose one policy asks `script`."""
    tenant = cloud.tenant()
    tenant.admin("PUT", f"skills/{SKILL}", {})
    backend = {"kind": "openai", "model": "m", "base_url": script.url}
    policy = tenant.admin("POST", f"skills/{SKILL}/policies", {"prompt": PROMPT, "backend": backend})["policy_id"]
    tenant.admin("PUT", f"skills/{SKILL}/route", {"expected_version": 0, "control": policy, "reason": "first"})
    return tenant


@pytest.fixture
def model(script: Script) -> Script:
    """`script` with its default answers."""
    script.status, script.requests = 200, []
    script.answer_with({"message": {"role": "assistant", "content": "Dear Ada"}})
    script.stream_parts(HELLO, REST, STOP)
    return script


@pytest.fixture(scope="module")
def key(cloud: LaptopCloud, scripted_tenant: Tenant) -> str:
    return cloud.key(scripted_tenant.tenant_id, ("infer",))


@pytest.fixture(scope="module")
def client(cloud: LaptopCloud, key: str) -> OpenAI:
    return OpenAI(base_url=f"{cloud.api_url}/v1", api_key=key, max_retries=0)


@pytest.fixture(scope="module")
def base_url(cloud: LaptopCloud) -> str:
    return f"{cloud.api_url}/v1"


def test_a_whole_answer(model: Script, client: OpenAI) -> None:
    completion = client.chat.completions.create(
        model=MODEL, messages=MESSAGES, extra_body={"rlaas::thread_id": "t1", "rlaas::user_id": "u1", "rlaas::tags": ["vip"]}
    )
    assert completion.object == "chat.completion"
    assert (completion.model, completion.choices[0].message.content, completion.choices[0].finish_reason) == (MODEL, "Dear Ada", "stop")
    assert completion.usage is not None
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens, completion.usage.total_tokens) == (7, 2, 9)
    extras = completion.model_extra or {}
    assert extras["rlaas::policy_id"] == f"{SKILL}@v1"
    assert extras["rlaas::decision"]["propensity"] == 1.0
    assert completion._request_id


def test_the_first_chunk_is_here_before_the_last_is_made(model: Script, client: OpenAI) -> None:
    rest = threading.Event()
    model.stream_parts(HELLO, rest, REST, STOP)
    stream = client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)
    first = next(stream)
    assert first.choices[0].delta.content == "Dear"
    assert not rest.is_set()
    rest.set()
    assert [chunk.choices[0].delta.content for chunk in stream] == [" Ada", None]


def test_chunks_agree_and_the_usage_comes_last_without_choices(model: Script, client: OpenAI) -> None:
    chunks = list(client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True, stream_options={"include_usage": True}))
    assert len({(chunk.id, chunk.model, chunk.created, chunk.object) for chunk in chunks}) == 1
    assert (chunks[0].model, chunks[0].choices[0].delta.role) == (MODEL, "assistant")
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None, None, "stop"]
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert (chunks[-1].choices, chunks[-1].usage and chunks[-1].usage.total_tokens) == ([], 9)
    assert (chunks[0].model_extra or {})["rlaas::policy_id"] == f"{SKILL}@v1"


def test_without_being_asked_for_there_is_no_usage(model: Script, client: OpenAI) -> None:
    chunks = list(client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True))
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)


def test_a_streams_id_takes_feedback(model: Script, client: OpenAI, scripted_tenant: Tenant) -> None:
    chunks = list(client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True))
    feedback = {"skill": SKILL, "output_id": chunks[0].id, "kind": "edit", "final_text": "Refunded."}
    answer = scripted_tenant.post("v1/feedback.submit", feedback)
    assert (answer.status_code, answer.json()["pending"]) == (201, False)


def test_the_wire_is_server_sent_events_up_to_done(model: Script, base_url: str, key: str) -> None:
    body = {"model": MODEL, "messages": MESSAGES, "stream": True}
    answer = httpx.post(f"{base_url}/chat/completions", json=body, headers={"Authorization": f"Bearer {key}"})
    assert answer.headers["content-type"].partition(";")[0] == "text/event-stream"
    assert answer.headers["x-request-id"]
    events = answer.text.split("\n\n")
    assert (events[-2], events[-1]) == ("data: [DONE]", "")
    assert all(json.loads(event.removeprefix("data: "))["object"] == "chat.completion.chunk" for event in events[:-2])


def test_tools_are_called_whole_and_in_pieces(model: Script, client: OpenAI) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "look_up", "arguments": '{"order": 7}'}}
    model.answer_with({"message": {"role": "assistant", "content": None, "tool_calls": [call]}, "finish_reason": "tool_calls"})
    first_piece = {**call, "index": 0, "function": {"name": "look_up", "arguments": '{"or'}}
    model.stream_parts(
        {"delta": {"role": "assistant", "content": None, "tool_calls": [first_piece]}},
        {"delta": {"tool_calls": [{"index": 0, "function": {"arguments": 'der": 7}'}}]}},
        {"delta": {}, "finish_reason": "tool_calls"},
    )
    completion = client.chat.completions.create(model=MODEL, messages=MESSAGES, tools=[TOOL], tool_choice="auto")
    assert completion.choices[0].finish_reason == "tool_calls"
    [whole] = completion.choices[0].message.tool_calls or []
    chunks = list(client.chat.completions.create(model=MODEL, messages=MESSAGES, tools=[TOOL], stream=True))
    pieces = [piece for chunk in chunks for choice in chunk.choices for piece in choice.delta.tool_calls or []]
    assert {piece.index for piece in pieces} == {0}
    assert (pieces[0].id, pieces[0].type) == ("call_1", "function")
    arguments = "".join(piece.function.arguments or "" for piece in pieces if piece.function)
    assert whole.model_dump()["function"] == {"name": "look_up", "arguments": '{"order": 7}'}
    assert arguments == '{"order": 7}'
    assert all(request["tools"][0]["function"]["name"] == "look_up" for request in model.requests)
    messages: Any = [
        *MESSAGES,
        completion.choices[0].message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": "call_1", "content": "paid"},
    ]
    client.chat.completions.create(model=MODEL, messages=messages, tools=[TOOL])
    assert [message["role"] for message in model.requests[-1]["messages"]][-3:] == ["user", "assistant", "tool"]


def test_structured_output_is_parsed_by_the_client(model: Script, client: OpenAI) -> None:
    class Reply(BaseModel):
        subject: str

    model.answer_with({"message": {"role": "assistant", "content": '{"subject": "Refund"}'}})
    completion = client.chat.completions.parse(model=MODEL, messages=MESSAGES, response_format=Reply)
    assert completion.choices[0].message.parsed == Reply(subject="Refund")
    assert model.requests[0]["response_format"]["json_schema"]["name"] == "Reply"


def test_parameters_reach_the_model_and_several_choices_with_their_logprobs_come_back(model: Script, client: OpenAI) -> None:
    token = {"token": "Hi", "logprob": -0.1, "bytes": None, "top_logprobs": []}
    choices = [
        {"message": {"role": "assistant", "content": text}, "logprobs": {"content": [token], "refusal": None}} for text in ("Hi", "Ho")
    ]
    model.answer_with(*choices)
    completion = client.chat.completions.create(
        model=MODEL, messages=MESSAGES, n=2, logprobs=True, seed=7, stop=["\n\n"], temperature=0.5, max_tokens=16, extra_body={"min_p": 0.1}
    )
    assert [choice.message.content for choice in completion.choices] == ["Hi", "Ho"]
    logprobs = completion.choices[1].logprobs
    assert logprobs is not None
    assert [one.token for one in logprobs.content or []] == ["Hi"]
    [request] = model.requests
    expected = {"n": 2, "logprobs": True, "seed": 7, "stop": ["\n\n"], "temperature": 0.5, "max_tokens": 16, "min_p": 0.1, "model": "m"}
    assert {name: request.get(name) for name in expected} == expected


def test_a_model_that_breaks_off_raises_in_the_middle_of_the_stream(model: Script, client: OpenAI) -> None:
    model.stream_parts(HELLO, breaks=True)
    stream = client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)
    seen: list[ChatCompletionChunk] = []
    with pytest.raises(openai.APIError) as error_info:
        seen.extend(stream)
    assert error_info.value.code == "dependency_unavailable"


def test_a_client_that_leaves_still_has_its_output_stored(
    cloud: LaptopCloud, model: Script, client: OpenAI, scripted_tenant: Tenant
) -> None:
    rest = threading.Event()
    model.stream_parts(HELLO, rest, REST, STOP)
    stream = client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)
    output_id = next(stream).id
    before = cloud.stored_events(scripted_tenant.tenant_id)
    stream.close()
    rest.set()
    until(lambda: cloud.stored_events(scripted_tenant.tenant_id) == before + 1)
    edit = {"skill": SKILL, "output_id": output_id, "kind": "action", "action": "sent"}
    assert scripted_tenant.post("v1/feedback.submit", edit).json()["pending"] is False


def test_the_clients_own_exceptions(cloud: LaptopCloud, model: Script, client: OpenAI, scripted_tenant: Tenant, base_url: str) -> None:
    create = client.chat.completions.create
    with pytest.raises(openai.BadRequestError) as bad:
        create(model=MODEL, messages=MESSAGES, temperature=3)
    assert (bad.value.param, bad.value.type, bad.value.code) == ("temperature", "invalid_request_error", "invalid_input")
    assert bad.value.request_id
    with pytest.raises(openai.BadRequestError) as without_stream:
        create(model=MODEL, messages=MESSAGES, stream_options={"include_usage": True})
    assert without_stream.value.param == "stream_options"
    with pytest.raises(openai.NotFoundError):
        create(model="rlaas::unheard-of", messages=MESSAGES)
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="rlk_nobody_x").chat.completions.create(model=MODEL, messages=MESSAGES)
    other = client.with_options(api_key=cloud.key(scripted_tenant.tenant_id, ("telemetry",)))
    with pytest.raises(openai.PermissionDeniedError, match="infer"):
        other.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)
    create(model=MODEL, messages=MESSAGES, extra_body={"rlaas::interaction_id": "int_once"})
    with pytest.raises(openai.ConflictError):
        create(model=MODEL, messages=[{"role": "user", "content": "other"}], extra_body={"rlaas::interaction_id": "int_once"})
    model.status = 503
    for stream in (False, True):
        with pytest.raises(openai.InternalServerError) as down:
            create(model=MODEL, messages=MESSAGES, stream=stream)
        assert (down.value.status_code, down.value.code) == (503, "dependency_unavailable")


def test_a_spent_budget_is_a_rate_limit_error_that_says_when(
    cloud: LaptopCloud, model: Script, scripted_tenant: Tenant, base_url: str
) -> None:
    new_key = scripted_tenant.admin("POST", "keys", {"scopes": ["infer"], "reason": "to be limited"})
    budget = {"name": "none", "scope": "key", "key_id": new_key["key_id"], "measure": "requests", "limit": 1, "window": "day"}
    scripted_tenant.admin("PUT", "budgets", {"budgets": [budget], "expected_version": 0, "reason": "test"})
    limited_client = OpenAI(base_url=base_url, api_key=new_key["api_key"], max_retries=0)

    def rate_limit_error() -> openai.RateLimitError | None:
        try:
            limited_client.chat.completions.create(model=MODEL, messages=MESSAGES)
        except openai.RateLimitError as error:
            return error
        return None

    error = until(rate_limit_error)  # the first is served, and budgets are remembered for some seconds
    assert error.code == "quota_exceeded"
    assert int(error.response.headers["retry-after"]) > 0


def test_raw_responses_show_the_headers(model: Script, client: OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=MESSAGES)
    assert raw.headers["content-type"] == "application/json"
    assert raw.headers["x-request-id"] == raw.parse()._request_id


def test_the_request_context_cannot_be_brought_along(
    cloud: LaptopCloud, model: Script, base_url: str, key: str, scripted_tenant: Tenant
) -> None:
    context = json.dumps({"authorizer": {"tenant_id": "other", "key_id": "k", "scopes": "infer"}})
    body = {"model": MODEL, "messages": MESSAGES}
    spellings = {"X-Amzn-Request-Context": context, "x_amzn_request_context": context}
    before = cloud.stored_events(scripted_tenant.tenant_id)
    answer = httpx.post(f"{base_url}/chat/completions", json=body, headers={"Authorization": f"Bearer {key}", **spellings})
    assert answer.status_code == 200
    assert cloud.stored_events(scripted_tenant.tenant_id) == before + 2
    assert httpx.post(f"{base_url}/chat/completions", json=body, headers=spellings).status_code == 401


def test_the_async_client_whole_and_streamed_at_once(model: Script, base_url: str, key: str) -> None:
    async def both() -> tuple[str | None, str]:
        async with AsyncOpenAI(base_url=base_url, api_key=key, max_retries=0) as client:

            async def stream_text() -> str:
                stream = await client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)
                return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

            whole, text = await asyncio.gather(client.chat.completions.create(model=MODEL, messages=MESSAGES), stream_text())
            with pytest.raises(openai.NotFoundError):
                await client.chat.completions.create(model="rlaas::unheard-of", messages=MESSAGES, stream=True)
            return whole.choices[0].message.content, text

    assert asyncio.run(both()) == ("Dear Ada", "Dear Ada")


def test_the_clients_stream_helper_puts_the_answer_together(model: Script, client: OpenAI) -> None:
    with client.chat.completions.stream(model=MODEL, messages=MESSAGES, stream_options={"include_usage": True}) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.content == "Dear Ada"
    assert final.usage is not None


def test_vllm_streams_through_the_endpoint(cloud: LaptopCloud, tenant: Tenant, base_url: str) -> None:
    client = OpenAI(base_url=base_url, api_key=cloud.key(tenant.tenant_id, ("infer",)), max_retries=0)
    chunks = list(client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True, stream_options={"include_usage": True}))
    usage = chunks[-1].usage
    assert usage is not None
    assert usage.completion_tokens > 1
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1])
    assert chunks[-2].choices[0].finish_reason in ("stop", "length")


class NodeClient:
    """The script with OpenAI's Node client, running."""

    def __init__(self, base_url: str, key: str) -> None:
        self.process = subprocess.Popen(
            ["node", str(Path(__file__).with_name("openai_client.mjs"))],
            env={**os.environ, "OPENAI_BASE_URL": base_url, "OPENAI_API_KEY": key},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, **arguments: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"model": MODEL, "messages": MESSAGES, **arguments}) + "\n")
        self.process.stdin.flush()

    def next(self) -> tuple[str, Any]:
        assert self.process.stdout is not None
        line = json.loads(self.process.stdout.readline())
        return line["kind"], line["value"]


@pytest.fixture(scope="module")
def node(base_url: str, key: str) -> Iterator[NodeClient]:
    """OpenAI's Node client of clients/typescript, installed if it is not yet."""
    subprocess.run(["make", "--silent", "clients/typescript/node_modules/.package-lock.json"], cwd=ROOT, check=True)
    client = NodeClient(base_url, key)
    with client.process:
        yield client
        client.process.terminate()


def test_the_node_client_gets_a_whole_answer(model: Script, node: NodeClient) -> None:
    node.ask(**{"rlaas::thread_id": "t1"})
    kind, completion = node.next()
    assert (kind, completion["choices"][0]["message"]["content"], completion["rlaas::policy_id"]) == (
        "completion",
        "Dear Ada",
        f"{SKILL}@v1",
    )


def test_the_node_client_has_the_first_chunk_before_the_last_is_made(model: Script, node: NodeClient) -> None:
    rest = threading.Event()
    model.stream_parts(HELLO, rest, REST, STOP)
    node.ask(stream=True, stream_options={"include_usage": True})
    kind, first = node.next()
    assert (kind, first["choices"][0]["delta"]["content"]) == ("chunk", "Dear")
    assert not rest.is_set()
    rest.set()
    chunks = [first]
    while (item := node.next())[0] == "chunk":
        chunks.append(item[1])
    assert item[0] == "end"
    assert len({(chunk["id"], chunk["model"]) for chunk in chunks}) == 1
    assert (chunks[-1]["choices"], chunks[-1]["usage"]["total_tokens"]) == ([], 9)


@pytest.mark.parametrize(
    ("arguments", "name", "status"),
    [
        ({"temperature": 3}, "BadRequestError", 400),
        ({"model": "rlaas::unheard-of"}, "NotFoundError", 404),
        ({"model": "rlaas::unheard-of", "stream": True}, "NotFoundError", 404),
    ],
)
def test_the_node_client_raises_its_own_errors(model: Script, node: NodeClient, arguments: dict[str, Any], name: str, status: int) -> None:
    node.ask(**arguments)
    kind, error = node.next()
    assert (kind, error["name"], error["status"]) == ("error", name, status)


def test_the_node_client_raises_in_the_middle_of_a_stream(model: Script, node: NodeClient) -> None:
    model.stream_parts(HELLO, breaks=True)
    node.ask(stream=True)
    assert node.next()[0] == "chunk"
    kind, error = node.next()
    assert (kind, error["code"]) == ("error", "dependency_unavailable")
