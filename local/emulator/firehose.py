"""Firehose with a buffer: records that belong in one file are written as one.

Stock ministack (services/firehose.py) writes each record as a file of its own while the caller waits, a Parquet file
with one row: a hundred times slower, and a lake of thousands of tiny files. Here records wait RLAAS_FIREHOSE_SECONDS (2
by default; the stream's own BufferingHints ask for at least 60 on AWS) or until there are 500, and each partition's go
into one object.

Stock does not know RecordDeAggregation either, and cannot partition a record of several JSON documents. Here such a
record is split first where the stream's configuration says so.
"""

from __future__ import annotations

import contextvars
import json
import logging
import os
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from ministack.core import responses
from ministack.services import firehose

MOST_RECORDS = 500
MOST_DOCUMENTS = 500
"""Firehose's own limit of documents in a record that it splits."""
Record = dict[str, Any]
logger = logging.getLogger("rlaas.firehose")


@dataclass
class Buffer:
    """Records that wait for one destination, the context of their request, and when the first arrived (`since`, seconds
    of time.monotonic)."""

    stream: Record
    destination: Record
    context: contextvars.Context
    since: float
    records: list[tuple[str, bytes]] = field(default_factory=list)


_buffers: dict[tuple[str, str], Buffer] = {}
_buffers_changed = threading.Condition()


def _deliver(stream: Record, destination: Record, records: list[tuple[str, bytes]]) -> None:
    with _buffers_changed:
        key = (stream["arn"], destination["id"])
        if key not in _buffers:
            _buffers[key] = Buffer(stream, destination, contextvars.copy_context(), time.monotonic())
        _buffers[key].records.extend(part for record in records for part in documents(destination["config"], record))
        _buffers_changed.notify()


def documents(config: Record, record: tuple[str, bytes]) -> list[tuple[str, bytes]]:
    """The JSON documents of `record`, if the stream splits records.

    A record that is not a series of documents, or has more than Firehose splits, stays whole: it cannot be partitioned
    then, and goes to the errors.
    """
    processing = config.get("ProcessingConfiguration") or {}
    sub_records = {"ParameterName": "SubRecordType", "ParameterValue": "JSON"}
    if not processing.get("Enabled") or not any(
        processor.get("Type") == "RecordDeAggregation" and sub_records in (processor.get("Parameters") or [])
        for processor in processing.get("Processors") or []
    ):
        return [record]
    name, data = record
    decoder, parts, position = json.JSONDecoder(), [], 0
    try:
        text = data.decode().rstrip()
        while position < len(text):
            if text[position].isspace():
                position += 1
                continue
            start = position
            document, position = decoder.raw_decode(text, start)
            if not isinstance(document, dict):
                return [record]
            parts.append((name, text[start:position].encode()))
    except ValueError:
        return [record]
    return parts if 0 < len(parts) <= MOST_DOCUMENTS else [record]


def _due(now: float, wait: float) -> list[Buffer]:
    keys = [key for key, buffer in _buffers.items() if now - buffer.since >= wait or len(buffer.records) >= MOST_RECORDS]
    return [_buffers.pop(key) for key in keys]


def _flush_forever() -> None:
    wait = float(os.environ.get("RLAAS_FIREHOSE_SECONDS", "2"))
    while True:
        with _buffers_changed:
            while not (due := _due(time.monotonic(), wait)):
                oldest = min((buffer.since for buffer in _buffers.values()), default=None)
                _buffers_changed.wait(None if oldest is None else max(0.01, oldest + wait - time.monotonic()))
        for buffer in due:
            try:
                buffer.context.run(write, buffer.stream, buffer.destination, buffer.records)
            except Exception:  # the next buffers are other streams'
                logger.exception("%d records of %s are lost", len(buffer.records), buffer.stream["name"])


def write(stream: Record, destination: Record, records: list[tuple[str, bytes]]) -> None:
    """Deliver `records`, one object a partition; records that cannot be written together are written one by one, each
    error to its own file."""
    config = destination["config"]
    processing = any(
        processor.get("Type") == "Lambda" for processor in (config.get("ProcessingConfiguration") or {}).get("Processors") or []
    )
    conversion = config.get("DataFormatConversionConfiguration") or {}
    if processing or not conversion.get("Enabled", bool(conversion)):
        _stock_deliver(stream, destination, records)
        return
    groups: dict[tuple[tuple[str, str], ...], list[tuple[str, bytes]]] = {}
    dynamic = (config.get("DynamicPartitioningConfiguration") or {}).get("Enabled")
    for record in records:
        try:
            keys = firehose._metadata_extraction_keys(config, record[1]) if dynamic else None
        except firehose._DeliveryError:
            _stock_deliver(stream, destination, [record])
            continue
        groups.setdefault(tuple(sorted((keys or {}).items())), []).append(record)
    for partition, members in groups.items():
        now = firehose._arrival_time(config)
        try:
            body = firehose._convert_to_parquet(conversion, b"\n".join(data for _, data in members))
            prefix = firehose._evaluate_prefix(config.get("Prefix", ""), now, dict(partition) or None, None)
        except firehose._DeliveryError:
            for record in members:
                _stock_deliver(stream, destination, [record])
            continue
        name = f"{stream['name']}-{stream.get('version', 1)}-{firehose._java_time('yyyy-MM-dd-HH-mm-ss', now)}-{responses.new_uuid()}"
        bucket = firehose._s3_bucket_from_arn(config["BucketARN"])
        firehose._put_s3_object(bucket, f"{prefix}{name}{config.get('FileExtension') or '.parquet'}", body)


_stock_deliver = firehose._deliver_records_to_s3


def install() -> None:
    """Hook in, and start the writer."""
    firehose._deliver_records_to_s3 = _deliver
    threading.Thread(target=_flush_forever, daemon=True, name="firehose").start()
