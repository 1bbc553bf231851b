"""Athena: Trino's dialect, and the shapes and keys that awswrangler reads.

Stock ministack (services/athena.py):
- hands the query to DuckDB as it is. Here: translated from Athena's dialect by sqlglot.
- stores the result as `<id>.csv/<id>.csv` and reports `<id>.csv`. Here: stored where it is reported.
- lets an OutputLocation without a closing slash run into the query's id. Here: a slash between.
- shows a Parquet table with the columns its files have, so that one added to the table later is unknown. Here: the table's own columns,
  null where a file has none.
- answers GetWorkGroup without the fields every workgroup has on AWS, which awswrangler reads unasked. Here: present.
"""

from __future__ import annotations

import re
from typing import Any

import sqlglot
from ministack.services import athena, s3

RESULT_KEY = re.compile(r"(?P<name>[0-9a-f-]{36}\.csv)/(?P=name)(?P<suffix>\.metadata)?$")
WORKGROUP_DEFAULTS: dict[str, Any] = {
    "ResultConfiguration": {},
    "EnforceWorkGroupConfiguration": False,
    "PublishCloudWatchMetricsEnabled": False,
    "RequesterPaysEnabled": False,
    "EngineVersion": {"SelectedEngineVersion": "AUTO", "EffectiveEngineVersion": "Athena engine version 3"},
}


def to_duckdb(query: str) -> str:
    """`query` in DuckDB's dialect.

    Raises: sqlglot.ParseError for what is not Athena's SQL; the execution fails with it.
    """
    return sqlglot.transpile(query, read="athena", write="duckdb")[0]


async def _run_duckdb(query: str, database: str, catalog: str | None = None) -> dict[str, Any]:
    result: dict[str, Any] = await _stock_run(to_duckdb(query), database, catalog)
    return result


def _start_query_execution(data: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
    group = athena._workgroups.get(data.get("WorkGroup", "primary"), {}).get("Configuration") or {}
    location = (data.get("ResultConfiguration") or {}).get("OutputLocation") or (group.get("ResultConfiguration") or {}).get(
        "OutputLocation"
    )
    if location:
        data = {**data, "ResultConfiguration": {**(data.get("ResultConfiguration") or {}), "OutputLocation": location.rstrip("/") + "/"}}
    answer: tuple[int, dict[str, str], bytes] = _stock_start(data)
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
_stock_start = athena._start_query_execution
_stock_get = athena._get_workgroup
_stock_relation = athena._table_relation
_stock_put = s3._put_object


def install() -> None:
    """Hook in."""
    athena._run_duckdb = _run_duckdb
    athena._start_query_execution = _start_query_execution
    athena._get_workgroup = _get_workgroup
    athena._table_relation = _table_relation
    s3._put_object = _put_object
