"""Build a versioned dataset of preference pairs and demonstrations from a run's events.

A SageMaker processing job without a network. It reads the events of one tenant's skill from the files that Athena wrote
to /opt/ml/processing/input/events. To /opt/ml/processing/output/dataset it writes train, validation and test Parquet
files in TRL's conversational preference format, demonstrations.parquet in TRL's prompt-completion format, the test
split's prompts as JSON lines (for a function that cannot read Parquet), and manifest.json.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rlaas.clock import rfc3339, utc_now
from rlaas.ids import hash_canonical_json
from rlaas.preferences.dataset import (
    SPLITS,
    TEST_PROMPTS,
    DatasetManifest,
    DemonstrationsFile,
    PromptsFile,
    SplitFile,
    SplitShares,
    build_demonstration_row,
    build_held_out_prompt,
    build_trl_row,
    explain_shortfall,
    keep_within_shares,
    select_demonstrations,
    split_pairs,
)
from rlaas.preferences.left_out import ADVICE
from rlaas.preferences.pairs import Pair, build_pairs
from rlaas.telemetry.store import StoredEvent
from training_jobs.ending import JobFailed, run_job
from training_jobs.ml_root import ml_root

if TYPE_CHECKING:
    import pyarrow

logger = logging.getLogger("build_dataset")


@dataclass(frozen=True)
class Arguments:
    """The job's command line."""

    tenant: str
    skill: str
    version: str
    min_pairs: int
    shares: SplitShares

    @classmethod
    def parse(cls, words: list[str]) -> Arguments:
        """Parse the command line. Raises: SystemExit naming the argument that is missing or wrong."""
        parser = argparse.ArgumentParser(prog="build_dataset", description=__doc__)
        for name in ("tenant", "skill", "version"):
            parser.add_argument(f"--{name}", required=True)
        parser.add_argument("--min-pairs", type=int, default=8, help="fewer training pairs than this fail the job")
        parser.add_argument("--validation-share", type=float, default=SplitShares().validation)
        parser.add_argument("--test-share", type=float, default=SplitShares().test)
        arguments = parser.parse_args(words)
        return cls(
            tenant=arguments.tenant,
            skill=arguments.skill,
            version=arguments.version,
            min_pairs=arguments.min_pairs,
            shares=SplitShares(validation=arguments.validation_share, test=arguments.test_share),
        )


def read_events(tenant: str, folder: Path) -> Iterator[StoredEvent]:
    """The tenant's events in the files that Athena wrote for the run (`rlaas.learning.selection`); an event delivered
    twice comes twice."""
    import pyarrow.parquet

    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        for batch in pyarrow.parquet.ParquetFile(path).iter_batches():
            for row in batch.to_pylist():
                if row["event_id"] is None:
                    continue  # the row of nulls that the statement adds
                yield StoredEvent(
                    tenant_id=tenant,
                    payload_sha256=None,
                    **(row | {name: datetime.fromisoformat(row[name]).astimezone(UTC) for name in ("occurred_at", "received_at")}),
                )


def build_schema() -> pyarrow.Schema:
    """The columns of a dataset's files of pairs: TRL's conversational preference columns, then provenance."""
    import pyarrow

    return pyarrow.schema(
        [
            *((name, _build_messages_type()) for name in ("prompt", "chosen", "rejected")),
            ("tools", pyarrow.string()),
            *_list_provenance_columns(),
            ("preferred_output_id", pyarrow.string()),
            ("discarded", pyarrow.bool_()),
        ]
    )


def build_demonstrations_schema() -> pyarrow.Schema:
    """The columns of a dataset's demonstrations: TRL's conversational prompt-completion columns, then provenance."""
    import pyarrow

    return pyarrow.schema(
        [
            ("prompt", _build_messages_type()),
            ("completion", _build_messages_type()),
            ("tools", pyarrow.string()),
            *_list_provenance_columns(),
        ]
    )


def _build_messages_type() -> pyarrow.DataType:
    """A list of messages in OpenAI's format; a call's arguments are the JSON text that the model wrote."""
    import pyarrow

    text = pyarrow.string()
    call = pyarrow.struct([("id", text), ("type", text), ("function", pyarrow.struct([("name", text), ("arguments", text)]))])
    fields = [("role", text), ("content", text), ("tool_calls", pyarrow.list_(call)), ("tool_call_id", text)]
    return pyarrow.list_(pyarrow.struct(fields))


def _list_provenance_columns() -> list[tuple[str, pyarrow.DataType]]:
    import pyarrow

    text = pyarrow.string()
    types = {"feedback_ids": pyarrow.list_(text)}
    names = ("interaction_id", "output_id", "feedback_ids", "thread", "person", "policy_id", "occurred_at")
    return [(name, types.get(name, text)) for name in names]


def write_split(pairs: list[Pair], path: Path) -> SplitFile:
    """Write a split as a Parquet file; an empty one has the columns and no rows."""
    digest = _write([build_trl_row(pair) for pair in pairs], build_schema(), path)
    people = Counter(pair.person for pair in pairs)
    return SplitFile(
        pairs=len(pairs),
        threads=len({pair.thread for pair in pairs}),
        people=len(people),
        largest_share=max(people.values()) / len(pairs) if pairs else 0.0,
        sha256=digest,
    )


def write_demonstrations(pairs: list[Pair], path: Path) -> DemonstrationsFile:
    """Write the demonstrations, from which only SFT learns; without any, the file has the columns and no rows."""
    digest = _write([build_demonstration_row(pair) for pair in pairs], build_demonstrations_schema(), path)
    return DemonstrationsFile(demonstrations=len(pairs), threads=len({pair.thread for pair in pairs}), sha256=digest)


def write_test_prompts(pairs: list[Pair], path: Path) -> PromptsFile:
    """Write the prompts for the evaluation, a line for each row of the test split."""
    content = "".join(f"{build_held_out_prompt(pair).model_dump_json()}\n" for pair in pairs).encode()
    path.write_bytes(content)
    return PromptsFile(prompts=len(pairs), sha256=hashlib.sha256(content).hexdigest())


def _write(rows: list[Mapping[str, object]], columns: pyarrow.Schema, path: Path) -> str:
    """Write a Parquet file and return its SHA-256, hexadecimal."""
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([dict(row) for row in rows], schema=columns), path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def build(arguments: Arguments, events: list[StoredEvent], output: Path) -> DatasetManifest:
    """Write the dataset's files under `output` and return its manifest."""
    output.mkdir(parents=True, exist_ok=True)
    result = build_pairs(events)
    salt = f"{arguments.tenant}/{arguments.skill}"
    sides = split_pairs(result.pairs, arguments.shares, salt=salt)
    demonstrations = select_demonstrations(result.pairs, arguments.shares, salt=salt)
    splits = {split: keep_within_shares(sides[split]) for split in SPLITS}
    in_sides = len(demonstrations) + sum(len(side) for side in sides.values())
    files = {split: write_split(splits[split], output / f"{split}.parquet") for split in SPLITS}
    demonstrations = keep_within_shares(demonstrations)
    over_share = in_sides - len(demonstrations) - sum(len(side) for side in splits.values())
    dropped = +Counter(result.dropped | {"unchanged": len(result.pairs) - in_sides, "over_share": over_share})
    moments = sorted({event.received_at for event in events})
    manifest = DatasetManifest(
        tenant_id=arguments.tenant,
        skill=arguments.skill,
        version=arguments.version,
        created_at=rfc3339(utc_now()),
        splits=files,
        demonstrations=write_demonstrations(demonstrations, output / "demonstrations.parquet"),
        test_prompts=write_test_prompts(splits["test"], output / TEST_PROMPTS),
        outputs=result.outputs,
        dropped=dropped,
        advice={reason: ADVICE[reason] for reason in dropped},
        min_pairs=arguments.min_pairs,
        discarded_drafts=sum(pair.discarded for pair in result.pairs),
        events=len({event.event_id for event in events}),
        events_since=rfc3339(moments[0]) if moments else None,
        events_until=rfc3339(moments[-1]) if moments else None,
        events_sha256=hash_canonical_json([*sorted({event.event_id for event in events})]),
        policies=tuple(sorted({pair.policy_id for pair in result.pairs if pair.policy_id})),
        columns=tuple(build_schema().names),
    )
    (output / "manifest.json").write_text(manifest.model_dump_json(indent=2) + "\n")
    return manifest


def main() -> int:
    """Run the job and return its exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    return run_job(work)


def work() -> None:
    """Read the events and write the dataset. Raises: JobFailed when there are too few pairs to learn from."""
    arguments = Arguments.parse(sys.argv[1:])
    processing = ml_root() / "processing"
    events = list(read_events(arguments.tenant, processing / "input" / "events"))
    logger.info("read %d events of %s/%s", len(events), arguments.tenant, arguments.skill)
    manifest = build(arguments, events, processing / "output" / "dataset")
    logger.info(
        "dataset %s: %s, %s; of %d outputs dropped %s",
        arguments.version,
        {split: file.pairs for split, file in manifest.splits.items()},
        manifest.demonstrations,
        manifest.outputs,
        manifest.dropped,
    )
    if reason := explain_shortfall(manifest):
        raise JobFailed(reason)
