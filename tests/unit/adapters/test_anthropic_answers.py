"""Anthropic's answers, also as proxies send them on."""

import json
from typing import Any

import pytest

from rlaas.adapters.models.anthropic import read_completion, read_deltas
from rlaas.adapters.models.server_sent_events import event_data
from rlaas.chat import BackendFailed, Completion, Delta, Processing, Usage
from rlaas.inference.collect import Collected
from rlaas.metering.prices import Price, compute_cost

USAGE = {"input_tokens": 9, "output_tokens": 2}


def started(usage: Any = None) -> dict[str, Any]:
    return {
        "type": "message_start",
        "message": {"model": "claude", "usage": {"input_tokens": 9, "output_tokens": 1} if usage is None else usage},
    }


def begun(index: int, **block: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": block}


def piece(index: int, **delta: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": delta}


def ended(reason: str = "end_turn", usage: Any = None) -> list[dict[str, Any]]:
    delta = {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": {"output_tokens": 2} if usage is None else usage}
    return [delta, {"type": "message_stop"}]


def stream(*events: dict[str, Any]) -> list[Delta]:
    return list(read_deltas(json.dumps(event).encode() for event in events))


def collect(deltas: list[Delta]) -> Completion:
    pieces = Collected()
    for delta in deltas:
        pieces.add(delta)
    return pieces.completion()


def whole(*blocks: dict[str, Any], reason: str = "end_turn", usage: Any = None) -> Completion:
    return read_completion(json.dumps({"model": "claude", "content": blocks, "stop_reason": reason, "usage": usage}).encode())


def test_a_stream_with_data_lines_only_is_read_by_the_types_in_its_data() -> None:
    events = [started(), begun(0, type="text", text=""), piece(0, type="text_delta", text="h\u2028i"), *ended()]
    wire = b": ping\r\n\r\ndata:\r\n\r\n" + b"".join(
        b"data:" + json.dumps(one, ensure_ascii=False).encode() + b"\r\n\r\n" for one in events
    )
    answer = collect(list(read_deltas(event_data([wire]))))
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == ("h\u2028i", "stop")
    assert answer.usage == Usage(input_tokens=9, output_tokens=2)


def test_an_error_after_content_is_no_end_of_the_answer() -> None:
    events = [started(), begun(0, type="text", text=""), piece(0, type="text_delta", text="Dear Ada"), {"type": "error", "error": {}}]
    deltas = read_deltas(json.dumps(event).encode() for event in events)
    assert [next(deltas).text, next(deltas).text] == ["", "Dear Ada"]
    with pytest.raises(BackendFailed, match="mid-answer"):
        next(deltas)


def test_tokens_that_a_stream_read_from_the_cache_are_priced_as_such() -> None:
    cached = {"input_tokens": 4, "cache_read_input_tokens": 2455, "cache_creation_input_tokens": 0, "output_tokens": 1}
    [*_, last] = stream(started(cached), begun(0, type="text", text="hi"), *ended(usage={"output_tokens": 23}))
    assert last.usage == Usage(input_tokens=2459, output_tokens=23, cached_tokens=2455)
    nano = compute_cost(Price(input=0.8, output=4.0, cached_input=0.08), last.usage)
    assert nano == 291_600


def test_tokens_that_were_written_to_the_cache_are_counted_by_how_long_they_stay() -> None:
    counts = {"input_tokens": 4, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 1000, "output_tokens": 2}
    by_ttl = {"ephemeral_5m_input_tokens": 400, "ephemeral_1h_input_tokens": 600}
    expected = Usage(input_tokens=1104, output_tokens=2, cached_tokens=100, cache_write_tokens=1000, cache_write_1h_tokens=600)
    usage = {**counts, "cache_creation": by_ttl}
    assert whole({"type": "text", "text": "hi"}, usage=usage).usage == expected
    [first, *_, last] = stream(started(usage), begun(0, type="text", text="hi"), *ended())
    assert first.usage == last.usage == expected
    older = whole({"type": "text", "text": "hi"}, usage={**counts, "cache_creation": None}).usage
    assert older == expected.model_copy(update={"cache_write_1h_tokens": 0})


@pytest.mark.parametrize("usage", [{}, [], 7, {"input_tokens": None, "output_tokens": None}, {"input_tokens": -4, "output_tokens": 2}])
def test_counts_that_are_missing_or_cannot_be_are_none_and_the_answer_stands(usage: Any) -> None:
    answer = whole({"type": "text", "text": "hi"}, usage=usage)
    assert (answer.choices[0].text, answer.usage) == ("hi", None)
    streamed = collect(stream(started(usage), begun(0, type="text", text="hi"), *ended(usage=usage)))
    assert (streamed.choices[0].text, streamed.usage) == ("hi", None)


def test_what_the_model_thought_stands_beside_the_answer_and_is_counted() -> None:
    usage = {"input_tokens": 9, "output_tokens": 40, "output_tokens_details": {"thinking_tokens": 30}, "service_tier": "priority"}
    answer = whole({"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}, {"type": "text", "text": "hi"}, usage=usage)
    assert (answer.choices[0].text, answer.choices[0].reasoning_content) == ("hi", "Hm.")
    assert answer.usage == Usage(input_tokens=9, output_tokens=40, reasoning_tokens=30)
    assert answer.processing == Processing(service_tier="priority")
    later = {"output_tokens": 40, "output_tokens_details": {"thinking_tokens": 30}}
    thought = [
        begun(0, type="thinking", thinking="", signature=""),
        piece(0, type="thinking_delta", thinking="H"),
        piece(0, type="thinking_delta", thinking="m."),
        piece(0, type="signature_delta", signature="c2ln"),
    ]
    start = started({"input_tokens": 9, "output_tokens": 1, "service_tier": "priority"})
    streamed = collect(stream(start, *thought, begun(1, type="text", text=""), piece(1, type="text_delta", text="hi"), *ended(usage=later)))
    assert streamed == answer


def test_an_answer_that_calls_tools_says_so_and_its_calls_have_ids() -> None:
    tool = {"type": "tool_use", "id": None, "name": "find", "input": None}
    answer = whole(tool, tool).choices[0]
    assert (answer.finish_reason, [call.function.arguments for call in answer.tool_calls]) == ("tool_calls", ["{}", "{}"])
    assert len({call.id for call in answer.tool_calls} - {""}) == 2
    streamed = collect(stream(started(), begun(0, **tool), piece(0, type="input_json_delta", partial_json='{"a":1}'), *ended())).choices[0]
    assert (streamed.finish_reason, [call.function.arguments for call in streamed.tool_calls]) == ("tool_calls", ['{"a":1}'])


def test_arguments_that_a_stream_has_at_the_start_of_a_call_alone_are_its_arguments() -> None:
    tool = {"type": "tool_use", "id": "toolu_1", "name": "find", "input": {"order": 7}}
    stop = {"type": "content_block_stop", "index": 0}
    deltas = (piece(0, type="input_json_delta", partial_json=text) for text in ('{"order":', " 8}"))
    for between, arguments in (([], '{"order": 7}'), (deltas, '{"order": 8}')):
        [one] = collect(stream(started(), begun(0, **tool), *between, stop, *ended("tool_use"))).choices[0].tool_calls
        assert one.function.arguments == arguments


def test_the_halves_of_a_character_in_two_pieces_are_one_character() -> None:
    texts = [piece(0, type="text_delta", text=text) for text in ("Hi \ud83d", "\ude00")]
    assert collect(stream(started(), begun(0, type="text", text=""), *texts, *ended())).choices[0].text == "Hi 😀"


def test_null_fields_do_not_cost_the_answer() -> None:
    blocks: list[dict[str, Any]] = [{"type": "text", "text": None}, {"type": "text", "text": "hi", "citations": None}, {"type": "later"}]
    assert whole(*blocks).choices[0].text == "hi"
    assert read_completion(b'{"content": null, "stop_reason": "end_turn"}').choices[0].text == ""
