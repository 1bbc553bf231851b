"""What servers that speak OpenAI's format loosely say, read as what they mean."""

import json
from collections.abc import Iterable
from typing import Any

import pytest

from rlaas.adapters.models.openai_answers import read_completion, read_deltas
from rlaas.chat import BackendFailed, CalledFunction, Choice, Completion, Delta, Processing, ToolCall, ToolCallDelta, Usage
from rlaas.errors import InvalidInput
from rlaas.inference.collect import Collected

COUNTS = {"prompt_tokens": 4, "completion_tokens": 3}
CITATION = {"type": "url_citation", "url_citation": {"url": "https://a.example", "title": "A", "start_index": 0, "end_index": 2}}


def whole(message: dict[str, Any] | None = None, *, finish_reason: str | None = "stop", usage: Any = None, **fields: Any) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": "Hello", **(message or {})}, "finish_reason": finish_reason}
    return json.dumps({"choices": [choice], "usage": usage, **fields}).encode()


def read(content: bytes) -> Choice:
    [choice] = read_completion("the server", content).choices
    return choice


def piece(delta: dict[str, Any] | None = None, finish_reason: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta or {}, "finish_reason": finish_reason}], **fields}


def stream(*chunks: dict[str, Any] | bytes) -> list[Delta]:
    return list(read_deltas("the server", [one if isinstance(one, bytes) else json.dumps(one).encode() for one in chunks], choices=1))


def collect(deltas: Iterable[Delta]) -> Completion:
    pieces = Collected()
    for delta in deltas:
        pieces.add(delta)
    return pieces.completion()


def calling(*calls: dict[str, Any]) -> dict[str, Any]:
    return piece({"tool_calls": list(calls)})


def call(arguments: Any, name: str | None = "add", **fields: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}, **fields}


@pytest.mark.parametrize(
    "usage",
    [
        None,
        {},
        [],
        "many",
        {"prompt_tokens": None, "completion_tokens": None, "total_tokens": 0},
        {"prompt_tokens": -1, "completion_tokens": 3},
        {"prompt_tokens": 10**12, "completion_tokens": 3},
        {"prompt_tokens": 4, "completion_tokens": -3},
        {"prompt_tokens": 4},
        {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
    ],
)
def test_counts_that_are_missing_or_cannot_be_are_none_and_the_answer_stands(usage: Any) -> None:
    answer = read_completion("the server", whole(usage=usage))
    assert (answer.choices[0].text, answer.usage) == ("Hello", None)
    streamed = collect(stream(piece({"content": "Hello"}), piece({}, "stop"), {"choices": [], "usage": usage}))
    assert (streamed.choices[0].text, streamed.choices[0].finish_reason, streamed.usage) == ("Hello", "stop", None)


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt_tokens_details": {"cached_tokens": 900}},
        {"prompt_cache_hit_tokens": 900, "prompt_cache_miss_tokens": 100},
        {"cached_tokens": 900},
        {"cache_read_input_tokens": 900, "prompt_tokens_details": {"cached_tokens": 0}},
        {"cached_tokens": "?", "prompt_cache_hit_tokens": 900, "prompt_tokens_details": None},
    ],
)
def test_every_vendors_name_for_tokens_from_its_cache_is_read(fields: dict[str, Any]) -> None:
    usage = {"prompt_tokens": 1000, "completion_tokens": 10, "total_tokens": 1010, **fields}
    expected = Usage(input_tokens=1000, output_tokens=10, cached_tokens=900)
    assert read_completion("the server", whole(usage=usage)).usage == expected
    assert stream(piece({}, "stop"), {"choices": [], "usage": usage})[-1].usage == expected


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (
            {"prompt_tokens": 4, "completion_tokens": 20, "cache_read_input_tokens": 900, "total_tokens": 24},
            {"input_tokens": 904, "output_tokens": 20, "cached_tokens": 900},
        ),
        (
            {"prompt_tokens": 950, "completion_tokens": 20, "cache_read_input_tokens": 900, "total_tokens": 1870},
            {"input_tokens": 1850, "output_tokens": 20, "cached_tokens": 900},
        ),
        (
            {"input_tokens": 4, "output_tokens": 20, "cache_read_input_tokens": 900, "cache_creation_input_tokens": 100},
            {"input_tokens": 1004, "output_tokens": 20, "cached_tokens": 900, "cache_write_tokens": 100},
        ),
        (
            {"prompt_tokens": 4, "completion_tokens": 20, "cache_creation_input_tokens": 900},
            {"input_tokens": 904, "output_tokens": 20, "cache_write_tokens": 900},
        ),
        (
            {"prompt_tokens": 1000, "completion_tokens": 20, "prompt_tokens_details": {"cached_tokens": 600, "cache_write_tokens": 300}},
            {"input_tokens": 1000, "output_tokens": 20, "cached_tokens": 600, "cache_write_tokens": 300},
        ),
    ],
)
def test_a_prompt_that_leaves_out_what_a_cache_had_is_counted_with_it(usage: dict[str, Any], expected: dict[str, int]) -> None:
    assert read_completion("the server", whole(usage=usage)).usage == Usage(**expected)


@pytest.mark.parametrize(
    ("completion_tokens", "total_tokens", "fields"),
    [
        (500, 600, {"completion_tokens_details": {"reasoning_tokens": 400}}),  # OpenAI's: part of the answer
        (100, 600, {"completion_tokens_details": {"reasoning_tokens": 400}}),  # xAI's: beside the answer
        (0, 600, {"completion_tokens_details": {"reasoning_tokens": 500}}),
        (500, 600, {"output_tokens_details": {"reasoning_tokens": 400}}),
    ],
)
def test_what_the_model_thought_is_part_of_the_answers_tokens(completion_tokens: int, total_tokens: int, fields: dict[str, Any]) -> None:
    usage = {"prompt_tokens": 100, "completion_tokens": completion_tokens, "total_tokens": total_tokens, **fields}
    thought = next(iter(fields.values()))["reasoning_tokens"]
    assert read_completion("the server", whole(usage=usage)).usage == Usage(input_tokens=100, output_tokens=500, reasoning_tokens=thought)


def test_tokens_that_only_the_total_has_were_thought() -> None:
    usage = {"prompt_tokens": 20, "completion_tokens": 198, "total_tokens": 623}
    assert read_completion("Gemini", whole(usage=usage)).usage == Usage(input_tokens=20, output_tokens=603, reasoning_tokens=405)


@pytest.mark.parametrize(
    ("vendors", "openais"),
    [
        ("", None),
        ("eos", "stop"),
        ("x" * 500, "stop"),
        ("STOP", "stop"),
        ("function_call", "stop"),
        ("tool_calls", "stop"),
        ("model_length", "length"),
        ("MAX_TOKENS", "length"),
        ("sensitive", "content_filter"),
        ("content_filter: PROHIBITED_CONTENT", "content_filter"),
    ],
)
def test_a_reason_for_ending_is_one_that_openais_clients_know(vendors: str, openais: str | None) -> None:
    assert read(whole(finish_reason=vendors)).finish_reason == openais


@pytest.mark.parametrize(
    "reason", ["error", "ERROR", "network_error", "abort", "insufficient_system_resource", "function_call_filter: MALFORMED_FUNCTION_CALL"]
)
def test_an_answer_that_ended_in_an_error_is_a_failure(reason: str) -> None:
    with pytest.raises(BackendFailed):
        read_completion("the server", whole({"content": '{"events": [{"title": "partial'}, finish_reason=reason, usage=COUNTS))
    with pytest.raises(BackendFailed):
        stream(piece({"role": "assistant", "content": ""}, reason))


def test_a_choice_that_has_an_error_of_its_own_is_no_answer() -> None:
    failed = {"index": 0, "finish_reason": None, "error": {"code": 502, "message": "Provider returned error"}}
    with pytest.raises(BackendFailed):
        read_completion("the server", json.dumps({"choices": [{**failed, "message": {"content": ""}}]}).encode())
    with pytest.raises(BackendFailed):
        stream(piece({"content": "Dear"}), {"choices": [{**failed, "delta": {"content": ""}}]})


def test_a_stream_is_finished_by_a_reason_and_not_by_an_empty_one() -> None:
    pieces = [{"choices": [{"index": 0, "delta": {"content": word}, "finish_reason": ""}]} for word in ("Hel", "lo")]
    last = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": {"prompt_tokens": -4, "completion_tokens": 2}}
    deltas = stream(*pieces, last)
    assert ["".join(delta.text for delta in deltas), deltas[-1].finish_reason, deltas[-1].usage] == ["Hello", "stop", None]
    with pytest.raises(BackendFailed, match="broke off"):
        stream(*pieces, b"[DONE]")


PARTS = [
    {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]},
    {"type": "text", "text": "It left "},
    {"type": "reference", "reference_ids": [1]},
    {"type": "text", "text": "today."},
]


def test_content_in_parts_is_its_texts_and_what_the_model_thought_stands_beside_it() -> None:
    choice = read(whole({"content": PARTS}))
    assert (choice.text, choice.reasoning_content) == ("It left today.", "Hm.")
    deltas = stream(*(piece({"content": [part]}) for part in PARTS), piece({}, "stop"))
    assert [delta.reasoning_content for delta in deltas] == ["Hm.", None, None, None]
    assert collect(deltas).choices == (choice,)


def test_thoughts_that_stand_in_openrouters_details_alone_are_read() -> None:
    details = [
        {"type": "reasoning.summary", "summary": "H"},
        {"type": "reasoning.text", "text": "m.", "signature": None},
        {"type": "reasoning.encrypted", "data": "eHg="},
        7,
    ]
    choice = read(whole({"reasoning": None, "reasoning_details": details}))
    assert choice.reasoning_content == "Hm."
    assert read(whole({"reasoning": "Said.", "reasoning_details": details})).reasoning_content == "Said."
    streamed = collect(stream(*(piece({"reasoning_details": [one]}) for one in details), piece({"content": "Hello"}, "stop")))
    assert streamed.choices == (choice,)
    assert read(whole({"reasoning_details": [details[2]]})).reasoning_content is None


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_thoughts_citations_and_how_the_call_was_processed_are_read_whole_and_streamed(name: str) -> None:
    fields = {"system_fingerprint": "fp_1", "service_tier": "flex"}
    answer = read_completion("the server", whole({name: "Hm.", "annotations": [CITATION]}, **fields))
    assert (answer.choices[0].reasoning_content, answer.choices[0].annotations) == ("Hm.", (CITATION,))
    assert answer.processing == Processing("fp_1", "flex")
    chunks = (
        piece({name: "H", "content": ""}),
        piece({name: "m."}),
        piece({"content": "Hello", "annotations": [CITATION]}),
        piece({}, "stop"),
    )
    streamed = collect(stream(*({**chunk, **fields} for chunk in chunks)))
    assert streamed == answer


@pytest.mark.parametrize("tier", ["on_demand", "", 7, None])
def test_a_tier_that_openais_clients_do_not_know_is_left_out(tier: Any) -> None:
    assert read_completion("the server", whole(service_tier=tier)).processing == Processing()


def test_annotations_that_are_none_of_openais_are_left_out() -> None:
    others: list[Any] = [{"type": "file", "file": {"hash": "1"}}, {"type": "url_citation", "url_citation": {"url": "https://a.example"}}, 7]
    assert read(whole({"annotations": [*others, CITATION]})).annotations == (CITATION,)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"error": {"code": 502, "message": "Provider returned error"}}, BackendFailed),
        ({"error": "the model is loading"}, BackendFailed),
        ({"error": {"message": "no"}, "choices": []}, BackendFailed),
        ({"error": {"code": "429", "message": "slow down"}}, BackendFailed),
        ({"error": {"code": 400, "message": "no", "param": "temperature"}}, InvalidInput),
        ({"choices": []}, BackendFailed),
        ({"choices": None}, BackendFailed),
        ({"detail": "Not Found"}, BackendFailed),
    ],
)
def test_an_error_in_the_body_of_a_200_is_what_its_code_says(body: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error) as whole_error:
        read_completion("the server", json.dumps(body).encode())
    with pytest.raises(error) as stream_error:
        stream(body)
    if body.get("error") and isinstance(whole_error.value, BackendFailed) and isinstance(stream_error.value, BackendFailed):
        assert whole_error.value.safe_to_repeat is stream_error.value.safe_to_repeat is ("slow down" in str(body))


def test_an_empty_error_beside_an_answer_is_none() -> None:
    empty_values: tuple[Any, ...] = (None, {}, "")
    for nothing in empty_values:
        assert read(whole(error=nothing)).text == "Hello"


@pytest.mark.parametrize("content", [b"<!doctype html><title>502</title>", b"", b"null", b"[]", b'{"choices": 7}', b"\xff\xfe"])
def test_what_is_no_chat_completion_is_a_failure(content: bytes) -> None:
    with pytest.raises(BackendFailed, match="not a chat completion"):
        read_completion("the server", content)


def test_fields_of_other_types_than_openais_do_not_cost_the_answer() -> None:
    odd: dict[str, Any] = {"refusal": {}, "annotations": {}, "tool_calls": None, "reasoning_content": [], "audio": 7}
    content = whole(odd, model=7, system_fingerprint=7, usage=7)
    assert read(content) == Choice("Hello", "stop")
    chunk = {"choices": [{"index": None, "delta": None, "finish_reason": None, "logprobs": 7}]}
    assert [delta.text for delta in stream({"choices": None}, {}, b" ", chunk, piece({"content": "Hi", **odd}), piece({}, "stop"))] == [
        *("", "Hi", ""),
    ]


ONE_INDEX = [{"index": 0}, {}, {"index": None}]


@pytest.mark.parametrize("index", ONE_INDEX)
def test_another_id_and_name_begins_another_call_whatever_its_index(index: dict[str, Any]) -> None:
    deltas = stream(
        calling(call("", id="call_1", **index)),
        calling(call('{"day": 1}', name=None, **index)),
        calling(call('{"day": 2}', id="call_2", **index)),
        piece({}, "tool_calls"),
    )
    assert [(one.index, one.id, one.name, one.arguments) for delta in deltas for one in delta.tool_calls] == [
        (0, "call_1", "add", ""),
        (0, None, None, '{"day": 1}'),
        (1, "call_2", "add", '{"day": 2}'),
    ]


@pytest.mark.parametrize("index", ONE_INDEX)
def test_a_name_after_whole_arguments_begins_another_call_where_there_are_no_ids(index: dict[str, Any]) -> None:
    deltas = stream(*(calling(call(f'{{"day": "{day}}}"}}', id="", **index)) for day in (1, 2)), piece({}, "stop"))
    calls = collect(deltas).choices[0].tool_calls
    assert [one.function.arguments for one in calls] == ['{"day": "1}"}', '{"day": "2}"}']
    assert len({one.id for one in calls} - {""}) == 2


def test_an_id_and_a_name_that_come_with_each_piece_are_of_one_call_and_passed_on_once() -> None:
    deltas = stream(*(calling(call(text, id="call_1", index=0)) for text in ('{"da', 'y": ', "1}")), piece({}, "tool_calls"))
    assert [delta.tool_calls for delta in deltas] == [
        (ToolCallDelta(0, '{"da', "call_1", "add"),),
        (ToolCallDelta(0, 'y": '),),
        (ToolCallDelta(0, "1}"),),
        (),
    ]
    assert collect(deltas).choices[0].tool_calls[0].function.arguments == '{"day": 1}'


def test_pieces_of_two_calls_may_interleave_by_index_by_id_and_by_place() -> None:
    by_index = [call('{"a"', id="1", index=3), call('{"b"', id="2", index=5), call(":1}", None, index=3), call(":2}", None, index=5)]
    by_id = [call('{"a"', id="1"), call('{"b"', id="2"), call(":1}", None, id="1"), call(":2}", None, id="2")]
    for calls in (by_index, by_id):
        answer = collect(stream(*map(calling, calls), piece({}, "tool_calls"))).choices[0]
        assert [(one.id, one.function.arguments) for one in answer.tool_calls] == [("1", '{"a":1}'), ("2", '{"b":2}')]
    by_place = stream(calling(call('{"a"'), call('{"b"')), calling(call(":1}", None), call(":2}", None)), piece({}, "tool_calls"))
    assert [one.function.arguments for one in collect(by_place).choices[0].tool_calls] == ['{"a":1}', '{"b":2}']


@pytest.mark.parametrize("nothing", ["", None, "null"])
def test_a_call_without_an_id_gets_one_that_stays_the_same_over_its_pieces(nothing: str | None) -> None:
    choice = read(whole({"content": None, "tool_calls": [call("{}", id=nothing), call("{}", id=nothing)]}))
    assert len({one.id for one in choice.tool_calls if one.id.startswith("call_")}) == 2
    deltas = stream(calling(call('{"a":', id=nothing, index=0)), calling(call("1}", None, id=nothing, index=0)), piece({}, "tool_calls"))
    assert [bool(one.id) for delta in deltas for one in delta.tool_calls] == [True, False]


def test_two_calls_of_one_id_get_ids_of_their_own() -> None:
    same = [call("{}", id="call_0", index=index) for index in (0, 1)]
    whole_calls = read(whole({"tool_calls": same})).tool_calls
    streamed = collect(stream(*map(calling, same), piece({}, "tool_calls"))).choices[0].tool_calls
    for first, second in (whole_calls, streamed):
        assert first.id == "call_0" != second.id


@pytest.mark.parametrize(
    ("vendors", "openais"), [("stop", "tool_calls"), (None, "tool_calls"), ("length", "length"), ("eos", "tool_calls")]
)
def test_an_answer_that_calls_tools_says_so_however_the_vendor_says_it_ended(vendors: str | None, openais: str) -> None:
    assert read(whole({"content": None, "tool_calls": [call("{}", id="1")]}, finish_reason=vendors)).finish_reason == openais
    if vendors:
        assert stream(calling(call("{}", id="1", index=0)), piece({}, vendors))[-1].finish_reason == openais


@pytest.mark.parametrize(("sent", "arguments"), [("", "{}"), (None, "{}"), ({"a": "ü"}, '{"a": "ü"}'), ('{"a": ', '{"a": '), ("x", "x")])
def test_arguments_are_the_text_that_the_model_wrote_and_an_object_where_it_wrote_none(sent: Any, arguments: str) -> None:
    [one] = read(whole({"tool_calls": [call(sent, id="1")]})).tool_calls
    [streamed] = collect(stream(calling(call(sent, id="1", index=0)), piece({}, "tool_calls"))).choices[0].tool_calls
    assert one.function.arguments == streamed.function.arguments == arguments


def test_an_empty_object_before_the_arguments_is_none_of_them() -> None:
    pieces = (calling(call("{}", id="1", index=0)), calling(call('{"a": ', None, index=0)), calling(call("1}", None, index=0)))
    [one] = collect(stream(*pieces, piece({}, "tool_calls"))).choices[0].tool_calls
    assert one.function.arguments == '{"a": 1}'
    assert collect(stream(*pieces, calling(call("{}", "now", id="2", index=1)), piece({}, "stop"))).choices[0].tool_calls[1:] == (
        ToolCall(id="2", function=CalledFunction(name="now", arguments="{}")),
    )


def test_a_function_that_is_called_the_old_way_is_a_tool() -> None:
    function = {"name": "add", "arguments": '{"a": 1}'}
    choice = read(whole({"content": None, "function_call": function}, finish_reason="function_call"))
    pieces = ({"name": "add", "arguments": ""}, {"name": None, "arguments": '{"a": '}, {"arguments": "1}"})
    streamed = collect(stream(*(piece({"function_call": one}) for one in pieces), piece({}, "function_call"))).choices[0]
    for one in (choice, streamed):
        assert ([made.function for made in one.tool_calls], one.finish_reason) == ([CalledFunction(**function)], "tool_calls")
        assert one.tool_calls[0].id
    for nothing in (None, {}, {"name": "", "arguments": ""}, "none"):
        assert read(whole({"function_call": nothing})).tool_calls == ()


def test_what_a_vendor_must_get_back_with_a_call_is_read_whole_and_streamed() -> None:
    signed = call("{}", id="call_1", index=0, extra_content={"google": {"thought_signature": "c2ln"}})
    [one] = read(whole({"tool_calls": [signed]})).tool_calls
    assert one.extra_content == {"google": {"thought_signature": "c2ln"}}
    assert collect(stream(calling(signed), piece({}, "tool_calls"))).choices[0].tool_calls == (one,)


def test_the_halves_of_a_character_in_two_pieces_are_one_character() -> None:
    deltas = stream(
        piece({"content": "Hi \ud83d", "reasoning_content": "\ud83d"}),
        piece({"content": "\ude00!", "reasoning_content": "\ude00"}),
        calling(call('{"a": "\ud83d', id="1", index=0)),
        calling(call('\ude00"}', None, index=0)),
        piece({}, "tool_calls"),
    )
    choice = collect(deltas).choices[0]
    assert (choice.text, choice.reasoning_content, choice.tool_calls[0].function.arguments) == ("Hi 😀!", "😀", '{"a": "😀"}')
    for delta in deltas:
        repr(delta).encode()


def test_a_half_of_a_character_that_stays_alone_is_replaced() -> None:
    assert read(whole({"content": "Hi \ud83d"}, finish_reason="length")).text == "Hi \ufffd"
    assert collect(stream(piece({"content": "Hi \ud83d"}), piece({}, "length"))).choices[0].text == "Hi \ufffd"
    assert read(whole({"content": "\ude00 there", "role": "\ud83d"})).text == "\ufffd there"
    assert read(b'{"choices": [{"message": {"content": "Hi \xf0\x9f"}}]}').text == "Hi \ufffd"
    assert read(b"\xef\xbb\xbf" + whole()).text == "Hello"


def test_log_probabilities_of_a_half_of_a_character_can_be_sent_on() -> None:
    tokens = [{"token": "\ud83d", "logprob": -1.0}]
    [delta, _] = stream({"choices": [{"delta": {"content": "\ud83d"}, "logprobs": {"content": tokens}}]}, piece({}, "stop"))
    assert json.dumps(delta.logprobs, ensure_ascii=False).encode().decode() == '{"content": [{"token": "�", "logprob": -1.0}]}'


def test_a_whole_answer_to_a_request_for_a_stream_is_read_as_one_piece() -> None:
    answer = collect(stream(whole({"tool_calls": [call("{}", id="1")]}, usage=COUNTS)))
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == ("Hello", "tool_calls")
    assert answer.usage == Usage(input_tokens=4, output_tokens=3)


def test_nothing_is_passed_on_of_a_piece_that_says_nothing() -> None:
    with pytest.raises(BackendFailed):
        next(read_deltas("the server", [json.dumps(piece({"role": "assistant", "content": ""})).encode()], choices=1))
