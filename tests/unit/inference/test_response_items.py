"""Items of the Responses API and the messages of a chat that they stand for."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import ResponseOutputItem
from pydantic import TypeAdapter, ValidationError

from rlaas.chat import CalledFunction, Choice, Message, ToolCall
from rlaas.ids import derive_id, make_bound_id
from rlaas.inference.response_items import (
    InputItem,
    InputMessage,
    ItemReference,
    call_id,
    item_type,
    message_id,
    output_items,
    parse_item_id,
    to_messages,
)

ITEMS: TypeAdapter[Any] = TypeAdapter(tuple[InputItem, ...])
CALLS = st.lists(
    st.builds(lambda name, arguments: CalledFunction(name=name, arguments=arguments), st.text(max_size=9), st.text(max_size=9))
)


def messages(*items: object) -> tuple[Message, ...]:
    return to_messages(ITEMS.validate_json(json.dumps(items)))


def call(name: str, **more: object) -> dict[str, object]:
    return {"type": "function_call", "call_id": name, "name": "f", "arguments": "{}", **more}


def output(name: str) -> dict[str, object]:
    return {"type": "function_call_output", "call_id": name, "output": "done"}


def said(*items: object) -> list[tuple[str, str, list[str], str | None]]:
    return [(one.role, one.content, [made.id for made in one.tool_calls], one.tool_call_id) for one in messages(*items)]


@given(st.text(min_size=1, max_size=20), CALLS)
def test_what_was_answered_comes_back_as_the_message_that_it_was(text: str, functions: list[CalledFunction]) -> None:
    calls = tuple(ToolCall(id=f"call_{at}", function=function) for at, function in enumerate(functions))
    items = output_items(Choice(text, "stop", tool_calls=calls), "out_1", incomplete=False)
    assert messages(*items) == (Message(role="assistant", content=text, tool_calls=calls),)


def test_calls_that_were_made_one_after_another_stay_so_and_those_of_one_answer_stay_together() -> None:
    assert said(call("a"), output("a"), call("b"), call("c"), output("b"), output("c")) == [
        ("assistant", "", ["a"], None),
        ("tool", "done", [], "a"),
        ("assistant", "", ["b", "c"], None),
        ("tool", "done", [], "b"),
        ("tool", "done", [], "c"),
    ]


def test_what_a_model_says_after_its_calls_is_of_the_same_answer() -> None:
    assert said(call("a"), {"role": "assistant", "content": "Wait."}, output("a")) == [
        ("assistant", "Wait.", ["a"], None),
        ("tool", "done", [], "a"),
    ]


def test_two_answers_in_a_row_stay_two() -> None:
    assert [one[1] for one in said({"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"})] == ["a", "b"]


def test_reasoning_is_dropped_and_does_not_part_an_answer() -> None:
    reasoning: dict[str, Any] = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x", "status": None}
    assert said(reasoning, call("a"), reasoning, call("b")) == [("assistant", "", ["a", "b"], None)]


def test_what_a_model_thought_goes_back_with_what_it_said_and_called_next() -> None:
    def thought(text: str) -> dict[str, object]:
        return {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": text}]}

    said = {"role": "assistant", "content": "Hi"}
    sent = messages({"role": "user", "content": "a"}, thought("Hm. "), thought("So."), said, thought("And."), call("a"), output("a"), said)
    assert [one.reasoning_content for one in sent] == [None, "Hm. So.And.", None, None]
    assert [one.reasoning_content for one in messages(thought("Hm."), {"role": "user", "content": "a"}, said, thought("?"))] == [None, None]


def test_what_openais_clients_add_to_an_answer_is_taken() -> None:
    text = {"type": "output_text", "text": "Hi", "annotations": [], "logprobs": [], "parsed": {"a": 1}}
    message = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "phase": "final_answer", "content": [text]}
    assert said(message, call("a", id="fc_1", status="completed", parsed_arguments={"a": 1})) == [("assistant", "Hi", ["a"], None)]


def test_an_answer_is_taken_back_as_openais_client_dumps_it() -> None:
    answer = Choice("Hi", "tool_calls", tool_calls=(ToolCall(id="c", function=CalledFunction(name="f", arguments="{}")),))
    reasoning: dict[str, Any] = {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Hm"}]}
    items = [reasoning, *output_items(answer, "out_1", incomplete=False)]
    models = [TypeAdapter[Any](ResponseOutputItem).validate_python(item) for item in items]
    for dumps in ([model.model_dump() for model in models], [model.to_dict() for model in models]):
        assert messages(*dumps) == (Message(role="assistant", content="Hi", tool_calls=answer.tool_calls),)


def test_a_message_and_a_reference_may_leave_out_their_types() -> None:
    sent = ({"role": "user", "content": "Hi", "id": "msg_1", "type": None}, {"id": "msg_2"}, {"id": "msg_3", "type": None})
    assert [item_type(item) for item in sent] == ["message", "item_reference", "item_reference"]
    assert [type(item) for item in ITEMS.validate_json(json.dumps(sent))] == [InputMessage, ItemReference, ItemReference]


def test_a_refusal_is_what_the_model_said() -> None:
    assert said({"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}) == [("assistant", "No.", [], None)]


@pytest.mark.parametrize("item_type", ["image_generation_call", "computer_call", "mcp_call", "custom_tool_call", "compaction", 7])
def test_other_items_are_refused_by_their_type(item_type: object) -> None:
    with pytest.raises(ValidationError, match="type"):
        messages({"type": item_type, "id": "x"})


@given(st.sampled_from(["i1", "int_01ARZ3NDEKTSV4RRFFQ69G5FAV"]), st.from_regex(r"\A[0-9a-f]{1,20}\Z"), st.integers(0, 999))
def test_the_id_of_an_item_says_which_output_it_is_of(interaction: str, tail: str, index: int) -> None:
    output_id = make_bound_id("out", interaction, tail) or derive_id("out", interaction, tail)
    assert parse_item_id(message_id(output_id)) == parse_item_id(message_id(output_id, index)) == (output_id, "msg")
    assert parse_item_id(message_id(output_id, index).replace("msg_", "rs_")) == (output_id, "rs")
    assert parse_item_id(call_id(output_id, index)) == (output_id, index)


@given(st.text(max_size=60))
def test_any_text_may_be_asked_for_as_an_item(text: str) -> None:
    place = parse_item_id(text)
    assert place is None or place[0].startswith("out_")
