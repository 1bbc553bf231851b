"""Times in JSON."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from pydantic import TypeAdapter, ValidationError

from rlaas.clock import Timestamp, rfc3339

TIMESTAMP: TypeAdapter[datetime] = TypeAdapter(Timestamp)


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (datetime(2026, 5, 4, 9, 0, 0, 120, tzinfo=timezone(timedelta(hours=2))), "2026-05-04T07:00:00.000120Z"),
        (datetime(317, 3, 30, tzinfo=UTC), "0317-03-30T00:00:00.000000Z"),
    ],
)
def test_a_moment_is_read_back_as_it_was_written(moment: datetime, text: str) -> None:
    assert rfc3339(moment) == text
    assert TIMESTAMP.validate_python(datetime.fromisoformat(text)) == moment


@pytest.mark.parametrize("text", ["9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00"])
def test_a_moment_outside_the_calendar_is_refused(text: str) -> None:
    with pytest.raises(ValidationError, match="outside the years"):
        TIMESTAMP.validate_json(f'"{text}"')
