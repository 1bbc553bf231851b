"""Stream records that failed, kept on S3 in Lambda's own format (developer guide, "Retain discarded records for a
DynamoDB event source")."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, cast

from rlaas.adapters.aws.clients import client, dependency
from rlaas.clock import Clock, rfc3339, utc_now

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

BATCHES = "aws/lambda/"
"""The prefix of the keys that Lambda writes."""


@dataclass(frozen=True, slots=True)
class KeptObject:
    """An object that is kept: its key, its size in bytes, when it was written."""

    key: str
    size: int
    kept_at: datetime


class KeptObjects:
    """The objects of a bucket below a prefix."""

    def __init__(self, bucket: str, prefix: str, s3: "S3Client | None" = None) -> None:
        self._bucket = bucket
        self._prefix = prefix
        self._s3 = s3 or client("s3")

    def after(self, key: str) -> Iterator[KeptObject]:
        """The objects whose keys come after `key`, by key, a thousand in a call. Raises: DependencyUnavailable."""
        while True:
            with dependency("S3"):
                answer = self._s3.list_objects_v2(Bucket=self._bucket, Prefix=self._prefix, StartAfter=key)
            for entry in answer.get("Contents", []):
                key = entry["Key"]
                yield KeptObject(key, entry["Size"], entry["LastModified"])
            if not answer["IsTruncated"]:
                return

    def read(self, key: str) -> bytes | None:
        """The object's content; `None` when another redrive has deleted it. Raises: DependencyUnavailable."""
        with dependency("S3"):
            try:
                return self._s3.get_object(Bucket=self._bucket, Key=key)["Body"].read()
            except self._s3.exceptions.NoSuchKey:
                return None

    def delete(self, key: str) -> None:
        """Delete what was played again; the bucket keeps the old version for a month. Raises: DependencyUnavailable."""
        with dependency("S3"):
            self._s3.delete_object(Bucket=self._bucket, Key=key)


class SetAside:
    """`Keeper` of the function `function_arn`: an object for each record, in Lambda's own format. The same record has
    the same key, so it is kept once."""

    def __init__(self, bucket: str, function_arn: str, s3: "S3Client | None" = None, clock: Clock = utc_now) -> None:
        self._bucket = bucket
        self._function_arn = function_arn
        self._s3 = s3 or client("s3")
        self._clock = clock

    def set_aside(self, record: Mapping[str, object]) -> None:
        """Keep `record` until it is played again. Raises: DependencyUnavailable."""
        name = self._function_arn.split(":")[6]
        document = {
            "requestContext": {"functionArn": self._function_arn, "condition": "SetAside"},
            "version": "1.0",
            "timestamp": rfc3339(self._clock()),
            "payload": json.dumps({"Records": [record]}),
        }
        number = cast(Mapping[str, str], record["dynamodb"])["SequenceNumber"]
        with dependency("S3"):
            self._s3.put_object(
                Bucket=self._bucket, Key=f"{BATCHES}{name}/set-aside/{number}-{record['eventID']}", Body=json.dumps(document).encode()
            )
