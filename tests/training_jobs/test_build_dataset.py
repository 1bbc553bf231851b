"""The dataset job's files and manifest."""

import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pyarrow.parquet
import pytest

from rlaas.clock import rfc3339
from rlaas.learning.selection import COLUMNS
from rlaas.preferences.dataset import SPLITS, TEST_PROMPTS, DatasetManifest, HeldOutPrompt, read_messages
from rlaas.preferences.left_out import ADVICE
from rlaas.telemetry.store import StoredEvent
from rlaas.voices import FREE
from training_jobs.build_dataset import job as build_dataset
from training_jobs.build_dataset.job import Arguments, build, read_events
from training_jobs.train.job import hash_file

WORDS = "--tenant acme --skill support-email-draft --version v1"


def test_the_files_are_trl_preference_datasets_with_provenance_and_the_manifest_describes_them(
    tmp_path: Path, week_of_events: list[StoredEvent]
) -> None:
    manifest = build(Arguments.parse(WORDS.split()), week_of_events, tmp_path)
    assert DatasetManifest.model_validate_json((tmp_path / "manifest.json").read_text()) == manifest
    threads: set[str] = set()
    for split in SPLITS:
        path = tmp_path / f"{split}.parquet"
        rows = pyarrow.parquet.read_table(path).to_pylist()
        assert (len(rows), hash_file(path)) == (manifest.splits[split].pairs, manifest.splits[split].sha256)
        assert not threads & {row["thread"] for row in rows}
        threads |= {row["thread"] for row in rows}
        for row in rows:
            assert [message["role"] for message in row["prompt"]] == ["system", "user"]
            assert row["chosen"][0]["role"] == row["rejected"][0]["role"] == "assistant"
            assert row["output_id"] == row["interaction_id"].replace("int_", "out_")
            assert len(row["feedback_ids"]) == 2
    assert manifest.events == len(week_of_events)
    assert manifest.columns == tuple(pyarrow.parquet.read_schema(tmp_path / "train.parquet").names)


def test_the_test_splits_prompts_stand_by_themselves_in_its_order_and_without_what_people_sent(
    tmp_path: Path, week_of_events: list[StoredEvent], logged_by_others: list[StoredEvent]
) -> None:
    manifest = build(Arguments.parse(f"{WORDS} --test-share 0.999".split()), [*week_of_events, *logged_by_others], tmp_path)
    rows = pyarrow.parquet.read_table(tmp_path / "test.parquet").to_pylist()
    lines = (tmp_path / TEST_PROMPTS).read_bytes().splitlines()
    prompts = [HeldOutPrompt.model_validate_json(line) for line in lines]
    assert [(prompt.interaction_id, prompt.prompt, prompt.tools) for prompt in prompts] == [
        (row["interaction_id"], read_messages(row["prompt"]), row["tools"]) for row in rows
    ]
    assert any(prompt.tools for prompt in prompts)
    assert any(message.tool_calls for prompt in prompts for message in prompt.prompt)
    assert not any(json.dumps(row["chosen"][0]["content"]).encode() in line for row, line in zip(rows, lines, strict=True))
    assert manifest.test_prompts is not None
    assert (manifest.test_prompts.prompts, manifest.test_prompts.sha256) == (len(rows), hash_file(tmp_path / TEST_PROMPTS))


def test_events_delivered_twice_and_in_another_order_make_the_same_files(tmp_path: Path, week_of_events: list[StoredEvent]) -> None:
    once = build(Arguments.parse(WORDS.split()), week_of_events, tmp_path / "once")
    twice = build(Arguments.parse(WORDS.split()), [*reversed(week_of_events), *week_of_events], tmp_path / "twice")
    assert once.model_dump(exclude={"created_at"}) == twice.model_dump(exclude={"created_at"})


def test_one_persons_pairs_beyond_his_share_are_left_out_and_counted(
    tmp_path: Path, drafts_of: Callable[[str, int], list[StoredEvent]]
) -> None:
    events = [event for number in range(30) for event in drafts_of(f"user-{number}", 3)] + drafts_of("mallory", 300)
    manifest = build(Arguments.parse(f"{WORDS} --test-share 0.3 --validation-share 0".split()), events, tmp_path)
    people, left = 0, 0
    for split in ("train", "test"):
        rows = pyarrow.parquet.read_table(tmp_path / f"{split}.parquet").to_pylist()
        of_each = Counter(row["person"] for row in rows)
        file = manifest.splits[split]
        assert (file.pairs, file.people, file.largest_share) == (len(rows), len(of_each), max(of_each.values()) / len(rows))
        assert max(of_each.values()) <= max(FREE, 0.12 * len(rows))
        people, left = max(people, file.people), left + file.pairs
    assert people == 31
    assert manifest.dropped == {"over_share": manifest.outputs - left}
    assert manifest.advice == {"over_share": ADVICE["over_share"]}


def test_a_dataset_without_events_has_empty_files_with_columns(tmp_path: Path) -> None:
    manifest = build(Arguments.parse(WORDS.split()), [], tmp_path)
    assert {file.pairs for file in manifest.splits.values()} == {0}
    assert pyarrow.parquet.read_schema(tmp_path / "test.parquet").names == list(manifest.columns)


def test_what_another_wrote_and_was_sent_as_it_was_is_a_demonstration_beside_the_pairs(
    tmp_path: Path, week_of_events: list[StoredEvent], logged_by_others: list[StoredEvent]
) -> None:
    words = f"{WORDS} --test-share 0 --validation-share 0"
    manifest = build(Arguments.parse(words.split()), [*week_of_events, *logged_by_others], tmp_path)
    rows = pyarrow.parquet.read_table(tmp_path / "demonstrations.parquet").to_pylist()
    assert [(row["interaction_id"], row["feedback_ids"]) for row in rows] == [("int_fine", ["fbk_fine"])]
    assert rows[0]["prompt"][0]["content"] == "Where is my order 1182?"
    assert rows[0]["completion"][0]["content"] == "It left our warehouse this morning."
    assert manifest.demonstrations is not None
    assert (manifest.demonstrations.demonstrations, manifest.demonstrations.sha256) == (1, hash_file(tmp_path / "demonstrations.parquet"))
    assert manifest.outputs == len(week_of_events) // 4 + 2
    pairs = sum(file.pairs for file in manifest.splits.values())
    assert pairs + manifest.demonstrations.demonstrations + sum(manifest.dropped.values()) == manifest.outputs
    assert manifest.advice.keys() == manifest.dropped.keys()


def test_tool_calls_and_tools_survive_the_files(tmp_path: Path, logged_by_others: list[StoredEvent]) -> None:
    build(Arguments.parse(f"{WORDS} --test-share 0 --validation-share 0".split()), logged_by_others, tmp_path)
    (row,) = pyarrow.parquet.read_table(tmp_path / "train.parquet").to_pylist()
    question, call, answer = read_messages(row["prompt"])
    assert (question.content, call.tool_calls[0].function.arguments) == ("Where is it?", '{"order":7}')
    assert (answer.role, answer.tool_call_id) == ("tool", call.tool_calls[0].id)
    assert row["tools"] == '[{"function":{"name":"find_order"},"type":"function"}]'


def write_files(events: list[StoredEvent], folder: Path, *, files: int = 1) -> None:
    """As Athena writes a run's selection: Parquet without an ending, and one row of nulls whatever it selected."""
    rows: list[dict[str, str | None]] = [
        {name: rfc3339(value) if isinstance(value := getattr(event, name), datetime) else value for name in COLUMNS} for event in events
    ]
    rows.append(dict.fromkeys(COLUMNS))
    folder.mkdir(parents=True)
    columns = pyarrow.schema([(name, pyarrow.string()) for name in COLUMNS])
    for number in range(files):
        table = pyarrow.Table.from_pylist(rows[number::files], schema=columns)
        pyarrow.parquet.write_table(table, folder / f"20260504_090000_00000_abcde_{number}")


def test_the_events_are_those_that_athena_wrote(tmp_path: Path, week_of_events: list[StoredEvent]) -> None:
    write_files(week_of_events, tmp_path / "events", files=3)
    read = sorted(read_events("acme", tmp_path / "events"), key=lambda event: event.event_id)
    expected = sorted(week_of_events, key=lambda event: event.event_id)
    assert [replace(event, payload_sha256="0" * 64) for event in read] == expected


def test_too_few_pairs_fail_the_job_with_what_fell_out(
    ml_root: Path, run_job: Callable[..., int], logged_by_others: list[StoredEvent]
) -> None:
    write_files(logged_by_others[:2], ml_root / "processing/input/events")
    assert run_job(build_dataset.main, *WORDS.split()) == 1
    reason = (ml_root / "output" / "message").read_text()
    assert re.search(r"^0 training pairs of 1 outputs, at least 8 .* 1 no_feedback \(nobody edited", reason)
    assert (ml_root / "processing/output/dataset/manifest.json").exists()


def test_a_run_without_any_event_fails_for_too_few_pairs(ml_root: Path, run_job: Callable[..., int]) -> None:
    write_files([], ml_root / "processing/input/events")
    assert run_job(build_dataset.main, *WORDS.split()) == 1
    assert (ml_root / "output" / "message").read_text().startswith("0 training pairs of 0 outputs, at least 8 ")
    manifest = DatasetManifest.model_validate_json((ml_root / "processing/output/dataset/manifest.json").read_text())
    assert (manifest.events, manifest.events_since) == (0, None)


def test_a_missing_argument_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        Arguments.parse(["--tenant", "acme", "--skill", "mail"])
    assert "--version" in capsys.readouterr().err
