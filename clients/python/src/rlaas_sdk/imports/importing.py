"""An import from beginning to end: files to rows, rows to events, events to the service, and the place kept for going
on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rlaas_sdk.imports.exchange import Making
from rlaas_sdk.imports.files import SourceFile
from rlaas_sdk.imports.progress import Ledger, Outcome, Report, State, Totals
from rlaas_sdk.imports.rows import JsonObject, Row, RowRefused, RowSkipped
from rlaas_sdk.imports.sending import MAX_EVENT_BYTES, Item, Lanes, Service, encoded

_FLUSH_EVERY_ROWS = 5_000
_ID_FIELD = {"interaction": "interaction_id", "output": "output_id", "feedback": "feedback_id", "task_result": "task_result_id"}


class Reader(Protocol):
    """A format: what one part of a row becomes."""

    def __call__(self, row: JsonObject, making: Making, own_id: str) -> list[JsonObject]:
        """The events, in order. Raises: RowRefused, RowSkipped."""
        ...


def whole_row(row: JsonObject) -> list[JsonObject]:
    """The parts of a row that has none."""
    return [row]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to import and how. `service` is `None` for reading only; `dry_run` has the service check every event and
    store none.

    `options` tells this reading of the files from others, for the key alone.
    """

    files: Sequence[SourceFile]
    reader: Reader
    making: Making
    service: Service | None
    parts: Callable[[JsonObject], list[JsonObject]] = whole_row
    dry_run: bool = False
    delimiter: str = ","
    lanes: int = 4
    report: Path | None = None
    include_rows: bool = False
    options: str = ""

    def key(self) -> str:
        """Names the import in its state: the same files for the same skill of the same service, read the same way."""
        url, key = (self.service.url, self.service.key.split("_")[:2]) if self.service else ("", [])
        files = [file.sha256 for file in self.files]
        identity = [self.making.identity.origin, self.making.identity.namespace, self.making.skill]
        named = [
            url,
            key,
            files,
            identity,
            list(self.making.tags),
            self.dry_run,
            str(self.report),
            self.include_rows,
            self.delimiter,
            self.options,
        ]
        return hashlib.sha256(json.dumps(named).encode()).hexdigest()


class Watcher(Protocol):
    """Is told how an import comes along."""

    def file_begun(self, file: SourceFile, *, resumed_after: int) -> None:
        """A file is begun, or gone on with behind its row `resumed_after`."""
        ...

    def row_read(self, rows: int, bytes_read: int) -> None:
        """A row was read: how many of the file so far in this run, and how far into it reading is."""
        ...


def run_import(plan: Plan, state: State, watcher: Watcher) -> Totals:
    """Bring every file in, from where a killed run of the same plan stopped.

    Raises: Stopped when the service cannot be reached or refuses the key; what was taken until then is kept in `state`.
    """
    at_file, after, report_bytes, totals = state.place() or (0, 0, 0, Totals())
    report = Report(plan.report, resume_at=report_bytes)
    try:
        for n, file in enumerate(plan.files):
            if n >= at_file:
                begin = after if n == at_file else 0
                watcher.file_begun(file, resumed_after=begin)
                ledger = Ledger(state, report, totals, file=n, name=str(file.path), after=begin)
                _import_file(plan, file, begin, ledger, watcher)
        state.finished()
    finally:
        report.close()
    return totals


def _import_file(plan: Plan, file: SourceFile, after: int, ledger: Ledger, watcher: Watcher) -> None:
    lanes = Lanes(plan.service, ledger.settled, lanes=plan.lanes) if plan.service else None
    bytes_read = 0

    def on_bytes(position: int) -> None:
        nonlocal bytes_read
        bytes_read = position

    try:
        rows = file.rows(after=after, delimiter=plan.delimiter, keep_raw=plan.include_rows, on_bytes=on_bytes)
        for count, row in enumerate(rows, start=1):
            events, refused, skipped = _events(plan, file, row)
            items = _items(plan, row.number, events, refused)
            ledger.opened(row.number, row.line, events=len(items), sent=lanes is not None, refused=refused, skipped=skipped, raw=row.raw)
            if lanes is not None:
                for interaction_id, item in items:
                    lanes.put(interaction_id, item)
                if count % _FLUSH_EVERY_ROWS == 0:
                    lanes.flush()
            watcher.row_read(count, bytes_read)
        if lanes is not None:
            lanes.finish()
    except BaseException:
        if lanes is not None:
            lanes.abandon()
        raise
    finally:
        ledger.keep()


def _events(plan: Plan, file: SourceFile, row: Row) -> tuple[list[JsonObject], list[Outcome], list[str]]:
    """A row's events, what of it was refused, and why parts of it were skipped."""
    if row.problem is not None or row.value is None:
        return [], [_refusal(row.problem)] if row.problem else [], []
    events: list[JsonObject] = []
    refused: list[Outcome] = []
    skipped: list[str] = []
    parts = [part for record in _records(row.value) for part in plan.parts(record)]
    for n, part in enumerate(parts):
        own_id = f"{file.sha256}.{row.number}" + (f".{n}" if len(parts) > 1 else "")
        try:
            events += plan.reader(part, plan.making, own_id)
        except RowRefused as problem:
            refused.append(_refusal(problem))
        except RowSkipped as skip:
            skipped.append(skip.reason)
        except RecursionError:
            refused.append(_refusal(RowRefused("malformed_json", "the row is nested too deeply")))
    return events, refused, skipped


def _records(row: JsonObject) -> list[JsonObject]:
    """The records of a page as the tools' APIs answer it (Langfuse, OpenAI's lists, LiteLLM's spend logs); else the row
    itself."""
    page = row.get("data")
    is_page = isinstance(page, list) and ("meta" in row or row.get("object") == "list" or "total_pages" in row)
    return [item for item in page if isinstance(item, dict)] if isinstance(page, list) and is_page else [row]


def _items(plan: Plan, row: int, events: list[JsonObject], refused: list[Outcome]) -> list[tuple[str, Item]]:
    """The events that can be sent, by their interactions; the others join `refused`."""
    items: list[tuple[str, Item]] = []
    for event in events:
        event_id = str(event[_ID_FIELD[str(event["type"])]])
        try:
            body = encoded({**event, "dryrun": True} if plan.dry_run else event)
        except UnicodeEncodeError:
            problem = RowRefused("invalid_unicode", "a text holds half a surrogate pair or bytes that are not UTF-8", param="text")
            refused.append(_refusal(problem, event_id))
            continue
        if len(body) > MAX_EVENT_BYTES:
            problem = RowRefused("event_too_large", f"the {event['type']} is {len(body)} bytes of JSON, the most is {MAX_EVENT_BYTES}")
            refused.append(_refusal(problem, event_id))
            continue
        items.append((str(event["interaction_id"]), Item(row, event_id, body)))
    return items


def _refusal(problem: RowRefused, event_id: str | None = None) -> Outcome:
    return Outcome("refused", reason=problem.reason, message=problem.message, param=problem.param, event_id=event_id)
