"""The demo's output: a spinner with the latest news in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rich.status import Status

PLAIN_LINE_EVERY_SECONDS = 10.0


class Show:
    """Announces numbered steps and keeps how long each took (`seconds`)."""

    def __init__(self, steps: int, console: Console | None = None) -> None:
        self._steps = steps
        self._console = console or Console(highlight=False)
        self._status: Status | None = None
        self._title = ""
        self._news = ""
        self._printed_at = 0.0
        self.seconds: dict[str, float] = {}

    @contextmanager
    def announce_step(self, title: str, about: str) -> Iterator[None]:
        """A step of the demo, announced before and timed after; `about` says what will happen and how long it takes."""
        self._title, self._news = title, ""
        self._console.print(f"\n[bold]{len(self.seconds) + 1}/{self._steps} {title}[/bold]  [dim]{about}[/dim]", soft_wrap=True)
        start = self._printed_at = time.monotonic()
        if self._console.is_terminal:
            with self._console.status(title) as self._status:
                yield
            self._status = None
        else:
            yield
        self.seconds[title] = time.monotonic() - start
        self._console.print(
            f"  [green]done[/green] in {self.seconds[title]:.0f} s" + (f": {self._news}" if self._news else ""), soft_wrap=True
        )

    def report_progress(self, text: str) -> None:
        """How far the step is. In a terminal it replaces the last news; elsewhere a line every ten seconds is
        enough."""
        if self._status is not None:
            self._status.update(f"{self._title}: {text}")
        elif text != self._news and time.monotonic() - self._printed_at >= PLAIN_LINE_EVERY_SECONDS:
            self._printed_at = time.monotonic()
            self._console.print(f"  {text}", markup=False, soft_wrap=True)
        self._news = text

    def say(self, text: str) -> None:
        """A line that stays."""
        self._console.print(f"  {text}", markup=False, soft_wrap=True)

    def print_table(self, title: str, columns: Sequence[str], rows: Mapping[str, Sequence[str]]) -> None:
        """A small table; the first column holds the rows' names."""
        table = Table(box=None, pad_edge=True)
        for column in columns:
            table.add_column(column, justify="left" if column == columns[0] else "right")
        for name, cells in rows.items():
            table.add_row(name, *cells)
        self._console.print(f"\n  [bold]{title}[/bold]", soft_wrap=True)
        self._console.print(table)
