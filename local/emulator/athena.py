"""Athena: Trino's dialect, and the shapes and keys that awswrangler reads.

Stock ministack (services/athena.py):
- hands the query to DuckDB as it is. Here: translated from Athena's dialect by sqlglot.
- stores the result as `<id>.csv/<id>.csv` and reports `<id>.csv`. Here: stored where it is reported.
- lets an OutputLocation without a closing slash run into the query's id. Here: a slash between.
- gives a Parquet table the columns of its files, so that a column added to the table later is unknown. Here: the
  table's own columns, null where a file lacks one.
- answers GetWorkGroup without fields that every workgroup has on AWS and that awswrangler reads. Here: present.
- has no UNLOAD. Here: to Parquet, by AWS's rules. The folder has to be empty; the files' names have no suffix; without
  rows there is no file; a manifest beside the query's results lists the files.
"""

from __future__ import annotations

import json
import re
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import sqlglot
from ministack.services import athena, s3

RESULT_KEY = re.compile(r"(?P<name>[0-9a-f-]{36}\.csv)/(?P=name)(?P<suffix>\.metadata)?$")
UNLOAD = re.compile(
    r"\s*UNLOAD\s*\((?P<query>.*)\)\s*TO\s*'(?P<folder>(?:[^']|'')+)'\s*WITH\s*\((?P<options>.*)\)\s*;?\s*", re.DOTALL | re.IGNORECASE
)
OPTION = re.compile(r"(\w+)\s*=\s*'([^']*)'")
FILE_BYTES = 64 * 1024**2
WORKGROUP_DEFAULTS: dict[str, Any] = {
    "ResultConfiguration": {},
    "EnforceWorkGroupConfiguration": False,
    "PublishCloudWatchMetricsEnabled": False,
    "RequesterPaysEnabled": False,
    "EngineVersion": {"SelectedEngineVersion": "AUTO", "EffectiveEngineVersion": "Athena engine version 3"},
}


def translate_query(query: str) -> str:
    """`query` in DuckDB's dialect.

    Raises: sqlglot.ParseError for what is not Athena's SQL; the execution fails with it.
    """
    return sqlglot.transpile(query, read="athena", write="duckdb")[0]


async def _run_duckdb(query: str, database: str, catalog: str | None = None) -> dict[str, Any]:
    if unload := UNLOAD.fullmatch(query):
        return await _unload(unload, database, catalog)
    result: dict[str, Any] = await _stock_run(translate_query(query), database, catalog)
    return result


async def _unload(statement: re.Match[str], database: str, catalog: str | None) -> dict[str, Any]:
    """Write the result's files. The answer's only column is their URIs, for the manifest; clients never see it.

    Raises: ValueError with AWS's message for a folder that is not empty, and for options other than Parquet's.
    """
    options = {name.lower(): value.upper() for name, value in OPTION.findall(statement["options"])}
    if options.get("format") != "PARQUET" or options.keys() - {"format", "compression"}:
        raise ValueError(f"NOT_SUPPORTED: UNLOAD here writes Parquet alone, not with {options}")
    folder = statement["folder"].replace("''", "'").rstrip("/") + "/"
    place = urlparse(folder)
    bucket, prefix = place.netloc, place.path.removeprefix("/")
    if bucket not in s3._buckets:
        raise ValueError(f"The S3 location provided to save your query results is invalid: {folder}")
    if any(key.startswith(prefix) for key in s3._buckets[bucket]["objects"]):
        raise ValueError(
            f"HIVE_PATH_ALREADY_EXISTS: Target directory already exists: {folder}. You may need to manually clean the data at location "
            f"'{folder}' before retrying. Athena will not delete data in your account."
        )
    with tempfile.TemporaryDirectory() as directory:
        parts = Path(directory, "parts")
        compression = options.get("compression", "GZIP")
        how = f"FORMAT parquet, COMPRESSION {compression}, FILE_SIZE_BYTES {FILE_BYTES}"
        result = await _stock_run(f"COPY ({translate_query(statement['query'])}) TO '{parts}' ({how})", database, catalog)
        uris: list[str] = []
        if result["rows"][0][0]:
            run = time.strftime("%Y%m%d_%H%M%S_00000_") + uuid.uuid4().hex[:5]
            for part in sorted(parts.iterdir()):
                uris.append(f"{folder}{run}_{uuid.uuid4()}")
                _store(uris[-1], part.read_bytes(), "application/octet-stream")
    return {"columns": ["file"], "rows": [[uri] for uri in uris]}


async def _save_query_results(query_id: str) -> None:
    execution = athena._executions[query_id]
    if not UNLOAD.fullmatch(execution["Query"]):
        await _stock_save(query_id)
        return
    files = "".join(f"{uri}\n" for [uri] in execution["_results"]["rows"])
    _store(execution["Statistics"]["DataManifestLocation"], files.encode(), "text/csv")
    execution["_results"] = {"columns": [], "rows": []}


def _store(uri: str, body: bytes, content_type: str) -> None:
    place = urlparse(uri)
    _stock_put(place.netloc, place.path.removeprefix("/"), body, {"content-type": content_type, "content-length": str(len(body))})


def _start_query_execution(data: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
    group = athena._workgroups.get(data.get("WorkGroup", "primary"), {}).get("Configuration") or {}
    location = (data.get("ResultConfiguration") or {}).get("OutputLocation") or (group.get("ResultConfiguration") or {}).get(
        "OutputLocation"
    )
    if location:
        data = {**data, "ResultConfiguration": {**(data.get("ResultConfiguration") or {}), "OutputLocation": location.rstrip("/") + "/"}}
    answer: tuple[int, dict[str, str], bytes] = _stock_start(data)
    if answer[0] == 200 and UNLOAD.fullmatch(data.get("QueryString", "")):
        execution = athena._executions[json.loads(answer[2])["QueryExecutionId"]]
        results = execution["ResultConfiguration"]["OutputLocation"].removesuffix(".csv")
        execution |= {"StatementType": "DML", "SubstatementType": "UNLOAD", "ResultConfiguration": {"OutputLocation": results}}
        execution["Statistics"]["DataManifestLocation"] = f"{results}-manifest.csv"
    return answer


def _table_relation(table: dict[str, Any], files: list[str]) -> str:
    relation: str = _stock_relation(table, files)
    columns = [*((table.get("StorageDescriptor") or {}).get("Columns") or []), *(table.get("PartitionKeys") or [])]
    if athena._data_format(table) != "parquet" or not columns:
        return relation
    names = ", ".join('"' + column["Name"].replace('"', '""') + '"' for column in columns)
    return f"(SELECT {names} FROM (SELECT * FROM {relation} UNION ALL BY NAME SELECT * FROM {athena._empty_relation(table)}))"


def _get_workgroup(data: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
    group = athena._workgroups.get(data.get("WorkGroup"))
    if group is not None:
        group["Configuration"] = {**WORKGROUP_DEFAULTS, **(group.get("Configuration") or {})}
    answer: tuple[int, dict[str, str], bytes] = _stock_get(data)
    return answer


def _put_object(bucket: str, key: str, *rest: Any, **options: Any) -> Any:
    return _stock_put(bucket, RESULT_KEY.sub(r"\g<name>\g<suffix>", key), *rest, **options)


_stock_run = athena._run_duckdb
_stock_save = athena._save_query_results
_stock_start = athena._start_query_execution
_stock_get = athena._get_workgroup
_stock_relation = athena._table_relation
_stock_put = s3._put_object


def install() -> None:
    """Hook in."""
    athena._run_duckdb = _run_duckdb
    athena._save_query_results = _save_query_results
    athena._start_query_execution = _start_query_execution
    athena._get_workgroup = _get_workgroup
    athena._table_relation = _table_relation
    s3._put_object = _put_object
