"""The real `openai` client, wrapped, against a stub of OpenAI: the host sees what it saw before, and the service gets
the events."""

import asyncio

import openai
import pytest

from rlaas_sdk import Client, trace_of, tracing
from rlaas_sdk.imports.identity import external_id
from tests.sdk.conftest import read_stored
from tests.sdk.stub_openai import TOOL_CALL, StubOpenAI
from tests.sdk.stub_service import StubService

HELLO = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "hello"}]
TOOL = [{"role": "user", "content": "tool"}]


def test_a_completion_is_reported_with_its_usage(
    wrapped: openai.OpenAI, plain: openai.OpenAI, client: Client, service: StubService
) -> None:
    with tracing(thread_id="t-1", user_id="u-1", metadata={"team": "north"}):
        answer = wrapped.chat.completions.create(model="gpt", messages=HELLO)
    assert answer == plain.chat.completions.create(model="gpt", messages=HELLO).model_copy(update={"id": answer.id})
    (output,) = read_stored(client, service, "output")
    (interaction,) = read_stored(client, service, "interaction")
    assert interaction["messages"] == HELLO
    assert (interaction["thread_id"], output["user_id"]) == ("t-1", "u-1")
    assert interaction["metadata"] == {"team": "north", "openai": {"model": "gpt", "response_id": answer.id}}
    assert (output["text"], output["finish_reason"]) == ("Dear customer", "stop")
    assert output["usage"] == {"input_tokens": 11, "output_tokens": 3}
    assert trace_of(answer) == (interaction["interaction_id"], output["output_id"])
    assert output["output_id"] == f"out_{str(interaction['interaction_id'])[4:]}"


def test_every_choice_is_an_output(wrapped: openai.OpenAI, client: Client, service: StubService) -> None:
    wrapped.chat.completions.create(model="gpt", messages=HELLO, n=3)
    assert len(read_stored(client, service, "output")) == 3


def test_a_stream_is_the_same_object_and_reported_at_its_end(
    wrapped: openai.OpenAI, plain: openai.OpenAI, client: Client, service: StubService
) -> None:
    stream = wrapped.chat.completions.create(model="gpt", messages=HELLO, stream=True)
    trace = trace_of(stream)
    assert isinstance(stream, openai.Stream)
    chunks = list(stream)
    plain_chunks = plain.chat.completions.create(model="gpt", messages=HELLO, stream=True)
    assert chunks == [chunk.model_copy(update={"id": chunks[0].id}) for chunk in plain_chunks]
    (output,) = read_stored(client, service, "output")
    assert (output["text"], output["finish_reason"]) == ("Dear customer", "stop")
    assert "usage" not in output
    assert trace is not None
    assert trace.output_id == output["output_id"]


def test_a_streams_usage_the_host_asked_for_is_reported_and_passed_on(wrapped: openai.OpenAI, client: Client, service: StubService) -> None:
    stream = wrapped.chat.completions.create(model="gpt", messages=HELLO, stream=True, stream_options={"include_usage": True})
    assert [chunk.usage for chunk in stream if not chunk.choices] != []
    (output,) = read_stored(client, service, "output")
    assert output["usage"] == {"input_tokens": 11, "output_tokens": 3}


def test_a_streams_usage_only_the_sdk_asked_for_is_not_seen_by_the_host(
    plain: openai.OpenAI, provider: StubOpenAI, client: Client, service: StubService
) -> None:
    client.wrap_openai(plain, skill="emails", stream_usage=True)
    assert all(chunk.choices for chunk in plain.chat.completions.create(model="gpt", messages=HELLO, stream=True))
    assert provider.requests[-1]["stream_options"] == {"include_usage": True}
    (output,) = read_stored(client, service, "output")
    assert output["usage"] == {"input_tokens": 11, "output_tokens": 3}


def test_a_stream_given_up_is_reported_as_far_as_it_came(wrapped: openai.OpenAI, client: Client, service: StubService) -> None:
    stream = wrapped.chat.completions.create(model="gpt", messages=HELLO, stream=True)
    next(stream), next(stream)
    stream.close()
    del stream
    (output,) = read_stored(client, service, "output")
    assert output["text"] == "Dear "
    assert "finish_reason" not in output


@pytest.mark.parametrize("stream", [False, True])
def test_tool_calls_reach_the_host_and_the_service(wrapped: openai.OpenAI, client: Client, service: StubService, stream: bool) -> None:
    if stream:
        with wrapped.chat.completions.stream(model="gpt", messages=TOOL) as chunks:
            message = chunks.get_final_completion().choices[0].message
    else:
        message = wrapped.chat.completions.create(model="gpt", messages=TOOL).choices[0].message
    assert message.tool_calls is not None
    assert message.tool_calls[0].function.arguments == '{"order": 7}'
    follow_up = [*TOOL, message.model_dump(exclude_none=True), {"role": "tool", "tool_call_id": "call_1", "content": "found"}]
    tools = [{"type": "function", "function": {"name": "find_order", "parameters": {"type": "object"}}}]
    wrapped.chat.completions.create(model="gpt", messages=follow_up, tools=tools)
    first, second = read_stored(client, service, "output")
    assert [event.get("parameters") for event in read_stored(client, service, "interaction")] == [None, {"tools": tools}]
    assert first["tool_calls"] == [TOOL_CALL]
    assert second["messages"][1:] == [
        {"role": "assistant", "content": "", "tool_calls": [TOOL_CALL]},
        {"role": "tool", "content": "found", "tool_call_id": "call_1"},
    ]


def test_exceptions_pass_untouched_and_the_request_is_reported(wrapped: openai.OpenAI, client: Client, service: StubService) -> None:
    with pytest.raises(openai.BadRequestError, match="no"):
        wrapped.chat.completions.create(model="gpt", messages=[{"role": "user", "content": "fail"}])
    with pytest.raises(TypeError, match="Missing required arguments"):
        wrapped.chat.completions.create(model="gpt")
    (interaction,) = read_stored(client, service, "interaction")[:1]
    assert interaction["metadata"]["openai"]["error"] == "BadRequestError"
    assert read_stored(client, service, "output") == []


def test_what_parse_returns_and_what_it_refuses_is_reported(wrapped: openai.OpenAI, client: Client, service: StubService) -> None:
    parsed = wrapped.chat.completions.parse(model="gpt", messages=HELLO)
    assert parsed.choices[0].message.parsed is None
    with pytest.raises(openai.LengthFinishReasonError):
        wrapped.chat.completions.parse(model="gpt", messages=[{"role": "user", "content": "long"}])
    first, second = read_stored(client, service, "output")
    assert trace_of(parsed) == (first["interaction_id"], first["output_id"])
    assert (second["text"], second["finish_reason"]) == ("Dear customer", "length")
    assert second["metadata"]["openai"]["error"] == "LengthFinishReasonError"


def test_models_of_rlaas_are_not_reported_twice(wrapped: openai.OpenAI, client: Client, service: StubService) -> None:
    wrapped.chat.completions.create(model="rlaas::emails", messages=HELLO)
    assert read_stored(client, service, "interaction") == []


def test_wrapping_twice_reports_once(wrapped: openai.OpenAI, client: Client, service: StubService) -> None:
    client.wrap_openai(wrapped, skill="emails").chat.completions.create(model="gpt", messages=HELLO)
    assert len(read_stored(client, service, "interaction")) == 1


def test_copies_of_a_client_are_traced_too(wrapped: openai.OpenAI, client: Client, service: StubService) -> None:
    wrapped.with_options(timeout=3).chat.completions.create(model="gpt", messages=HELLO)
    wrapped.copy().with_options(timeout=3).beta.chat.completions.parse(model="gpt", messages=HELLO)
    assert len(read_stored(client, service, "output")) == 2


def test_the_async_client_is_traced_too(provider: StubOpenAI, client: Client, service: StubService) -> None:
    async def talk() -> None:
        wrapped = client.wrap_openai(openai.AsyncOpenAI(base_url=provider.url, api_key="x", max_retries=0), skill="emails")
        answer = await wrapped.chat.completions.create(model="gpt", messages=HELLO)
        assert answer.choices[0].message.content == "Dear customer"
        stream = await wrapped.chat.completions.create(model="gpt", messages=HELLO, stream=True)
        assert isinstance(stream, openai.AsyncStream)
        assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == "Dear customer"
        with pytest.raises(openai.BadRequestError):
            await wrapped.chat.completions.create(model="gpt", messages=[{"role": "user", "content": "fail"}])

    asyncio.run(talk())
    assert [output["text"] for output in read_stored(client, service, "output")] == ["Dear customer", "Dear customer"]
    assert len(read_stored(client, service, "interaction")) == 3


def test_the_user_of_a_call_is_reported_under_the_id_that_an_import_gives_him(
    wrapped: openai.OpenAI, client: Client, service: StubService
) -> None:
    wrapped.chat.completions.create(model="gpt", messages=HELLO, user="kim@shop.example")
    with tracing(user_id="kim@shop.example"):
        wrapped.chat.completions.create(model="gpt", messages=HELLO, user="someone-else")
    assert {output["user_id"] for output in read_stored(client, service, "output")} == {external_id("usr", "kim@shop.example")}
