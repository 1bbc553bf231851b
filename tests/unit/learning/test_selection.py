"""The statement that selects a run's events; SQLite reads the same SELECT as Athena."""

import re
import sqlite3
from datetime import UTC, datetime, timedelta

import pytest

from rlaas.clock import rfc3339
from rlaas.learning.selection import COLUMNS, build_unload_statement

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOSTILE = ["x' OR tenant_id <> '", "x') TO 's3://elsewhere/' --", "'", "''", "a\\' OR 1=1 --", 'a"b', "a;DROP TABLE events", "ä\n'x"]


def event(name: str, *, tenant: str = "acme", skill: str = "mail", kind: str = "output", at: datetime = NOON) -> tuple[str, ...]:
    return (tenant, rfc3339(at)[:10], kind, name, skill, "int_1", "out_1", "thread", "mail@v1", rfc3339(at), rfc3339(at), "{}")


def parts(statement: tuple[str, str], number: int = 0) -> tuple[str, str]:
    """The SELECT and the folder's literal of a statement."""
    match = re.fullmatch(
        r"UNLOAD \((.*?)\n\) TO ('.*') WITH \(format = 'PARQUET', compression = 'SNAPPY'\)", str(number).join(statement), re.S
    )
    assert match is not None
    return match[1], match[2]


def select(events: list[tuple[str, ...]], *, tenant: str = "acme", skill: str = "mail") -> list[str | None]:
    database = sqlite3.connect(":memory:")
    database.execute(f"CREATE TABLE events (tenant_id, event_date, {', '.join(COLUMNS)})")
    database.executemany(f"INSERT INTO events VALUES ({', '.join('?' * len(events[0]))})", events)
    since = NOON - timedelta(days=2)
    query, _ = parts(build_unload_statement(tenant_id=tenant, skill=skill, since=since, until=NOON, folder="s3://lake/run/"))
    return [row[1] for row in database.execute(query)]


def test_the_events_of_one_skill_and_window_are_selected_and_a_row_of_nulls() -> None:
    hour = timedelta(hours=1)
    events = [
        event("too-old", at=NOON - timedelta(days=2) - hour),
        event("first", at=NOON - timedelta(days=2)),
        event("last", at=NOON - hour, kind="feedback"),
        event("too-new", at=NOON),
        event("reward", at=NOON - hour, kind="reward"),
        event("other-skill", at=NOON - hour, skill="chat"),
        event("other-tenant", at=NOON - hour, tenant="other"),
    ]
    assert select(events) == ["first", "last", None]
    assert select(events[:1]) == [None]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_of_any_characters_selects_what_is_called_so_and_nothing_else(name: str) -> None:
    day = NOON - timedelta(days=1)
    events = [event("acmes", at=day), event("theirs", tenant=name, at=day), event("skills", skill=name, at=day)]
    assert select(events, tenant=name) == ["theirs", None]
    assert select(events, skill=name) == ["skills", None]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_folder_of_any_characters_stays_one_literal(name: str) -> None:
    _, literal = parts(build_unload_statement(tenant_id="acme", skill="mail", since=NOON, until=NOON, folder=f"s3://lake/{name}/"), 3)
    assert sqlite3.connect(":memory:").execute(f"SELECT {literal}").fetchone() == (f"s3://lake/{name}/3/",)
