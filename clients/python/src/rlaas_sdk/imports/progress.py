"""How far an import is: what is settled, what is on its way, and the file that survives a kill."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

from rlaas_sdk.imports.rows import JsonObject

_COMMIT_EVERY_S = 0.2


@dataclass(frozen=True, slots=True)
class EventResult:
    """How the service answered an event. `reason`, `message` and `param` are those of a refused one."""

    status: Literal["new", "replayed", "pending", "refused"]
    reason: str = ""
    message: str = ""
    param: str | None = None
    event_id: str | None = None


@dataclass(slots=True)
class Totals:
    """Counts of an import: rows read, events made, how the service answered them, and what was left out, by reason."""

    rows: int = 0
    events: int = 0
    new: int = 0
    replayed: int = 0
    pending: int = 0
    refused_rows: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)

    def as_json(self) -> str:
        """The totals as the state stores them."""
        return json.dumps({count.name: getattr(self, count.name) for count in fields(self)})

    @classmethod
    def from_json(cls, text: str) -> Totals:
        """The totals that `as_json` wrote."""
        counts = json.loads(text)
        return cls(**{**counts, "refused": Counter(counts["refused"]), "skipped": Counter(counts["skipped"])})


class State:
    """The SQLite file of an import: where to continue after a kill, and the last generation of each Langfuse trace."""

    def __init__(self, path: Path, run: str) -> None:
        self._path = path
        self._run = run
        self._is_finished = False
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.execute("CREATE TABLE IF NOT EXISTS runs (run TEXT PRIMARY KEY, file INTEGER, row INTEGER, report INTEGER, totals TEXT)")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS traces (run TEXT, trace TEXT, started_at TEXT, own_id TEXT, PRIMARY KEY (run, trace)) WITHOUT ROWID"
        )
        self._db.execute("BEGIN")

    def read_place(self) -> tuple[int, int, int, Totals] | None:
        """The number of the file (from 0), the number of the row in it and the report's length in bytes up to which
        everything is settled, with the totals; None for a new import."""
        row = self._db.execute("SELECT file, row, report, totals FROM runs WHERE run = ?", (self._run,)).fetchone()
        return None if row is None else (row[0], row[1], row[2], Totals.from_json(row[3]))

    def keep(self, file: int, row: int, report: int, totals: Totals) -> None:
        """Commit the place with the traces noted so far; from then on they survive a kill."""
        with self._lock:
            self._db.execute("REPLACE INTO runs VALUES (?, ?, ?, ?, ?)", (self._run, file, row, report, totals.as_json()))
            self._db.execute("COMMIT")
            self._db.execute("BEGIN")

    def finish(self) -> None:
        """Mark the import as complete: `close` then removes the file, and the same command starts a new import."""
        self._is_finished = True

    def close(self) -> None:
        """Close the file; what `keep` did not commit is lost."""
        with self._lock:
            self._db.execute("ROLLBACK")
            self._db.close()
        if self._is_finished:
            self._path.unlink(missing_ok=True)

    def note(self, trace_id: str, started_at: str, own_id: str) -> None:
        """Remember the generation `own_id`, which began at `started_at` (ISO 8601), where it is the trace's latest."""
        with self._lock:
            self._db.execute(
                "INSERT INTO traces VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE "
                "SET started_at = excluded.started_at, own_id = excluded.own_id "
                "WHERE (excluded.started_at, excluded.own_id) > (started_at, own_id)",
                (self._run, trace_id, started_at, own_id),
            )

    def find_last(self, trace_id: str) -> str | None:
        """The id of the trace's last generation so far; None where the trace has none."""
        with self._lock:
            row = self._db.execute("SELECT own_id FROM traces WHERE run = ? AND trace = ?", (self._run, trace_id)).fetchone()
        return None if row is None else str(row[0])


class Report:
    """The JSON Lines file of refused rows, cut to its first `resume_at` bytes; without a path nothing is written."""

    def __init__(self, path: Path | None, *, resume_at: int = 0) -> None:
        self._file = None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            is_resumed = path.exists() and path.stat().st_size >= resume_at
            self._file = path.open("r+b" if is_resumed else "wb")
            self._file.seek(resume_at if is_resumed else 0)
            self._file.truncate()

    def write(self, lines: Iterable[JsonObject]) -> None:
        """Append each JSON object as a line."""
        if self._file is not None:
            for line in lines:
                self._file.write(json.dumps(line).encode() + b"\n")

    def flush(self) -> int:
        """Hand everything written to the operating system; the file's length in bytes."""
        if self._file is None:
            return 0
        self._file.flush()
        return self._file.tell()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


@dataclass(slots=True)
class _OpenRow:
    line: int
    events: int
    waiting: int
    outcomes: list[EventResult]
    skip_reasons: list[str]
    raw: str | None


class OpenRows:
    """The rows of one file whose events are on their way. A row is counted and reported once all its events are
    settled, in the order of the file."""

    def __init__(self, state: State, report: Report, totals: Totals, *, file: int, name: str, after: int) -> None:
        self._state, self._report, self._totals = state, report, totals
        self._file, self._name, self._done = file, name, after
        self._open: dict[int, _OpenRow] = {}
        self._lock = threading.Lock()
        self._committed_at = time.monotonic()

    def add(
        self,
        number: int,
        line: int,
        *,
        events: int,
        is_sent: bool,
        refusals: Iterable[EventResult],
        skip_reasons: Iterable[str],
        raw: str | None,
    ) -> None:
        """Add row `number`, which begins on `line` and made so many `events`. They count as settled unless
        `is_sent`. `refusals` and `skip_reasons` are what became of its other parts."""
        with self._lock:
            self._open[number] = _OpenRow(line, events, events if is_sent else 0, list(refusals), list(skip_reasons), raw)
            if self._advance() and time.monotonic() - self._committed_at >= _COMMIT_EVERY_S:
                self._keep()

    def settle(self, outcomes: Iterable[tuple[int, EventResult]]) -> None:
        """Note what became of events; each outcome comes with its row's number."""
        with self._lock:
            for number, outcome in outcomes:
                row = self._open[number]
                row.waiting -= 1
                row.outcomes.append(outcome)
            if self._advance():
                self._keep()

    def keep(self) -> None:
        """Commit the place now."""
        with self._lock:
            self._keep()

    def _advance(self) -> bool:
        before = self._done
        while (row := self._open.get(self._done + 1)) is not None and row.waiting == 0:
            del self._open[self._done + 1]
            self._done += 1
            self._count(row)
        return self._done > before

    def _keep(self) -> None:
        self._committed_at = time.monotonic()
        self._state.keep(self._file, self._done, self._report.flush(), self._totals)

    def _count(self, row: _OpenRow) -> None:
        totals = self._totals
        totals.rows += 1
        totals.events += row.events
        totals.skipped.update(row.skip_reasons)
        refusals = [outcome for outcome in row.outcomes if outcome.status == "refused"]
        counts = Counter(outcome.status for outcome in row.outcomes)
        totals.new += counts["new"]
        totals.replayed += counts["replayed"]
        totals.pending += counts["pending"]
        totals.refused_rows += bool(refusals)
        totals.refused.update(outcome.reason for outcome in refusals)
        self._report.write(self._lines(row, refusals))

    def _lines(self, row: _OpenRow, refusals: list[EventResult]) -> Iterable[JsonObject]:
        for outcome in refusals:
            line: JsonObject = {
                "file": self._name,
                "line": row.line,
                "reason": outcome.reason,
                "param": outcome.param,
                "message": outcome.message,
                "event_id": outcome.event_id,
            }
            yield {**line, "row": row.raw} if row.raw is not None else line
