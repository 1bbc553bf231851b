"""The many small files of a day in the lake become few large ones without duplicates.

A SageMaker processing job, daily. A partition (one event type, one day) is due once its day is over and it holds
anything but the files of one compaction, so that an event that comes late into an old day is taken in by the next run,
and nothing has to be remembered between runs.

What is read is deleted only after what replaces it was uploaded and its rows were counted. A run that is killed, or two
runs at once, can leave an event twice, which every reader of the lake allows for and the next run mends, but can never
lose one: a new file's name holds a digest of the files it was made of and one of its own content, so that no run
replaces or deletes what it has just written.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import math
import re
import sys
import tempfile
import zlib
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from rlaas.adapters.aws.clients import client, dependency
from rlaas.clock import utc_now
from rlaas.errors import DependencyUnavailable
from training_jobs.ending import JobFailed, exit_status

if TYPE_CHECKING:
    import pyarrow
    from types_boto3_s3 import S3Client

logger = logging.getLogger("compact")

KEY = re.compile(r"events/event_type=(?P<event_type>[^/]+)/event_date=(?P<event_date>\d{4}-\d{2}-\d{2})/(?:[^/._][^/]*/)*[^/._][^/]*")
"""A partition's file. Firehose may put folders of its own below (the hour of delivery); Athena skips names that begin
with `.` or `_`."""
COMPACTED = re.compile(r"compacted-(?P<inputs>[0-9a-f]{16})-[0-9a-f]{16}\.parquet")
SHARD_MIB = 512
"""Uncompressed MiB of one output file: 100 to 250 MB as zstd, by its texts, and about 2.5 GiB of memory while it is put
in order."""
ROWS_PER_GROUP = 20_000
"""Rows are sorted by tenant and skill: readers of one tenant skip the row groups of the others by their statistics."""
_DOWNLOADS = 8
_DELETES = 1_000
_CHUNK = 1024**2


class RowsDiffer(Exception):
    """What was uploaded does not hold every event that was read; nothing was deleted."""


class FilesGone(Exception):
    """A file was deleted since it was listed: another run is at work on the partition. Nothing was written."""


@dataclass(frozen=True)
class LakeFile:
    """An object of the lake; `size` in bytes."""

    key: str
    etag: str
    size: int

    @property
    def name(self) -> str:
        """The key's last part."""
        return self.key.rpartition("/")[2]


@dataclass(frozen=True)
class Partition:
    """The files of one event type and day, by key."""

    event_type: str
    event_date: str
    files: tuple[LakeFile, ...]

    @property
    def prefix(self) -> str:
        """What the keys of its files begin with."""
        return f"events/event_type={self.event_type}/event_date={self.event_date}/"

    @property
    def digest(self) -> str:
        """Names the files by their keys and contents, 16 hexadecimal characters."""
        return hashlib.sha256("".join(f"{file.key} {file.etag}\n" for file in self.files).encode()).hexdigest()[:16]

    @property
    def is_compacted(self) -> bool:
        """Whether all its files are of one compaction; a large partition has several."""
        found = [COMPACTED.fullmatch(file.name) for file in self.files]
        return all(found) and len({match["inputs"] for match in found if match}) == 1


@dataclass(frozen=True)
class Merged:
    """What became of a partition: `written` holds the rows of `read`, less `duplicates`."""

    read: tuple[LakeFile, ...]
    written: tuple[LakeFile, ...]
    rows: int
    duplicates: int


@dataclass(frozen=True)
class Arguments:
    """The job's command line."""

    bucket: str
    until: str
    max_partitions: int
    shard_mib: int

    @classmethod
    def parse(cls, words: Sequence[str]) -> Arguments:
        """Raises: SystemExit naming the argument that is missing or wrong."""
        parser = argparse.ArgumentParser(prog="compact", description=__doc__)
        parser.add_argument("--bucket", required=True, help="the lake's bucket")
        parser.add_argument(
            "--until", default=str(utc_now().date() - timedelta(days=1)), help="last day, YYYY-MM-DD; default: yesterday, UTC"
        )
        parser.add_argument("--max-partitions", type=int, default=500, help="the newest so many; the others wait for the next run")
        parser.add_argument(
            "--shard-mib", type=int, default=SHARD_MIB, help="uncompressed MiB that are sorted in memory and become one file"
        )
        return cls(**vars(parser.parse_args(words)))


def partitions(s3: S3Client, bucket: str) -> list[Partition]:
    """Every partition of the lake, newest day first."""
    found: dict[tuple[str, str], list[LakeFile]] = defaultdict(list)
    with dependency("S3"):
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix="events/"):
            for entry in page.get("Contents", []):
                if match := KEY.fullmatch(entry["Key"]):
                    file = LakeFile(entry["Key"], entry["ETag"].strip('"'), entry["Size"])
                    found[match["event_date"], match["event_type"]].append(file)
    return [
        Partition(event_type, event_date, tuple(sorted(files, key=lambda file: file.key)))
        for (event_date, event_type), files in sorted(found.items(), reverse=True)
    ]


def merge(s3: S3Client, bucket: str, partition: Partition, folder: Path, *, shard_mib: int = SHARD_MIB) -> Merged:
    """Upload the partition's events without duplicates and count them there; delete nothing.

    `folder` takes the partition's files and as much again. A partition of more than `shard_mib` (uncompressed) is cut
    by a hash of (tenant_id, event_id): each file then holds every tenant's share of the events, sorted, and no event is
    in two of them.

    Raises: FilesGone, RowsDiffer; DependencyUnavailable when S3 does not answer; pyarrow.ArrowException for a file that
    is no Parquet.
    """
    from pyarrow import parquet

    paths = _download(s3, bucket, partition.files, folder)
    footers = [parquet.read_metadata(path) for path in paths]
    rows = sum(footer.num_rows for footer in footers)
    size = sum(footer.row_group(number).total_byte_size for footer in footers for number in range(footer.num_row_groups))
    shards = max(1, math.ceil(size / (shard_mib * 1024**2)))
    written, duplicates, uploaded_rows = [], 0, 0
    for shard in _scatter(paths, folder, shards):
        output = folder / "output.parquet"
        kept, dropped = _rewrite(shard, output)
        duplicates += dropped
        if kept:
            file, count = _upload(s3, bucket, partition, output)
            written.append(file)
            uploaded_rows += count
    if uploaded_rows != rows - duplicates:
        raise RowsDiffer(f"{uploaded_rows} rows uploaded of {rows} less {duplicates} duplicates")
    return Merged(partition.files, tuple(written), rows, duplicates)


def delete(s3: S3Client, bucket: str, files: Sequence[LakeFile]) -> None:
    """Delete `files`. Raises: DependencyUnavailable when S3 refuses one or does not answer."""
    for start in range(0, len(files), _DELETES):
        with dependency("S3"):
            answer = s3.delete_objects(
                Bucket=bucket, Delete={"Objects": [{"Key": file.key} for file in files[start : start + _DELETES]], "Quiet": True}
            )
        if refused := answer.get("Errors"):
            raise DependencyUnavailable(f"S3 did not delete {len(refused)} files, the first for {refused[0].get('Code')}")


def deduplicated(events: pyarrow.Table) -> pyarrow.Table:
    """One row per (tenant_id, event_id), the one received first, sorted by tenant_id, skill, received_at.

    A row without one of the two ids is like no other and stays.
    """
    import pyarrow
    from pyarrow import compute

    keys = events.select(["tenant_id", "event_id", "received_at", "skill"])
    order = compute.sort_indices(keys, sort_keys=[(name, "ascending") for name in ("tenant_id", "event_id", "received_at")])
    ids = keys.select(["tenant_id", "event_id"]).take(order)
    differs = [compute.fill_null(compute.not_equal(column[1:], column[:-1]), True) for column in ids.columns]
    first = pyarrow.chunked_array([pyarrow.array([True] * min(1, len(order))), *compute.or_(*differs).chunks], pyarrow.bool_())
    order = order.filter(first.combine_chunks())
    by_tenant = compute.sort_indices(
        keys.take(order), sort_keys=[(name, "ascending") for name in ("tenant_id", "skill", "received_at", "event_id")]
    )
    return events.take(order.take(by_tenant))


def _rewrite(shard: Path, output: Path) -> tuple[int, int]:
    """Write the rows of `shard` to `output`; how many rows were kept and how many dropped. The memory it took is free
    again afterwards."""
    import pyarrow
    from pyarrow import parquet

    with pyarrow.OSFile(str(shard)) as source:
        events = pyarrow.ipc.open_file(source).read_all()
    kept = deduplicated(events)
    parquet.write_table(kept, output, compression="zstd", row_group_size=ROWS_PER_GROUP, store_schema=False)
    return kept.num_rows, events.num_rows - kept.num_rows


def _download(s3: S3Client, bucket: str, files: Sequence[LakeFile], folder: Path) -> list[Path]:
    def download(number: int, file: LakeFile) -> Path:
        path = folder / f"input-{number:06}.parquet"
        with dependency("S3"):
            try:
                body = s3.get_object(Bucket=bucket, Key=file.key)["Body"]
            except s3.exceptions.NoSuchKey:
                raise FilesGone(file.key) from None
            with path.open("wb") as opened:
                for chunk in body.iter_chunks(_CHUNK):
                    opened.write(chunk)
        return path

    with ThreadPoolExecutor(_DOWNLOADS) as pool:
        return list(pool.map(download, range(len(files)), files))


def _scatter(paths: Sequence[Path], folder: Path, shards: int) -> list[Path]:
    """The rows of `paths` in one Arrow file a shard, with every column that one of them has; they are read once, in
    pieces."""
    import pyarrow
    from pyarrow import dataset, parquet

    schema = pyarrow.unify_schemas([parquet.read_schema(path).remove_metadata() for path in paths], promote_options="permissive")
    read = dataset.dataset([str(path) for path in paths], schema=schema, format="parquet")
    batches = read.to_batches(batch_size=ROWS_PER_GROUP, batch_readahead=2, fragment_readahead=1)
    spilled = [folder / f"shard-{number:04}.arrow" for number in range(shards)]
    options = pyarrow.ipc.IpcWriteOptions(compression="lz4")
    with ExitStack() as stack:
        writers = [stack.enter_context(pyarrow.ipc.new_file(str(path), schema, options=options)) for path in spilled]
        for batch in batches:
            for number, part in enumerate(_parts(batch, shards)):
                writers[number].write_batch(part)
    return spilled


def _parts(batch: pyarrow.RecordBatch, shards: int) -> list[pyarrow.RecordBatch]:
    import pyarrow
    from pyarrow import compute

    if shards == 1:
        return [batch]
    ids = zip(batch.column("tenant_id").to_pylist(), batch.column("event_id").to_pylist(), strict=True)
    shard = pyarrow.array([zlib.crc32(f"{tenant}/{event}".encode()) % shards for tenant, event in ids], pyarrow.int32())
    return [batch.filter(compute.equal(shard, number)) for number in range(shards)]


def _upload(s3: S3Client, bucket: str, partition: Partition, path: Path) -> tuple[LakeFile, int]:
    """The uploaded file, and how many rows its footer says there."""
    from pyarrow import parquet

    with path.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()[:16]
    key = f"{partition.prefix}compacted-{partition.digest}-{digest}.parquet"
    footer = parquet.read_metadata(path).serialized_size + 8  # its length and the closing magic bytes
    with dependency("S3"), path.open("rb") as opened:
        s3.put_object(Bucket=bucket, Key=key, Body=opened)
        answer = s3.get_object(Bucket=bucket, Key=key, Range=f"bytes=-{footer}")
        count: int = parquet.read_metadata(BytesIO(answer["Body"].read())).num_rows
    return LakeFile(key, answer["ETag"].strip('"'), path.stat().st_size), count


def compact(s3: S3Client, bucket: str, partition: Partition, *, shard_mib: int = SHARD_MIB) -> Merged:
    """Merge, then delete what was read. Raises: as `merge` and `delete`."""
    with tempfile.TemporaryDirectory(prefix="compact-") as folder:
        merged = merge(s3, bucket, partition, Path(folder), shard_mib=shard_mib)
    delete(s3, bucket, merged.read)
    return merged


def main() -> int:
    """Run the job; its exit status. One line of JSON per partition."""
    logging.basicConfig(format="%(message)s")
    logger.setLevel(logging.INFO)
    return exit_status(work)


def work() -> None:
    """Compact what is due. Raises: JobFailed when a partition failed, after the others were done."""
    import pyarrow

    arguments = Arguments.parse(sys.argv[1:])
    s3 = client("s3")
    due = [found for found in partitions(s3, arguments.bucket) if found.event_date <= arguments.until and not found.is_compacted]
    failed: list[str] = []
    for partition in due[: arguments.max_partitions]:
        said: dict[str, object] = {"event_type": partition.event_type, "event_date": partition.event_date}
        try:
            merged = compact(s3, arguments.bucket, partition, shard_mib=arguments.shard_mib)
        except FilesGone:
            said |= {"skipped": "another run is at work on it"}
        except (DependencyUnavailable, RowsDiffer, pyarrow.ArrowException) as error:
            said |= {"failed": type(error).__name__, "reason": str(error)}
            failed.append(f"{partition.event_type} of {partition.event_date} ({type(error).__name__})")
        else:
            said |= {
                "files_in": len(merged.read),
                "files_out": len(merged.written),
                "rows_in": merged.rows,
                "duplicates": merged.duplicates,
                "rows_out": merged.rows - merged.duplicates,
                "bytes_in": sum(file.size for file in merged.read),
                "bytes_out": sum(file.size for file in merged.written),
            }
        logger.info(json.dumps(said))
    logger.info(json.dumps({"due": len(due), "left": max(0, len(due) - arguments.max_partitions), "failed": len(failed)}))
    if failed:
        raise JobFailed(
            f"{len(failed)} of {len(due)} partitions stay as they were, the first {failed[0]}: the job's log has a line for each; "
            "they are due again the next day"
        )
