"""DynamoDB streams -> Lambda as the mapping asks: partial failures, bisection, retries, age, and one reader per
mapping.

Stock ministack (services/lambda_svc.py, _poll_dynamodb_streams):
- loses the records that a function reports as failed. Here: they are tried again.
- retries a batch that raises for ever, whatever MaximumRetryAttempts and BisectBatchOnFunctionError say, and stores
  nothing on S3 when it gives up. Here: as the mapping says.
- ignores the batching window, and calls at each write. Here: it waits, without a window for as long as Lambda does
  between two looks. So a request's first write and its last are mostly one call, made when its model has answered.
- sends a hundred large records in one call. Here: 6 MB at most, as Lambda takes.
- calls all mappings' functions on one thread, so that a slow function delays every other stream. Here: a thread each.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from datetime import UTC, datetime
from typing import Any

from ministack.core import concurrency, responses
from ministack.core.arn import ArnParseError, parse_arn
from ministack.services import dynamodb, lambda_svc, s3

MOST_BYTES = 6_000_000
"""The largest batch, as JSON."""
POLL_SECONDS = 0.25
"""Between two looks of Lambda at a shard: its base rate is four a second."""
COUNT_SECONDS = 0.05
"""Between two counts here of the records that wait."""
BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS = 0.2, 5.0
Record = dict[str, Any]
logger = logging.getLogger("rlaas.streams")
_SHARD = "shardId-00000000000000000000-00000000"

_reading: set[str] = set()
_reading_guard = threading.Lock()


def _table(mapping: Record) -> str | None:
    """The table the mapping reads, if its source is a DynamoDB stream of this account and region that is still the
    table's."""
    try:
        arn = parse_arn(mapping.get("EventSourceArn", ""))
    except ArnParseError:
        return None
    if arn.service != "dynamodb" or (arn.account_id, arn.region) != (responses.get_account_id(), responses.get_region()):
        return None
    table_and_region = lambda_svc._dynamodb_stream_table_from_arn_spec(arn)
    if table_and_region is None:
        return None
    table: Record | None = dynamodb._tables.get(table_and_region[0])
    return table_and_region[0] if table and table.get("LatestStreamArn") == mapping["EventSourceArn"] else None


def _position(mapping: Record, table: str) -> int:
    with lambda_svc._dynamodb_stream_positions_lock:
        start = dynamodb.stream_start_position(table)
        default = start if mapping.get("StartingPosition") == "TRIM_HORIZON" else dynamodb.stream_end_position(table)
        position = max(start, lambda_svc._dynamodb_stream_positions.get(mapping["UUID"], default))
        lambda_svc._dynamodb_stream_positions[mapping["UUID"]] = position
        return int(position)


def poll() -> bool:
    """Start a reader for each mapping that has records and no reader yet; called on every write to a stream."""
    for account, region, mapping in lambda_svc._iter_all_esms():
        tokens = responses._request_account_id.set(account), lambda_svc._request_region.set(region)
        try:
            table = _table(mapping)
            if table is None or not mapping.get("Enabled", True) or dynamodb.stream_end_position(table) <= _position(mapping, table):
                continue
            with _reading_guard:
                if mapping["UUID"] in _reading:
                    continue
                _reading.add(mapping["UUID"])
            concurrency.spawn_background(_read, mapping, table, thread_name=f"stream-{table}")
        finally:
            responses._request_account_id.reset(tokens[0])
            lambda_svc._request_region.reset(tokens[1])
    return False


def _read(mapping: Record, table: str) -> None:
    size = int(mapping.get("BatchSize", 100))
    try:
        while lambda_svc._esms.get(mapping["UUID"]) is mapping and mapping.get("Enabled", True):
            function, _ = lambda_svc._get_func_record_for_qualifier(mapping["FunctionName"], mapping.get("Qualifier"))
            position = _position(mapping, table)
            _fill(table, position, size, float(mapping.get("MaximumBatchingWindowInSeconds") or POLL_SECONDS))
            batch = fitting(dynamodb.stream_records_since(table, position, size))
            if not batch or function is None:
                return
            matches = lambda_svc._apply_filter_criteria(batch, mapping)
            if matches:
                hand_over(mapping, function, matches)
            with lambda_svc._dynamodb_stream_positions_lock:
                lambda_svc._dynamodb_stream_positions[mapping["UUID"]] = position + len(batch)
    finally:
        with _reading_guard:
            _reading.discard(mapping["UUID"])
        concurrency.esm_wake.set()  # records that came after the last look start a reader again


def fitting(records: list[Record]) -> list[Record]:
    """The first of `records` that fit into one call; at least one."""
    room = MOST_BYTES
    for place, record in enumerate(records):
        room -= len(json.dumps(record, default=str))
        if room < 0 and place:
            return records[:place]
    return records


def _fill(table: str, position: int, size: int, window: float) -> None:
    """Wait up to `window` seconds for `size` records."""
    deadline = time.monotonic() + window
    while time.monotonic() < deadline and dynamodb.stream_end_position(table) - position < size:
        time.sleep(COUNT_SECONDS)


def hand_over(mapping: Record, function: Record, records: list[Record]) -> None:
    """Invoke the function, in order, until it has handled every record or the mapping gives it up."""
    retries, attempts = int(mapping.get("MaximumRetryAttempts", -1)), 0
    oldest = int(mapping.get("MaximumRecordAgeInSeconds") or -1)
    while True:
        age = time.time() - float(records[0]["dynamodb"].get("ApproximateCreationDateTime", time.time()))
        if 0 < oldest < age:
            give_up(mapping, function, records, "MaxRecordAgeExceeded", attempts)
            return
        result = lambda_svc._execute_function(function, {"Records": records})
        left = unhandled(mapping, records, result)
        mapping["LastProcessingResult"] = "PROBLEM: Function call failed" if left else "OK"
        if not left:
            return
        if len(left) < len(records):
            records, attempts = left, 0
        elif len(left) > 1 and mapping.get("BisectBatchOnFunctionError"):
            middle = len(left) // 2
            hand_over(mapping, function, left[:middle])
            records, attempts = left[middle:], 0
            continue
        attempts += 1
        if 0 <= retries < attempts:
            give_up(mapping, function, records, "RetryAttemptsExhausted", attempts)
            return
        time.sleep(min(LONGEST_BACKOFF_SECONDS, BACKOFF_SECONDS * 2 ** (attempts - 1)))


def give_up(mapping: Record, function: Record, records: list[Record], condition: str, attempts: int) -> None:
    """Send `records` to the mapping's on-failure destination; a bucket gets them whole.

    Key and document as in the developer guide, "Retain discarded records for a DynamoDB event source".
    """
    destination = ((mapping.get("DestinationConfig") or {}).get("OnFailure") or {}).get("Destination") or ""
    if not destination.startswith("arn:aws:s3:::"):
        lambda_svc._send_ddb_stream_failure_record(mapping, function, records, mapping["EventSourceArn"], {}, condition)
        return
    now = datetime.now(UTC)
    first, last = (records[at]["dynamodb"] for at in (0, -1))
    arrivals = [
        datetime.fromtimestamp(float(one.get("ApproximateCreationDateTime", now.timestamp())), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        for one in (first, last)
    ]
    document = {
        "requestContext": {
            "requestId": responses.new_uuid(),
            "functionArn": (function.get("config") or function).get("FunctionArn", ""),
            "condition": condition,
            "approximateInvokeCount": attempts,
        },
        "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
        "version": "1.0",
        "timestamp": now.strftime("%Y-%m-%dT%H:%M:%S.") + f"{now.microsecond // 1000:03d}Z",
        "DDBStreamBatchInfo": {
            "shardId": _SHARD,
            "startSequenceNumber": str(first["SequenceNumber"]),
            "endSequenceNumber": str(last["SequenceNumber"]),
            "approximateArrivalOfFirstRecord": arrivals[0],
            "approximateArrivalOfLastRecord": arrivals[1],
            "batchSize": len(records),
            "streamArn": mapping["EventSourceArn"],
        },
        "payload": json.dumps({"Records": records}),
    }
    key = f"aws/lambda/{mapping['UUID']}/{_SHARD}/{now:%Y/%m/%d}/{now:%Y-%m-%dT%H.%M.%S}-{responses.new_uuid()}"
    status, _, body = s3._put_object(destination.removeprefix("arn:aws:s3:::"), key, json.dumps(document).encode(), {})
    if status >= 300:
        logger.error("%s refuses the failed records, which are lost: %r", destination, body)  # as on AWS


def unhandled(mapping: Record, records: list[Record], result: Record) -> list[Record]:
    """The records from the first one that the function reports as failed; all of them when it raised."""
    if result.get("error") or result.get("throttle"):
        return records
    body = result.get("body")
    failures = body.get("batchItemFailures") if isinstance(body, dict) else None
    if "ReportBatchItemFailures" not in (mapping.get("FunctionResponseTypes") or []) or not failures:
        return []
    order = {record["dynamodb"]["SequenceNumber"]: index for index, record in enumerate(records)}
    return records[min(order.get(str(failure.get("itemIdentifier")), 0) for failure in failures) :]


def install() -> None:
    """Hook in."""
    lambda_svc._poll_dynamodb_streams = poll
