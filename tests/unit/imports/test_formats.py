"""What each format's real exports become. Every event is checked by the service's own models on its way in."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaas.telemetry.events import REPORTED
from rlaas_sdk.imports import langfuse_export, litellm_logs, openai_logs
from rlaas_sdk.imports.exchange import ImportContext
from rlaas_sdk.imports.files import SourceFile
from rlaas_sdk.imports.identity import Identity
from rlaas_sdk.imports.importing import Reader, keep_whole_row
from rlaas_sdk.imports.rows import JsonObject, RowRefused, RowSkipped
from tests.unit.imports.conftest import SAMPLES, SKILL, Command, Service, count_reasons, read_report


class NoTraces:
    """An index of traces that always finds `gen-1`."""

    def note(self, trace_id: str, started_at: str, own_id: str) -> None:
        """Remember nothing."""

    def find_last(self, trace_id: str) -> str | None:
        return "gen-1"


def index_by_source(service: Service, event_type: str) -> dict[str, dict[str, Any]]:
    return {event["metadata"]["source_id"]: event for event in service.of_type(event_type)}


def index_feedback_by_kind(service: Service) -> dict[str, dict[str, Any]]:
    return {event["kind"]: event for event in service.of_type("feedback")}


def test_a_fine_tuning_line_is_an_interaction_an_output_and_a_demonstration(service: Service, rlaas_import: Command) -> None:
    result = rlaas_import("openai", SAMPLES / "openai_fine_tuning.jsonl", "--skill", SKILL)
    assert (result.status, result.row("rows read"), result.row("events made"), result.row("new")) == (0, 3, 8, 8)
    first = next(event for event in service.of_type("interaction") if len(event["messages"]) == 2)
    assert [message["role"] for message in first["messages"]] == ["system", "user"]
    assert "occurred_at" not in first
    texts = {event["final_text"] for event in service.of_type("feedback")}
    assert texts == {"It left our warehouse this morning — tracking follows by e-mail.", "Claro, hasta mañana a las 12 h. 🙂"}
    assert len(service.of_type("output")) == 3


def test_logged_calls_become_interactions_with_an_output_per_choice(service: Service, rlaas_import: Command) -> None:
    result = rlaas_import("openai", SAMPLES / "openai_calls.jsonl", "--skill", SKILL, "--tag", "old")
    assert (result.status, result.row("skipped: failed_call")) == (0, 1)
    tool_output = index_by_source(service, "output")["chatcmpl-tool"]
    assert (tool_output["text"], tool_output["finish_reason"]) == ("", "tool_calls")
    assert tool_output["tool_calls"] == [{"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}]
    interaction = index_by_source(service, "interaction")["chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT"]
    assert interaction["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello, are you open on Sunday?"},
    ]
    assert interaction["occurred_at"] == "2025-03-10T01:25:52.000000Z"
    assert interaction["tags"] == ["old"]
    assert interaction["user_id"].startswith("usr_")
    assert "kim" not in str(interaction)
    outputs = [event for event in service.of_type("output") if event["interaction_id"] == interaction["interaction_id"]]
    assert [event["text"] for event in outputs] == ["Yes, from 10 to 16.", "We are, 10–16 h."]
    assert outputs[0]["output_id"] == "out_" + interaction["interaction_id"].removeprefix("int_")
    assert outputs[1]["output_id"].startswith(outputs[0]["output_id"] + "_")
    assert outputs[0]["usage"] == {"input_tokens": 19, "output_tokens": 10}
    response = index_by_source(service, "interaction")["resp_67ccd2bed1ec8190b14f964abc054267"]
    assert response["messages"] == [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Thanks!"}]
    output = index_by_source(service, "output")["chatcmpl-AyPNinnUqUDYo9SAdA52NobMflmj2"]
    assert (output["text"], output["metadata"]["source_metadata"]) == ("Mind of circuits hum.", {"team": "north"})


def test_a_batchs_output_file_joins_its_input_file_in_either_order(service: Service, rlaas_import: Command) -> None:
    outputs_result = rlaas_import("openai", SAMPLES / "openai_batch_output.jsonl", "--skill", SKILL, "--namespace", "march")
    assert (outputs_result.status, outputs_result.row("pending"), outputs_result.row("skipped: failed_call")) == (0, 2, 1)
    result = rlaas_import("openai", SAMPLES / "openai_batch_input.jsonl", "--skill", SKILL, "--namespace", "march")
    assert (result.status, result.row("new")) == (0, 2)
    interaction = index_by_source(service, "interaction")["request-1"]
    output = index_by_source(service, "output")["request-1"]
    assert output["interaction_id"] == interaction["interaction_id"]
    other_result = rlaas_import("openai", SAMPLES / "openai_batch_input.jsonl", "--skill", SKILL, "--namespace", "april")
    assert other_result.row("new") == 2


def test_a_preference_line_is_two_outputs_and_a_comparison(service: Service, rlaas_import: Command) -> None:
    result = rlaas_import("openai", SAMPLES / "openai_preferences.jsonl", "--skill", SKILL)
    assert (result.status, result.row("new")) == (0, 4)
    comparison = index_feedback_by_kind(service)["comparison"]
    assert service.events[comparison["preferred_output_id"]]["text"].startswith("Today in San Francisco")
    assert service.events[comparison["output_id"]]["text"].startswith("It is not particularly")


def test_litellms_logging_payloads_become_interactions(service: Service, rlaas_import: Command) -> None:
    report = rlaas_import.home / "report.jsonl"
    result = rlaas_import("litellm", SAMPLES / "litellm_standard_logging.jsonl", "--skill", SKILL, "--report", report)
    assert (result.status, count_reasons(report)) == (1, {"redacted": 1})
    assert (result.row("skipped: failed_call"), result.row("skipped: not_a_completion")) == (1, 1)
    [interaction], [output] = service.of_type("interaction"), service.of_type("output")
    assert (interaction["occurred_at"], output["occurred_at"]) == ("2025-03-03T11:06:40.125000Z", "2025-03-03T11:06:41.375000Z")
    assert output["latency_ms"] == 1250.0
    assert (output["text"], output["usage"]) == ("Yes, on Monday.", {"input_tokens": 10, "output_tokens": 20})
    assert (interaction["user_id"], interaction["tags"][0]) == ("user-7", "prod")
    assert interaction["metadata"]["source_metadata"] == {"ticket": "T-1"}
    assert "88dc28d0" not in str(service.events)


def test_litellms_spend_logs_have_their_prompt_in_the_proxys_request(service: Service, rlaas_import: Command) -> None:
    report = rlaas_import.home / "report.jsonl"
    result = rlaas_import("litellm", SAMPLES / "litellm_spend_logs.json", "--skill", SKILL, "--report", report)
    assert result.status == 1
    assert [(line["line"], line["reason"]) for line in read_report(report)] == [(3, "no_input")]
    assert "store_prompts_in_spend_logs" in read_report(report)[0]["message"]
    [interaction] = service.of_type("interaction")
    assert (interaction["messages"], interaction["thread_id"]) == ([{"role": "user", "content": "Where is it?"}], "sess-1")


@pytest.mark.parametrize(
    "notice", ["... (litellm_truncated skipped 952 chars. Truncation is a DB storage safeguard.) ...", "... (truncated 952 chars)"]
)
def test_what_litellm_cut_short_is_refused(notice: str, service: Service, rlaas_import: Command) -> None:
    sample = json.loads((SAMPLES / "litellm_spend_logs.json").read_text())[0]
    cut_text, whole_text = f"{'a' * 700}{notice}{'b' * 1300}", "Where is it?"
    response = {"choices": [{"message": {"role": "assistant", "content": cut_text}}]}
    request = {"messages": [{"role": "user", "content": cut_text}]}
    rows = [{**sample, "request_id": "1", "proxy_server_request": request}, {**sample, "request_id": "2", "response": response}]
    log, report = rlaas_import.home / "logs.json", rlaas_import.home / "report.jsonl"
    log.write_text(json.dumps([*rows, sample]))
    result = rlaas_import("litellm", log, "--skill", SKILL, "--report", report)
    assert (result.status, count_reasons(report)) == (1, {"truncated": 2})
    assert [event["messages"][0]["content"] for event in service.of_type("interaction")] == [whole_text]


def test_langfuses_ui_export_brings_generations_and_their_flattened_scores(service: Service, rlaas_import: Command) -> None:
    service.metrics.add("correct")
    result = rlaas_import("langfuse", SAMPLES / "langfuse_observations_ui.json", "--skill", SKILL)
    assert (result.status, result.row("skipped: not_a_generation"), result.row("events made")) == (0, 1, 5)
    [interaction], [output] = service.of_type("interaction"), service.of_type("output")
    assert (interaction["thread_id"], interaction["user_id"], interaction["tags"]) == ("trace-1", "u1", ["vip"])
    assert interaction["metadata"]["source_metadata"] == {"region": "eu"}
    assert (output["text"], output["usage"], output["latency_ms"]) == (
        "It leaves today.",
        {"input_tokens": 21, "output_tokens": 6},
        1500,
    )
    scores = {event.get("metric") or event["kind"]: event.get("value", event.get("label")) for event in service.of_type("feedback")}
    assert scores == {"helpful": 1.0, "label": "friendly", "correct": True}
    assert all(event["output_id"] == output["output_id"] for event in service.of_type("feedback"))


def test_langfuses_csv_export_holds_texts_with_commas_quotes_and_lines(service: Service, rlaas_import: Command) -> None:
    result = rlaas_import("langfuse", SAMPLES / "langfuse_observations_ui.csv", "--skill", SKILL, "--rating", "helpful")
    assert (result.status, result.row("events made")) == (0, 3)
    assert service.of_type("output")[0]["text"] == "A plain text, with a comma\nand a second line"
    assert index_feedback_by_kind(service)["rating"]["rating"] == 0.5
    assert service.of_type("interaction")[0]["tags"] == ["vip"]


def test_langfuses_blob_export_joins_scores_to_generations(service: Service, rlaas_import: Command) -> None:
    report = rlaas_import.home / "report.jsonl"
    files = (SAMPLES / "langfuse_blob_observations.jsonl", SAMPLES / "langfuse_blob_scores.jsonl")
    result = rlaas_import("langfuse", *files, "--skill", SKILL, "--rating", "user-feedback", "--report", report)
    assert (result.status, count_reasons(report), result.row("skipped: score_of_session_or_run")) == (1, {"trace_not_seen": 1}, 1)
    interactions, outputs = index_by_source(service, "interaction"), index_by_source(service, "output")
    assert interactions["gen-3"]["messages"] == [{"role": "user", "content": "First?"}]
    assert interactions["gen-4"]["inputs"] == {"question": "Second?", "n": "2"}
    assert outputs["gen-4"]["text"] == '{"subject":"Re","body":"Second."}'
    assert interactions["gen-3"]["thread_id"] == interactions["gen-4"]["thread_id"] == "session-9"
    assert "kim" not in str(interactions)
    interaction_ids = {event.get("metric", event["kind"]): event["interaction_id"] for event in service.of_type("feedback")}
    third, fourth = interactions["gen-3"]["interaction_id"], interactions["gen-4"]["interaction_id"]
    assert interaction_ids == {"quality": third, "comment": third, "rating": fourth, "edit": fourth, "label": fourth, "helpful": third}
    assert index_feedback_by_kind(service)["edit"]["final_text"] == "Second, corrected."
    assert {event["comment"] for event in service.of_type("feedback") if event["kind"] == "comment"} == {"Clear enough", "Too long"}


def test_langfuses_parquet_export_is_its_json_lines_export(service: Service, rlaas_import: Command) -> None:
    names = ("langfuse_blob_observations", "langfuse_blob_scores")
    json_files = [SAMPLES / f"{name}.jsonl" for name in names]
    rlaas_import("langfuse", *json_files, "--skill", SKILL, "--rating", "user-feedback")
    files = [rlaas_import.home / f"{name}.parquet" for name in names]
    for file, lines in zip(files, json_files, strict=True):
        rows = [json.loads(line) for line in lines.read_text().splitlines()]
        counts, times = pa.map_(pa.string(), pa.int64()), pa.timestamp("us", tz="UTC")
        columns = {name: [row.get(name) for row in rows] for row in rows for name in row if name not in ("metadata", "usage_details")}
        table = pa.table(columns)
        if "usage_details" in rows[0]:
            usage = pa.array([list(row["usage_details"].items()) for row in rows], counts)
            start_times = pa.array([datetime.fromisoformat(f"{row['start_time']}+00:00") for row in rows], times)
            index = table.column_names.index("start_time")
            table = table.append_column("usage_details", usage).set_column(index, "start_time", start_times)
        pq.write_table(table, file)
    result = rlaas_import("langfuse", *files, "--skill", SKILL, "--rating", "user-feedback")
    assert (result.status, result.row("rows read"), result.row("new")) == (1, 10, 0)
    assert result.row("replayed") == len(service.events)


def test_a_downloaded_langfuse_trace_brings_each_generation_and_its_scores(service: Service, rlaas_import: Command) -> None:
    report = rlaas_import.home / "report.jsonl"
    result = rlaas_import("langfuse", SAMPLES / "langfuse_trace.json", "--skill", SKILL, "--report", report)
    assert (result.status, count_reasons(report)) == (1, {"tool_call": 1})
    [interaction] = service.of_type("interaction")
    assert (interaction["metadata"]["source_id"], interaction["thread_id"], interaction["user_id"], interaction["tags"]) == (
        "gen-52",
        "session-5",
        "u5",
        ["web"],
    )
    [score] = service.of_type("feedback")
    assert (score["metric"], score["interaction_id"]) == ("user_feedback", interaction["interaction_id"])


READERS: dict[str, tuple[Callable[[JsonObject], list[JsonObject]], Reader]] = {
    "openai": (keep_whole_row, openai_logs.build_events),
    "litellm": (keep_whole_row, litellm_logs.build_events),
    "langfuse": (langfuse_export.split_parts, langfuse_export.LangfuseReader(NoTraces(), frozenset({"helpful"})).build_events),
}
SOUND = [(path.name.partition("_")[0], row.value) for path in sorted(SAMPLES.glob("*_*.json*")) for row in SourceFile.open(path).rows()]
JUNK = st.sampled_from(
    [None, True, -1, 10**400, "", "x", "[", "[]", "null", "2025-13-45", [], {}, [None], {"a": None}, {"choices": [None]}]
)


@settings(deadline=None)
@given(data=st.data(), sample=st.sampled_from(SOUND))
def test_whatever_stands_in_a_row_it_becomes_events_or_is_refused(data: st.DataObject, sample: tuple[str, JsonObject]) -> None:
    format_name, row = sample

    def spoil(value: Any) -> Any:
        if data.draw(st.integers(0, 9)) == 0:
            return data.draw(JUNK)
        if isinstance(value, dict):
            return {name: spoil(item) for name, item in value.items()}
        return [spoil(item) for item in value] if isinstance(value, list) else value

    split_parts, read = READERS[format_name]
    for part in split_parts({name: spoil(value) for name, value in row.items()}):
        with suppress(RowRefused, RowSkipped):
            for event in read(part, ImportContext(Identity(format_name, SKILL)), "own"):
                body = {name: value for name, value in event.items() if name != "type"}
                REPORTED[str(event["type"])].model_validate_json(json.dumps(body))


def test_an_unregistered_metric_is_refused_with_the_services_words(service: Service, rlaas_import: Command) -> None:
    service.metrics.clear()
    report = rlaas_import.home / "report.jsonl"
    files = (SAMPLES / "langfuse_trace.json",)
    result = rlaas_import("langfuse", *files, "--skill", SKILL, "--report", report)
    assert result.status == 1
    refusal = next(line for line in read_report(report) if line["reason"] == "invalid_input")
    assert (refusal["param"], refusal["message"]) == ("metric", "no metric 'user_feedback'; there are []")


def test_csv_columns_are_mapped_by_name(service: Service, rlaas_import: Command) -> None:
    columns = {
        "id": "ticket",
        "thread_id": "ticket",
        "user_id": "agent",
        "prompt": "asked",
        "text": "draft",
        "final_text": "sent_text",
        "action": "verdict",
        "task_result.closed": "closed",
        "occurred_at": "when",
    }
    options = [part for field, column in columns.items() for part in ("--map", f"{field}={column}")]
    result = rlaas_import("csv", SAMPLES / "tickets.csv", "--skill", SKILL, *options)
    assert (result.status, result.row("rows read"), result.row("events made")) == (0, 3, 13)
    interactions = index_by_source(service, "interaction")
    assert interactions["T-1"]["occurred_at"] == "2025-02-01T09:00:00.000000Z"
    assert interactions["T-3"]["occurred_at"] == "2025-02-01T10:00:00.000000Z"
    assert interactions["T-2"]["messages"] == [{"role": "user", "content": "Ünïcode?\nTwo lines"}]
    assert interactions["T-1"]["user_id"] == "ana"
    assert interactions["T-2"]["user_id"].startswith("usr_")
    actions = [event["action"] for event in service.of_type("feedback") if event["kind"] == "action"]
    assert sorted(actions) == ["discarded", "sent", "sent"]
    assert {event["value"] for event in service.of_type("task_result")} == {True, False}
