"""Time as a value: use cases take a `Clock`, wiring passes `utc_now`."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, PlainSerializer

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """The current time, UTC."""
    return datetime.now(UTC)


def rfc3339(moment: datetime) -> str:
    """`moment` as RFC 3339 in UTC with microseconds and `Z`; such texts sort in the order of time."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def _convert_to_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("the moment lies outside the years 1 to 9999 in UTC") from None


Timestamp = Annotated[AwareDatetime, AfterValidator(_convert_to_utc), PlainSerializer(rfc3339, return_type=str, when_used="json")]
"""A time with its zone; JSON has it as RFC 3339 in UTC."""
