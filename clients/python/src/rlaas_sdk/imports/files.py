"""Reads files of records as a stream: JSON Lines, a JSON array or document, CSV, Parquet. Gzip and Parquet are
recognised by their first bytes.

A record that cannot be read becomes a `Row` with a `problem`; reading continues after it.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import hashlib
import io
import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal, cast

from rlaas_sdk.imports.rows import JsonObject, Row, RowRefused, parse_json

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

MAX_ROW_BYTES = 16 * 1024 * 1024
"""A longer record is refused and not held in memory."""
_CHUNK = 1024 * 1024
_PARQUET_ROWS = 100
_DECODER = json.JSONDecoder(parse_constant=lambda name: (_ for _ in ()).throw(ValueError(f"{name} is not JSON")))

Layout = Literal["json", "csv", "parquet"]


class FileUnreadable(ValueError):
    """The file cannot be read at all; the message says which one and why."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file to import. `size` is in bytes on disk; `sha256` is that of the content without gzip, so that a file and
    its gzip are the same source."""

    path: Path
    sha256: str
    size: int
    layout: Layout

    @classmethod
    def open(cls, path: Path, layout: Layout | None = None) -> SourceFile:
        """The file at `path`, read once from end to end for its hash. Without a `layout`, the name and the content
        decide it.

        Raises: FileUnreadable.
        """
        name = path.name.lower().removesuffix(".gz")
        digest = hashlib.sha256()
        try:
            with _open(path)[1] as stream:
                first_bytes = stream.peek(4)[:4]
                while chunk := stream.read(_CHUNK):
                    digest.update(chunk)
            size = path.stat().st_size
        except (OSError, EOFError, zlib.error) as error:
            raise FileUnreadable(f"{path} cannot be read: {error}") from error
        if first_bytes.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise FileUnreadable(f"{path} is UTF-16; save it as UTF-8 (iconv -f UTF-16 -t UTF-8)")
        if first_bytes == b"PAR1":
            if layout == "csv":
                raise FileUnreadable(f"{path} is Parquet, not CSV")
            with path.open("rb") as file:
                _open_parquet(file)
            layout = "parquet"
        return cls(path, digest.hexdigest(), size, layout or ("csv" if name.endswith(".csv") else "json"))

    def header(self, delimiter: str = ",") -> list[str]:
        """The columns of a CSV file. Raises: FileUnreadable."""
        with _open(self.path)[1] as stream:
            try:
                return next(csv.reader(_open_text(stream), delimiter=delimiter), [])
            except csv.Error as error:
                raise FileUnreadable(f"{self.path} has no readable first line: {error}") from error

    def rows(
        self, *, after: int = 0, delimiter: str = ",", keep_raw: bool = False, on_bytes: Callable[[int], None] | None = None
    ) -> Iterator[Row]:
        """The records after the first `after`, in order. Before each, `on_bytes` is called with the position of reading
        in the file on disk, in bytes. With `keep_raw` each row holds its text. Raises: FileUnreadable."""
        file, stream = _open(self.path)
        source = file if self.layout == "parquet" or isinstance(stream.raw, gzip.GzipFile) else stream
        with file, stream:
            if self.layout == "csv":
                rows = _read_csv_rows(stream, delimiter, keep_raw)
            elif self.layout == "parquet":
                rows = _read_parquet_rows(file, keep_raw)
            else:
                rows = _read_json_rows(stream, after, keep_raw)
            for row in rows:
                if on_bytes is not None:
                    on_bytes(source.tell())
                if row.number > after:
                    yield row


def _open(path: Path) -> tuple[BinaryIO, io.BufferedReader]:
    file = path.open("rb")
    is_gzip = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    stream = cast(BinaryIO, gzip.GzipFile(fileobj=file)) if is_gzip else file
    return file, io.BufferedReader(cast(io.RawIOBase, stream), _CHUNK)


def _read_json_rows(stream: BinaryIO, after: int, keep_raw: bool) -> Iterator[Row]:
    first_line = stream.readline(MAX_ROW_BYTES + 1).removeprefix(codecs.BOM_UTF8)
    at_line = 1
    while first_line and not first_line.strip():
        first_line = stream.readline(MAX_ROW_BYTES + 1)
        at_line += 1
    beginning = first_line.strip()
    if beginning.startswith(b"[") or beginning == b"{":
        yield from _read_document_rows(first_line, at_line, stream, keep_raw)
    else:
        yield from _read_line_rows(first_line, at_line, stream, after, keep_raw)


def _read_line_rows(first_line: bytes, line_number: int, stream: BinaryIO, after: int, keep_raw: bool) -> Iterator[Row]:
    number, line = 0, first_line
    while line:
        too_long = len(line) > MAX_ROW_BYTES
        ends = line.endswith(b"\n")
        while too_long and not ends and (rest := stream.readline(_CHUNK)):
            ends = rest.endswith(b"\n")
        if too_long or line.strip():
            number += 1
            if number <= after:
                yield Row(number, line_number, None)
            elif too_long:
                problem = RowRefused("row_too_large", f"the line is longer than {MAX_ROW_BYTES} bytes")
                yield Row(number, line_number, None, problem)
            else:
                yield _parse_line(number, line_number, line, keep_raw)
        line_number += 1
        line = stream.readline(MAX_ROW_BYTES + 1)


def _parse_line(number: int, line_number: int, line: bytes, keep_raw: bool) -> Row:
    raw = line.decode("utf-8", "replace").strip() if keep_raw else None
    try:
        value = parse_json(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return Row(number, line_number, None, RowRefused("invalid_utf8", f"byte {error.start} of the line is not UTF-8"), raw)
    except RecursionError:
        return Row(number, line_number, None, RowRefused("malformed_json", "the line is nested too deeply"), raw)
    except ValueError as error:
        where = f" at column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        why = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        return Row(number, line_number, None, RowRefused("malformed_json", f"the line is not JSON: {why}{where}"), raw)
    return _build_row(number, line_number, value, raw)


def _build_row(number: int, line_number: int, value: object, raw: str | None) -> Row:
    if not isinstance(value, dict):
        return Row(
            number, line_number, None, RowRefused("not_an_object", f"the record is a JSON {type(value).__name__}, not an object"), raw
        )
    return Row(number, line_number, cast(JsonObject, value), None, raw)


def _read_document_rows(beginning: bytes, line: int, stream: BinaryIO, keep_raw: bool) -> Iterator[Row]:
    """The records of an array, or of JSON documents one after the other that take several lines each."""
    utf8 = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    buffer, number = utf8.decode(beginning), 0
    at, ended = 0, False
    step = _CHUNK
    while True:
        while at < len(buffer) and buffer[at] in " \t\r\n,[]":
            line += buffer[at] == "\n"
            at += 1
        if at < len(buffer):
            try:
                value, end = _DECODER.raw_decode(buffer, at)
            except (ValueError, RecursionError) as error:
                if ended or len(buffer) - at > MAX_ROW_BYTES or isinstance(error, RecursionError):
                    problem = RowRefused("malformed_json", "the record is not JSON; the file cannot be read from here on")
                    yield Row(number + 1, line, None, problem, buffer[at:] if keep_raw else None)
                    return
            else:
                number += 1
                yield _build_row(number, line, value, buffer[at:end] if keep_raw else None)
                line += buffer.count("\n", at, end)
                at, step = end, _CHUNK
                continue
        elif ended:
            return
        chunk = stream.read(step)
        ended, step = not chunk, step * 2
        buffer, at = buffer[at:] + utf8.decode(chunk, final=ended), 0


def _open_text(stream: BinaryIO) -> io.TextIOWrapper:
    return io.TextIOWrapper(cast("io.BufferedReader", stream), encoding="utf-8-sig", errors="surrogateescape", newline="")


def _read_csv_rows(stream: BinaryIO, delimiter: str, keep_raw: bool) -> Iterator[Row]:
    csv.field_size_limit(MAX_ROW_BYTES)
    text, ended = _open_text(stream), False

    def lines() -> Iterator[str]:
        nonlocal ended
        yield from iter(partial(text.readline, MAX_ROW_BYTES), "")
        ended = True

    reader = csv.reader(lines(), delimiter=delimiter, strict=False)
    header = next(reader, [])
    number, line = 0, reader.line_num + 1
    while True:
        problem = None
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            cells, problem = [""], str(error)
        if cells:
            number += 1
            if ended:
                problem = "a quote is opened here and never closed; the rest of the file was not read as rows"
            elif problem is None and len(cells) != len(header):
                problem = f"the line has {len(cells)} cells and the header {len(header)}"
            raw = json.dumps(cells, ensure_ascii=False) if keep_raw else None
            if problem is None:
                yield Row(number, line, dict(zip(header, cells, strict=True)), None, raw)
            else:
                yield Row(number, line, None, RowRefused("malformed_csv", problem), raw)
        line = reader.line_num + 1


def _open_parquet(file: BinaryIO) -> ParquetFile:
    try:
        from pyarrow import ArrowException, parquet
    except ModuleNotFoundError as error:
        raise FileUnreadable(f"{file.name} is Parquet: pip install 'rlaas-sdk[parquet]', or have it exported as JSON Lines") from error
    try:
        return parquet.ParquetFile(file)
    except (OSError, ArrowException) as error:
        raise FileUnreadable(f"{file.name} cannot be read: {error}") from error


def _read_parquet_rows(file: BinaryIO, keep_raw: bool) -> Iterator[Row]:
    number = 0
    for batch in _open_parquet(file).iter_batches(_PARQUET_ROWS):
        for record in batch.to_pylist(maps_as_pydicts="lossy"):
            number += 1
            line = json.dumps(record, ensure_ascii=False, default=_encode_cell)
            yield _parse_line(number, number, line.encode(errors="surrogateescape"), keep_raw)


def _encode_cell(cell: object) -> str:
    """The text of a cell whose type JSON does not have: bytes, a time, a decimal."""
    return cell.decode(errors="surrogateescape") if isinstance(cell, bytes) else str(cell)
