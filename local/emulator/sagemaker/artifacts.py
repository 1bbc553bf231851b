"""Moving files between S3 and a job's or an endpoint's directory."""

from __future__ import annotations

import functools
import os
import tarfile
import urllib.parse
import zlib
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from ministack.core import responses

from local.archives import extract
from local.emulator.sagemaker.errors import ApiError


@functools.lru_cache(maxsize=8)
def _client(region: str) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{os.environ['GATEWAY_PORT']}",
        aws_access_key_id=os.environ["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=os.environ["AWS_SECRET_ACCESS_KEY"],
        region_name=region,
        config=Config(s3={"addressing_style": "path"}, max_pool_connections=16),
    )


def make_s3_client() -> Any:
    """An S3 client of the request's region."""
    return _client(responses.get_region())


def parse(uri: str) -> tuple[str, str]:
    """(bucket, key) of an s3:// URI."""
    parts = urllib.parse.urlparse(uri)
    if parts.scheme != "s3" or not parts.netloc:
        raise ApiError("ValidationException", f"not an S3 URI: {uri}")
    return parts.netloc, parts.path.lstrip("/")


def download(uri: str, directory: Path) -> int:
    """Fetch every object whose key begins with the URI's (S3Prefix) into `directory`; returns how many.

    The part of the key after the prefix is kept as the relative path; an object whose key is the prefix keeps its last
    part.

    Raises: ApiError when nothing is there, as SageMaker fails a job whose channel is empty.
    """
    bucket, prefix = parse(uri)
    directory.mkdir(parents=True, exist_ok=True)
    count = 0
    for page in make_s3_client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for entry in page.get("Contents", []):
            key: str = entry["Key"]
            if key.endswith("/"):
                continue
            folder = prefix if prefix.endswith("/") else prefix.rpartition("/")[0] + "/" if key == prefix else prefix
            relative = key.removeprefix(folder).lstrip("/")
            target = (directory / relative).resolve()
            if not target.is_relative_to(directory.resolve()):
                raise ApiError("ValidationException", f"key {key} leads out of its directory")
            target.parent.mkdir(parents=True, exist_ok=True)
            make_s3_client().download_file(bucket, key, str(target))
            count += 1
    if not count:
        raise ApiError("ValidationException", f"No S3 objects found under S3 URL {uri!r}")
    return count


def upload(directory: Path, uri: str) -> int:
    """Store every file below `directory` under `uri`; returns how many."""
    bucket, prefix = parse(uri)
    files = [path for path in sorted(directory.rglob("*")) if path.is_file()] if directory.is_dir() else []
    for path in files:
        make_s3_client().upload_file(str(path), bucket, f"{prefix.rstrip('/')}/{path.relative_to(directory).as_posix()}".lstrip("/"))
    return len(files)


def pack(directory: Path, uri: str) -> str:
    """Store `directory`'s content as the tar.gz at `uri`; returns `uri`."""
    archive = directory.with_name(directory.name + ".packed.tar.gz")
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        for path in sorted(directory.iterdir()):
            tar.add(path, arcname=path.name)
    bucket, key = parse(uri)
    make_s3_client().upload_file(str(archive), bucket, key)
    archive.unlink()
    return uri


def unpack(uri: str, directory: Path) -> None:
    """Fetch the tar.gz at `uri` and extract it into `directory`.

    Raises: ApiError when the object is missing, no archive, or holds a path that leads out of `directory`.
    """
    bucket, key = parse(uri)
    directory.mkdir(parents=True, exist_ok=True)
    archive = directory.with_name(directory.name + ".fetched.tar.gz")
    try:
        make_s3_client().download_file(bucket, key, str(archive))
        with tarfile.open(archive) as tar:
            extract(tar, directory)
    except make_s3_client().exceptions.ClientError as problem:
        raise ApiError("ValidationException", f"Failed to download model data from {uri}: {problem}") from problem
    except (tarfile.TarError, OSError, EOFError, zlib.error) as problem:
        raise ApiError("ValidationException", f"Failed to extract model data from {uri}: {problem}") from problem
    finally:
        archive.unlink(missing_ok=True)
