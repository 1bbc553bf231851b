"""When a CloudWatch metric alarm changes state; nothing of the emulator in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

State = Literal["OK", "ALARM", "INSUFFICIENT_DATA"]


@dataclass(frozen=True)
class AlarmRule:
    """The settings that decide an alarm's state: M (`to_alarm`) breaching periods out of N (`periods`)."""

    periods: int
    to_alarm: int
    treat_missing: str

    def state(self, breaching: Sequence[bool | None]) -> State | None:
        """The alarm's state after `breaching` (one entry a period, oldest first, None where there is no data); None
        for no change.

        "How alarm state is evaluated when data is missing", Amazon CloudWatch User Guide: with N real points the newest
        N decide and missing ones are passed over; with fewer, the missing ones are filled as TreatMissingData says.
        """
        real = [point for point in breaching if point is not None]
        if len(real) >= self.periods:
            return "ALARM" if sum(real[-self.periods :]) >= self.to_alarm else "OK"
        missing = self.periods - len(real)
        if self.treat_missing == "breaching":
            return "ALARM" if sum(real) + missing >= self.to_alarm else "OK"
        if self.treat_missing == "notBreaching" or sum(real) >= self.to_alarm:
            return "ALARM" if sum(real) >= self.to_alarm else "OK"
        if not real:
            return "INSUFFICIENT_DATA" if self.treat_missing == "missing" else None
        if not all(real):
            return "OK"
        if self.treat_missing == "ignore":
            return None
        age = len(breaching) - next(index for index, point in enumerate(breaching) if point is not None)
        return "ALARM" if age >= self.to_alarm else None  # a lone new breach may be the first of too few
