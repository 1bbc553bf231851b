"""Streams of Anthropic's events, in the order that its clients take."""

import json
from collections.abc import Generator, Iterable
from itertools import pairwise
from typing import Any

import pytest
from anthropic.lib.streaming._messages import accumulate_event
from anthropic.types import ParsedMessage, RawMessageStreamEvent
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from rlaas.chat import CalledFunction, Choice, Delta, ToolCall, ToolCallDelta, Usage
from rlaas.errors import DependencyUnavailable
from rlaas.inference.collect import split_choices
from rlaas.inference.message_events import events

THOUGHTS = [Delta(reasoning_content="H"), Delta(reasoning_content="m."), Delta(text="Dear"), Delta(finish_reason="stop")]
USAGE = Usage(input_tokens=100, output_tokens=9, cached_tokens=80)
NOTHING_WRITTEN = {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0}
EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)


def stream(deltas: Iterable[Delta], **extras: Any) -> Generator[dict[str, Any], None, None]:
    def each() -> Generator[Delta, None, None]:
        yield from deltas

    return events(each(), message_id="out_1", model="rlaas::drafts", extras=extras)


def thinking(deltas: Iterable[Delta], *, shows_thoughts: bool = True) -> Generator[dict[str, Any], None, None]:
    def each() -> Generator[Delta, None, None]:
        yield from deltas

    return events(each(), message_id="out_1", model="rlaas::drafts", extras={}, shows_thoughts=shows_thoughts)


def accumulated(sent: Iterable[dict[str, Any]]) -> ParsedMessage[None]:
    """What Anthropic's own client makes of the events."""
    message: ParsedMessage[None] | None = None
    buffers: dict[int, bytes] = {}
    for event in sent:
        message = accumulate_event(event=EVENT.validate_python(event), current_snapshot=message, json_bufs=buffers)
    assert message is not None
    return message


def find_texts(message: ParsedMessage[None]) -> list[str]:
    """The texts of a message that holds nothing else."""
    assert all(block.type == "text" for block in message.content)
    return [block.text for block in message.content if block.type == "text"]


def kinds(sent: Iterable[dict[str, Any]]) -> list[str]:
    return [f"{event['type']} {event['index']}" if "index" in event else event["type"] for event in sent]


def test_what_the_model_thinks_is_a_block_before_the_text_for_clients_that_ask_for_it() -> None:
    assert kinds(thinking(THOUGHTS)) == [
        "message_start",
        "content_block_start 0",
        "content_block_delta 0",
        "content_block_delta 0",
        "content_block_stop 0",
        "content_block_start 1",
        "content_block_delta 1",
        "content_block_stop 1",
        "message_delta",
        "message_stop",
    ]
    assert [block.model_dump(include={"type", "thinking", "text"}) for block in accumulated(thinking(THOUGHTS)).content] == [
        {"type": "thinking", "thinking": "Hm."},
        {"type": "text", "text": "Dear"},
    ]
    [block] = accumulated(thinking(THOUGHTS, shows_thoughts=False)).content
    assert block.type == "text"
    refused = accumulated(thinking([*THOUGHTS[:2], Delta(refusal="No."), Delta(finish_reason="stop")]))
    assert [block.type for block in refused.content] == ["thinking", "text"]


def test_what_a_vendor_tells_of_its_usage_before_it_answers_stands_in_the_first_event() -> None:
    told = Usage(input_tokens=100, output_tokens=1, cached_tokens=80)
    first, *_, last, _ = stream(
        [Delta(model="claude"), Delta(usage=told), Delta(text="Dear"), Delta(finish_reason="stop"), Delta(usage=USAGE)]
    )
    counts = {"input_tokens": 20, "cache_read_input_tokens": 80, "cache_creation_input_tokens": 0, "cache_creation": NOTHING_WRITTEN}
    assert (first["message"]["usage"], last["usage"]) == ({**counts, "output_tokens": 1}, {**counts, "output_tokens": 9})
    first, *_ = stream([Delta(text="Dear"), Delta(finish_reason="stop"), Delta(usage=USAGE)])
    empty = {"input_tokens": 0, "output_tokens": 0, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 0}
    assert first["message"]["usage"] == {**empty, "cache_creation": NOTHING_WRITTEN}


def test_a_text_is_one_block_between_the_messages_start_and_its_end() -> None:
    sent = list(stream([Delta(), Delta(text="Dear"), Delta(text=" Ada"), Delta(finish_reason="stop"), Delta(usage=USAGE)]))
    assert kinds(sent) == [
        "message_start",
        "content_block_start 0",
        "content_block_delta 0",
        "content_block_delta 0",
        "content_block_stop 0",
        "message_delta",
        "message_stop",
    ]
    assert sent[-2]["usage"] == {
        "input_tokens": 20,
        "output_tokens": 9,
        "cache_read_input_tokens": 80,
        "cache_creation_input_tokens": 0,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
    }
    message = accumulated(sent)
    assert (message.id, message.model, message.stop_reason) == ("out_1", "rlaas::drafts", "end_turn")
    assert (find_texts(message)[0], message.usage.input_tokens) == ("Dear Ada", 20)


def test_each_piece_is_sent_when_it_comes() -> None:
    deltas = (Delta(text=text) for text in ("Dear", " Ada"))
    sent = stream(deltas)
    assert [next(sent)["type"] for _ in range(3)] == ["message_start", "content_block_start", "content_block_delta"]
    assert next(deltas).text == " Ada"


def test_our_own_fields_stand_in_the_message_that_begins() -> None:
    first, *rest = stream([Delta(text="Hi"), Delta(finish_reason="stop")], **{"rlaas::policy_id": "p@v1"})
    assert first["message"]["rlaas::policy_id"] == "p@v1"
    assert "rlaas::" not in json.dumps(rest).replace("rlaas::drafts", "")


def tool(index: int, arguments: str = "", *, id: str | None = None, name: str | None = None) -> Delta:
    return Delta(tool_calls=(ToolCallDelta(index, arguments, id=id, name=name),))


def test_calls_that_interleave_are_blocks_one_after_the_other() -> None:
    sent = list(
        stream(
            [
                Delta(text="Let me look."),
                tool(0, '{"or', id="call_1", name="look_up"),
                tool(1, '{"a', id="call_2", name="refund"),
                tool(0, 'der": 7}'),
                Delta(text="Done."),
                tool(1, '": {}}'),
                Delta(finish_reason="tool_calls"),
            ]
        )
    )
    assert kinds(sent)[1:-2] == [
        *("content_block_start 0", "content_block_delta 0", "content_block_stop 0"),
        *("content_block_start 1", "content_block_delta 1", "content_block_delta 1", "content_block_stop 1"),
        *("content_block_start 2", "content_block_delta 2", "content_block_delta 2", "content_block_stop 2"),
        *("content_block_start 3", "content_block_delta 3", "content_block_stop 3"),
    ]
    message = accumulated(sent)
    assert [block.model_dump(include={"type", "text", "id", "name", "input"}) for block in message.content] == [
        {"type": "text", "text": "Let me look."},
        {"type": "tool_use", "id": "call_1", "name": "look_up", "input": {"order": 7}},
        {"type": "tool_use", "id": "call_2", "name": "refund", "input": {"a": {}}},
        {"type": "text", "text": "Done."},
    ]
    assert message.stop_reason == "tool_use"


def test_a_second_call_is_sent_as_it_comes_where_the_first_is_done() -> None:
    sent = stream([tool(0, '{"a": 1}', id="call_1", name="look_up"), tool(1, '{"b', id="call_2", name="refund"), tool(1, '": 2}')])
    assert kinds(next(sent) for _ in range(6)) == [
        *("message_start", "content_block_start 0", "content_block_delta 0", "content_block_stop 0"),
        *("content_block_start 1", "content_block_delta 1"),
    ]


def test_a_calls_name_may_come_after_its_id() -> None:
    message = accumulated(stream([tool(0, id="call_1"), tool(0, name="look_up"), tool(0, "{}"), Delta(finish_reason="stop")]))
    assert [(block.id, block.name, block.input) for block in message.content if block.type == "tool_use"] == [("call_1", "look_up", {})]
    assert message.stop_reason == "tool_use"


def test_a_refusal_without_a_text_is_the_text() -> None:
    message = accumulated(stream([Delta(refusal="I "), Delta(refusal="cannot."), Delta(finish_reason="stop")]))
    assert find_texts(message) == ["I cannot."]
    assert message.stop_reason == "refusal"
    assert message.stop_details is not None
    assert message.stop_details.explanation == "I cannot."


def test_an_answer_of_nothing_is_a_message_without_blocks() -> None:
    assert kinds(stream([])) == ["message_start", "message_delta", "message_stop"]
    assert accumulated(stream([Delta(finish_reason="stop"), Delta(usage=USAGE)])).content == []


def test_choices_beyond_the_first_are_left_out() -> None:
    deltas = [Delta(0, "a"), Delta(1, "b"), Delta(0, "c"), Delta(1, finish_reason="length"), Delta(0, finish_reason="stop")]
    message = accumulated(stream(deltas))
    assert find_texts(message) == ["ac"]
    assert message.stop_reason == "end_turn"


def test_a_whole_answer_streams_to_the_same_answer() -> None:
    ended = accumulated(stream(split_choices([Choice("Dear", "stop", stop_sequence="END")], USAGE)))
    assert (ended.stop_reason, ended.stop_sequence) == ("stop_sequence", "END")
    call = ToolCall(id="toolu_1", function=CalledFunction(name="look_up", arguments='{"order": 7}'))
    message = accumulated(stream(split_choices([Choice("Let me look.", "tool_calls", tool_calls=(call,))], USAGE)))
    assert [block.type for block in message.content] == ["text", "tool_use"]
    assert (message.stop_reason, message.usage.cache_read_input_tokens) == ("tool_use", 80)


def test_what_fails_before_the_first_delta_fails_before_the_first_event() -> None:
    def broken() -> Generator[Delta, None, None]:
        raise DependencyUnavailable("down")
        yield Delta()

    with pytest.raises(DependencyUnavailable):
        next(events(broken(), message_id="out_1", model="m", extras={}))


def test_closing_the_events_closes_the_deltas() -> None:
    closed = []

    def each() -> Generator[Delta, None, None]:
        try:
            yield Delta(text="a")
            yield Delta(text="b")
        finally:
            closed.append(True)

    sent = events(each(), message_id="out_1", model="m", extras={})
    next(sent)
    sent.close()
    assert closed == [True]


ARGUMENTS = st.dictionaries(st.text(max_size=5), st.recursive(st.integers() | st.text(max_size=5), st.lists, max_leaves=3), max_size=3)


@st.composite
def interleaved(draw: st.DrawFn) -> tuple[list[Delta], str, list[dict[str, Any]]]:
    """A text and calls whose pieces come in any order that keeps each one's own; the text and the calls' arguments."""
    inputs = draw(st.lists(ARGUMENTS, max_size=4))
    lanes: list[list[Delta]] = [[Delta(text=text) for text in draw(st.lists(st.text(min_size=1, max_size=5), max_size=4))]]
    for index, arguments in enumerate(inputs):
        text = json.dumps(arguments, ensure_ascii=draw(st.booleans()))
        cuts = sorted({0, len(text), *draw(st.lists(st.integers(0, len(text)), max_size=4))})
        pieces = [text[start:end] for start, end in pairwise(cuts)]
        lanes.append([tool(index, id=f"call_{index}", name=f"tool_{index}"), *(tool(index, piece) for piece in pieces)])
    order = draw(st.permutations([number for number, lane in enumerate(lanes) for _ in lane]))
    queues = [iter(lane) for lane in lanes]
    return [next(queues[number]) for number in order], "".join(delta.text for delta in lanes[0]), inputs


@given(interleaved())
def test_whatever_the_order_blocks_follow_one_another_and_hold_what_was_said(answer: tuple[list[Delta], str, list[dict[str, Any]]]) -> None:
    deltas, text, inputs = answer
    sent = list(stream([*deltas, Delta(finish_reason="stop"), Delta(usage=USAGE)]))
    opened: int | None = None
    last = -1
    for event in sent[1:-2]:
        if event["type"] == "content_block_start":
            assert (opened, event["index"]) == (None, last + 1)
            opened = last = event["index"]
        else:
            assert event["index"] == opened
            opened = None if event["type"] == "content_block_stop" else opened
    assert opened is None
    blocks: list[Any] = accumulated(sent).content
    assert "".join(block.text for block in blocks if block.type == "text") == text
    calls = {block.id: (block.name, block.input) for block in blocks if block.type == "tool_use"}
    assert calls == {f"call_{index}": (f"tool_{index}", arguments) for index, arguments in enumerate(inputs)}
