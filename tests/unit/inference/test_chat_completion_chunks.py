"""Streams of chat completion chunks, in the shapes that OpenAI's clients take apart."""

from collections.abc import Generator, Iterable
from datetime import UTC, datetime
from typing import Any

import pytest
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from rlaas.chat import CalledFunction, Choice, Delta, Processing, ToolCall, ToolCallDelta, Usage
from rlaas.errors import DependencyUnavailable
from rlaas.inference.chat_completion_chunks import chunks
from rlaas.inference.collect import split_choices

NOW = datetime(2026, 3, 1, tzinfo=UTC)
USAGE = Usage(input_tokens=7, output_tokens=3)
CITATION: Any = {"type": "url_citation", "url_citation": {"url": "https://a.example", "title": "A", "start_index": 0, "end_index": 2}}
CALL = ToolCall(id="call_1", function=CalledFunction(name="look_up", arguments='{"order": 7}'))


def stream(deltas: Iterable[Delta], *, include_usage: bool = False, **extras: Any) -> Generator[dict[str, Any], None, None]:
    def generate() -> Generator[Delta, None, None]:
        yield from deltas

    return chunks(generate(), completion_id="out_1", model="rlaas::drafts", created=NOW, include_usage=include_usage, extras=extras)


def accumulate(sent: Iterable[dict[str, Any]]) -> ChatCompletion:
    """What OpenAI's own client makes of the chunks."""
    state: Any = ChatCompletionStreamState()
    for chunk in sent:
        state.handle_chunk(ChatCompletionChunk.model_validate(chunk))
    completion: ChatCompletion = state.get_final_completion()
    return completion


def test_every_chunk_has_the_same_id_model_and_time_and_the_role_comes_first() -> None:
    sent = list(stream([Delta(text="Dear"), Delta(text=" Ada"), Delta(finish_reason="stop"), Delta(usage=USAGE)]))
    assert {(chunk["id"], chunk["object"], chunk["created"], chunk["model"]) for chunk in sent} == {
        ("out_1", "chat.completion.chunk", int(NOW.timestamp()), "rlaas::drafts")
    }
    assert [chunk["choices"][0]["delta"] for chunk in sent] == [
        {"role": "assistant", "content": "Dear", "refusal": None},
        {"content": " Ada"},
        {},
    ]
    assert [chunk["choices"][0]["finish_reason"] for chunk in sent] == [None, None, "stop"]
    assert all("usage" not in chunk for chunk in sent)


def test_usage_is_a_last_chunk_without_choices_and_null_before() -> None:
    *others, last = stream([Delta(text="Hi"), Delta(finish_reason="stop"), Delta(usage=USAGE)], include_usage=True)
    assert [chunk["usage"] for chunk in others] == [None, None]
    assert last["choices"] == []
    assert last["usage"] == {
        "prompt_tokens": 7,
        "completion_tokens": 3,
        "total_tokens": 10,
        "prompt_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


def test_our_own_fields_stand_in_the_first_chunk_alone() -> None:
    extras: dict[str, Any] = {"rlaas::policy_id": "p@v1"}
    first, *rest = stream([Delta(text="Hi"), Delta(finish_reason="stop")], **extras)
    assert first["rlaas::policy_id"] == "p@v1"
    assert all("rlaas::policy_id" not in chunk for chunk in rest)


def test_tool_calls_in_pieces_are_put_together_by_their_index() -> None:
    pieces = [
        Delta(tool_calls=(ToolCallDelta(0, '{"or', id="call_1", name="look_up"),)),
        Delta(tool_calls=(ToolCallDelta(1, "{}", id="call_2", name="refund"),)),
        Delta(tool_calls=(ToolCallDelta(0, 'der": 7}'),)),
        Delta(finish_reason="tool_calls"),
    ]
    sent = list(stream(pieces))
    assert sent[0]["choices"][0]["delta"]["tool_calls"] == [
        {"index": 0, "id": "call_1", "type": "function", "function": {"name": "look_up", "arguments": '{"or'}}
    ]
    assert sent[2]["choices"][0]["delta"]["tool_calls"] == [{"index": 0, "function": {"arguments": 'der": 7}'}}]
    calls: Any = accumulate(sent).choices[0].message.tool_calls
    assert [(call.id, call.function.name, call.function.arguments) for call in calls] == [
        ("call_1", "look_up", '{"order": 7}'),
        ("call_2", "refund", "{}"),
    ]


def test_choices_that_interleave_each_begin_with_their_role() -> None:
    sent = list(stream([Delta(0, "a"), Delta(1, "b"), Delta(0, "c"), Delta(0, finish_reason="stop"), Delta(1, finish_reason="stop")]))
    assert [chunk["choices"][0]["delta"].get("role") for chunk in sent] == ["assistant", "assistant", None, None, None]
    assert [(choice.message.content, choice.finish_reason) for choice in accumulate(sent).choices] == [("ac", "stop"), ("b", "stop")]


def test_a_whole_answer_streams_to_the_same_answer() -> None:
    choices = [Choice("Dear Ada", "stop", refusal=None), Choice("", "tool_calls", tool_calls=(CALL,)), Choice("", None, refusal="No.")]
    completion = accumulate(stream(split_choices(choices, USAGE), include_usage=True))
    assert [choice.finish_reason for choice in completion.choices] == ["stop", "tool_calls", "stop"]
    assert (completion.choices[0].message.content, completion.choices[2].message.refusal) == ("Dear Ada", "No.")
    [call] = completion.choices[1].message.tool_calls or []
    assert call.model_dump(include={"id", "function"}, exclude_none=True)["id"] == "call_1"
    assert completion.usage is not None
    assert completion.usage.total_tokens == 10


def test_thoughts_citations_signatures_and_how_the_call_was_processed_reach_the_client() -> None:
    processing = Processing("fp_1", "flex")
    call = ToolCallDelta(0, "{}", "call_1", "look_up", {"google": {"thought_signature": "c2ln"}})
    sent = list(
        stream(
            [
                Delta(reasoning_content="H", processing=processing),
                Delta(reasoning_content="m.", processing=processing),
                Delta(text="Hi", annotations=(CITATION,), tool_calls=(call,), processing=processing),
                Delta(finish_reason="tool_calls", processing=processing),
                Delta(usage=Usage(input_tokens=7, output_tokens=3, reasoning_tokens=2)),
            ],
            include_usage=True,
        )
    )
    pieces: list[Any] = [chunk["choices"][0]["delta"] for chunk in sent[:3]]
    assert [piece.get("reasoning_content") for piece in pieces] == ["H", "m.", None]
    assert pieces[2]["annotations"] == [CITATION]
    assert pieces[2]["tool_calls"][0]["extra_content"] == {"google": {"thought_signature": "c2ln"}}
    completion: Any = accumulate(sent)
    assert (completion.system_fingerprint, completion.service_tier) == ("fp_1", "flex")
    assert completion.usage.completion_tokens_details.reasoning_tokens == 2


def test_logprobs_pass_through() -> None:
    [chunk] = stream([Delta(logprobs={"content": []})])
    assert chunk["choices"][0]["logprobs"] == {"content": []}


def test_what_fails_before_the_first_delta_fails_before_the_first_chunk() -> None:
    def broken() -> Generator[Delta, None, None]:
        raise DependencyUnavailable("down")
        yield Delta()

    with pytest.raises(DependencyUnavailable):
        next(chunks(broken(), completion_id="out_1", model="m", created=NOW, include_usage=True, extras={}))


def test_closing_the_chunks_closes_the_deltas() -> None:
    closed = []

    def generate() -> Generator[Delta, None, None]:
        try:
            yield Delta(text="a")
            yield Delta(text="b")
        finally:
            closed.append(True)

    sent = chunks(generate(), completion_id="out_1", model="m", created=NOW, include_usage=False, extras={})
    next(sent)
    sent.close()
    assert closed == [True]
