"""What learning makes of imported rows: their events go through the dataset job's own code and become pairs and
demonstrations."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from rlaas.preferences.dataset import build_trl_row
from rlaas.preferences.pairs import PairSet, build_pairs
from rlaas.telemetry import ingest
from rlaas.telemetry.events import AnyEvent, FeedbackSubmitted, InteractionCreated, OutputProduced
from rlaas_sdk import Client
from rlaas_sdk.imports import langfuse_export, litellm_logs, openai_logs
from rlaas_sdk.imports.csv_columns import ColumnMap
from rlaas_sdk.imports.exchange import ImportContext
from rlaas_sdk.imports.identity import Identity
from rlaas_sdk.imports.rows import JsonObject, RowRefused
from rlaas_sdk.spool import MEMORY
from tests.sdk.stub_service import KEY, StubService
from tests.unit.imports.conftest import SKILL
from tests.unit.imports.test_formats import NoTraces

MODELS: dict[str, type[AnyEvent]] = {"interaction": InteractionCreated, "output": OutputProduced, "feedback": FeedbackSubmitted}
DRAFT, FINAL = "Dear customer, thanks for writing to us.", "Hi Ada, we refunded the second charge."
QUESTION: list[Any] = [{"role": "user", "content": "I was charged twice."}]
TICKETS = ColumnMap.parse(["prompt=asked", "text=draft", "final_text=sent", "action=verdict", "system=house"])


def build_learned_pairs(*rows: Sequence[Mapping[str, object]]) -> PairSet:
    """The pairs of the rows' events, checked and stored as the service does it."""
    events = [event for row in rows for event in row]
    now = datetime.now(UTC)
    bodies = [(str(event["type"]), {name: value for name, value in event.items() if name != "type"}) for event in events]
    return build_pairs(ingest.prepare(MODELS[kind].model_validate_json(json.dumps(body)), "acme", received_at=now) for kind, body in bodies)


def read_openai(row: JsonObject, own_id: str = "row") -> list[JsonObject]:
    return openai_logs.build_events(row, ImportContext(Identity("openai", SKILL)), own_id)


def read_langfuse(row: JsonObject) -> list[JsonObject]:
    return langfuse_export.LangfuseReader(NoTraces()).build_events(row, ImportContext(Identity("langfuse", SKILL)), "row")


def read_csv(row: JsonObject) -> list[JsonObject]:
    return TICKETS.build_events(row, ImportContext(Identity("csv", SKILL)), "row")


def build_preference(messages: list[Any] = QUESTION, **more: Any) -> JsonObject:
    outputs: list[Any] = [[{"role": "assistant", "content": text}] for text in (FINAL, DRAFT)]
    return {"input": {"messages": messages, **more}, "preferred_output": outputs[0], "non_preferred_output": outputs[1]}


def build_generation(**more: Any) -> JsonObject:
    return {"id": "gen-1", "type": "GENERATION", "startTime": "2025-05-02T09:00:00Z", "output": DRAFT, **more}


CORRECTION = read_langfuse({"id": "s", "dataType": "CORRECTION", "name": "output", "observationId": "gen-1", "stringValue": FINAL})


@pytest.mark.parametrize(
    "rows",
    [
        [read_openai(build_preference())],
        [read_csv({"asked": "I was charged twice.", "draft": DRAFT, "sent": FINAL, "verdict": "sent"})],
        [read_csv({"asked": "I was charged twice.", "draft": DRAFT, "sent": FINAL, "verdict": "discarded"})],
        [read_langfuse(build_generation(input=QUESTION)), CORRECTION],
        [read_langfuse(build_generation(input={"email": "I was charged twice."})), CORRECTION],
        [read_langfuse(build_generation(input="I was charged twice.")), CORRECTION],
    ],
)
def test_rows_that_say_which_text_was_better_make_a_pair(rows: list[list[JsonObject]]) -> None:
    pair_set = build_learned_pairs(*rows)
    assert [(pair.chosen, pair.rejected, pair.prompt[-1].content) for pair in pair_set.pairs] == [(FINAL, DRAFT, "I was charged twice.")]
    assert pair_set.dropped == {}


@pytest.mark.parametrize(
    "row",
    [
        read_openai({"messages": [*QUESTION, {"role": "assistant", "content": FINAL}]}),
        read_csv({"asked": "I was charged twice.", "draft": FINAL, "verdict": "sent"}),
        read_csv({"asked": "I was charged twice.", "sent": FINAL}),
    ],
)
def test_rows_that_say_what_was_right_are_demonstrations(row: list[JsonObject]) -> None:
    (pair,) = build_learned_pairs(row).pairs
    assert (pair.demonstration, pair.chosen, pair.prompt[-1].content) == (True, FINAL, "I was charged twice.")


def test_the_sdks_three_calls_make_a_pair_like_a_row() -> None:
    service = StubService()
    try:
        with Client(service.url, KEY, spool=MEMORY, strict=True) as client:
            asked = client.log_interaction(SKILL, inputs={"email": "I was charged twice."})
            drafted = client.log_output(SKILL, asked, DRAFT)
            client.submit_feedback(SKILL, output_id=drafted, final_text=FINAL)
            assert client.flush(30)
    finally:
        service.stop()
    pair_set = build_learned_pairs([dict(event) for event in service.stored.values()])
    assert [(pair.chosen, pair.rejected) for pair in pair_set.pairs] == [(FINAL, DRAFT)]
    assert "I was charged twice." in pair_set.pairs[0].prompt[-1].content
    assert pair_set.dropped == {}


def test_rows_that_say_nothing_of_the_answer_are_counted() -> None:
    choices: Any = [{"message": {"role": "assistant", "content": text}} for text in (DRAFT, FINAL)]
    logged_call = read_openai({"request": {"messages": QUESTION}, "response": {"id": "c", "choices": choices}})
    spend_log: JsonObject = {
        "id": "l",
        "call_type": "completion",
        "startTime": 1741000000,
        "messages": QUESTION,
        "response": {"choices": choices},
    }
    spend_events = litellm_logs.build_events(spend_log, ImportContext(Identity("litellm", SKILL)), "row")
    tuning_events = read_openai({"messages": [*QUESTION, {"role": "assistant", "content": FINAL, "weight": 0}]}, "row2")
    pair_set = build_learned_pairs(logged_call, spend_events, tuning_events)
    assert (pair_set.pairs, pair_set.dropped, pair_set.outputs) == ((), {"no_feedback": 5}, 5)


def test_prompts_keep_their_system_message_developers_words_and_text_parts() -> None:
    parts: list[Any] = [{"type": "text", "text": "I was "}, {"type": "input_text", "text": "charged twice."}]
    messages: list[Any] = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": parts, "name": "ada"}]
    (pair,) = build_learned_pairs(read_openai(build_preference(messages))).pairs
    assert [(message.role, message.content) for message in pair.prompt] == [("system", "Be brief."), ("user", "I was charged twice.")]
    (pair,) = build_learned_pairs(read_csv({"asked": "Twice!", "draft": DRAFT, "sent": FINAL, "house": "Be kind."})).pairs
    assert [message.content for message in pair.prompt] == ["Be kind.", "Twice!"]


CALL: Any = {"id": "call_1", "type": "function", "function": {"name": "find_order", "arguments": '{"order": 7}'}}
EXPECTED_PROMPT = [
    ("user", "Where is it?", (), None),
    ("assistant", "", (("find_order", {"order": 7}),), None),
    ("tool", "left today", (), True),
]


@pytest.mark.parametrize(
    "messages",
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
def test_prompts_keep_their_tool_calls_whoever_wrote_them_down(messages: list[Any]) -> None:
    tools = [{"type": "function", "function": {"name": "find_order", "parameters": {"type": "object"}}}]
    (pair,) = build_learned_pairs(read_openai(build_preference(messages, tools=tools))).pairs
    calls = [tuple((call.function.name, json.loads(call.function.arguments)) for call in message.tool_calls) for message in pair.prompt]
    answers = [message.tool_call_id is not None or None for message in pair.prompt]
    assert [(message.role, message.content, *rest) for message, *rest in zip(pair.prompt, calls, answers, strict=True)] == EXPECTED_PROMPT
    assert pair.prompt[1].tool_calls[0].id == pair.prompt[2].tool_call_id
    assert json.loads(str(build_trl_row(pair)["tools"])) == tools


def test_calls_side_by_side_are_one_messages_and_each_result_finds_its_own() -> None:
    items: list[Any] = [{"type": "function_call", "call_id": f"c{n}", "name": "look", "arguments": f'{{"n":{n}}}'} for n in (1, 2)]
    items += [{"type": "function_call_output", "call_id": f"c{n}", "output": {"found": n}} for n in (2, 1)]
    (pair,) = build_learned_pairs(read_openai(build_preference([*QUESTION, *items]))).pairs
    assert [call.id for call in pair.prompt[1].tool_calls] == ["c1", "c2"]
    assert [(message.tool_call_id, message.content) for message in pair.prompt[2:]] == [("c2", '{"found": 2}'), ("c1", '{"found": 1}')]


def test_a_refusal_is_the_answers_text() -> None:
    row = build_preference()
    row["non_preferred_output"] = [{"role": "assistant", "content": None, "refusal": "I can't help with that."}]
    assert [pair.rejected for pair in build_learned_pairs(read_openai(row)).pairs] == ["I can't help with that."]


def test_an_answer_that_calls_tools_is_kept_and_no_text_to_compare() -> None:
    row = build_preference()
    row["preferred_output"] = [{"role": "assistant", "content": None, "tool_calls": [CALL]}]
    events = read_openai(row)
    assert events[1]["tool_calls"] == [CALL]
    assert build_learned_pairs(events).dropped == {"called_tools": 2}


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}], "unsupported_message"),
        ([*QUESTION, {"role": "tool", "content": "left today"}], "unsupported_message"),
        ([*QUESTION, {"role": "assistant", "content": None, "tool_calls": [{"id": "c"}]}], "tool_call"),
        ([{"type": "reasoning", "summary": []}], "no_input"),
    ],
)
def test_a_prompt_that_cannot_be_kept_whole_is_refused(messages: list[Any], reason: str) -> None:
    with pytest.raises(RowRefused) as error:
        read_openai(build_preference(messages))
    assert error.value.reason == reason
