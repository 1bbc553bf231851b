"""What imported rows are worth to learning: their events, put through the dataset job's own path, make pairs and
demonstrations."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from rlaas.preferences.dataset import trl_row
from rlaas.preferences.pairs import PairSet, build_pairs
from rlaas.telemetry import ingest
from rlaas.telemetry.events import FeedbackSubmitted, InteractionCreated, OutputProduced
from rlaas_sdk.imports import langfuse_export, litellm_logs, openai_logs
from rlaas_sdk.imports.csv_columns import ColumnMap
from rlaas_sdk.imports.exchange import Making
from rlaas_sdk.imports.identity import Identity
from rlaas_sdk.imports.rows import JsonObject, RowRefused
from tests.unit.imports.conftest import SKILL
from tests.unit.imports.test_formats import NoTraces

MODELS = {"interaction": InteractionCreated, "output": OutputProduced, "feedback": FeedbackSubmitted}
DRAFT, FINAL = "Dear customer, thanks for writing to us.", "Hi Ada, we refunded the second charge."
ASKED: list[Any] = [{"role": "user", "content": "I was charged twice."}]
TICKETS = ColumnMap.parse(["prompt=asked", "text=draft", "final_text=sent", "action=verdict", "system=house"])


def learned(*rows: list[JsonObject]) -> PairSet:
    """The pairs of the rows' events, checked and stored as the service does it."""
    events = [event for row in rows for event in row]
    now = datetime.now(UTC)
    told = [(str(event["type"]), {name: value for name, value in event.items() if name != "type"}) for event in events]
    return build_pairs(ingest.prepare(MODELS[kind].model_validate_json(json.dumps(body)), "acme", received_at=now) for kind, body in told)


def openai(row: JsonObject, own_id: str = "row") -> list[JsonObject]:
    return openai_logs.events_of(row, Making(Identity("openai", SKILL)), own_id)


def langfuse(row: JsonObject) -> list[JsonObject]:
    return langfuse_export.LangfuseReader(NoTraces()).events_of(row, Making(Identity("langfuse", SKILL)), "row")


def csv(row: JsonObject) -> list[JsonObject]:
    return TICKETS.events_of(row, Making(Identity("csv", SKILL)), "row")


def preference(asked: list[Any] = ASKED, **more: Any) -> JsonObject:
    said: list[Any] = [[{"role": "assistant", "content": text}] for text in (FINAL, DRAFT)]
    return {"input": {"messages": asked, **more}, "preferred_output": said[0], "non_preferred_output": said[1]}


def generation(**more: Any) -> JsonObject:
    return {"id": "gen-1", "type": "GENERATION", "startTime": "2025-05-02T09:00:00Z", "output": DRAFT, **more}


CORRECTED = langfuse({"id": "s", "dataType": "CORRECTION", "name": "output", "observationId": "gen-1", "stringValue": FINAL})


@pytest.mark.parametrize(
    "rows",
    [
        [openai(preference())],
        [csv({"asked": "I was charged twice.", "draft": DRAFT, "sent": FINAL, "verdict": "sent"})],
        [csv({"asked": "I was charged twice.", "draft": DRAFT, "sent": FINAL, "verdict": "discarded"})],
        [langfuse(generation(input=ASKED)), CORRECTED],
        [langfuse(generation(input={"email": "I was charged twice."})), CORRECTED],
        [langfuse(generation(input="I was charged twice.")), CORRECTED],
    ],
)
def test_rows_that_say_which_text_was_better_make_a_pair(rows: list[list[JsonObject]]) -> None:
    made = learned(*rows)
    assert [(pair.chosen, pair.rejected, pair.prompt[-1].content) for pair in made.pairs] == [(FINAL, DRAFT, "I was charged twice.")]
    assert made.dropped == {}


@pytest.mark.parametrize(
    "row",
    [
        openai({"messages": [*ASKED, {"role": "assistant", "content": FINAL}]}),
        csv({"asked": "I was charged twice.", "draft": FINAL, "verdict": "sent"}),
        csv({"asked": "I was charged twice.", "sent": FINAL}),
    ],
)
def test_rows_that_say_what_was_right_are_demonstrations(row: list[JsonObject]) -> None:
    (pair,) = learned(row).pairs
    assert (pair.demonstration, pair.chosen, pair.prompt[-1].content) == (True, FINAL, "I was charged twice.")


def test_rows_that_say_nothing_of_the_answer_are_counted() -> None:
    choices: Any = [{"message": {"role": "assistant", "content": text}} for text in (DRAFT, FINAL)]
    logged = openai({"request": {"messages": ASKED}, "response": {"id": "c", "choices": choices}})
    priced: JsonObject = {
        "id": "l",
        "call_type": "completion",
        "startTime": 1741000000,
        "messages": ASKED,
        "response": {"choices": choices},
    }
    unrated = litellm_logs.events_of(priced, Making(Identity("litellm", SKILL)), "row")
    refused = openai({"messages": [*ASKED, {"role": "assistant", "content": FINAL, "weight": 0}]}, "row2")
    made = learned(logged, unrated, refused)
    assert (made.pairs, made.dropped, made.outputs) == ((), {"no_feedback": 5}, 5)


def test_prompts_keep_their_system_message_developers_words_and_text_parts() -> None:
    parts: list[Any] = [{"type": "text", "text": "I was "}, {"type": "input_text", "text": "charged twice."}]
    asked: list[Any] = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": parts, "name": "ada"}]
    (pair,) = learned(openai(preference(asked))).pairs
    assert [(said.role, said.content) for said in pair.prompt] == [("system", "Be brief."), ("user", "I was charged twice.")]
    (pair,) = learned(csv({"asked": "Twice!", "draft": DRAFT, "sent": FINAL, "house": "Be kind."})).pairs
    assert [said.content for said in pair.prompt] == ["Be kind.", "Twice!"]


CALL = {"id": "call_1", "type": "function", "function": {"name": "find_order", "arguments": '{"order": 7}'}}
KEPT = [
    ("user", "Where is it?", (), None),
    ("assistant", "", (("find_order", {"order": 7}),), None),
    ("tool", "left today", (), True),
]


@pytest.mark.parametrize(
    "asked",
    [
        [
            {"role": "user", "content": "Where is it?"},
            {"role": "assistant", "content": None, "tool_calls": [CALL], "refusal": None},
            {"role": "tool", "content": "left today", "tool_call_id": "call_1"},
        ],
        [
            {"role": "user", "content": "Where is it?"},
            {"role": "assistant", "content": None, "function_call": {"name": "find_order", "arguments": '{"order":7}'}},
            {"role": "function", "name": "find_order", "content": "left today"},
        ],
        [
            {"role": "user", "content": [{"type": "input_text", "text": "Where is it?"}]},
            {"type": "reasoning", "id": "rs_1", "summary": []},
            {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "find_order", "arguments": '{"order":7}'},
            {"type": "function_call_output", "call_id": "call_1", "output": "left today"},
        ],
        [
            {"role": "user", "content": "Where is it?"},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_1", "name": "find_order", "input": {"order": 7}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "left today"}]},
        ],
        [
            {"role": "human", "content": "Where is it?"},
            {"role": "ai", "content": "", "tool_calls": [{"name": "find_order", "args": {"order": 7}, "id": "c", "type": "tool_call"}]},
            {"role": "tool", "content": "left today", "tool_call_id": "c"},
        ],
    ],
    ids=["chat", "function_call", "responses", "anthropic", "langchain"],
)
def test_prompts_keep_their_tool_calls_whoever_wrote_them_down(asked: list[Any]) -> None:
    offered = [{"type": "function", "function": {"name": "find_order", "parameters": {"type": "object"}}}]
    (pair,) = learned(openai(preference(asked, tools=offered))).pairs
    calls = [tuple((call.function.name, json.loads(call.function.arguments)) for call in said.tool_calls) for said in pair.prompt]
    answers = [said.tool_call_id is not None or None for said in pair.prompt]
    assert [(said.role, said.content, *rest) for said, *rest in zip(pair.prompt, calls, answers, strict=True)] == KEPT
    assert pair.prompt[1].tool_calls[0].id == pair.prompt[2].tool_call_id
    assert json.loads(str(trl_row(pair)["tools"])) == offered


def test_calls_side_by_side_are_one_messages_and_each_result_finds_its_own() -> None:
    items: list[Any] = [{"type": "function_call", "call_id": f"c{n}", "name": "look", "arguments": f'{{"n":{n}}}'} for n in (1, 2)]
    items += [{"type": "function_call_output", "call_id": f"c{n}", "output": {"found": n}} for n in (2, 1)]
    (pair,) = learned(openai(preference([*ASKED, *items]))).pairs
    assert [call.id for call in pair.prompt[1].tool_calls] == ["c1", "c2"]
    assert [(said.tool_call_id, said.content) for said in pair.prompt[2:]] == [("c2", '{"found": 2}'), ("c1", '{"found": 1}')]


def test_a_refusal_is_the_answers_text() -> None:
    row = preference()
    row["non_preferred_output"] = [{"role": "assistant", "content": None, "refusal": "I can't help with that."}]
    assert [pair.rejected for pair in learned(openai(row)).pairs] == ["I can't help with that."]


def test_an_answer_that_calls_tools_is_kept_and_no_text_to_compare() -> None:
    row = preference()
    row["preferred_output"] = [{"role": "assistant", "content": None, "tool_calls": [CALL]}]
    events = openai(row)
    assert events[1]["tool_calls"] == [CALL]
    assert learned(events).dropped == {"called_tools": 2}


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}], "unsupported_message"),
        ([*ASKED, {"role": "tool", "content": "left today"}], "unsupported_message"),
        ([*ASKED, {"role": "assistant", "content": None, "tool_calls": [{"id": "c"}]}], "tool_call"),
        ([{"type": "reasoning", "summary": []}], "no_input"),
    ],
)
def test_a_prompt_that_cannot_be_kept_whole_is_refused(asked: list[Any], reason: str) -> None:
    with pytest.raises(RowRefused) as refused:
        openai(preference(asked))
    assert refused.value.reason == reason
