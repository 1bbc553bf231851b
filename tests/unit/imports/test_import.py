"""The import as a whole: bad rows, retries, kills, limits, messages."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from tests.unit.imports.conftest import KEY, SAMPLES, SKILL, Command, Fault, Service, count_reasons, read_report, write_log


def test_bad_rows_are_reported_by_line_without_their_text_and_stop_nothing(service: Service, rlaas_import: Command) -> None:
    log, report = rlaas_import.home / "log.jsonl", rlaas_import.home / "report.jsonl"
    good = '{"id": "a", "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "secret words"}]}'
    lines = [
        good.encode(),
        b'{"messages": [secret words',
        b"",
        b"[1, 2]",
        b'{"something": "secret words"}',
        b'{"messages": [{"role": "user", "content": "secret \xff words"}]}',
        b'{"messages": [{"role": "user", "content": NaN}]}',
        b'{"messages": ' + b"[" * 100_000,
        b'{"messages": [{"role": "tool", "content": "secret words"}, {"role": "assistant", "content": "x"}]}',
        rb'{"messages": [{"role": "user", "content": "\ud800"}, {"role": "assistant", "content": "x"}], "id": "half"}',
        b'{"request": {"messages": "q"}, "response": {"created": 1000000000, "choices": [{"text": "secret words"}]}}',
        good.replace('"a"', '"b"').encode(),
    ]
    log.write_bytes(b"\n".join(lines))
    result = rlaas_import("openai", log, "--skill", SKILL, "--report", report)
    assert result.status == 1
    assert [(line["line"], line["reason"]) for line in read_report(report)] == [
        (2, "malformed_json"),
        (4, "not_an_object"),
        (5, "unknown_shape"),
        (6, "invalid_utf8"),
        (7, "malformed_json"),
        (8, "malformed_json"),
        (9, "unsupported_message"),
        (10, "invalid_unicode"),
        (11, "time_out_of_range"),
    ]
    assert "secret" not in report.read_text() + result.out + result.err
    assert (result.row("rows read"), result.row("rows refused")) == (11, 9)
    assert {event["metadata"]["source_id"] for event in service.of_type("interaction")} == {"a", "b"}


def test_the_report_holds_the_rows_only_when_asked(rlaas_import: Command) -> None:
    log, report = rlaas_import.home / "log.jsonl", rlaas_import.home / "report.jsonl"
    log.write_text('{"something": "secret words"}\n')
    assert rlaas_import("openai", log, "--skill", SKILL, "--report", report, "--include-rows").status == 1
    assert read_report(report)[0]["row"] == '{"something": "secret words"}'


def test_a_second_import_replays_everything_and_stores_nothing(service: Service, rlaas_import: Command) -> None:
    log = write_log(rlaas_import.home / "log.jsonl", 700)
    first_result = rlaas_import("openai", log, "--skill", SKILL)
    assert (first_result.status, first_result.row("new"), len(service.events)) == (0, 1400, 1400)
    second_result = rlaas_import("openai", log, "--skill", SKILL)
    assert (second_result.status, second_result.row("new"), second_result.row("replayed"), len(service.events)) == (0, 0, 1400, 1400)


def test_a_gzipped_file_is_the_same_source_as_the_plain_one(service: Service, rlaas_import: Command) -> None:
    plain = SAMPLES / "openai_fine_tuning.jsonl"
    packed = rlaas_import.home / "export.jsonl.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert rlaas_import("openai", packed, "--skill", SKILL).row("new") == 8
    assert rlaas_import("openai", plain, "--skill", SKILL).row("replayed") == 8


def test_a_file_in_utf_16_is_a_usage_error(rlaas_import: Command) -> None:
    log = rlaas_import.home / "log.jsonl"
    log.write_bytes('{"messages": []}\n'.encode("utf-16"))
    result = rlaas_import("openai", log, "--skill", SKILL)
    assert (result.status, "is UTF-16; save it as UTF-8" in " ".join(result.err.split())) == (2, True)


def test_a_cut_off_gzip_is_a_usage_error(rlaas_import: Command) -> None:
    packed = rlaas_import.home / "export.jsonl.gz"
    packed.write_bytes(gzip.compress(b"{}\n" * 1000)[:-12])
    result = rlaas_import("openai", packed, "--skill", SKILL)
    assert result.status == 2
    assert "cannot be read" in result.err


def test_rows_twice_in_a_file_are_stored_once_where_they_have_an_id(service: Service, rlaas_import: Command) -> None:
    log = rlaas_import.home / "log.jsonl"
    write_log(log, 1)
    line = log.read_text()
    changed_line = line.replace("answer 0", "another answer")
    log.write_text(line + line + changed_line)
    result = rlaas_import("openai", log, "--skill", SKILL)
    assert (result.status, result.row("new"), result.row("replayed"), result.row("conflict")) == (1, 2, 3, 1)
    without_ids = rlaas_import.home / "tuning.jsonl"
    tuning = (SAMPLES / "openai_fine_tuning.jsonl").read_text().splitlines()[0]
    without_ids.write_text(f"{tuning}\n{tuning}\n")
    assert rlaas_import("openai", without_ids, "--skill", SKILL).row("new") == 6


def test_a_killed_import_goes_on_where_it_was_and_loses_and_doubles_nothing(service: Service, rlaas_import: Command) -> None:
    log, report = rlaas_import.home / "log.jsonl", rlaas_import.home / "report.jsonl"
    write_log(log, 3000)
    lines = log.read_text().splitlines()
    lines[10], lines[2900] = "not json", "not json"
    log.write_text("\n".join(lines) + "\n")
    release = threading.Event()
    service.faults[6] = Fault(hold=release)
    arguments = ("openai", log, "--skill", SKILL, "--report", report, "--concurrency", "1")
    process = rlaas_import.start("import", *arguments)
    assert service.reached.wait(60)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert len(service.events) == 2500
    sent_before = sum(len(batch) for batch in service.batches)

    result = rlaas_import(*arguments)
    assert result.status == 1
    assert "continuing after row 1,251" in result.err
    assert (result.row("rows read"), result.row("events made"), result.row("new"), result.row("replayed")) == (3000, 5996, 5996, 0)
    assert [line["line"] for line in read_report(report)] == [11, 2901]
    assert {path.name for path in rlaas_import.home.iterdir()} == {"log.jsonl", "report.jsonl"}
    assert len(service.events) == len(service.order) == 5996
    assert sum(len(batch) for batch in service.batches) - sent_before == 5996 - 2500
    second_result = rlaas_import(*arguments)
    assert (second_result.row("new"), second_result.row("replayed")) == (0, 5996)
    assert [line["line"] for line in read_report(report)] == [11, 2901]


def test_batches_keep_to_500_events_and_5_mib(service: Service, rlaas_import: Command) -> None:
    log = write_log(rlaas_import.home / "log.jsonl", 60, text=lambda n: "ä" * 100_000)
    assert rlaas_import("openai", log, "--skill", SKILL, "--concurrency", "1").status == 0
    assert len(service.events) == 120
    assert 3 * 1024 * 1024 < service.largest_body <= 4 * 1024 * 1024


def test_an_event_above_256_kib_and_a_line_above_16_mib_are_refused_and_the_rest_is_taken(service: Service, rlaas_import: Command) -> None:
    log, report = rlaas_import.home / "log.jsonl", rlaas_import.home / "report.jsonl"
    write_log(log, 3, text=lambda n: "x" * (300_000 if n == 0 else 17 * 1024 * 1024 if n == 1 else 5))
    result = rlaas_import("openai", log, "--skill", SKILL, "--report", report)
    assert result.status == 1
    assert [(line["line"], line["reason"]) for line in read_report(report)] == [(1, "event_too_large"), (2, "row_too_large")]
    assert [event["text"] for event in service.of_type("output")] == ["xxxxx"]


def test_an_interactions_events_arrive_in_order_over_several_connections(service: Service, rlaas_import: Command) -> None:
    log = write_log(rlaas_import.home / "log.jsonl", 2000)
    assert rlaas_import("openai", log, "--skill", SKILL, "--concurrency", "8").row("pending") == 0
    seen: set[str] = set()
    for event_id in service.order:
        event = service.events[event_id]
        assert event["type"] == "interaction" or event["interaction_id"] in seen
        seen.add(event_id)


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_busy_answers_are_tried_again_after_what_the_service_asks(status: int, service: Service, rlaas_import: Command) -> None:
    log = write_log(rlaas_import.home / "log.jsonl", 20)
    gone_by = format_datetime(datetime.now(UTC) - timedelta(seconds=5), usegmt=True)
    service.faults = {1: Fault(status), 2: Fault(status, {"Retry-After": gone_by})}
    result = rlaas_import("openai", log, "--skill", SKILL, "--concurrency", "1")
    assert (result.status, result.row("new"), service.requests) == (0, 40, 3)


def test_single_events_answered_503_are_sent_again_alone(service: Service, rlaas_import: Command) -> None:
    log = write_log(rlaas_import.home / "log.jsonl", 20)
    assert rlaas_import("openai", log, "--skill", SKILL, "--concurrency", "1").status == 0
    busy = {event_id for event_id in service.events if event_id.startswith("out_")}
    assert len(busy) == 20
    service.events.clear()
    service.order.clear()
    service.batches.clear()
    service.busy_ids = set(busy)
    result = rlaas_import("openai", log, "--skill", SKILL, "--concurrency", "1")
    assert (result.status, result.row("new")) == (0, 40)
    assert [len(batch) for batch in service.batches] == [40, 20]


def test_a_dropped_connection_is_tried_again(service: Service, rlaas_import: Command) -> None:
    log = write_log(rlaas_import.home / "log.jsonl", 20)
    release = threading.Event()
    release.set()
    service.faults = {1: Fault(hold=release)}
    result = rlaas_import("openai", log, "--skill", SKILL)
    assert (result.status, result.row("new")) == (0, 40)


def test_a_service_that_is_not_there_ends_the_import_with_how_to_go_on(rlaas_import: Command) -> None:
    log = write_log(rlaas_import.home / "log.jsonl", 5)
    result = rlaas_import("openai", log, "--skill", SKILL, "--api-url", "http://127.0.0.1:9", "--give-up-after", "0")
    assert result.status == 1
    assert "run the same command again" in result.err


def test_a_batch_refused_whole_is_sent_in_halves(service: Service, rlaas_import: Command) -> None:
    log, report = write_log(rlaas_import.home / "log.jsonl", 2), rlaas_import.home / "report.jsonl"
    service.faults = {1: Fault(413), 2: Fault(413), 3: Fault(413)}
    result = rlaas_import("openai", log, "--skill", SKILL, "--concurrency", "1", "--report", report)
    assert result.status == 1
    assert count_reasons(report) == {"unavailable": 1}
    assert len(service.events) == 3


@pytest.mark.parametrize(
    ("arguments", "env", "message"),
    [
        (("--api-key", "rlk_1_wrong"), {}, "the service refused the key: HTTP 401: the key is not known"),
        ((), {"RLAAS_API_KEY": ""}, "(--api-key), or set RLAAS_API_KEY"),
        ((), {"RLAAS_API_URL": ""}, "(--api-url), or set RLAAS_API_URL"),
        (("--api-url", "example"), {}, "'example' is no address"),
        (("--map", "text=a"), {}, "--map is for csv"),
        (("--rating", "a"), {}, "--rating is for langfuse"),
        (("--tag", ""), {}, "at most 32 tags of 1 to 64 characters"),
        (("--skill", "No Skill"), {}, "'No Skill' is no skill's name"),
        (("--include-rows",), {}, "--report FILE"),
    ],
)
def test_a_command_at_fault_ends_with_2_and_what_to_do(
    arguments: tuple[str, ...], env: dict[str, str], message: str, service: Service, rlaas_import: Command
) -> None:
    log = write_log(rlaas_import.home / "log.jsonl", 1)
    result = rlaas_import("openai", log, "--skill", SKILL, *arguments, env=env)
    assert result.status == 2
    assert message in " ".join(result.err.split())
    assert service.events == {}


def test_an_address_that_is_not_the_services_is_a_usage_error(service: Service, rlaas_import: Command) -> None:
    log = write_log(rlaas_import.home / "log.jsonl", 1)
    result = rlaas_import("openai", log, "--skill", SKILL, "--api-url", f"{service.url}/other")
    assert (result.status, "check --api-url" in result.err) == (2, True)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (["prompt=question", "text=draft"], "has no column 'question'; its columns are 'ticket', 'agent', 'asked', 'draft'"),
        (["text=draft"], "the map names no prompt"),
        (["prompt=asked", "answer=draft"], "--map 'answer=draft' is not FIELD=COLUMN"),
        (["prompt=asked", "prompt=draft"], "twice"),
    ],
)
def test_a_map_that_does_not_fit_names_the_files_columns(pairs: list[str], message: str, service: Service, rlaas_import: Command) -> None:
    options = [part for pair in pairs for part in ("--map", pair)]
    result = rlaas_import("csv", SAMPLES / "tickets.csv", "--skill", SKILL, *options)
    assert result.status == 2
    assert message in " ".join(result.err.split())


def test_lines_of_a_csv_with_too_few_cells_are_refused(service: Service, rlaas_import: Command) -> None:
    file, report = rlaas_import.home / "t.csv", rlaas_import.home / "report.jsonl"
    file.write_text('q;a\nfirst;one\n"broken\nline"\n\nlast;two\n')
    pairs = ("--map", "prompt=q", "--map", "text=a", "--delimiter", ";")
    result = rlaas_import("csv", file, "--skill", SKILL, *pairs, "--report", report)
    assert (result.status, [(line["line"], line["reason"]) for line in read_report(report)]) == (1, [(3, "malformed_csv")])
    assert len(service.of_type("interaction")) == 2


def test_a_quote_that_is_never_closed_is_refused_by_its_line_and_takes_no_row_before_it_along(
    service: Service, rlaas_import: Command
) -> None:
    file, report = rlaas_import.home / "t.csv", rlaas_import.home / "report.jsonl"
    file.write_text('q,a\nfirst,one\nsecond,"two\nthird,three\n')
    result = rlaas_import("csv", file, "--skill", SKILL, "--map", "prompt=q", "--map", "text=a", "--report", report)
    assert (result.status, [(line["line"], line["reason"]) for line in read_report(report)]) == (1, [(3, "malformed_csv")])
    assert len(service.of_type("interaction")) == 1


def test_a_dry_run_with_a_service_checks_every_event_and_stores_none(service: Service, rlaas_import: Command) -> None:
    service.metrics.clear()
    result = rlaas_import("langfuse", SAMPLES / "langfuse_observations_ui.json", "--skill", SKILL, "--dry-run")
    assert (result.status, result.row("invalid_input"), service.events) == (1, 2, {})
    assert "nothing was stored" in result.out


def test_a_dry_run_without_a_service_only_reads_the_files(service: Service, rlaas_import: Command) -> None:
    result = rlaas_import("openai", SAMPLES / "openai_fine_tuning.jsonl", "--skill", SKILL, "--dry-run", env={"RLAAS_API_URL": ""})
    assert (result.status, result.row("events made"), service.requests) == (0, 8, 0)


def test_an_unknown_skill_is_refused_per_row(service: Service, rlaas_import: Command) -> None:
    log = write_log(rlaas_import.home / "log.jsonl", 2)
    result = rlaas_import("openai", log, "--skill", "unknown")
    assert (result.status, result.row("not_found")) == (1, 4)


def test_a_pretty_printed_array_cut_off_in_the_middle_is_taken_up_to_there(service: Service, rlaas_import: Command) -> None:
    file, report = rlaas_import.home / "export.json", rlaas_import.home / "report.jsonl"
    rows = [json.loads(line) for line in write_log(rlaas_import.home / "log.jsonl", 50).read_text().splitlines()]
    file.write_text(json.dumps(rows, indent=2)[:-120])
    result = rlaas_import("openai", file, "--skill", SKILL, "--report", report)
    assert (result.status, count_reasons(report), len(service.of_type("interaction"))) == (1, {"malformed_json": 1}, 49)


@pytest.mark.parametrize(
    ("format_name", "sample", "around", "new"),
    [
        ("langfuse", "langfuse_observations_ui.json", {"meta": {"page": 1, "totalItems": 2}}, 5),
        ("openai", "openai_fine_tuning.jsonl", {"object": "list", "has_more": False}, 8),
        ("litellm", "litellm_spend_logs.json", {"total": 2, "page": 1, "page_size": 50, "total_pages": 1}, 2),
    ],
)
def test_a_page_of_an_api_is_taken_apart(
    format_name: str, sample: str, around: dict[str, object], new: int, service: Service, rlaas_import: Command
) -> None:
    text = (SAMPLES / sample).read_text()
    records = [json.loads(line) for line in text.splitlines()] if sample.endswith("jsonl") else json.loads(text)
    page = rlaas_import.home / "page.json"
    page.write_text(json.dumps({"data": records, **around}))
    service.metrics.add("correct")
    assert rlaas_import(format_name, page, "--skill", SKILL).row("new") == new


def test_without_the_extra_the_command_says_what_to_install(rlaas_import: Command) -> None:
    blocked = rlaas_import.home / "blocked"
    blocked.mkdir()
    (blocked / "sitecustomize.py").write_text("import sys\nsys.modules['click'] = None\n")
    sdk = Path(__file__).parents[3] / "clients" / "python" / "src"
    result = rlaas_import("openai", "x", "--skill", SKILL, env={"PYTHONPATH": f"{blocked}:{sdk}"})
    assert (result.status, "pip install 'rlaas-sdk[cli]'" in result.err) == (2, True)


def test_the_key_is_written_nowhere(rlaas_import: Command, service: Service) -> None:
    log = write_log(rlaas_import.home / "log.jsonl", 2)
    result = rlaas_import("openai", log, "--skill", SKILL)
    contents = b"".join(path.read_bytes() for path in rlaas_import.home.rglob("*") if path.is_file())
    assert KEY not in result.out + result.err
    assert KEY.encode() not in contents


def test_a_terminal_shows_a_bar_with_the_rate_and_the_time_left(rlaas_import: Command, service: Service) -> None:
    log = write_log(rlaas_import.home / "log.jsonl", 250)
    controller, terminal = os.openpty()
    process = rlaas_import.start("import", "openai", log, "--skill", SKILL, stderr=terminal, env={"TERM": "xterm", "COLUMNS": "120"})
    os.close(terminal)
    screen = b""
    with suppress(OSError):  # the terminal ends with the process
        while piece := os.read(controller, 65536):
            screen += piece
    os.close(controller)
    assert process.wait(60) == 0
    assert "250 rows," in screen.decode()
    assert "100%" in screen.decode()


def test_an_interrupted_import_says_how_to_go_on_and_does(service: Service, rlaas_import: Command) -> None:
    log = write_log(rlaas_import.home / "log.jsonl", 2000)
    release = threading.Event()
    service.faults[3] = Fault(hold=release)
    arguments = ("openai", log, "--skill", SKILL, "--concurrency", "1")
    process = rlaas_import.start("import", *arguments)
    assert service.reached.wait(60)
    process.send_signal(signal.SIGINT)
    _out, err = process.communicate(timeout=60)
    assert (process.returncode, "run the same command again" in err) == (130, True)
    result = rlaas_import(*arguments)
    assert "continuing after row 500" in result.err
    assert (result.status, result.row("rows read"), result.row("new"), len(service.order)) == (0, 2000, 4000, 4000)


def test_a_killed_langfuse_import_still_knows_which_generation_a_traces_score_is_about(service: Service, rlaas_import: Command) -> None:
    generation, score = (
        json.loads((SAMPLES / f"langfuse_blob_{name}.jsonl").read_text().splitlines()[line])
        for name, line in (("observations", 0), ("scores", 1))
    )
    observations, scores = rlaas_import.home / "observations.jsonl", rlaas_import.home / "scores.jsonl"
    with observations.open("w") as file:
        for n in range(1000):
            file.write(json.dumps({**generation, "id": f"gen-{n}", "trace_id": f"trace-{n // 2}"}) + "\n")
    with scores.open("w") as file:
        for n in range(500):
            file.write(json.dumps({**score, "id": f"score-{n}", "trace_id": f"trace-{n}"}) + "\n")
    release = threading.Event()
    service.faults[5] = Fault(hold=release)
    arguments = ("langfuse", observations, scores, "--skill", SKILL, "--concurrency", "1")
    process = rlaas_import.start("import", *arguments)
    assert service.reached.wait(60)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    result = rlaas_import(*arguments)
    assert (result.status, result.row("rows read"), len(service.events)) == (0, 1500, 2500)
    sources = {event["interaction_id"]: event["metadata"]["source_id"] for event in service.of_type("interaction")}
    feedback_sources = {event["feedback_id"]: sources[event["interaction_id"]] for event in service.of_type("feedback")}
    assert sorted(feedback_sources.values()) == sorted(max(f"gen-{2 * n}", f"gen-{2 * n + 1}") for n in range(500))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the most memory a process held is read from Linux's /proc")
@pytest.mark.parametrize("layout", ["export.json", "export.csv"])
def test_memory_does_not_grow_with_the_file(layout: str, rlaas_import: Command, service: Service) -> None:
    file = rlaas_import.home / layout
    text = "word " * 2000
    rows = 8000
    with file.open("w") as export:
        export.write("[" if layout.endswith("json") else "q,a\n")
        for n in range(rows):
            row = {"id": f"c{n}", "messages": [{"role": "user", "content": text}, {"role": "assistant", "content": "a"}]}
            export.write((",\n" if n else "") + json.dumps(row) if layout.endswith("json") else f"{text},a\n")
        export.write("]" if layout.endswith("json") else "")
    assert file.stat().st_size > 75_000_000
    arguments: list[str | Path] = ["csv", file, "--map", "prompt=q", "--map", "text=a"] if layout.endswith("csv") else ["openai", file]
    program = "from pathlib import Path\nfrom rlaas_sdk.cli import main\ntry: main()\nfinally: print(Path('/proc/self/status').read_text())"
    process = rlaas_import.start(
        "import", *arguments, "--skill", SKILL, "--dry-run", env={"RLAAS_API_URL": ""}, stderr=subprocess.DEVNULL, program=("-c", program)
    )
    out, _err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert f"{rows:,}" in out
    most_kib = int(next(line for line in out.splitlines() if line.startswith("VmHWM")).split()[1])
    assert most_kib < 120 * 1024
