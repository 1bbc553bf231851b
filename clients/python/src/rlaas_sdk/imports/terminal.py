"""Shows an import: a progress bar in a terminal, elsewhere a log line now and then, and a table at the end."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from rlaas_sdk.imports.files import SourceFile
from rlaas_sdk.imports.progress import Totals

_LINE_EVERY_S = 10.0
_SHOW_EVERY_ROWS = 100


class Bar:
    """A bar per file with rows a second and the time left."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[rows]:,} rows, {task.fields[rate]:,.0f}/s"),
            TimeRemainingColumn(),
            console=console,
        )
        self._task: TaskID | None = None
        self._started_at, self._rows = 0.0, 0

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.stop()

    def begin_file(self, file: SourceFile, *, resumed_after: int) -> None:
        """Add a bar for the file."""
        self._complete()
        name = f"{file.path.name} (from row {resumed_after + 1:,})" if resumed_after else file.path.name
        self._task = self._progress.add_task(name, total=max(file.size, 1), rows=0, rate=0.0)
        self._started_at, self._rows = time.monotonic(), 0

    def count_row(self, rows: int, bytes_read: int) -> None:
        """Move the bar every hundred rows."""
        self._rows = rows
        if self._task is not None and rows % _SHOW_EVERY_ROWS == 0:
            self._progress.update(self._task, completed=bytes_read, rows=rows, rate=_compute_rate(rows, self._started_at))

    def show_trouble(self, text: str) -> None:
        """Write the text above the bars."""
        self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def finish(self) -> None:
        """Complete the last file's bar."""
        self._complete()

    def _complete(self) -> None:
        if self._task is not None:
            task = next(task for task in self._progress.tasks if task.id == self._task)
            self._progress.update(self._task, completed=task.total, rows=self._rows, rate=_compute_rate(self._rows, self._started_at))


class LogLines:
    """A line when a file begins and every ten seconds, with rows a second and the time left."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._size, self._started_at, self._logged_at = 1, 0.0, 0.0

    def __enter__(self) -> LogLines:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        return None

    def begin_file(self, file: SourceFile, *, resumed_after: int) -> None:
        """Write which file is read, and from which row."""
        self._size, self._started_at = max(file.size, 1), time.monotonic()
        self._logged_at = self._started_at
        self._write(f"{file.path}: {file.size:,} bytes" + (f", continuing after row {resumed_after:,}" if resumed_after else ""))

    def count_row(self, rows: int, bytes_read: int) -> None:
        """Write a line every ten seconds."""
        now = time.monotonic()
        if rows % _SHOW_EVERY_ROWS or now - self._logged_at < _LINE_EVERY_S:
            return
        self._logged_at = now
        left = (now - self._started_at) * (self._size - bytes_read) / max(bytes_read, 1)
        percent = 100 * bytes_read / self._size
        self._write(f"{rows:,} rows ({percent:.0f}%), {_compute_rate(rows, self._started_at):,.0f} rows/s, about {left:,.0f} s left")

    def show_trouble(self, text: str) -> None:
        """Write a line."""
        self._write(text)

    def finish(self) -> None:
        """Write nothing."""


def _compute_rate(rows: int, started_at: float) -> float:
    return rows / max(time.monotonic() - started_at, 1e-6)


def build_summary(totals: Totals, *, is_sent: bool) -> Table:
    """The table at the end: what was read, what became of it, what was left out and why. `is_sent` is False where the
    files were only read."""
    table = Table(show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_row("rows read", f"{totals.rows:,}")
    table.add_row("events made", f"{totals.events:,}")
    if is_sent:
        table.add_row("  new", f"{totals.new:,}")
        table.add_row("  replayed (were there already)", f"{totals.replayed:,}")
        table.add_row("  pending (what they refer to is not there yet)", f"{totals.pending:,}")
    for reason, count in sorted(totals.skipped.items()):
        table.add_row(f"skipped: {reason}", f"{count:,}")
    table.add_row("rows refused, whole or in part", f"{totals.refused_rows:,}")
    for reason, count in sorted(totals.refused.items()):
        table.add_row(f"  {reason}", f"{count:,}")
    return table
