"""The events that a learning run learns from, as a statement with which Athena writes them to files."""

from datetime import datetime

from rlaas.clock import rfc3339

COLUMNS = (
    "event_type",
    "event_id",
    "skill",
    "interaction_id",
    "output_id",
    "thread_id",
    "policy_id",
    "occurred_at",
    "received_at",
    "payload",
)
"""The columns of each file, all text: times are RFC 3339, `payload` is canonical JSON."""


def build_unload_statement(*, tenant_id: str, skill: str, since: datetime, until: datetime, folder: str) -> tuple[str, str]:
    """The two halves of an UNLOAD statement. Between them goes the name of a folder of its own for each try, below
    `folder`, an `s3://` URI.

    It writes Parquet files of the events of the tenant's skill received from `since` until before `until`. UNLOAD
    writes no file when there are no rows, and SageMaker refuses an input without a file, so a row of nulls is always
    added. Athena's execution parameters would be no safer: a string among them is a quoted literal too.
    """
    received_since, received_until = rfc3339(since), rfc3339(until)
    first_half = f"""UNLOAD (
  SELECT {", ".join(COLUMNS)}
  FROM events
  WHERE tenant_id = {_quote_literal(tenant_id)} AND skill = {_quote_literal(skill)} AND event_type IN ('interaction', 'output', 'feedback')
    AND event_date BETWEEN {_quote_literal(received_since[:10])} AND {_quote_literal(received_until[:10])}
    AND received_at >= {_quote_literal(received_since)} AND received_at < {_quote_literal(received_until)}
  UNION ALL SELECT {", ".join(["NULL"] * len(COLUMNS))}
) TO {_quote_literal(folder)[:-1]}"""
    return first_half, "/' WITH (format = 'PARQUET', compression = 'SNAPPY')"


def _quote_literal(text: str) -> str:
    """`text` as a string literal in SQL."""
    return "'" + text.replace("'", "''") + "'"
