"""Reading files: every layout, wherever the chunks fall."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlaas_sdk.imports import files
from rlaas_sdk.imports.files import FileUnreadable, SourceFile
from rlaas_sdk.imports.identity import Identity, external_id, make_bound_id, make_metric_name, make_output_id
from rlaas_sdk.imports.rows import RowRefused, format_rfc3339, read_moment

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])), lambda inner: st.lists(inner, max_size=3)
)
RECORDS = st.lists(
    st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), VALUES, max_size=4), min_size=1, max_size=8
)
LAYOUTS = {
    "array": lambda rows: json.dumps(rows, ensure_ascii=False),
    "pretty array": lambda rows: json.dumps(rows, indent=2),
    "lines": lambda rows: "\n".join(json.dumps(row) for row in rows),
    "pretty documents": lambda rows: "\n".join("{\n" + json.dumps(row, indent=1).lstrip("{") for row in rows),
}


def read_rows(path: Path, **options: Any) -> list[Any]:
    return [row.value if row.problem is None else row.problem.reason for row in SourceFile.open(path).rows(**options)]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=RECORDS, layout=st.sampled_from(sorted(LAYOUTS)), chunk=st.integers(1, 40), after=st.integers(0, 9))
def test_records_are_read_whole_in_every_layout_and_from_any_row(
    rows: list[dict[str, Any]], layout: str, chunk: int, after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_CHUNK", chunk)
    path = tmp_path / "export.json"
    path.write_text(LAYOUTS[layout](rows), encoding="utf-8")
    assert read_rows(path) == rows
    assert read_rows(path, after=after) == rows[after:]


def test_a_byte_order_mark_and_empty_lines_are_no_records(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\r\n  \n{"b": 2}')
    rows = list(SourceFile.open(path).rows())
    assert [(row.number, row.line, row.value) for row in rows] == [(1, 1, {"a": 1}), (2, 4, {"b": 2})]


def test_the_position_of_reading_is_reported_row_by_row_in_a_small_file_too(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    positions: list[Any] = []
    path.write_text('{"a": 1}\n' * 10)
    assert len(list(SourceFile.open(path).rows(on_bytes=positions.append))) == 10
    assert positions == [9 * number for number in range(1, 11)]


def test_a_broken_parquet_file_is_named_in_the_error(tmp_path: Path) -> None:
    path = tmp_path / "export.parquet"
    path.write_bytes(b"PAR1 and no more")
    with pytest.raises(FileUnreadable, match=r"export\.parquet cannot be read"):
        SourceFile.open(path)


def test_an_empty_file_has_no_rows(tmp_path: Path) -> None:
    for name in ("empty.jsonl", "empty.csv"):
        (tmp_path / name).write_bytes(b"")
        assert read_rows(tmp_path / name) == []


def test_ids_are_bound_to_their_interaction_and_never_change() -> None:
    identity = Identity("openai", "support-email-draft")
    interaction_id = identity.make_interaction_id("chatcmpl-1")
    assert interaction_id == "int_4BJ4V8SA4W408Y4EA5KPJGBQHV"
    assert make_output_id(interaction_id) == "out_4BJ4V8SA4W408Y4EA5KPJGBQHV"
    assert make_output_id(interaction_id, 1) == "out_4BJ4V8SA4W408Y4EA5KPJGBQHV_9VR4N0RNFP"
    assert make_bound_id("fbk", interaction_id, "edit") != make_bound_id("fbk", interaction_id, "rating")
    assert Identity("openai", "other").make_interaction_id("chatcmpl-1") != interaction_id
    assert Identity("openai", "support-email-draft", "b").make_interaction_id("chatcmpl-1") != interaction_id


def test_ids_that_rlaas_cannot_hold_become_hashes() -> None:
    assert external_id("usr", "user-7") == "user-7"
    user_id = external_id("usr", "kim@example.com")
    assert user_id.startswith("usr_")
    assert len(user_id) == 30
    assert make_metric_name("User-Feedback (v2)") == "user_feedback_v2"


@pytest.mark.parametrize(
    "value",
    [
        1748526379.963,
        "1748526379.963",
        1748526379963,
        "2025-05-29T13:46:19.963Z",
        "2025-05-29 13:46:19.963000",
        "2025-05-29T15:46:19.963+02:00",
    ],
)
def test_a_moment_is_read_however_it_is_written(value: float | str) -> None:
    moment = read_moment({"at": value}, "at")
    assert moment is not None
    assert format_rfc3339(moment) == "2025-05-29T13:46:19.963000Z"


@pytest.mark.parametrize(
    ("value", "reason"), [("soon", "bad_time"), (True, "bad_time"), (1e300, "bad_time"), ("2019-12-31", "time_out_of_range")]
)
def test_a_moment_that_is_none_or_out_of_range_is_refused(value: float | str, reason: str) -> None:
    with pytest.raises(RowRefused) as error:
        read_moment({"at": value}, "at")
    assert (error.value.reason, error.value.param) == (reason, "at")
    assert read_moment({"at": ""}, "at") is None
    assert datetime.now(UTC).year >= 2020
