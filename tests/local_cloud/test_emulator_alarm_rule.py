"""The alarm rule against the tables of "Configuring how CloudWatch alarms treat missing data", Amazon CloudWatch User
Guide."""

from __future__ import annotations

import pytest

from local.emulator.alarm_rule import AlarmRule

TREATMENTS = ("missing", "ignore", "breaching", "notBreaching")
POINTS = {"0": False, "X": True, "-": None}
# Datapoints of the evaluation range, oldest first; then the state by treatment. "keep": the alarm stays in the state it
# is in.
THREE_OF_THREE = [
    ("0-X-X", ("OK", "OK", "OK", "OK")),
    ("0----", ("OK", "OK", "OK", "OK")),
    ("-----", ("INSUFFICIENT_DATA", "keep", "ALARM", "OK")),
    ("0XX-X", ("ALARM", "ALARM", "ALARM", "ALARM")),
    ("--X--", ("ALARM", "keep", "ALARM", "OK")),
]
TWO_OF_THREE = [
    ("0-X-X", ("ALARM", "ALARM", "ALARM", "ALARM")),
    ("00X0X", ("ALARM", "ALARM", "ALARM", "ALARM")),
    ("0-X--", ("OK", "OK", "ALARM", "OK")),
    ("----0", ("OK", "OK", "ALARM", "OK")),
    ("---X-", ("ALARM", "keep", "ALARM", "OK")),
]


@pytest.mark.parametrize(
    ("to_alarm", "points", "treatment", "expected"),
    [
        (to_alarm, points, treatment, state)
        for to_alarm, table in ((3, THREE_OF_THREE), (2, TWO_OF_THREE))
        for points, states in table
        for treatment, state in zip(TREATMENTS, states, strict=True)
    ],
)
def test_the_state_is_the_documented_one(to_alarm: int, points: str, treatment: str, expected: str) -> None:
    rule = AlarmRule(periods=3, to_alarm=to_alarm, treat_missing=treatment)
    assert (rule.state([POINTS[point] for point in points]) or "keep") == expected


def test_a_lone_new_breach_of_too_few_does_not_alarm_early() -> None:
    assert AlarmRule(periods=3, to_alarm=3, treat_missing="missing").state([None, None, None, None, True]) is None
