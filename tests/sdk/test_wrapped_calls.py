"""Every way in which the `openai` client is asked: the host sees the same as without tracing, and each call is reported
once."""

import asyncio
import gc
import json
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import openai
import pytest

from rlaas_sdk import Client, trace_of
from tests.sdk.conftest import read_stored
from tests.sdk.stub_openai import TOOL_CALL, StubOpenAI
from tests.sdk.stub_service import KEY, StubService

HELLO: Any = [{"role": "user", "content": "hello"}]
NOWHERE = "http://127.0.0.1:9"
Seen = tuple[list[type], str, list[object]]
"""The types of what the host gets, the text in it, and what the host may ask `trace_of` about."""


def read_text(answer: Any) -> str:
    return str(answer.choices[0].message.content) if hasattr(answer, "choices") else str(answer.output_text)


def read_chunk(chunk: Any) -> str:
    if hasattr(chunk, "choices"):
        return "".join(choice.delta.content or "" for choice in chunk.choices)
    return str(chunk.delta) if chunk.type == "response.output_text.delta" else ""


def read_json(body: Any) -> str:
    message = body["choices"][0]["message"]["content"] if "choices" in body else body["output"][1]["content"][0]["text"]
    return str(message)


def chat(client: Any) -> tuple[Any, dict[str, Any]]:
    return client.chat.completions, {"messages": HELLO}


def beta_chat(client: Any) -> tuple[Any, dict[str, Any]]:
    return client.beta.chat.completions, {"messages": HELLO}


def responses(client: Any) -> tuple[Any, dict[str, Any]]:
    return client.responses, {"input": HELLO}


def responses_of_a_copy(client: Any) -> tuple[Any, dict[str, Any]]:
    return client.with_options(timeout=3).copy().responses, {"input": "hello"}


APIS = [chat, beta_chat, responses, responses_of_a_copy]


def ask(part: Any, request: dict[str, Any]) -> Seen:
    answer = part.create(model="gpt", **request)
    return [type(answer)], read_text(answer), [answer]


def ask_for_a_stream(part: Any, request: dict[str, Any]) -> Seen:
    with part.create(model="gpt", stream=True, **request) as stream:
        chunks = list(stream)
    return [type(stream), *map(type, chunks)], "".join(map(read_chunk, chunks)), [stream]


def ask_the_helper(part: Any, request: dict[str, Any]) -> Seen:
    manager = part.stream(model="gpt", **request)
    with manager as stream:
        chunks = list(stream)
        final = stream.get_final_response() if hasattr(stream, "get_final_response") else stream.get_final_completion()
    return [type(manager), type(stream), type(final), *map(type, chunks)], read_text(final), [stream, final]


def ask_and_parse(part: Any, request: dict[str, Any]) -> Seen:
    answer = part.parse(model="gpt", **request)
    return [type(answer)], read_text(answer), [answer]


def ask_raw(part: Any, request: dict[str, Any]) -> Seen:
    raw = part.with_raw_response.create(model="gpt", **request)
    answer = raw.parse()
    assert raw.headers["content-type"] == "application/json"
    assert raw.parse() is answer
    return [type(raw), type(raw.http_response), type(answer)], read_json(json.loads(raw.text)), [raw, answer]


def ask_raw_for_a_stream(part: Any, request: dict[str, Any]) -> Seen:
    raw = part.with_raw_response.create(model="gpt", stream=True, **request)
    stream = raw.parse()
    return [type(raw), type(stream)], "".join(map(read_chunk, stream)), [raw]


def ask_raw_and_parse(part: Any, request: dict[str, Any]) -> Seen:
    raw = part.with_raw_response.parse(model="gpt", **request)
    return [type(raw), type(raw.parse())], read_text(raw.parse()), [raw, raw.parse()]


def ask_and_read_the_body(part: Any, request: dict[str, Any]) -> Seen:
    with part.with_streaming_response.create(model="gpt", **request) as raw:
        body = raw.read()
    return [type(raw), type(body)], read_json(json.loads(body)), [raw]


def ask_and_parse_the_body(part: Any, request: dict[str, Any]) -> Seen:
    with part.with_streaming_response.create(model="gpt", **request) as raw:
        answer = raw.parse()
    return [type(raw), type(answer)], read_text(answer), [raw, answer]


def ask_and_read_the_lines_of_a_stream(part: Any, request: dict[str, Any]) -> Seen:
    with part.with_streaming_response.create(model="gpt", stream=True, **request) as raw:
        lines = [line[6:] for line in raw.iter_lines() if line.startswith("data: {")]
    return [type(raw)], str([sorted(json.loads(line)) for line in lines]), [raw]


WAYS: list[Callable[[Any, dict[str, Any]], Seen]] = [
    ask,
    ask_for_a_stream,
    ask_the_helper,
    ask_and_parse,
    ask_raw,
    ask_raw_for_a_stream,
    ask_raw_and_parse,
    ask_and_read_the_body,
    ask_and_parse_the_body,
    ask_and_read_the_lines_of_a_stream,
]


@pytest.mark.parametrize("get_part", APIS)
@pytest.mark.parametrize("way", WAYS)
def test_each_way_to_ask_gives_the_host_the_same_and_is_reported_once(
    way: Callable[[Any, dict[str, Any]], Seen],
    get_part: Callable[[Any], tuple[Any, dict[str, Any]]],
    wrapped: openai.OpenAI,
    plain: openai.OpenAI,
    client: Client,
    service: StubService,
) -> None:
    types, text, answers = way(*get_part(wrapped))
    assert (types, text) == way(*get_part(plain))[:2]
    (interaction,), (output,) = read_stored(client, service, "interaction"), read_stored(client, service, "output")
    assert interaction["messages"] == output["messages"] == HELLO
    assert (output["text"], output["finish_reason"]) == ("Dear customer", "stop")
    assert {trace_of(answer) for answer in answers} == {(interaction["interaction_id"], output["output_id"])}


async def ask_async(part: Any, request: dict[str, Any]) -> Seen:
    answer = await part.create(model="gpt", **request)
    return [type(answer)], read_text(answer), [answer]


async def ask_async_for_a_stream(part: Any, request: dict[str, Any]) -> Seen:
    async with await part.create(model="gpt", stream=True, **request) as stream:
        chunks = [chunk async for chunk in stream]
    return [type(stream), *map(type, chunks)], "".join(map(read_chunk, chunks)), [stream]


async def ask_the_async_helper(part: Any, request: dict[str, Any]) -> Seen:
    manager = part.stream(model="gpt", **request)
    async with manager as stream:
        chunks = [chunk async for chunk in stream]
        final = await (stream.get_final_response() if hasattr(stream, "get_final_response") else stream.get_final_completion())
    return [type(manager), type(stream), type(final), *map(type, chunks)], read_text(final), [stream, final]


async def ask_async_raw(part: Any, request: dict[str, Any]) -> Seen:
    raw = await part.with_raw_response.create(model="gpt", **request)
    return [type(raw), type(raw.parse())], read_json(json.loads(raw.text)), [raw, raw.parse()]


async def ask_async_raw_for_a_stream(part: Any, request: dict[str, Any]) -> Seen:
    raw = await part.with_raw_response.create(model="gpt", stream=True, **request)
    stream = raw.parse()
    return [type(raw), type(stream)], "".join([read_chunk(chunk) async for chunk in stream]), [raw]


async def ask_async_and_parse(part: Any, request: dict[str, Any]) -> Seen:
    answer = await part.parse(model="gpt", **request)
    return [type(answer)], read_text(answer), [answer]


async def ask_async_and_parse_the_body(part: Any, request: dict[str, Any]) -> Seen:
    async with part.with_streaming_response.create(model="gpt", **request) as raw:
        answer = await raw.parse()
    return [type(raw), type(answer)], read_text(answer), [raw, answer]


async def ask_async_and_read_the_lines_of_a_stream(part: Any, request: dict[str, Any]) -> Seen:
    async with part.with_streaming_response.create(model="gpt", stream=True, **request) as raw:
        lines = [line[6:] async for line in raw.iter_lines() if line.startswith("data: {")]
    return [type(raw)], str([sorted(json.loads(line)) for line in lines]), [raw]


ASYNC_WAYS: list[Callable[[Any, dict[str, Any]], Awaitable[Seen]]] = [
    ask_async,
    ask_async_for_a_stream,
    ask_the_async_helper,
    ask_async_raw,
    ask_async_raw_for_a_stream,
    ask_async_and_parse,
    ask_async_and_parse_the_body,
    ask_async_and_read_the_lines_of_a_stream,
]


@pytest.mark.parametrize("get_part", APIS)
@pytest.mark.parametrize("way", ASYNC_WAYS)
def test_each_async_way_to_ask_gives_the_host_the_same_and_is_reported_once(
    way: Callable[[Any, dict[str, Any]], Awaitable[Seen]],
    get_part: Callable[[Any], tuple[Any, dict[str, Any]]],
    provider: StubOpenAI,
    client: Client,
    service: StubService,
) -> None:
    async def talk() -> tuple[Seen, Seen]:
        plain, traced = (openai.AsyncOpenAI(base_url=provider.url, api_key="x", max_retries=0) for _ in range(2))
        client.wrap_openai(traced, skill="emails")
        async with plain, traced:
            return await way(*get_part(traced)), await way(*get_part(plain))

    (types, text, answers), plain_seen = asyncio.run(talk())
    assert (types, text) == plain_seen[:2]
    (interaction,), (output,) = read_stored(client, service, "interaction"), read_stored(client, service, "output")
    assert (output["text"], output["finish_reason"]) == ("Dear customer", "stop")
    assert {trace_of(answer) for answer in answers} == {(interaction["interaction_id"], output["output_id"])}


@pytest.mark.parametrize("way", WAYS)
def test_an_outage_of_the_service_changes_nothing_for_the_host(
    way: Callable[[Any, dict[str, Any]], Seen], provider: StubOpenAI, plain: openai.OpenAI
) -> None:
    sdk = Client(NOWHERE, KEY, spool=":memory:", strict=True)
    traced = sdk.wrap_openai(openai.OpenAI(base_url=provider.url, api_key="x", max_retries=0), skill="emails")
    for get_part in (chat, responses):
        assert way(*get_part(traced))[:2] == way(*get_part(plain))[:2]
    assert sdk.stats().accepted == 4
    sdk.close(0)


def test_parts_of_the_client_used_before_it_was_wrapped_are_traced_too(plain: openai.OpenAI, client: Client, service: StubService) -> None:
    completions, raw = plain.chat.completions, plain.with_raw_response.chat.completions
    ask(completions, {"messages": HELLO})
    client.wrap_openai(plain, skill="emails")
    ask(completions, {"messages": HELLO})
    raw.create(model="gpt", messages=HELLO)
    assert len(read_stored(client, service, "output")) == 2


def test_a_helper_left_early_is_reported_as_far_as_it_came(wrapped: openai.OpenAI, client: Client, service: StubService) -> None:
    with wrapped.chat.completions.stream(model="gpt", messages=HELLO) as chat_stream:
        while not getattr(next(chat_stream), "delta", ""):
            pass
    with wrapped.responses.stream(model="gpt", input="hello") as response_stream:
        while not getattr(next(response_stream), "delta", ""):
            pass
    assert [output["text"] for output in read_stored(client, service, "output")] == ["Dear ", "Dear "]


def test_an_async_helper_left_early_is_reported_as_far_as_it_came(provider: StubOpenAI, client: Client, service: StubService) -> None:
    async def talk() -> None:
        async with openai.AsyncOpenAI(base_url=provider.url, api_key="x", max_retries=0) as traced:
            client.wrap_openai(traced, skill="emails")
            async with traced.chat.completions.stream(model="gpt", messages=HELLO) as stream:
                async for event in stream:
                    if getattr(event, "delta", ""):
                        break

    asyncio.run(talk())
    assert [output["text"] for output in read_stored(client, service, "output")] == ["Dear "]


def test_a_stream_that_nobody_reads_is_reported_without_an_output(wrapped: openai.OpenAI, client: Client, service: StubService) -> None:
    wrapped.chat.completions.create(model="gpt", messages=HELLO, stream=True).close()
    wrapped.responses.create(model="gpt", input="hello", stream=True)
    wrapped.chat.completions.with_raw_response.create(model="gpt", messages=HELLO, stream=True)
    gc.collect()
    assert len(read_stored(client, service, "interaction")) == 3
    assert read_stored(client, service, "output") == []


def test_a_stream_collected_while_an_event_is_taken_holds_nothing_up(wrapped: openai.OpenAI, client: Client, service: StubService) -> None:
    stream = wrapped.chat.completions.create(model="gpt", messages=HELLO, stream=True)
    next(stream), next(stream)
    streams = [stream]
    del stream

    def collect_in_the_middle() -> None:
        with client._delivery._queue_lock:
            streams.clear()
            gc.collect()

    thread = threading.Thread(target=collect_in_the_middle, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    assert [output["text"] for output in read_stored(client, service, "output")] == ["Dear "]


def test_a_stream_that_breaks_says_what_the_host_saw(
    wrapped: openai.OpenAI, plain: openai.OpenAI, client: Client, service: StubService
) -> None:
    errors = []
    for asked in (wrapped, plain):
        with pytest.raises(json.JSONDecodeError) as raised:
            list(asked.chat.completions.create(model="gpt", messages=[{"role": "user", "content": "break"}], stream=True))
        errors.append(str(raised.value))
    assert errors[0] == errors[1]
    (interaction,) = read_stored(client, service, "interaction")
    assert interaction["metadata"]["openai"]["error"] == "JSONDecodeError"


def test_a_response_says_its_instructions_tools_calls_and_tokens(wrapped: openai.OpenAI, client: Client, service: StubService) -> None:
    tool: Any = {"type": "function", "name": "find_order", "parameters": {"type": "object"}, "strict": True}
    first = wrapped.responses.create(model="gpt", instructions="Be kind.", input="tool", tools=[tool, {"type": "web_search"}], user="u-1")
    follow_up: Any = [
        {"role": "user", "content": [{"type": "input_text", "text": "tool"}, {"type": "input_image", "image_url": "https://x/y.png"}]},
        *first.output,
        {"type": "function_call_output", "call_id": "call_1", "output": "found"},
        {"role": "developer", "content": "Be brief."},
    ]
    with wrapped.responses.stream(model="gpt", input=follow_up, previous_response_id=first.id) as stream:
        stream.until_done()
    interactions, outputs = read_stored(client, service, "interaction"), read_stored(client, service, "output")
    assert interactions[0]["messages"] == [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "tool"}]
    function = {"name": "find_order", "parameters": {"type": "object"}, "strict": True}
    assert interactions[0]["parameters"] == {"tools": [{"type": "function", "function": function}]}
    assert outputs[0]["metadata"] == {"openai": {"model": "gpt", "api": "responses", "response_id": first.id}}
    assert (outputs[0]["tool_calls"], outputs[0]["finish_reason"], outputs[0]["user_id"]) == ([TOOL_CALL], "tool_calls", "u-1")
    assert outputs[0]["usage"] == outputs[1]["usage"] == {"input_tokens": 11, "output_tokens": 3}
    assert outputs[1]["metadata"]["openai"]["previous_response_id"] == first.id
    assert interactions[1]["messages"] == [
        {"role": "user", "content": "tool[input_image]"},
        {"role": "assistant", "content": "", "tool_calls": [TOOL_CALL]},
        {"role": "tool", "content": "found", "tool_call_id": "call_1"},
        {"role": "system", "content": "Be brief."},
    ]


def test_a_response_cut_off_or_still_to_come_is_no_whole_answer(wrapped: openai.OpenAI, client: Client, service: StubService) -> None:
    wrapped.responses.create(model="gpt", input="long")
    wrapped.responses.create(model="gpt", input="later", background=True)
    with suppress(openai.BadRequestError):
        wrapped.responses.create(model="gpt", input="fail")
    (output,) = read_stored(client, service, "output")
    assert output["finish_reason"] == "length"
    reports: list[Any] = [interaction["metadata"] for interaction in read_stored(client, service, "interaction")]
    assert [report["openai"].get("error") for report in reports] == [None, "queued", "BadRequestError"]


def test_two_answers_of_one_id_are_not_taken_for_each_other(wrapped: openai.OpenAI, client: Client) -> None:
    first = wrapped.chat.completions.create(model="gpt", messages=HELLO)
    copy = first.model_copy()
    assert trace_of(copy) == trace_of(first)
    wrapped.chat.completions.create(model="gpt", messages=HELLO)
    assert trace_of(copy) == trace_of(first)
    for _ in range(2):
        with wrapped.chat.completions.stream(model="gpt", messages=[{"role": "user", "content": "same id"}]) as stream:
            final = stream.get_final_completion()
    assert trace_of(final) is None
    assert trace_of(stream) is not None
