"""A row of a file, why it may be refused or skipped, and how its cells are read in every format."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
"""Any JSON value."""
JsonObject = dict[str, Json]
"""A JSON object."""

FIRST_DAY = datetime(2020, 1, 1, tzinfo=timezone.utc)
"""The service takes no event that occurred before this moment."""
CLOCK_SKEW = timedelta(days=1)
"""The service takes no event that occurred more than this after now."""

_TIMESTAMP = re.compile(r"(\d{4}-\d\d-\d\d)(?:[Tt ](\d\d:\d\d(?::\d\d)?)(?:[.,](\d{1,9}))?)?\s?(Z|z|UTC|[+-]\d\d:?\d\d)?")


class RowRefused(Exception):
    """The row cannot become events. `reason` is a short code, `param` the field at fault; neither holds text of the
    row."""

    def __init__(self, reason: str, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.param = param


class RowSkipped(Exception):
    """The row is valid, but not of a kind that is imported (a span, a failed call). `reason` is a short code."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Row:
    """A record of a file. `number` counts records from 1, `line` is the line on which it begins. A record that was read
    has a `value`, one that could not be read a `problem`, one that was passed over neither."""

    number: int
    line: int
    value: JsonObject | None
    problem: RowRefused | None = None
    raw: str | None = None


def parse_json(text: str | bytes) -> Json:
    """`text` read as JSON, without NaN and Infinity. Raises: ValueError, RecursionError."""
    value: Json = json.loads(text, parse_constant=_refuse_constant)
    return value


def _refuse_constant(name: str) -> Json:
    raise ValueError(f"{name} is not JSON")


def decode_cell(value: Json) -> Json:
    """The value of a cell: an object or a list that an export wrote as JSON text is parsed, any other text stays."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            return parse_json(value)
        except (ValueError, RecursionError):
            return value
    return value


def find_first(row: JsonObject, *names: str) -> Json:
    """The first of the fields `names` that is not empty; None where all are."""
    for name in names:
        value = row.get(name)
        if value not in (None, "", [], {}):
            return value
    return None


def read_text(row: JsonObject, *names: str) -> str | None:
    """The first of the fields `names` that is not empty, as text, where it is a text or a number; else None."""
    value = find_first(row, *names)
    if isinstance(value, str):
        return value
    return None if value is None or isinstance(value, bool | dict | list) else str(value)


def read_object(row: JsonObject, *names: str) -> JsonObject:
    """The first of the fields `names` that holds an object, also one as JSON text; an empty object where none does."""
    for name in names:
        value = decode_cell(row.get(name))
        if isinstance(value, dict) and value:
            return value
    return {}


def read_number(row: JsonObject, *names: str) -> float | None:
    """The first of the fields `names` that is not empty, as a finite number; None where all are empty. Raises:
    RowRefused."""
    value = find_first(row, *names)
    if value is None or isinstance(value, bool):
        return None
    try:
        number = float(value) if isinstance(value, int | float | str) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        name = next(name for name in names if row.get(name) not in (None, "", [], {}))
        raise RowRefused("not_a_number", f"{name} is not a number", param=name)
    return number


def read_moment(row: JsonObject, *names: str) -> datetime | None:
    """The first of the fields `names` that is not empty, as a moment (UTC where no zone is given); None where all are
    empty.

    Takes seconds or milliseconds since 1970, RFC 3339, and `YYYY-MM-DD HH:MM:SS`. Raises: RowRefused when it is none of
    these, or lies before 2020 or more than a day from now.
    """
    for name in names:
        value = row.get(name)
        if value in (None, ""):
            continue
        moment = _parse_moment(value)
        if moment is None:
            raise RowRefused("bad_time", f"{name} is neither RFC 3339 nor seconds since 1970", param=name)
        if not FIRST_DAY <= moment <= datetime.now(timezone.utc) + CLOCK_SKEW:
            raise RowRefused(
                "time_out_of_range", f"{name} is {format_rfc3339(moment)}; events occur between 2020 and a day from now", param=name
            )
        return moment
    return None


def _parse_moment(value: Json) -> datetime | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        seconds = float(value)
    except (ValueError, OverflowError):
        try:
            return _parse_timestamp(str(value))
        except (ValueError, OverflowError):
            return None
    try:
        return datetime.fromtimestamp(seconds / 1000 if abs(seconds) >= 1e11 else seconds, timezone.utc)
    except (ValueError, OverflowError, OSError):
        return None


def _parse_timestamp(text: str) -> datetime | None:
    match = _TIMESTAMP.fullmatch(text.strip())
    if match is None:
        return None
    day, time, fraction, zone = match.groups()
    moment = datetime.fromisoformat(f"{day}T{time or '00:00:00'}").replace(microsecond=int((fraction or "0")[:6].ljust(6, "0")))
    if zone in (None, "Z", "z", "UTC"):
        return moment.replace(tzinfo=timezone.utc)
    minutes = int(zone[1:3]) * 60 + int(zone[-2:])
    offset = timezone(timedelta(minutes=-minutes if zone[0] == "-" else minutes))
    return moment.replace(tzinfo=offset).astimezone(timezone.utc)


def format_rfc3339(moment: datetime) -> str:
    """`moment` as RFC 3339 in UTC with microseconds and `Z`."""
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
