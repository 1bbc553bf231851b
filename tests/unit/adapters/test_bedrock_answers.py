"""Bedrock's streams, as botocore reads them."""

from typing import Any

import pytest

from rlaas.adapters.models.bedrock import read_deltas
from rlaas.chat import Delta, Usage
from rlaas.inference.collect import Collected


def piece(index: int, **delta: Any) -> dict[str, Any]:
    return {"contentBlockDelta": {"contentBlockIndex": index, "delta": delta}}


def read(*events: Any) -> list[Delta]:
    return list(read_deltas(events, "claude"))


def test_what_the_model_thought_stands_beside_the_answer() -> None:
    deltas = read(
        piece(0, reasoningContent={"text": "Hm."}),
        piece(0, reasoningContent={"signature": "c2ln"}),
        piece(1, text="Hi \ud83d"),
        piece(1, text="\ude00"),
        {"messageStop": {"stopReason": "end_turn"}},
    )
    pieces = Collected()
    for delta in deltas:
        pieces.add(delta)
    [choice] = pieces.completion().choices
    assert (choice.text, choice.reasoning_content, choice.finish_reason) == ("Hi 😀", "Hm.", "stop")


@pytest.mark.parametrize(("tier", "name"), [("priority", "priority"), ("reserved", None), (None, None)])
def test_the_tier_is_said_in_openais_words(tier: str | None, name: str | None) -> None:
    metadata = {"usage": {"inputTokens": 4, "outputTokens": 2, "totalTokens": 6}, **({"serviceTier": {"type": tier}} if tier else {})}
    [*_, last] = read(piece(0, text="Hi"), {"messageStop": {"stopReason": "end_turn"}}, {"metadata": metadata})
    assert last.processing.service_tier == name


def test_an_answer_that_calls_tools_says_so_however_it_ended() -> None:
    start = {"contentBlockStart": {"contentBlockIndex": 0, "start": {"toolUse": {"toolUseId": "1", "name": "find"}}}}
    deltas = read(start, {"contentBlockStop": {"contentBlockIndex": 0}}, {"messageStop": {"stopReason": "end_turn"}})
    assert (deltas[-2].tool_calls[0].arguments, deltas[-1].finish_reason) == ("{}", "tool_calls")


@pytest.mark.parametrize("metadata", [{}, {"usage": None}, {"usage": {"inputTokens": -1, "outputTokens": 2, "totalTokens": 1}}])
def test_counts_that_are_missing_or_cannot_be_are_left_out_and_the_answer_stands(metadata: dict[str, Any]) -> None:
    deltas = read(piece(0, text="Hi"), {"messageStop": {"stopReason": "end_turn"}}, {"metadata": metadata})
    assert [(delta.text, delta.finish_reason, delta.usage) for delta in deltas] == [("Hi", None, None), ("", "stop", None)]


def test_the_usage_comes_last() -> None:
    counts = {"inputTokens": 4, "outputTokens": 2, "totalTokens": 6, "cacheReadInputTokens": 5}
    [*_, last] = read(piece(0, text="Hi"), {"messageStop": {"stopReason": "end_turn"}}, {"metadata": {"usage": counts}})
    assert last.usage == Usage(input_tokens=9, output_tokens=2, cached_tokens=5)


def test_tokens_that_were_written_to_the_cache_are_counted_by_how_long_they_stay() -> None:
    details = [{"ttl": "1h", "inputTokens": 60}, {"ttl": "5m", "inputTokens": 40}]
    counts = {"inputTokens": 4, "outputTokens": 2, "totalTokens": 6, "cacheReadInputTokens": 5, "cacheWriteInputTokens": 100}
    for usage, for_an_hour in (({**counts, "cacheDetails": details}, 60), (counts, 0)):
        [*_, last] = read(piece(0, text="Hi"), {"messageStop": {"stopReason": "end_turn"}}, {"metadata": {"usage": usage}})
        assert last.usage == Usage(
            input_tokens=109, output_tokens=2, cached_tokens=5, cache_write_tokens=100, cache_write_1h_tokens=for_an_hour
        )
