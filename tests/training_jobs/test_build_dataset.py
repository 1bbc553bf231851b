"""The dataset job's files and manifest."""

from pathlib import Path

import pyarrow.parquet
import pytest

from rlaas.preferences.dataset import SPLITS, DatasetManifest
from rlaas.telemetry.store import StoredEvent
from training_jobs.build_dataset import Arguments, build
from training_jobs.train import sha256

WORDS = "--tenant acme --skill support-email-draft --version v1 --database d --workgroup w"


def test_the_files_are_trl_preference_datasets_with_provenance_and_the_manifest_describes_them(
    tmp_path: Path, week_of_events: list[StoredEvent]
) -> None:
    manifest = build(Arguments.parse(WORDS.split()), week_of_events, tmp_path)
    assert DatasetManifest.model_validate_json((tmp_path / "manifest.json").read_text()) == manifest
    threads: set[str] = set()
    for split in SPLITS:
        path = tmp_path / f"{split}.parquet"
        rows = pyarrow.parquet.read_table(path).to_pylist()
        assert (len(rows), sha256(path)) == (manifest.splits[split].pairs, manifest.splits[split].sha256)
        assert not threads & {row["thread"] for row in rows}
        threads |= {row["thread"] for row in rows}
        for row in rows:
            assert [message["role"] for message in row["prompt"]] == ["system", "user"]
            assert row["chosen"][0]["role"] == row["rejected"][0]["role"] == "assistant"
            assert row["output_id"] == row["interaction_id"].replace("int_", "out_")
            assert len(row["feedback_ids"]) == 2
    assert manifest.events == len(week_of_events)
    assert manifest.columns == tuple(pyarrow.parquet.read_schema(tmp_path / "train.parquet").names)


def test_events_delivered_twice_and_in_another_order_make_the_same_files(tmp_path: Path, week_of_events: list[StoredEvent]) -> None:
    once = build(Arguments.parse(WORDS.split()), week_of_events, tmp_path / "once")
    twice = build(Arguments.parse(WORDS.split()), [*reversed(week_of_events), *week_of_events], tmp_path / "twice")
    assert once.model_dump(exclude={"created_at"}) == twice.model_dump(exclude={"created_at"})


def test_a_dataset_without_events_has_empty_files_with_columns(tmp_path: Path) -> None:
    manifest = build(Arguments.parse(WORDS.split()), [], tmp_path)
    assert {file.pairs for file in manifest.splits.values()} == {0}
    assert pyarrow.parquet.read_schema(tmp_path / "test.parquet").names == list(manifest.columns)


def test_a_missing_argument_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        Arguments.parse(["--tenant", "acme", "--skill", "mail", "--version", "v1", "--database", "d"])
    assert "--workgroup" in capsys.readouterr().err
