"""What clients of OpenAI's chat API send as messages, and the messages that RLaaS makes of it."""

import json
from typing import Any

import pytest
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessage
from pydantic import TypeAdapter, ValidationError

from rlaas.chat import CalledFunction, Message, ToolCall
from rlaas.inference.chat_messages import ChatMessage, to_messages
from tests.fakes.completions import make_calls, make_completion

SENT: TypeAdapter[Any] = TypeAdapter(tuple[ChatMessage, ...])
USER = {"role": "user", "content": "Hi"}


def messages(*sent: object) -> tuple[Message, ...]:
    return to_messages(SENT.validate_json(json.dumps(sent)))


def answer(content: str) -> ChatCompletionMessage:
    return ChatCompletionMessage.model_validate(json.loads(content)["choices"][0]["message"])


def call(identifier: str, name: str = "find_order", arguments: str = '{"id":"7"}') -> ToolCall:
    return ToolCall(id=identifier, function=CalledFunction(name=name, arguments=arguments))


def test_an_answer_is_taken_back_as_openais_client_dumps_it() -> None:
    said, called = answer(make_completion({"content": "ok"})), answer(make_calls("find_order"))
    for dump in (said.model_dump(), said.model_dump(exclude_none=True), said.to_dict()):
        assert messages(USER, dump)[1] == Message(role="assistant", content="ok")
    for dump in (called.model_dump(), called.model_dump(exclude_none=True), called.to_dict()):
        assert messages(USER, dump)[1] == Message(role="assistant", content="", tool_calls=(call("call_find_order"),))


def test_a_streamed_answer_is_taken_back_as_the_client_puts_it_together() -> None:
    state: Any = ChatCompletionStreamState()
    function = {"name": "find_order", "arguments": '{"id":"7"}'}
    for delta, reason in (
        ({"role": "assistant", "tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": function}]}, None),
        ({}, "tool_calls"),
    ):
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        chunk = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
        state.handle_chunk(ChatCompletionChunk.model_validate(chunk))
    dump = state.get_final_completion().choices[0].message.model_dump()
    assert {"parsed", "index"} <= {*dump, *dump["tool_calls"][0]}
    assert messages(USER, dump)[1] == Message(role="assistant", content="", tool_calls=(call("call_1"),))


@pytest.mark.parametrize(
    "more",
    [
        {"function_call": None, "audio": None, "refusal": None, "tool_calls": None, "annotations": None, "reasoning_content": None},
        {"reasoning": None, "reasoning_details": [{"type": "reasoning.text"}], "provider_specific_fields": {"x": 1}, "thinking_blocks": []},
        {
            "annotations": [{"type": "url_citation", "url_citation": {"url": "https://x"}}],
            "parsed": {"a": 1},
            "tool_calls": [],
        },
    ],
)
def test_what_other_servers_and_libraries_put_beside_an_answer_is_taken(more: dict[str, object]) -> None:
    assert messages(USER, {"role": "assistant", "content": "ok", **more})[1].plain() == {"role": "assistant", "content": "ok"}


def test_what_stands_beside_a_call_is_taken_too() -> None:
    sent = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}", "parsed_arguments": {}}, "index": 0, "custom": None}
    untyped = {"function": {"name": "f", "arguments": None}}
    [message] = messages({"role": "assistant", "content": None, "tool_calls": [sent, untyped]})
    assert message.tool_calls == (call("c", "f", "{}"), call("", "f", ""))


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_what_vendors_want_back_goes_back_to_them(name: str) -> None:
    signed = {"google": {"thought_signature": "c2ln"}}
    sent = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}, "extra_content": signed}
    [message] = messages({"role": "assistant", "content": None, name: "Hm.", "tool_calls": [sent]})
    assert message.plain() == {"role": "assistant", "content": "", "reasoning_content": "Hm.", "tool_calls": [sent]}
    assert Message.model_validate_json(message.model_dump_json()) == message


def test_an_answer_that_says_nothing_is_taken() -> None:
    assert messages(USER, {"role": "assistant", "content": None}, USER)[1] == Message(role="assistant", content="")


@pytest.mark.parametrize("content", [None, "", []])
def test_a_tool_that_answers_nothing_is_taken(content: object) -> None:
    assert messages({"role": "tool", "tool_call_id": "c", "content": content}) == (Message(role="tool", content="", tool_call_id="c"),)


def test_a_refusal_and_a_spoken_answer_are_what_the_model_said() -> None:
    audio = {"id": "audio_1", "data": "UklGRg==", "expires_at": 1, "transcript": "Hello."}
    sent = (
        {"role": "assistant", "content": None, "refusal": "No."},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}, {"type": "text", "text": " Sorry."}]},
        {"role": "assistant", "content": None, "audio": audio},
    )
    assert [message.content for message in messages(*sent)] == ["No.", "No. Sorry.", "Hello."]


def test_who_speaks_is_kept_and_the_name_of_a_tool_stands_in_its_call() -> None:
    sent = (
        {"role": "developer", "content": "Be brief.", "name": "rules"},
        {**USER, "name": "Ann"},
        {"role": "assistant", "content": "Hello.", "name": ""},
        {"role": "tool", "content": "x", "name": "find_order", "tool_call_id": "call_1"},
    )
    assert [message.name for message in messages(*sent)] == ["rules", "Ann", None, None]
    with pytest.raises(ValidationError, match="name"):
        messages({**USER, "name": "n" * 65})


def test_functions_are_tools_and_each_answer_goes_to_its_call() -> None:
    asked = {"role": "assistant", "content": None, "function_call": {"name": "find_order", "arguments": '{"id":"7"}'}}
    sent = (USER, asked, {"role": "function", "name": "find_order", "content": "gone"}, asked)
    assert messages(*sent, {"role": "function", "name": "find_order", "content": None}) == (
        Message(role="user", content="Hi"),
        Message(role="assistant", content="", tool_calls=(call("call_1"),)),
        Message(role="tool", content="gone", tool_call_id="call_1"),
        Message(role="assistant", content="", tool_calls=(call("call_3"),)),
        Message(role="tool", content="", tool_call_id="call_3"),
    )


@pytest.mark.parametrize(
    ("sent", "place"),
    [
        ({"role": "user"}, "content"),
        ({"role": "tool", "content": "x"}, "tool_call_id"),
        ({"role": "user", "content": "x", "tool_call_id": "c"}, "tool_call_id"),
        ({"role": "user", "content": [{"type": "video_url", "video_url": {"url": "https://x"}}]}, "video_url"),
        ({"role": "assistant", "content": "", "tool_calls": [{"id": "c", "type": "custom", "custom": {"name": "f", "input": ""}}]}, "type"),
        ({"role": "critic", "content": "x"}, "role"),
    ],
)
def test_what_a_model_would_miss_is_refused_by_name(sent: dict[str, object], place: str) -> None:
    with pytest.raises(ValidationError, match=place):
        messages(sent)
