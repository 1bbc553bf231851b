"""Runs an import from beginning to end: files to rows, rows to events, events to the service. Keeps its place, so that
an interrupted import can continue."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rlaas_sdk.imports.exchange import ImportContext
from rlaas_sdk.imports.files import SourceFile
from rlaas_sdk.imports.progress import EventResult, OpenRows, Report, State, Totals
from rlaas_sdk.imports.rows import JsonObject, Row, RowRefused, RowSkipped
from rlaas_sdk.imports.sending import MAX_EVENT_BYTES, Item, Lanes, Service, encode_event

_FLUSH_EVERY_ROWS = 5_000
_ID_FIELD = {"interaction": "interaction_id", "output": "output_id", "feedback": "feedback_id", "task_result": "task_result_id"}


class Reader(Protocol):
    """Turns one part of a row of a format into events."""

    def __call__(self, row: JsonObject, context: ImportContext, own_id: str) -> list[JsonObject]:
        """The events, in order. Raises: RowRefused, RowSkipped."""
        ...


def keep_whole_row(row: JsonObject) -> list[JsonObject]:
    """The parts of a row that is not split: the row itself."""
    return [row]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to import and how. Without a `service` the files are only read; with `dry_run` the service checks every
    event and stores none.

    `options` only enters the key: it tells apart imports that read the same files in different ways.
    """

    files: Sequence[SourceFile]
    reader: Reader
    context: ImportContext
    service: Service | None
    parts: Callable[[JsonObject], list[JsonObject]] = keep_whole_row
    dry_run: bool = False
    delimiter: str = ","
    lanes: int = 4
    report: Path | None = None
    include_rows: bool = False
    options: str = ""

    def key(self) -> str:
        """The import's name in its state (64 hexadecimal digits): equal for the same files, the same skill of the same
        service and the same way of reading."""
        url, key = (self.service.url, self.service.key.split("_")[:2]) if self.service else ("", [])
        files = [file.sha256 for file in self.files]
        identity = [self.context.identity.origin, self.context.identity.namespace, self.context.skill]
        key_parts = [
            url,
            key,
            files,
            identity,
            list(self.context.tags),
            self.dry_run,
            str(self.report),
            self.include_rows,
            self.delimiter,
            self.options,
        ]
        return hashlib.sha256(json.dumps(key_parts).encode()).hexdigest()


class Watcher(Protocol):
    """Shows how far an import is."""

    def begin_file(self, file: SourceFile, *, resumed_after: int) -> None:
        """Reading of `file` begins, after its row `resumed_after`."""
        ...

    def count_row(self, rows: int, bytes_read: int) -> None:
        """A row was read: the file's rows and bytes that this run has read so far."""
        ...

    def show_trouble(self, text: str) -> None:
        """Events are being sent again, and why; called from any thread."""
        ...


def run_import(plan: Plan, state: State, watcher: Watcher) -> Totals:
    """Import every file, from where an interrupted run of the same plan stopped.

    Raises: Stopped when the service cannot be reached or refuses the key; `state` keeps the place reached until then.
    """
    at_file, after, report_bytes, totals = state.read_place() or (0, 0, 0, Totals())
    report = Report(plan.report, resume_at=report_bytes)
    try:
        for n, file in enumerate(plan.files):
            if n >= at_file:
                start_after = after if n == at_file else 0
                watcher.begin_file(file, resumed_after=start_after)
                open_rows = OpenRows(state, report, totals, file=n, name=str(file.path), after=start_after)
                _import_file(plan, file, start_after, open_rows, watcher)
        state.finish()
    finally:
        report.close()
    return totals


def _import_file(plan: Plan, file: SourceFile, after: int, open_rows: OpenRows, watcher: Watcher) -> None:
    lanes = Lanes(plan.service, open_rows.settle, watcher.show_trouble, lanes=plan.lanes) if plan.service else None
    bytes_read = 0

    def note_position(position: int) -> None:
        nonlocal bytes_read
        bytes_read = position

    try:
        rows = file.rows(after=after, delimiter=plan.delimiter, keep_raw=plan.include_rows, on_bytes=note_position)
        for count, row in enumerate(rows, start=1):
            events, refusals, skip_reasons = _build_events(plan, file, row)
            items = _build_items(plan, row.number, events, refusals)
            open_rows.add(
                row.number,
                row.line,
                events=len(items),
                is_sent=lanes is not None,
                refusals=refusals,
                skip_reasons=skip_reasons,
                raw=row.raw,
            )
            if lanes is not None:
                for interaction_id, item in items:
                    lanes.put(interaction_id, item)
                if count % _FLUSH_EVERY_ROWS == 0:
                    lanes.flush()
            watcher.count_row(count, bytes_read)
        if lanes is not None:
            lanes.finish()
    except BaseException:
        if lanes is not None:
            lanes.abandon()
        raise
    finally:
        open_rows.keep()


def _build_events(plan: Plan, file: SourceFile, row: Row) -> tuple[list[JsonObject], list[EventResult], list[str]]:
    """A row's events, the refusals of its parts, and the reasons why parts were skipped."""
    if row.problem is not None or row.value is None:
        return [], [_build_refusal(row.problem)] if row.problem else [], []
    events: list[JsonObject] = []
    refusals: list[EventResult] = []
    skip_reasons: list[str] = []
    parts = [part for record in _split_page(row.value) for part in plan.parts(record)]
    for n, part in enumerate(parts):
        own_id = f"{file.sha256}.{row.number}" + (f".{n}" if len(parts) > 1 else "")
        try:
            events += plan.reader(part, plan.context, own_id)
        except RowRefused as problem:
            refusals.append(_build_refusal(problem))
        except RowSkipped as skip:
            skip_reasons.append(skip.reason)
        except RecursionError:
            refusals.append(_build_refusal(RowRefused("malformed_json", "the row is nested too deeply")))
    return events, refusals, skip_reasons


def _split_page(row: JsonObject) -> list[JsonObject]:
    """The records of `row` where it is a page of an API (Langfuse, OpenAI's lists, LiteLLM's spend logs); else the row
    itself."""
    page = row.get("data")
    is_page = isinstance(page, list) and ("meta" in row or row.get("object") == "list" or "total_pages" in row)
    return [item for item in page if isinstance(item, dict)] if isinstance(page, list) and is_page else [row]


def _build_items(plan: Plan, row: int, events: list[JsonObject], refusals: list[EventResult]) -> list[tuple[str, Item]]:
    """The events that can be sent, each with its interaction's id; the others are added to `refusals`."""
    items: list[tuple[str, Item]] = []
    for event in events:
        event_id = str(event[_ID_FIELD[str(event["type"])]])
        try:
            body = encode_event({**event, "dryrun": True} if plan.dry_run else event)
        except UnicodeEncodeError:
            problem = RowRefused("invalid_unicode", "a text has half a surrogate pair or bytes that are not UTF-8", param="text")
            refusals.append(_build_refusal(problem, event_id))
            continue
        if len(body) > MAX_EVENT_BYTES:
            problem = RowRefused("event_too_large", f"the {event['type']} is {len(body)} bytes of JSON, the most is {MAX_EVENT_BYTES}")
            refusals.append(_build_refusal(problem, event_id))
            continue
        items.append((str(event["interaction_id"]), Item(row, event_id, body)))
    return items


def _build_refusal(problem: RowRefused, event_id: str | None = None) -> EventResult:
    return EventResult("refused", reason=problem.reason, message=problem.message, param=problem.param, event_id=event_id)
