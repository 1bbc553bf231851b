"""Anthropic's requests as chats, and answers as its messages."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rlaas.chat import CalledFunction, Choice, Message, Processing, ToolCall, Usage
from rlaas.errors import InvalidInput, NotFound
from rlaas.ids import make_pseudonym
from rlaas.inference.anthropic_words import FINISH_REASONS, STOP_REASONS
from rlaas.inference.decide import InferRequest
from rlaas.inference.messages import (
    CountRequest,
    MessagesRequest,
    build_infer_request,
    build_stop,
    build_usage,
    count_tokens,
    to_message,
)
from rlaas.inference.record import Answer
from rlaas.prompt_cache import CacheMark
from rlaas.routing.assign import assign
from rlaas.wire import make_invalid_input
from tests.fakes.worlds import NOW, SKILL, make_route

CACHED: Any = {"cache_control": {"type": "ephemeral"}}
CALL: Any = {"type": "tool_use", "id": "toolu_01", "name": "look_up", "input": {}}
TEXT: Any = {"type": "text", "text": "Where is my order?", **CACHED}
IMAGE: Any = {"type": "image", "source": {"type": "url", "url": "https://x.example/a.png"}, **CACHED}
LOOK_UP: Any = {"name": "look_up", "description": "Finds an order", "input_schema": {"type": "object"}, **CACHED}


def body(**fields: Any) -> dict[str, Any]:
    return {"model": f"rlaas::{SKILL}", "max_tokens": 64, "messages": [{"role": "user", "content": "hi"}], **fields}


def read(**fields: Any) -> InferRequest:
    return build_infer_request(MessagesRequest.model_validate_json(json.dumps(body(**fields))))


def refusal(**fields: Any) -> InvalidInput:
    content = body(**fields)
    with pytest.raises(ValidationError) as error:
        MessagesRequest.model_validate_json(json.dumps(content))
    return make_invalid_input(error.value, content)


def test_system_blocks_are_one_system_message_in_front_that_knows_where_the_cache_is_marked() -> None:
    request = read(system=[{"type": "text", "text": "You draft replies.", **CACHED}, {"type": "text", "text": "Be brief."}])
    marks = (CacheMark(at=len("You draft replies.")),)
    system = Message(role="system", content="You draft replies.\n\nBe brief.", cache_marks=marks)
    assert request.messages == (system, Message(role="user", content="hi"))
    assert read(system=[]).messages == read(system="").messages == (Message(role="user", content="hi"),)


def test_a_coding_agents_conversation_is_a_chat_whose_tool_calls_have_their_own_ids() -> None:
    request = read(
        messages=[
            {"role": "user", "content": [TEXT]},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "s"},
                    {"type": "redacted_thinking", "data": "x"},
                    {"type": "text", "text": "Let me "},
                    {"type": "text", "text": "look."},
                    {"type": "tool_use", "id": "toolu_01", "name": "look_up", "input": {"order": "é"}, "caller": {"type": "direct"}},
                    {"type": "tool_use", "id": "call_b", "name": "look_up", "input": {}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "And hurry."},
                    {"type": "tool_result", "tool_use_id": "toolu_01", "content": [{"type": "text", "text": "sent"}, TEXT]},
                    {"type": "tool_result", "tool_use_id": "call_b", "content": "no such order", "is_error": True, **CACHED},
                    {"type": "text", "text": "Please."},
                ],
            },
            {"role": "system", "content": "The user has left."},
        ],
        thinking={"type": "enabled", "budget_tokens": 1024},
        context_management={"edits": []},
        service_tier="auto",
        cache_control={"type": "ephemeral"},
    )
    calls = (
        ToolCall(id="toolu_01", function=CalledFunction(name="look_up", arguments='{"order": "é"}')),
        ToolCall(id="call_b", function=CalledFunction(name="look_up", arguments="{}")),
    )
    assert request.messages == (
        Message(role="user", content="Where is my order?", cache_marks=(CacheMark(at=18),)),
        Message(role="assistant", content="Let me look.", tool_calls=calls, reasoning_content="hm"),
        Message(role="tool", content="sent\n\nWhere is my order?", tool_call_id="toolu_01", cache_marks=(CacheMark(at=24),)),
        Message(role="tool", content="Error: no such order", tool_call_id="call_b", cache_marks=(CacheMark(),)),
        Message(role="user", content="And hurry.\n\nPlease."),
        Message(role="system", content="The user has left.", cache_marks=(CacheMark(),)),
    )
    assert request.parameters == {"max_tokens": 64}


def test_a_message_that_only_thought_is_left_out_and_a_tool_may_answer_nothing() -> None:
    thought = {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm", "signature": "s"}]}
    assert read(messages=[{"role": "user", "content": "hi"}, thought]).messages == (Message(role="user", content="hi"),)
    result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_01"}]}
    assert read(messages=[result]).messages == (Message(role="tool", content="", tool_call_id="toolu_01"),)


def test_parameters_go_to_the_backend_by_openais_names() -> None:
    request = read(
        temperature=1,
        top_p=0.5,
        top_k=3,
        stop_sequences=["END"],
        tools=[LOOK_UP, {"type": "custom", "name": "refund", "input_schema": {}, "strict": True}],
        output_config={"format": {"type": "json_schema", "schema": {"type": "object"}}, "effort": "high"},
    )
    assert request.parameters == {
        "max_tokens": 64,
        "temperature": 1.0,
        "top_p": 0.5,
        "top_k": 3,
        "stop": ["END"],
        "tools": [
            {
                "type": "function",
                "function": {"name": "look_up", "parameters": {"type": "object"}, "description": "Finds an order"},
                "cache_control": {"type": "ephemeral"},
            },
            {"type": "function", "function": {"name": "refund", "parameters": {}, "strict": True}},
        ],
        "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "object"}, "strict": True}},
        "reasoning_effort": "high",
    }
    assert read(stop_sequences=[], tools=[]).parameters == {"max_tokens": 64}


@pytest.mark.parametrize(
    ("choice", "parameters"),
    [
        ({"type": "auto"}, {"tool_choice": "auto"}),
        ({"type": "any"}, {"tool_choice": "required"}),
        ({"type": "none"}, {"tool_choice": "none"}),
        ({"type": "tool", "name": "look_up"}, {"tool_choice": {"type": "function", "function": {"name": "look_up"}}}),
        ({"type": "auto", "disable_parallel_tool_use": True}, {"tool_choice": "auto", "parallel_tool_calls": False}),
    ],
)
def test_tool_choices_are_openais(choice: dict[str, Any], parameters: dict[str, Any]) -> None:
    assert read(tool_choice=choice).parameters == {"max_tokens": 64, **parameters}


def test_the_user_is_a_pseudonym_and_extras_are_those_of_chat() -> None:
    fields = {"rlaas::thread_id": "t1", "rlaas::interaction_id": "int_1", "rlaas::inputs": {"a": "b"}, "rlaas::tags": ["agent"]}
    request = read(model=f"rlaas::{SKILL}@v3", metadata={"user_id": "kim@shop.example", "other": 1}, **fields)
    assert (request.skill, request.policy_id, request.user_id) == (SKILL, f"{SKILL}@v3", make_pseudonym("kim@shop.example"))
    assert (request.thread_id, request.interaction_id, request.inputs, request.tags) == ("t1", "int_1", {"a": "b"}, ("agent",))
    assert read(**{"metadata": {"user_id": "kim"}, "rlaas::user_id": "lee"}).user_id == "lee"


def test_messages_of_which_nothing_is_left_are_refused() -> None:
    with pytest.raises(InvalidInput):
        read(messages=[{"role": "assistant", "content": [{"type": "thinking", "thinking": "hm", "signature": "s"}]}])


WORDS = st.sampled_from(["", "a", "toolu_1", "rlaas::x", "\u00e9\n", "a" * 300])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS,
    lambda more: st.lists(more) | st.dictionaries(WORDS, more),
    max_leaves=4,
)
KINDS = st.sampled_from(["text", "tool_use", "tool_result", "thinking", "redacted_thinking", "image"])
BLOCKS = st.fixed_dictionaries(
    {"type": KINDS | JSON},
    optional={
        "text": WORDS,
        "id": WORDS,
        "name": WORDS,
        "input": st.dictionaries(WORDS, JSON),
        "tool_use_id": WORDS,
        "content": WORDS | JSON,
    },
)
TURNS = st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "system"]), "content": WORDS | st.lists(BLOCKS) | JSON})
TOOLS = st.fixed_dictionaries({"name": WORDS, "input_schema": st.dictionaries(WORDS, JSON)}, optional={"type": WORDS, "strict": JSON})
REQUESTS = st.fixed_dictionaries(
    {"model": st.just(f"rlaas::{SKILL}"), "max_tokens": st.just(64), "messages": st.lists(TURNS, min_size=1, max_size=3)},
    optional={
        "system": WORDS | st.lists(BLOCKS),
        "tools": st.lists(TOOLS, max_size=2),
        "tool_choice": st.fixed_dictionaries({"type": st.sampled_from(["auto", "any", "tool"])}, optional={"name": WORDS}),
        "stop_sequences": st.lists(WORDS, max_size=2),
        "output_config": JSON,
        "metadata": JSON | st.fixed_dictionaries({"user_id": WORDS}),
        "context_management": JSON,
        "rlaas::inputs": st.dictionaries(WORDS, WORDS),
        "rlaas::tags": st.lists(WORDS, max_size=2),
        "rlaas::thread_id": WORDS,
    },
)


@given(REQUESTS)
def test_whatever_is_sent_is_a_request_or_a_refusal(content: dict[str, Any]) -> None:
    try:
        request = MessagesRequest.model_validate_json(json.dumps(content))
    except ValidationError:
        return
    with suppress(InvalidInput):  # of messages that only thought nothing is left
        assert build_infer_request(request).messages


@pytest.mark.parametrize("model", ["claude-opus-4-6", "rlaas::", "rlaas::Drafts", f"rlaas::{'a' * 29}", f"rlaas::{SKILL}@v0", SKILL])
def test_a_model_that_is_no_skill_is_not_found_and_the_refusal_says_what_to_name(model: str) -> None:
    with pytest.raises(NotFound, match="rlaas::<skill>"):
        read(model=model)


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        (
            {"messages": [{"role": "user", "content": [TEXT, {"type": "image", "source": {"type": "file", "file_id": "f"}}]}]},
            "messages.0.content.1.source",
            "base64",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "document"}]}]}, "messages.0.content.0.source", "required"),
        ({"messages": [{"role": "system", "content": [IMAGE]}]}, "messages.0", "role user"),
        ({"system": [IMAGE]}, "system.0", "only text"),
        ({"messages": [{"role": "assistant", "content": [{"type": "server_tool_use"}]}]}, "messages.0.content.0", "server tools"),
        (
            {"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": [{"type": "tool"}]}]}]},
            "messages.0.content.0.content.0",
            "only text, image and document",
        ),
        (
            {"messages": [{"role": "user", "content": [CALL]}]},
            "messages.0",
            "tool_use",
        ),
        ({"messages": [{"role": "assistant", "content": [{"type": "tool_result", "tool_use_id": "a"}]}]}, "messages.0", "role user"),
        ({"messages": []}, "messages", "at least 1"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools.0.type", "custom"),
        ({"tool_choice": {"type": "tool"}}, "tool_choice", "name"),
        ({"mcp_servers": [{"name": "files"}]}, "mcp_servers", "at most 0"),
        ({"max_tokens": 0}, "max_tokens", "greater"),
        ({"temperature": 1.5}, "temperature", "less"),
        ({"rlaas::thread": "t1"}, None, "rlaas::thread"),
    ],
)
def test_what_an_answer_would_miss_is_refused_by_name(fields: dict[str, Any], param: str | None, words: str) -> None:
    error = refusal(**fields)
    assert error.param == param
    assert words in error.detail


def test_max_tokens_is_needed_for_a_message_and_not_for_a_count() -> None:
    content = {"model": f"rlaas::{SKILL}", "messages": [{"role": "user", "content": "hi"}]}
    with pytest.raises(ValidationError):
        MessagesRequest.model_validate_json(json.dumps(content))
    assert count(content) > 0


def count(content: dict[str, Any]) -> int:
    return count_tokens(CountRequest.model_validate_json(json.dumps(content)), tenant_id="acme")


def test_a_count_grows_with_everything_that_the_model_reads() -> None:
    content: dict[str, Any] = {"model": f"rlaas::{SKILL}", "messages": [{"role": "user", "content": "hi"}]}
    counts = [count(content)]
    for more in ({"system": "Be brief."}, {"tools": [LOOK_UP]}, {"output_config": {"format": {"type": "json_schema", "schema": {}}}}):
        content |= more
        counts.append(count(content))
    content["messages"] = [*content["messages"], {"role": "assistant", "content": "And?"}]
    counts.append(count(content))
    assert counts == sorted(set(counts))
    with pytest.raises(NotFound):
        count({**content, "model": "claude-haiku-4-5"})


def message(*choices: Choice, usage: Usage | None = None, tier: str | None = None, **fields: Any) -> dict[str, Any]:
    answer = Answer(
        interaction_id="int_1",
        output_id="out_1",
        policy_id=f"{SKILL}@v2",
        decision=assign(make_route(control=2), "t1", decision_id="dec_1", decided_at=NOW, interaction_id="int_1"),
        choices=choices,
        usage=usage,
        cost_usd=0.25,
        latency_ms=1.0,
        overhead_ms=1.0,
        replay=False,
        feedback_token="token",
        processing=Processing(service_tier=tier),
    )
    return to_message(MessagesRequest.model_validate_json(json.dumps(body(**fields))), answer)


def call(arguments: str, *, id: str = "toolu_01") -> ToolCall:
    return ToolCall(id=id, function=CalledFunction(name="look_up", arguments=arguments))


def test_a_message_has_the_text_then_the_calls_and_our_own_fields() -> None:
    reply = message(
        Choice("Let me look.", "tool_calls", tool_calls=(call('{"order": 7}'), call("", id="call_b"))),
        Choice("another", "stop"),
        usage=Usage(input_tokens=100, output_tokens=9, cached_tokens=60, cache_write_tokens=20, cache_write_1h_tokens=5),
    )
    assert reply["content"] == [
        {"type": "text", "text": "Let me look."},
        {"type": "tool_use", "id": "toolu_01", "name": "look_up", "input": {"order": 7}},
        {"type": "tool_use", "id": "call_b", "name": "look_up", "input": {}},
    ]
    assert (reply["id"], reply["type"], reply["role"], reply["model"]) == ("out_1", "message", "assistant", f"rlaas::{SKILL}")
    assert (reply["stop_reason"], reply["stop_sequence"], reply["stop_details"]) == ("tool_use", None, None)
    assert reply["usage"] == {
        "input_tokens": 20,
        "output_tokens": 9,
        "cache_read_input_tokens": 60,
        "cache_creation_input_tokens": 20,
        "cache_creation": {"ephemeral_5m_input_tokens": 15, "ephemeral_1h_input_tokens": 5},
    }
    assert (reply["rlaas::interaction_id"], reply["rlaas::feedback_token"], reply["rlaas::cost_usd"]) == ("int_1", "token", 0.25)


@pytest.mark.parametrize(
    "arguments", ['{"order": ', "[7]", "null", '{"x": NaN}', "[" * 100_000], ids=["cut off", "list", "null", "NaN", "deep"]
)
def test_arguments_that_are_no_object_are_shown_as_they_are(arguments: str) -> None:
    [block] = message(Choice("", "tool_calls", tool_calls=(call(arguments),)))["content"]
    assert block["input"] == {"INVALID_JSON": arguments}


@pytest.mark.parametrize(
    ("thinking", "is_shown"),
    [(None, False), ({"type": "disabled"}, False), ({"type": "adaptive", "display": "omitted"}, False), ({"type": "adaptive"}, True)],
)
def test_what_the_model_thought_is_shown_to_clients_that_ask_for_it(thinking: Any, is_shown: bool) -> None:
    reply = message(Choice("Dear Ada", "stop", reasoning_content="Hm."), thinking=thinking)
    thought = [{"type": "thinking", "thinking": "Hm.", "signature": ""}]
    assert reply["content"] == [*(thought if is_shown else []), {"type": "text", "text": "Dear Ada"}]


def test_what_was_thought_and_the_tier_stand_in_the_usage() -> None:
    reply = message(Choice("", "stop"), usage=Usage(input_tokens=1, output_tokens=9, reasoning_tokens=4), tier="default")
    assert reply["usage"]["output_tokens_details"] == {"thinking_tokens": 4}
    assert reply["usage"]["service_tier"] == "standard"
    assert "service_tier" not in message(Choice("", "stop"), usage=Usage(input_tokens=1, output_tokens=9), tier="flex")["usage"]


def test_a_refusal_is_the_text_where_there_is_no_other_and_the_explanation_always() -> None:
    refused, withheld = message(Choice("", "stop", refusal="I cannot.")), message(Choice("Dear", "content_filter", refusal="Stopped."))
    assert [block["text"] for block in (*refused["content"], *withheld["content"])] == ["I cannot.", "Dear"]
    assert [reply["stop_reason"] for reply in (refused, withheld)] == ["refusal", "refusal"]
    assert [reply["stop_details"]["explanation"] for reply in (refused, withheld)] == ["I cannot.", "Stopped."]


@pytest.mark.parametrize(
    ("finish_reason", "has_calls", "stop_reason"),
    [
        ("stop", False, "end_turn"),
        ("stop", True, "tool_use"),
        (None, True, "tool_use"),
        ("length", True, "max_tokens"),
        ("tool_calls", True, "tool_use"),
        ("content_filter", False, "refusal"),
        ("what the server likes", False, "end_turn"),
    ],
)
def test_why_an_answer_ended_is_in_anthropics_words(finish_reason: str | None, has_calls: bool, stop_reason: str) -> None:
    assert build_stop(finish_reason, has_calls=has_calls, refusal=None)["stop_reason"] == stop_reason


def test_a_stop_sequence_is_told_where_the_backend_told_it() -> None:
    ended, called = (
        message(Choice("Dear", "stop", stop_sequence="END")),
        message(Choice("", "stop", tool_calls=(call("{}"),), stop_sequence="</tool>")),
    )
    assert [(reply["stop_reason"], reply["stop_sequence"]) for reply in (ended, called)] == [
        ("stop_sequence", "END"),
        ("tool_use", None),
    ]


def test_each_finish_reason_has_a_stop_reason_that_means_it() -> None:
    assert {FINISH_REASONS[stop_reason] for stop_reason in STOP_REASONS.values()} == set(STOP_REASONS) == set(FINISH_REASONS.values())


def test_an_answer_that_nobody_counted_has_used_nothing() -> None:
    counts: Any = build_usage(None)
    assert {*counts.pop("cache_creation").values(), *counts.values()} == {0}
