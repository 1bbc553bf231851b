"""Files of runs on S3."""

import hashlib
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from rlaas.adapters.aws.clients import client, dependency, read_error_code
from rlaas.errors import NotFound

if TYPE_CHECKING:
    from botocore.response import StreamingBody
    from types_boto3_s3 import S3Client

_CHUNK = 1024 * 1024


class S3Artifacts:
    """`Artifacts` on S3."""

    def __init__(self, s3: "S3Client | None" = None) -> None:
        self._s3 = s3 or client("s3")

    def read(self, uri: str) -> bytes:
        """The whole object. Raises: NotFound."""
        with dependency("S3"):
            return self._open(uri).read()

    def read_sha256(self, uri: str) -> str:
        """The object's SHA-256, read in pieces. Raises: NotFound."""
        digest = hashlib.sha256()
        with dependency("S3"):
            for chunk in self._open(uri).iter_chunks(_CHUNK):
                digest.update(chunk)
        return digest.hexdigest()

    def _open(self, uri: str) -> "StreamingBody":
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        try:
            return self._s3.get_object(Bucket=bucket, Key=key)["Body"]
        except ClientError as error:
            if read_error_code(error) == "NoSuchKey":
                raise NotFound(f"there is no file {uri}") from None
            raise
