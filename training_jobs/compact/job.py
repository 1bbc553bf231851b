"""Merge the many small files of a day in the lake into few large ones without duplicates.

A SageMaker processing job, daily. A partition (one event type, one day) is due once its day is over and it holds
anything but the files of one compaction. So the next run picks up an event that arrives late for an old day, and no
state is stored between runs.

A run deletes the files that it read only after their replacements were uploaded and the rows counted. A run that is
killed, or two runs at once, can leave an event twice, which every reader of the lake allows for and the next run
corrects. They can never lose one: a new file's name contains a digest of the files that it was made of and one of its
own content, so that no run replaces or deletes what it has just written.
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
from training_jobs.ending import JobFailed, run_job

if TYPE_CHECKING:
    import pyarrow
    from types_boto3_s3 import S3Client

logger = logging.getLogger("compact")

KEY = re.compile(r"events/event_type=(?P<event_type>[^/]+)/event_date=(?P<event_date>\d{4}-\d{2}-\d{2})/(?:[^/._][^/]*/)*[^/._][^/]*")
"""The key of a file of a partition. Firehose may add folders of its own (the hour of delivery); Athena skips names that
begin with `.` or `_`."""
COMPACTED = re.compile(r"compacted-(?P<inputs>[0-9a-f]{16})-[0-9a-f]{16}\.parquet")
SHARD_MIB = 512
"""Uncompressed MiB of one output file: 100 to 250 MB as zstd, depending on its texts, and about 2.5 GiB of memory while
it is sorted."""
ROWS_PER_GROUP = 20_000
"""Rows of one row group. They are sorted by tenant and skill, so that readers of one tenant skip the row groups of
others by their statistics."""
_DOWNLOADS = 8
_DELETES = 1_000
_CHUNK = 1024**2


class RowsDiffer(Exception):
    """The uploaded files do not contain every event that was read; nothing was deleted."""


class FilesGone(Exception):
    """A file was deleted after it was listed: another run is working on the partition. Nothing was written."""


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
        """The prefix of the keys of its files."""
        return f"events/event_type={self.event_type}/event_date={self.event_date}/"

    @property
    def digest(self) -> str:
        """A digest of the files' keys and contents, 16 hexadecimal characters."""
        return hashlib.sha256("".join(f"{file.key} {file.etag}\n" for file in self.files).encode()).hexdigest()[:16]

    @property
    def is_compacted(self) -> bool:
        """Whether all its files are of one compaction; a large partition has several."""
        matches = [COMPACTED.fullmatch(file.name) for file in self.files]
        return all(matches) and len({match["inputs"] for match in matches if match}) == 1


@dataclass(frozen=True)
class MergedPartition:
    """A merged partition: the files `written` hold the rows of the files `read`, less `duplicates`."""

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
        """Parse the command line. Raises: SystemExit naming the argument that is missing or wrong."""
        parser = argparse.ArgumentParser(prog="compact", description=__doc__)
        parser.add_argument("--bucket", required=True, help="the lake's bucket")
        parser.add_argument(
            "--until", default=str(utc_now().date() - timedelta(days=1)), help="last day, YYYY-MM-DD; default: yesterday, UTC"
        )
        parser.add_argument(
            "--max-partitions", type=int, default=500, help="how many to compact, the newest first; the others wait for the next run"
        )
        parser.add_argument(
            "--shard-mib", type=int, default=SHARD_MIB, help="uncompressed MiB that are sorted in memory and become one file"
        )
        return cls(**vars(parser.parse_args(words)))


def list_partitions(s3: S3Client, bucket: str) -> list[Partition]:
    """Every partition of the lake, newest day first. Raises: DependencyUnavailable."""
    files_by_partition: dict[tuple[str, str], list[LakeFile]] = defaultdict(list)
    with dependency("S3"):
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix="events/"):
            for entry in page.get("Contents", []):
                if match := KEY.fullmatch(entry["Key"]):
                    file = LakeFile(entry["Key"], entry["ETag"].strip('"'), entry["Size"])
                    files_by_partition[match["event_date"], match["event_type"]].append(file)
    return [
        Partition(event_type, event_date, tuple(sorted(files, key=lambda file: file.key)))
        for (event_date, event_type), files in sorted(files_by_partition.items(), reverse=True)
    ]


def merge(s3: S3Client, bucket: str, partition: Partition, folder: Path, *, shard_mib: int = SHARD_MIB) -> MergedPartition:
    """Upload the partition's events without duplicates and count them there; delete nothing.

    `folder` needs twice the space of the partition's files. A partition of more than `shard_mib` (uncompressed) is
    divided by a hash of (tenant_id, event_id): each file then holds events of every tenant, sorted, and no event is in
    two files.

    Raises: FilesGone, RowsDiffer; DependencyUnavailable when S3 does not answer; pyarrow.ArrowException for a file that
    is no Parquet.
    """
    from pyarrow import parquet

    paths = _download(s3, bucket, partition.files, folder)
    footers = [parquet.read_metadata(path) for path in paths]
    rows = sum(footer.num_rows for footer in footers)
    size = sum(footer.row_group(number).total_byte_size for footer in footers for number in range(footer.num_row_groups))
    shards = max(1, math.ceil(size / (shard_mib * 1024**2)))
    outputs, duplicates, uploaded_rows = [], 0, 0
    for shard in _scatter(paths, folder, shards):
        output = folder / "output.parquet"
        rows_kept, rows_dropped = _rewrite(shard, output)
        duplicates += rows_dropped
        if rows_kept:
            file, count = _upload(s3, bucket, partition, output)
            outputs.append(file)
            uploaded_rows += count
    if uploaded_rows != rows - duplicates:
        raise RowsDiffer(f"{uploaded_rows} rows uploaded of {rows} less {duplicates} duplicates")
    return MergedPartition(partition.files, tuple(outputs), rows, duplicates)


def delete(s3: S3Client, bucket: str, files: Sequence[LakeFile]) -> None:
    """Delete `files`. Raises: DependencyUnavailable when S3 refuses one or does not answer."""
    for start in range(0, len(files), _DELETES):
        with dependency("S3"):
            answer = s3.delete_objects(
                Bucket=bucket, Delete={"Objects": [{"Key": file.key} for file in files[start : start + _DELETES]], "Quiet": True}
            )
        if errors := answer.get("Errors"):
            raise DependencyUnavailable(f"S3 did not delete {len(errors)} files, the first for {errors[0].get('Code')}")


def deduplicate(events: pyarrow.Table) -> pyarrow.Table:
    """One row per (tenant_id, event_id), the one received first, sorted by tenant_id, skill, received_at.

    A row without one of the two ids has no duplicates and stays.
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
    """Write the rows of `shard` to `output` without duplicates. Returns how many rows were kept and how many dropped;
    the memory that it took is free again afterwards."""
    import pyarrow
    from pyarrow import parquet

    with pyarrow.OSFile(str(shard)) as source:
        events = pyarrow.ipc.open_file(source).read_all()
    unique = deduplicate(events)
    parquet.write_table(unique, output, compression="zstd", row_group_size=ROWS_PER_GROUP, store_schema=False)
    return unique.num_rows, events.num_rows - unique.num_rows


def _download(s3: S3Client, bucket: str, files: Sequence[LakeFile], folder: Path) -> list[Path]:
    def download(number: int, file: LakeFile) -> Path:
        path = folder / f"input-{number:06}.parquet"
        with dependency("S3"):
            try:
                body = s3.get_object(Bucket=bucket, Key=file.key)["Body"]
            except s3.exceptions.NoSuchKey:
                raise FilesGone(file.key) from None
            with path.open("wb") as output:
                for chunk in body.iter_chunks(_CHUNK):
                    output.write(chunk)
        return path

    with ThreadPoolExecutor(_DOWNLOADS) as pool:
        return list(pool.map(download, range(len(files)), files))


def _scatter(paths: Sequence[Path], folder: Path, shards: int) -> list[Path]:
    """Divide the rows of `paths` into one Arrow file per shard, with every column that any of them has. They are read
    once, in batches."""
    import pyarrow
    from pyarrow import dataset, parquet

    schema = pyarrow.unify_schemas([parquet.read_schema(path).remove_metadata() for path in paths], promote_options="permissive")
    read = dataset.dataset([str(path) for path in paths], schema=schema, format="parquet")
    batches = read.to_batches(batch_size=ROWS_PER_GROUP, batch_readahead=2, fragment_readahead=1)
    shard_paths = [folder / f"shard-{number:04}.arrow" for number in range(shards)]
    options = pyarrow.ipc.IpcWriteOptions(compression="lz4")
    with ExitStack() as stack:
        writers = [stack.enter_context(pyarrow.ipc.new_file(str(path), schema, options=options)) for path in shard_paths]
        for batch in batches:
            for number, part in enumerate(_split_batch(batch, shards)):
                writers[number].write_batch(part)
    return shard_paths


def _split_batch(batch: pyarrow.RecordBatch, shards: int) -> list[pyarrow.RecordBatch]:
    import pyarrow
    from pyarrow import compute

    if shards == 1:
        return [batch]
    ids = zip(batch.column("tenant_id").to_pylist(), batch.column("event_id").to_pylist(), strict=True)
    shard = pyarrow.array([zlib.crc32(f"{tenant}/{event}".encode()) % shards for tenant, event in ids], pyarrow.int32())
    return [batch.filter(compute.equal(shard, number)) for number in range(shards)]


def _upload(s3: S3Client, bucket: str, partition: Partition, path: Path) -> tuple[LakeFile, int]:
    """Upload a file. Returns it, and the number of rows by the footer of the uploaded object."""
    from pyarrow import parquet

    with path.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()[:16]
    key = f"{partition.prefix}compacted-{partition.digest}-{digest}.parquet"
    footer = parquet.read_metadata(path).serialized_size + 8  # its length and the closing magic bytes
    with dependency("S3"), path.open("rb") as content:
        s3.put_object(Bucket=bucket, Key=key, Body=content)
        answer = s3.get_object(Bucket=bucket, Key=key, Range=f"bytes=-{footer}")
        count: int = parquet.read_metadata(BytesIO(answer["Body"].read())).num_rows
    return LakeFile(key, answer["ETag"].strip('"'), path.stat().st_size), count


def compact(s3: S3Client, bucket: str, partition: Partition, *, shard_mib: int = SHARD_MIB) -> MergedPartition:
    """Merge a partition, then delete the files that were read. Raises: as `merge` and `delete`."""
    with tempfile.TemporaryDirectory(prefix="compact-") as folder:
        result = merge(s3, bucket, partition, Path(folder), shard_mib=shard_mib)
    delete(s3, bucket, result.read)
    return result


def main() -> int:
    """Run the job and return its exit status. It logs one line of JSON per partition."""
    logging.basicConfig(format="%(message)s")
    logger.setLevel(logging.INFO)
    return run_job(work)


def work() -> None:
    """Compact the partitions that are due. Raises: JobFailed when one failed, after the others were done."""
    import pyarrow

    arguments = Arguments.parse(sys.argv[1:])
    s3 = client("s3")
    due = [
        partition
        for partition in list_partitions(s3, arguments.bucket)
        if partition.event_date <= arguments.until and not partition.is_compacted
    ]
    failures: list[str] = []
    for partition in due[: arguments.max_partitions]:
        report: dict[str, object] = {"event_type": partition.event_type, "event_date": partition.event_date}
        try:
            result = compact(s3, arguments.bucket, partition, shard_mib=arguments.shard_mib)
        except FilesGone:
            report |= {"skipped": "another run is working on it"}
        except (DependencyUnavailable, RowsDiffer, pyarrow.ArrowException) as error:
            report |= {"failed": type(error).__name__, "reason": str(error)}
            failures.append(f"{partition.event_type} of {partition.event_date} ({type(error).__name__})")
        else:
            report |= {
                "files_in": len(result.read),
                "files_out": len(result.written),
                "rows_in": result.rows,
                "duplicates": result.duplicates,
                "rows_out": result.rows - result.duplicates,
                "bytes_in": sum(file.size for file in result.read),
                "bytes_out": sum(file.size for file in result.written),
            }
        logger.info(json.dumps(report))
    logger.info(json.dumps({"due": len(due), "left": max(0, len(due) - arguments.max_partitions), "failed": len(failures)}))
    if failures:
        raise JobFailed(
            f"{len(failures)} of {len(due)} partitions stay as they were, the first {failures[0]}: the job's log has a line for each; "
            "they are due again the next day"
        )
