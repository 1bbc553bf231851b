"""Events in the lake become a versioned dataset of preference pairs.

A SageMaker processing job: reads one tenant's and skill's events with Athena, writes train, validation and test Parquet files in TRL's
conversational preference format and manifest.json under /opt/ml/processing/output/dataset.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rlaas.clock import rfc3339, utc_now
from rlaas.ids import canonical_sha256
from rlaas.preferences.dataset import SPLITS, DatasetManifest, SplitFile, SplitShares, split_pairs, trl_row
from rlaas.preferences.pairs import Pair, build_pairs
from rlaas.telemetry.store import StoredEvent
from training_jobs.ending import JobFailed, exit_status
from training_jobs.ml_root import ml_root

if TYPE_CHECKING:
    import pyarrow

logger = logging.getLogger("build_dataset")

QUERY = """
    SELECT event_type, event_id, skill, interaction_id, output_id, thread_id, policy_id, occurred_at, received_at, payload
    FROM events
    WHERE tenant_id = :tenant AND skill = :skill AND event_type IN ('interaction', 'output', 'feedback')
      AND event_date BETWEEN :first_day AND :last_day AND occurred_at >= :since AND occurred_at < :until
"""


@dataclass(frozen=True)
class Arguments:
    """The job's command line. `since` (included) and `until` (excluded) bound the events by when they occurred, RFC 3339."""

    tenant: str
    skill: str
    version: str
    database: str
    workgroup: str
    since: str
    until: str
    min_pairs: int
    shares: SplitShares
    unload_to: str | None

    @classmethod
    def parse(cls, words: list[str]) -> Arguments:
        """Raises: SystemExit naming the argument that is missing or wrong."""
        parser = argparse.ArgumentParser(prog="build_dataset", description=__doc__)
        for name in ("tenant", "skill", "version", "database", "workgroup"):
            parser.add_argument(f"--{name}", required=True)
        parser.add_argument("--since", default="2020-01-01T00:00:00.000000Z", help="RFC 3339; default: everything")
        parser.add_argument("--until", default=None, help="RFC 3339; default: now")
        parser.add_argument("--min-pairs", type=int, default=8, help="fewer training pairs than this fail the job")
        parser.add_argument("--validation-share", type=float, default=SplitShares().validation)
        parser.add_argument("--test-share", type=float, default=SplitShares().test)
        parser.add_argument("--unload-to", default=None, help="S3 prefix: read through Athena UNLOAD, which large lakes need")
        given = parser.parse_args(words)
        return cls(
            tenant=given.tenant,
            skill=given.skill,
            version=given.version,
            database=given.database,
            workgroup=given.workgroup,
            since=rfc3339(datetime.fromisoformat(given.since)),
            until=rfc3339(datetime.fromisoformat(given.until)) if given.until else rfc3339(utc_now()),
            min_pairs=given.min_pairs,
            shares=SplitShares(validation=given.validation_share, test=given.test_share),
            unload_to=given.unload_to,
        )


def read_events(arguments: Arguments) -> Iterator[StoredEvent]:
    """The tenant's events of the skill, by Athena; an event delivered twice comes twice."""
    import awswrangler

    frame = awswrangler.athena.read_sql_query(
        QUERY,
        database=arguments.database,
        workgroup=arguments.workgroup,
        params={
            "tenant": arguments.tenant,
            "skill": arguments.skill,
            "first_day": arguments.since[:10],
            "last_day": arguments.until[:10],
            "since": arguments.since,
            "until": arguments.until,
        },
        paramstyle="named",
        ctas_approach=False,
        unload_approach=arguments.unload_to is not None,
        s3_output=arguments.unload_to,
    )
    frame = frame.astype(object).where(frame.notna(), None)
    for row in frame.to_dict("records"):
        yield StoredEvent(
            tenant_id=arguments.tenant,
            payload_sha256=hashlib.sha256(row["payload"].encode()).hexdigest(),
            **(row | {name: datetime.fromisoformat(row[name]).astimezone(UTC) for name in ("occurred_at", "received_at")}),
        )


def schema() -> pyarrow.Schema:
    """The columns of a dataset's files: TRL's conversational preference columns, then provenance."""
    import pyarrow

    messages = pyarrow.list_(pyarrow.struct([("role", pyarrow.string()), ("content", pyarrow.string())]))
    text = pyarrow.string()
    return pyarrow.schema(
        {
            "prompt": messages,
            "chosen": messages,
            "rejected": messages,
            "interaction_id": text,
            "output_id": text,
            "feedback_ids": pyarrow.list_(text),
            "thread": text,
            "policy_id": text,
            "occurred_at": text,
            "discarded": pyarrow.bool_(),
        }
    )


def write_split(pairs: list[Pair], path: Path) -> SplitFile:
    """Write one Parquet file; an empty split has the columns and no rows."""
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([dict(trl_row(pair)) for pair in pairs], schema=schema()), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return SplitFile(pairs=len(pairs), threads=len({pair.thread for pair in pairs}), sha256=digest)


def build(arguments: Arguments, events: list[StoredEvent], output: Path) -> DatasetManifest:
    """Write the dataset's files under `output` and return its manifest."""
    output.mkdir(parents=True, exist_ok=True)
    made = build_pairs(events)
    sides = split_pairs(made.pairs, arguments.shares, salt=f"{arguments.tenant}/{arguments.skill}")
    files = {split: write_split(sides[split], output / f"{split}.parquet") for split in SPLITS}
    moments = sorted({event.occurred_at for event in events})
    manifest = DatasetManifest(
        tenant_id=arguments.tenant,
        skill=arguments.skill,
        version=arguments.version,
        created_at=rfc3339(utc_now()),
        splits=files,
        dropped={**made.dropped, "unchanged": len(made.pairs) - sum(len(side) for side in sides.values())},
        discarded_drafts=sum(pair.discarded for pair in made.pairs),
        events=len({event.event_id for event in events}),
        events_since=rfc3339(moments[0]) if moments else None,
        events_until=rfc3339(moments[-1]) if moments else None,
        events_sha256=canonical_sha256([*sorted({event.event_id for event in events})]),
        policies=tuple(sorted({pair.policy_id for pair in made.pairs if pair.policy_id})),
        columns=tuple(schema().names),
    )
    (output / "manifest.json").write_text(manifest.model_dump_json(indent=2) + "\n")
    return manifest


def main() -> int:
    """Run the job; its exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    return exit_status(work)


def work() -> None:
    """Read the events and write the dataset. Raises: JobFailed when there are too few pairs to learn from."""
    arguments = Arguments.parse(sys.argv[1:])
    events = list(read_events(arguments))
    logger.info("read %d events of %s/%s", len(events), arguments.tenant, arguments.skill)
    manifest = build(arguments, events, ml_root() / "processing" / "output" / "dataset")
    logger.info(
        "dataset %s: %s; dropped %s",
        arguments.version,
        {split: file.pairs for split, file in manifest.splits.items()},
        manifest.dropped,
    )
    require_pairs(manifest, arguments.min_pairs)


def require_pairs(manifest: DatasetManifest, wanted: int) -> None:
    """Raises: JobFailed when there are fewer training pairs than `wanted`."""
    if manifest.splits["train"].pairs < wanted:
        raise JobFailed(
            f"{manifest.splits['train'].pairs} training pairs from {manifest.events} events, at least {wanted} are needed: "
            "collect more edits or lower the run's min_pairs"
        )


if __name__ == "__main__":
    sys.exit(main())
