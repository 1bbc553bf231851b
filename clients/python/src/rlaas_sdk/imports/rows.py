"""What a row of a file can come to, and the small readings of its cells that every format shares."""

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
"""Nor one that occurred later than this after now."""

_WRITTEN = re.compile(r"(\d{4}-\d\d-\d\d)(?:[Tt ](\d\d:\d\d(?::\d\d)?)(?:[.,](\d{1,9}))?)?\s?(Z|z|UTC|[+-]\d\d:?\d\d)?")


class RowRefused(Exception):
    """The row cannot become events. `reason` is a short code, `param` the field at fault; neither holds the row's
    text."""

    def __init__(self, reason: str, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.param = param


class RowSkipped(Exception):
    """The row is in order and is not what is imported (a span, a failed call). `reason` is a short code."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Row:
    """A record of a file. `number` counts records from 1, `line` is the line it begins on; either `value` or `problem`
    is given."""

    number: int
    line: int
    value: JsonObject | None
    problem: RowRefused | None = None
    raw: str | None = None


def json_value(text: str | bytes) -> Json:
    """`text` read as JSON, without NaN and Infinity. Raises: ValueError, RecursionError."""
    value: Json = json.loads(text, parse_constant=_no_constant)
    return value


def _no_constant(name: str) -> Json:
    raise ValueError(f"{name} is not JSON")


def decoded(value: Json) -> Json:
    """What a cell holds: exports write objects and lists as JSON texts; any other text stays as it is."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            return json_value(value)
        except (ValueError, RecursionError):
            return value
    return value


def first(row: JsonObject, *names: str) -> Json:
    """The first of the fields `names` that is there and not empty."""
    for name in names:
        value = row.get(name)
        if value not in (None, "", [], {}):
            return value
    return None


def text_of(row: JsonObject, *names: str) -> str | None:
    """The first of the fields `names` that is there, as text; numbers are written out."""
    value = first(row, *names)
    if isinstance(value, str):
        return value
    return None if value is None or isinstance(value, bool | dict | list) else str(value)


def object_of(row: JsonObject, *names: str) -> JsonObject:
    """The first of the fields `names` that holds an object, also as JSON text; else an empty one."""
    for name in names:
        value = decoded(row.get(name))
        if isinstance(value, dict) and value:
            return value
    return {}


def number_of(row: JsonObject, *names: str) -> float | None:
    """The first of the fields `names` that is there, as a finite number. Raises: RowRefused."""
    value = first(row, *names)
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


def moment_of(row: JsonObject, *names: str) -> datetime | None:
    """The first of the fields `names` that is there, as a moment (UTC where no zone is given).

    Takes seconds or milliseconds since 1970, RFC 3339, and `YYYY-MM-DD HH:MM:SS`. Raises: RowRefused when it is none of
    these or lies outside 2020 to a day from now.
    """
    for name in names:
        value = row.get(name)
        if value in (None, ""):
            continue
        moment = _moment(value)
        if moment is None:
            raise RowRefused("bad_time", f"{name} is neither RFC 3339 nor seconds since 1970", param=name)
        if not FIRST_DAY <= moment <= datetime.now(timezone.utc) + CLOCK_SKEW:
            raise RowRefused("time_out_of_range", f"{name} is {rfc3339(moment)}; events occur between 2020 and a day from now", param=name)
        return moment
    return None


def _moment(value: Json) -> datetime | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        seconds = float(value)
    except (ValueError, OverflowError):
        try:
            return _written_moment(str(value))
        except (ValueError, OverflowError):
            return None
    try:
        return datetime.fromtimestamp(seconds / 1000 if abs(seconds) >= 1e11 else seconds, timezone.utc)
    except (ValueError, OverflowError, OSError):
        return None


def _written_moment(text: str) -> datetime | None:
    found = _WRITTEN.fullmatch(text.strip())
    if found is None:
        return None
    day, time, fraction, zone = found.groups()
    moment = datetime.fromisoformat(f"{day}T{time or '00:00:00'}").replace(microsecond=int((fraction or "0")[:6].ljust(6, "0")))
    if zone in (None, "Z", "z", "UTC"):
        return moment.replace(tzinfo=timezone.utc)
    minutes = int(zone[1:3]) * 60 + int(zone[-2:])
    offset = timezone(timedelta(minutes=-minutes if zone[0] == "-" else minutes))
    return moment.replace(tzinfo=offset).astimezone(timezone.utc)


def rfc3339(moment: datetime) -> str:
    """`moment` as RFC 3339 in UTC with microseconds and `Z`."""
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
