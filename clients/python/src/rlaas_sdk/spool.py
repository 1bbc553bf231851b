"""The spool: events on disk until the service has acknowledged them, in one SQLite file (WAL) that several processes
may share.

For each owner one process sends at a time, so that events leave in the order written. That process holds the owner's
lease, which ends after `LEASE_S` seconds or with the process. The backoff is stored beside it, so that all processes
wait together. Where a lease ends while its holder still sends, the event's id makes the second delivery a replay.

Committed events survive SIGKILL, because the operating system already has the write. A loss of power may lose the last
transactions (`synchronous=NORMAL`), but does not damage the file.
"""

from __future__ import annotations

import os
import platform
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from rlaas_sdk import ids
from rlaas_sdk.errors import SpoolUnavailable
from rlaas_sdk.events import Event

_Run = Callable[..., sqlite3.Cursor]

MEMORY = ":memory:"
LEASE_S = 20.0
BUSY_S = 0.25
LONGEST_WAIT_S = 2 * 3600.0
"""No wait is longer than this many seconds. One that looks longer means that the clock was set back, and is ignored."""
ABANDONED_S = 7 * 86400.0
"""How many seconds another owner's events may wait. An owner whose key was replaced never sends again, and its events
take space."""
ROWS = 500
_OLDER = "SELECT group_concat(seq) FROM (SELECT seq, written_at FROM events WHERE {} ORDER BY seq LIMIT ?) WHERE written_at < ?"
# One row holds the whole batch: sqlite3 releases the GIL for each row, and on a busy host gets it back 5 ms later. The
# JSON of an event has no line break, an id no comma.
_OLDEST = """
SELECT group_concat(seq), group_concat(id), group_concat(body, char(10)) FROM (
    SELECT seq, id, body, sum(bytes + 1) OVER (ORDER BY seq) AS size, row_number() OVER (ORDER BY seq) AS place
    FROM (SELECT seq, id, body, bytes FROM events WHERE owner = ? ORDER BY seq LIMIT ?) ORDER BY seq
) WHERE size <= ? OR place = 1
"""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, owner TEXT NOT NULL, id TEXT NOT NULL, body TEXT NOT NULL,
    bytes INTEGER NOT NULL, written_at REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS events_of_owner ON events (owner, seq);
CREATE TABLE IF NOT EXISTS size (one INTEGER PRIMARY KEY CHECK (one = 1), bytes INTEGER NOT NULL);
INSERT OR IGNORE INTO size VALUES (1, 0);
CREATE TABLE IF NOT EXISTS senders (
    owner TEXT PRIMARY KEY, holder TEXT, held_until REAL NOT NULL,
    failures INTEGER NOT NULL, retry_at REAL NOT NULL, closed_until REAL NOT NULL
);
"""


class SpooledEvent(NamedTuple):
    """One event as the spool stores it; `seq` grows in the order written."""

    seq: int
    id: str
    body: bytes


class Claim(NamedTuple):
    """The events that may be sent now, oldest first, or none and the seconds to wait. `too_old` counts the events that
    the claim dropped by age."""

    events: list[SpooledEvent]
    wait_s: float
    failures: int
    too_old: int


def make_holder_name() -> str:
    """A name for this process as a holder of leases; it contains the process id, so that other processes of the machine
    can see whether it still runs."""
    return f"{platform.node()}:{os.getpid()}:{ids.ulid()}"


def _has_ended(holder: str) -> bool:
    """Whether the holder was a process of this machine that no longer runs. A wrong guess costs a replay, or a wait
    until the lease ends."""
    node, pid = (*holder.rsplit(":", 2), "", "")[:2]
    if os.name != "posix" or node != platform.node() or not pid.isdecimal():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass
    return False


class Spool:
    """The events of one `owner` in the file at `path`; `MEMORY` keeps them in this process alone.

    `max_bytes` bounds the events of all owners together, `max_age_s` the seconds that an event may wait. Every method
    may raise SpoolUnavailable; where the file is busy, after about twice `BUSY_S` seconds. Where a file cannot be used
    at all (no permission, or not a database), this process stops using it and keeps its events in memory.
    """

    def __init__(self, path: str | Path, owner: str, *, max_bytes: int, max_age_s: float) -> None:
        self.path = str(path)
        self.owner = owner
        self._max_bytes = max_bytes
        self._max_age_s = max_age_s
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    def append(self, events: Sequence[Event]) -> int:
        """Write as many of `events`, from the first, as fit, in one transaction; their number."""
        with self._transaction() as run:
            if self._read_size(run) + sum(len(event.body) for event in events) > self._max_bytes:
                self._drop(run, "owner <> ?", before=time.time() - max(self._max_age_s, ABANDONED_S))
            size = self._read_size(run)
            fitting = []
            for event in events:
                if size + len(event.body) > self._max_bytes:
                    break
                size += len(event.body)
                fitting.append(event)
            now = time.time()
            for start in range(0, len(fitting), ROWS):
                rows = fitting[start : start + ROWS]
                values = [value for event in rows for value in (self.owner, event.id, event.body.decode(), len(event.body), now)]
                run(f"INSERT INTO events (owner, id, body, bytes, written_at) VALUES {', '.join(['(?, ?, ?, ?, ?)'] * len(rows))}", values)
            run("UPDATE size SET bytes = ?", (size,))
        return len(fitting)

    def claim(self, holder: str, *, max_events: int, max_bytes: int, eager: bool = False) -> Claim:
        """The oldest events, with the lease to send them for `LEASE_S` seconds; none while another process holds the
        lease or a backoff lasts.

        `eager` ends a backoff early, but not a wait that the service asked for (Retry-After).
        """
        if not self.pending():
            return Claim([], float("inf"), 0, 0)
        with self._transaction() as run:
            now = time.time()
            row = run("SELECT holder, held_until, failures, retry_at, closed_until FROM senders WHERE owner = ?", (self.owner,)).fetchone()
            current_holder, held_until, failures, retry_at, closed_until = row or (None, 0.0, 0, 0.0, 0.0)
            if current_holder not in (None, holder) and now < held_until <= now + LEASE_S and not _has_ended(current_holder):
                return Claim([], min(held_until - now, 0.25), failures, 0)
            wait_s = max(closed_until, 0.0 if eager else retry_at) - now
            if 0 < wait_s <= LONGEST_WAIT_S:
                return Claim([], wait_s, failures, 0)
            if too_old := self._drop(run, "owner = ?", before=now - self._max_age_s):
                return Claim([], 0.0, failures, too_old)
            seqs, names, bodies = run(_OLDEST, (self.owner, max_events, max_bytes)).fetchone()
            events = []
            if seqs:
                columns = zip(seqs.split(","), names.split(","), bodies.split("\n"), strict=True)
                events = [SpooledEvent(int(seq), identifier, body.encode()) for seq, identifier, body in columns]
            self._write_sender(run, holder if events else None, now + LEASE_S, failures, 0.0, 0.0)
        return Claim(events, 0.0, failures, 0)

    def settle(
        self,
        holder: str,
        done: Sequence[int],
        *,
        failures: int = 0,
        retry_in_s: float = 0.0,
        closed_for_s: float = 0.0,
        keep_lease: bool = False,
    ) -> None:
        """Delete the events with the `seq` in `done` and release the lease unless `keep_lease`. Nobody sends for the
        next `retry_in_s` seconds, or `closed_for_s` seconds where the caller is eager; `failures` is the number of
        failures in a row."""
        with self._transaction() as run:
            self._delete(run, ",".join(map(str, done)))
            row = run("SELECT holder FROM senders WHERE owner = ?", (self.owner,)).fetchone()
            if row is None or row[0] == holder:
                now = time.time()
                closed_until = now + closed_for_s if closed_for_s else 0.0
                self._write_sender(run, holder if keep_lease else None, now + LEASE_S, failures, now + retry_in_s, closed_until)

    def last_seq(self) -> int:
        """The `seq` of this owner's newest event; 0 where there is none."""
        with self._transaction(write=False) as run:
            return int(run("SELECT coalesce(max(seq), 0) FROM events WHERE owner = ?", (self.owner,)).fetchone()[0])

    def pending(self, up_to: int | None = None) -> bool:
        """Whether events of this owner wait, with a `seq` of at most `up_to` where it is given."""
        with self._transaction(write=False) as run:
            query = "SELECT EXISTS (SELECT 1 FROM events WHERE owner = ? AND seq <= ?)"
            return bool(run(query, (self.owner, 1 << 62 if up_to is None else up_to)).fetchone()[0])

    def count(self) -> int:
        """How many events of this owner wait."""
        with self._transaction(write=False) as run:
            return int(run("SELECT count(*) FROM events WHERE owner = ?", (self.owner,)).fetchone()[0])

    def close(self) -> None:
        """Close the file; the next call opens it again. A spool in memory stays as it is."""
        with self._lock:
            self._close()

    def before_fork(self) -> None:
        """Close the file and hold the lock: SQLite's connections and its process-wide locks must not cross a fork."""
        self._lock.acquire()
        self._close()

    def after_fork_in_parent(self) -> None:
        """Release the lock."""
        self._lock.release()

    def after_fork_in_child(self) -> None:
        """Start with a new lock and no connection; the parent sends what a spool in memory holds."""
        self._lock = threading.Lock()
        self._connection = None

    def _close(self) -> None:
        if self._connection is not None and self.path != MEMORY:
            self._connection.close()
            self._connection = None

    @contextmanager
    def _transaction(self, *, write: bool = True) -> Iterator[_Run]:
        if not self._lock.acquire(timeout=BUSY_S):
            raise SpoolUnavailable(f"spool {self.path} is in use")
        try:
            connection = self._connection or self._open()
            run = connection.execute
            run("BEGIN IMMEDIATE" if write else "BEGIN")
            yield run
            run("COMMIT")
        except sqlite3.Error as error:
            path = self.path
            self._abandon(error)
            raise SpoolUnavailable(f"spool {path}: {error}") from error
        finally:
            if self._connection is not None and self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            self._lock.release()

    def _open(self) -> sqlite3.Connection:
        if self.path != MEMORY:
            try:
                # Only a new file is opened here: closing a second descriptor of SQLite's own file would drop this
                # process's locks on it.
                os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
            except FileExistsError:
                pass
            except OSError as error:
                self.path = MEMORY
                raise SpoolUnavailable(f"events are kept in memory: {error}") from error
        connection = sqlite3.connect(self.path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA journal_size_limit = 16777216")
            connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection

    def _abandon(self, error: sqlite3.Error) -> None:
        """Move to memory after a failure that will not pass: a busy file or a full disk may work next time, a file that
        is not a database never will."""
        if not any(word in str(error) for word in ("locked", "busy", "full", "I/O")):
            self._close()
            self.path = MEMORY

    def _read_size(self, run: _Run) -> int:
        return int(run("SELECT bytes FROM size").fetchone()[0])

    def _drop(self, run: _Run, condition: str, *, before: float) -> int:
        """Delete the oldest events under the SQL `condition` that were written earlier than `before` (seconds since
        1970), at most `ROWS`; their number."""
        (seqs,) = run(_OLDER.format(condition), (self.owner, ROWS, before)).fetchone()
        self._delete(run, seqs or "")
        return seqs.count(",") + 1 if seqs else 0

    def _delete(self, run: _Run, seqs: str) -> None:
        if seqs:
            run(f"UPDATE size SET bytes = bytes - (SELECT coalesce(sum(bytes), 0) FROM events WHERE seq IN ({seqs}))")
            run(f"DELETE FROM events WHERE seq IN ({seqs})")

    def _write_sender(self, run: _Run, holder: str | None, until: float, failures: int, retry_at: float, closed_until: float) -> None:
        run("INSERT OR REPLACE INTO senders VALUES (?, ?, ?, ?, ?, ?)", (self.owner, holder, until, failures, retry_at, closed_until))
