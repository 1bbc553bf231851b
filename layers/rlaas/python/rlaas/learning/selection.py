"""Which events a learning run learns from, as the statement that has Athena write them to files."""

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
"""What each file holds of an event, all text: times are RFC 3339, `payload` is canonical JSON."""


def unload_statement(*, tenant_id: str, skill: str, since: datetime, until: datetime, folder: str) -> tuple[str, str]:
    """The two halves of an UNLOAD; between them goes what one try of it calls its own folder below `folder`, an `s3://`
    URI.

    It selects what the tenant's skill received from `since` until before `until`, for Parquet files. UNLOAD writes no
    file of no rows, and SageMaker refuses an input without a file, so a row of nulls is always among them. Athena's
    execution parameters would be no safer: a string among them is a quoted literal too.
    """
    received_since, received_until = rfc3339(since), rfc3339(until)
    before = f"""UNLOAD (
  SELECT {", ".join(COLUMNS)}
  FROM events
  WHERE tenant_id = {_literal(tenant_id)} AND skill = {_literal(skill)} AND event_type IN ('interaction', 'output', 'feedback')
    AND event_date BETWEEN {_literal(received_since[:10])} AND {_literal(received_until[:10])}
    AND received_at >= {_literal(received_since)} AND received_at < {_literal(received_until)}
  UNION ALL SELECT {", ".join(["NULL"] * len(COLUMNS))}
) TO {_literal(folder)[:-1]}"""
    return before, "/' WITH (format = 'PARQUET', compression = 'SNAPPY')"


def _literal(text: str) -> str:
    """`text` as a string in SQL."""
    return "'" + text.replace("'", "''") + "'"
