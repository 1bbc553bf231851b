"""Streams of events, in the order and with the fields that OpenAI's clients take apart."""

import json
from collections.abc import Generator, Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai import omit
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import ResponseStreamEvent
from pydantic import JsonValue, TypeAdapter

from rlaas.chat import CalledFunction, Choice, Delta, Processing, ToolCall, ToolCallDelta, Usage
from rlaas.errors import DependencyUnavailable
from rlaas.inference.collect import Collected, split_choices
from rlaas.inference.response_events import failure_event, response_events
from rlaas.inference.response_items import output_items
from rlaas.inference.responses import INCOMPLETE, ResponsesRequest, describe
from tests.fakes.worlds import NOW

OUTPUT = "out_01ARZ3NDEKTSV4RRFFQ69G5FAV_tail"
MESSAGE, CALL = "msg_01ARZ3NDEKTSV4RRFFQ69G5FAV_tail", "fc_01ARZ3NDEKTSV4RRFFQ69G5FAV_tail"
USAGE = Usage(input_tokens=7, output_tokens=3, cached_tokens=2)
CITATION: Any = {"type": "url_citation", "url_citation": {"url": "https://a.example", "title": "A", "start_index": 0, "end_index": 2}}
REQUEST = ResponsesRequest(model="rlaas::drafts", input="hi")
ANY_EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


def stream(deltas: Iterable[Delta]) -> Generator[dict[str, Any], None, None]:
    def generated() -> Generator[Delta, None, None]:
        yield from deltas

    return response_events(
        generated(),
        output_id=OUTPUT,
        describe=lambda *state: describe(REQUEST, OUTPUT, *state, created=NOW),
        incomplete=INCOMPLETE,
    )


def accumulated(events: Iterable[dict[str, Any]]) -> Any:
    """What OpenAI's own client makes of the events."""
    state: Any = ResponseStreamState(input_tools=omit, text_format=omit)
    for event in events:
        state.handle_event(ANY_EVENT.validate_json(json.dumps(event)))
    return state


def shown(events: Iterable[dict[str, Any]]) -> list[tuple[str, Any]]:
    """Each event's type with what it says."""
    return [(event["type"].removeprefix("response."), event.get("delta", event.get("text", event.get("arguments")))) for event in events]


def test_a_text_is_streamed_in_openais_order() -> None:
    events = list(stream([Delta(), Delta(text="Dear"), Delta(text=" Ada"), Delta(finish_reason="stop"), Delta(usage=USAGE)]))
    assert shown(events) == [
        ("created", None),
        ("in_progress", None),
        ("output_item.added", None),
        ("content_part.added", None),
        ("output_text.delta", "Dear"),
        ("output_text.delta", " Ada"),
        ("output_text.done", "Dear Ada"),
        ("content_part.done", None),
        ("output_item.done", None),
        ("completed", None),
    ]
    assert [event["sequence_number"] for event in events] == list(range(10))
    place = {"item_id": MESSAGE, "output_index": 0, "content_index": 0}
    assert all(event.items() >= place.items() for event in events[3:8])
    text: dict[str, Any] = {"type": "output_text", "annotations": [], "logprobs": []}
    message: dict[str, Any] = {"id": MESSAGE, "type": "message", "role": "assistant"}
    assert events[2]["item"] == {**message, "status": "in_progress", "content": []}
    assert events[3]["part"] == {**text, "text": ""}
    assert events[8]["item"] == {**message, "status": "completed", "content": [{**text, "text": "Dear Ada"}]}
    assert events[0]["response"].items() >= {"id": OUTPUT, "status": "in_progress", "output": [], "usage": None}.items()
    assert events[9]["response"].items() >= {"id": OUTPUT, "status": "completed", "output": [events[8]["item"]]}.items()
    assert events[9]["response"]["usage"] == {
        "input_tokens": 7,
        "input_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 0},
        "output_tokens": 3,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 10,
    }


def test_parallel_calls_follow_one_another_each_with_its_own_index() -> None:
    pieces = [
        Delta(text="Let me see."),
        Delta(tool_calls=(ToolCallDelta(0, "", id="call_1", name="look_up"),)),
        Delta(tool_calls=(ToolCallDelta(0, '{"order"'),)),
        Delta(tool_calls=(ToolCallDelta(0, ": 7}"),)),
        Delta(tool_calls=(ToolCallDelta(1, "{}", id="call_2", name="refund"),)),
        Delta(finish_reason="tool_calls"),
    ]
    events = list(stream(pieces))
    assert [(name, text) for name, text in shown(events) if name.startswith(("output_item", "function_call"))] == [
        ("output_item.added", None),
        ("output_item.done", None),
        ("output_item.added", None),
        ("function_call_arguments.delta", '{"order"'),
        ("function_call_arguments.delta", ": 7}"),
        ("function_call_arguments.done", '{"order": 7}'),
        ("output_item.done", None),
        ("output_item.added", None),
        ("function_call_arguments.delta", "{}"),
        ("function_call_arguments.done", "{}"),
        ("output_item.done", None),
    ]
    added, first, second = (event for event in events if event["type"] == "response.output_item.added")
    assert (added["output_index"], first["output_index"], second["output_index"]) == (0, 1, 2)
    assert first["item"] == {
        "id": f"{CALL}_0",
        "type": "function_call",
        "status": "in_progress",
        "call_id": "call_1",
        "name": "look_up",
        "arguments": "",
    }
    assert [item["type"] for item in events[-1]["response"]["output"]] == ["message", "function_call", "function_call"]
    accumulated(events)


def test_calls_whose_pieces_interleave_are_put_together_by_their_index() -> None:
    pieces = [
        Delta(tool_calls=(ToolCallDelta(0, '{"or', id="call_1", name="look_up"),)),
        Delta(tool_calls=(ToolCallDelta(1, "{}", id="call_2", name="refund"), ToolCallDelta(0, 'der": 7}'))),
        Delta(text="and"),
    ]
    events = list(stream(pieces))
    first, second, message = events[-1]["response"]["output"]
    assert (first["call_id"], first["arguments"]) == ("call_1", '{"order": 7}')
    assert (second["call_id"], second["arguments"]) == ("call_2", "{}")
    assert message["content"][0]["text"] == "and"
    accumulated(events)


def test_a_refusal_is_a_part_of_its_own() -> None:
    events = list(stream([Delta(text="Well. "), Delta(refusal="No"), Delta(refusal="."), Delta(finish_reason="stop")]))
    refusals = [event for event in events if "refusal" in event["type"]]
    assert [event["type"] for event in refusals] == ["response.refusal.delta", "response.refusal.delta", "response.refusal.done"]
    assert [event["content_index"] for event in refusals] == [1, 1, 1]
    assert refusals[-1]["refusal"] == "No."
    [message] = events[-1]["response"]["output"]
    assert message["content"][1] == {"type": "refusal", "refusal": "No."}


@pytest.mark.parametrize(("reason", "detail"), [("length", "max_output_tokens"), ("content_filter", "content_filter")])
def test_an_answer_that_is_cut_off_ends_incomplete_and_so_does_its_last_item(reason: str, detail: str) -> None:
    last = list(stream([Delta(text="Dea"), Delta(finish_reason=reason)]))[-1]
    assert (last["type"], last["response"]["status"]) == ("response.incomplete", "incomplete")
    assert last["response"]["incomplete_details"] == {"reason": detail}
    assert last["response"]["output"][0]["status"] == "incomplete"


def test_an_answer_without_anything_is_an_empty_message() -> None:
    events = list(stream([Delta(finish_reason="stop"), Delta(usage=USAGE)]))
    assert accumulated(events)._completed_response.output_text == ""
    assert events[-1]["response"]["output"] == output_items(Choice("", "stop"), OUTPUT, incomplete=False)


def test_choices_after_the_first_are_left_out() -> None:
    assert list(stream([Delta(0, "a"), Delta(1, "b")]))[-1]["response"]["output"][0]["content"][0]["text"] == "a"


def test_logprobs_are_those_of_their_piece_and_at_the_end_of_the_text() -> None:
    entries: list[JsonValue] = [{"token": token, "logprob": -0.1, "bytes": [], "top_logprobs": []} for token in "ab"]
    one, two = entries
    events = list(stream([Delta(text="a", logprobs={"content": [one]}), Delta(text="b", logprobs={"content": [two]})]))
    assert [event["logprobs"] for event in events if "logprobs" in event] == [[one], [two], [one, two]]
    accumulated(events)


def test_half_of_a_surrogate_pair_goes_through() -> None:
    events = list(
        stream([Delta(text="\ud83d"), Delta(text="\ude00"), Delta(tool_calls=(ToolCallDelta(0, '{"a": "\ud83d', id="c", name="f"),))])
    )
    assert [event["delta"] for event in events if "delta" in event][:2] == ["\ud83d", "\ude00"]


def test_what_fails_before_the_first_delta_fails_before_the_first_event() -> None:
    def broken() -> Generator[Delta, None, None]:
        raise DependencyUnavailable("down")
        yield Delta()

    with pytest.raises(DependencyUnavailable):
        next(response_events(broken(), output_id=OUTPUT, describe=lambda *_: {}, incomplete=INCOMPLETE))


def test_closing_the_events_closes_the_deltas() -> None:
    closed = []

    def generated() -> Generator[Delta, None, None]:
        try:
            yield Delta(text="a")
            yield Delta(text="b")
        finally:
            closed.append(True)

    events = response_events(generated(), output_id=OUTPUT, describe=lambda *_: {}, incomplete=INCOMPLETE)
    next(events)
    events.close()
    assert closed == [True]


def test_a_failure_in_the_middle_is_an_error_event_as_documented_and_as_sent() -> None:
    error: JsonValue = {
        "type": "DependencyUnavailable",
        "code": "dependency_unavailable",
        "message": "gone",
        "param": None,
        "request_id": "req-1",
    }
    event = failure_event({"error": error}, 5)
    assert ANY_EVENT.validate_python(event).code == "dependency_unavailable"
    assert event == {
        "type": "error",
        "code": "dependency_unavailable",
        "message": "gone",
        "param": None,
        "error": error,
        "sequence_number": 5,
    }


ARGUMENTS = st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=3), max_size=3).map(json.dumps)


@st.composite
def answers(draw: st.DrawFn) -> list[Delta]:
    """A text and calls in pieces, each in its own order, mixed with one another."""
    sources: list[list[Delta]] = [[Delta(text=text) for text in draw(st.lists(st.text(min_size=1, max_size=4), max_size=4))]]
    for index in range(draw(st.integers(0, 3))):
        arguments = draw(ARGUMENTS)
        cuts = sorted(draw(st.lists(st.integers(0, len(arguments)), max_size=3)))
        pieces = [arguments[start:end] for start, end in zip([0, *cuts], [*cuts, len(arguments)], strict=True)]
        first = ToolCallDelta(index, pieces[0], id=f"call_{index}", name="look_up")
        sources.append([Delta(tool_calls=(piece,)) for piece in (first, *(ToolCallDelta(index, text) for text in pieces[1:]))])
    mixed = []
    while remaining := [source for source in sources if source]:
        mixed.append(draw(st.sampled_from(remaining)).pop(0))
    return [*mixed, Delta(finish_reason=draw(st.sampled_from(["stop", "tool_calls"]))), Delta(usage=USAGE)]


@settings(max_examples=50)
@given(answers())
def test_whatever_order_pieces_come_in_the_response_holds_what_is_stored(deltas: list[Delta]) -> None:
    collected = Collected()
    for delta in deltas:
        collected.add(delta)
    choice = collected.completion().choices[0]
    events = list(stream(deltas))
    state = accumulated(events)
    output = events[-1]["response"]["output"]
    calls = sorted((item["call_id"], item["name"], item["arguments"]) for item in output if item["type"] == "function_call")
    assert calls == [(call.id, call.function.name, call.function.arguments) for call in choice.tool_calls]
    assert state._completed_response.output_text == choice.text
    assert [event["output_index"] for event in events if event["type"] == "response.output_item.done"] == list(range(len(output)))
    open_items = 0
    for event in events:
        open_items += {"response.output_item.added": 1, "response.output_item.done": -1}.get(event["type"], 0)
        assert open_items in (0, 1)


def test_what_the_model_thinks_is_an_item_before_the_message() -> None:
    pieces = [Delta(reasoning_content="H"), Delta(reasoning_content="m."), Delta(text="Hi"), Delta(finish_reason="stop")]
    events = list(stream([*pieces, Delta(usage=Usage(input_tokens=7, output_tokens=3, reasoning_tokens=2))]))
    assert shown(events) == [
        ("created", None),
        ("in_progress", None),
        ("output_item.added", None),
        ("content_part.added", None),
        ("reasoning_text.delta", "H"),
        ("reasoning_text.delta", "m."),
        ("reasoning_text.done", "Hm."),
        ("content_part.done", None),
        ("output_item.done", None),
        ("output_item.added", None),
        ("content_part.added", None),
        ("output_text.delta", "Hi"),
        ("output_text.done", "Hi"),
        ("content_part.done", None),
        ("output_item.done", None),
        ("completed", None),
    ]
    response = accumulated(events)._completed_response
    thought: dict[str, Any] = {"id": MESSAGE.replace("msg_", "rs_"), "type": "reasoning", "status": "completed", "summary": []}
    assert response.output[0].model_dump(exclude_none=True) == {**thought, "content": [{"type": "reasoning_text", "text": "Hm."}]}
    assert (response.output_text, response.usage.output_tokens_details.reasoning_tokens) == ("Hi", 2)


def test_an_answer_that_ends_in_thought_has_an_empty_message() -> None:
    last = list(stream([Delta(reasoning_content="Hm."), Delta(finish_reason="length")]))[-1]["response"]
    assert [item["type"] for item in last["output"]] == ["reasoning", "message"]
    assert last["output"] == output_items(Choice("", "length", reasoning_content="Hm."), OUTPUT, incomplete=True)


def test_the_pages_that_a_text_cites_come_after_it_and_the_tier_last() -> None:
    processing = Processing("fp_1", "priority")
    pieces = [Delta(text="Hi", processing=processing), Delta(annotations=(CITATION,), processing=processing), Delta(finish_reason="stop")]
    events = list(stream(pieces))
    cited = {"type": "url_citation", "url": "https://a.example", "title": "A", "start_index": 0, "end_index": 2}
    [added] = [event for event in events if event["type"] == "response.output_text.annotation.added"]
    assert (added["annotation"], added["annotation_index"], added["content_index"]) == (cited, 0, 0)
    response = accumulated(events)._completed_response
    assert response.output[0].content[0].annotations[0].model_dump() == cited
    assert response.service_tier == "priority"
    assert events[0]["response"]["service_tier"] is None


@given(
    st.text(max_size=9),
    st.lists(ARGUMENTS, max_size=3),
    st.sampled_from(["stop", "length", "content_filter", None]),
    st.sampled_from(["Hm.", None]),
    st.sampled_from([(), (CITATION,)]),
)
def test_a_whole_answer_streams_to_the_same_items(
    text: str, arguments: list[str], reason: str | None, thoughts: str | None, annotations: tuple[Any, ...]
) -> None:
    calls = tuple(ToolCall(id=f"call_{at}", function=CalledFunction(name="f", arguments=one)) for at, one in enumerate(arguments))
    choice = Choice(text, reason, tool_calls=calls, reasoning_content=thoughts, annotations=annotations if text else ())
    last = list(stream(split_choices([choice], USAGE)))[-1]
    assert last["response"]["output"] == output_items(choice, OUTPUT, incomplete=reason in INCOMPLETE)
