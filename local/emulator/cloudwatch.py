"""CloudWatch: alarms that follow their settings, their state changes on EventBridge, and embedded metrics.

Stock ministack (services/cloudwatch.py):
- evaluates an alarm over the points of every dimension of its metric, treats all its periods as one, and ignores
  DatapointsToAlarm and TreatMissingData; it evaluates only when a metric is put. Here: `AlarmRule`, when a matching
  point arrives and once a second.
- sends a state change to SNS, and not to EventBridge. Here: `CloudWatch Alarm State Change` on the default bus.
- does not read the embedded metric format. Here: each line of a log group is read.
"""

from __future__ import annotations

import contextvars
import json
import logging
import operator
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ministack.core import responses
from ministack.services import cloudwatch, cloudwatch_logs, eventbridge

from local.emulator.alarm_rule import AlarmRule

logger = logging.getLogger("rlaas.cloudwatch")

TICK_SECONDS = 1.0
EXTRA_PERIODS = 2  # CloudWatch looks at a few periods more than it needs, so that late points count
COMPARE: dict[str, Callable[[float, float], bool]] = {
    "GreaterThanOrEqualToThreshold": operator.ge,
    "GreaterThanThreshold": operator.gt,
    "LessThanThreshold": operator.lt,
    "LessThanOrEqualToThreshold": operator.le,
}
_evaluating = threading.RLock()


def _breaching(alarm: Mapping[str, Any], now: float) -> list[bool | None]:
    """Whether each of the alarm's last periods breaches, oldest first; the running period counts once it has data."""
    dimensions = cloudwatch._dims_key(cloudwatch._dims_from_list(alarm.get("Dimensions") or []))
    points = cloudwatch._metrics.get((alarm["Namespace"], alarm["MetricName"], dimensions)) or []
    period, unit = int(alarm["Period"]), alarm.get("Unit")
    count = int(alarm["EvaluationPeriods"]) + EXTRA_PERIODS
    newest = int(now // period)
    periods: dict[int, list[dict[str, Any]]] = {}
    for point in list(points):
        index = int(point["Timestamp"] // period)
        if newest - count <= index <= newest and (not unit or point.get("Unit") == unit):
            periods.setdefault(index, []).append(point)
    if newest not in periods:
        newest -= 1
    statistic = alarm.get("ExtendedStatistic") or alarm.get("Statistic") or "Average"
    compare = COMPARE[alarm["ComparisonOperator"]]
    result: list[bool | None] = []
    for index in range(newest - count + 1, newest + 1):
        inside = periods.get(index)
        value = cloudwatch._stat_value(cloudwatch._calc_stats(inside), statistic, inside) if inside else None
        result.append(None if value is None else bool(compare(value, alarm["Threshold"])))
    return result


def evaluate(alarm: dict[str, Any], now: float | None = None) -> None:
    """Set one metric alarm of the request's account and region to the state that follows from its data."""
    if not alarm.get("Namespace") or not alarm.get("MetricName"):
        return
    rule = AlarmRule(
        periods=int(alarm["EvaluationPeriods"]),
        to_alarm=int(alarm.get("DatapointsToAlarm") or alarm["EvaluationPeriods"]),
        treat_missing=alarm.get("TreatMissingData") or "missing",
    )
    with _evaluating:
        breaching = _breaching(alarm, time.time() if now is None else now)
        new, old = rule.state(breaching), alarm["StateValue"]
        if new is None or new == old:
            return
        marks = " ".join("-" if point is None else "X" if point else "0" for point in breaching)
        reason = f"Threshold Crossed: {rule.to_alarm} of {rule.periods} periods against {alarm['Threshold']} (oldest first: {marks})"
        alarm.update(StateValue=new, StateReason=reason, StateUpdatedTimestamp=int(time.time()))
        cloudwatch._record_history(alarm["AlarmName"], old, new, reason)
        cloudwatch._dispatch_alarm_actions(alarm, old, new, reason)
        cloudwatch._evaluate_parent_alarms(alarm)


def _evaluate_matching(metrics: Iterable[tuple[str, str]]) -> None:
    metric_keys = set(metrics)
    for alarm in list(cloudwatch._alarms.values()):
        if (alarm.get("Namespace"), alarm.get("MetricName")) in metric_keys:
            evaluate(alarm)


def _tick() -> None:
    """Evaluate every alarm of every account and region once a second: missing data changes a state, too."""
    while True:
        time.sleep(TICK_SECONDS)
        for account, region, _ in list(cloudwatch._alarms._data):
            contextvars.copy_context().run(_evaluate_all, account, region)


def _evaluate_all(account: str, region: str) -> None:
    responses._request_account_id.set(account)
    responses.set_request_region(region)
    for alarm in list(cloudwatch._alarms.values()):
        try:
            evaluate(alarm)
        except Exception:  # the other alarms go on
            logger.exception("alarm %s cannot be evaluated", alarm.get("AlarmName"))


def announce(alarm: dict[str, Any], old_state: str, new_state: str, reason: str) -> None:
    """Put the alarm's state change on the account's default event bus, then run its actions."""
    now = time.time()
    at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03d}+0000"
    metric = {
        "id": "m1",
        "metricStat": {
            "metric": {
                "namespace": alarm.get("Namespace"),
                "name": alarm.get("MetricName"),
                "dimensions": cloudwatch._dims_from_list(alarm.get("Dimensions") or []),
            },
            "period": alarm.get("Period"),
            "stat": alarm.get("ExtendedStatistic") or alarm.get("Statistic"),
        },
        "returnData": True,
    }
    detail = {
        "alarmName": alarm["AlarmName"],
        "state": {"value": new_state, "reason": reason, "timestamp": at},
        "previousState": {"value": old_state},
        "configuration": {"description": alarm.get("AlarmDescription") or "", "metrics": [metric]},
    }
    entry = {
        "Source": "aws.cloudwatch",
        "DetailType": "CloudWatch Alarm State Change",
        "Detail": json.dumps(detail),
        "Resources": [alarm["AlarmArn"]],
    }
    eventbridge._put_events({"Entries": [entry]}, allow_aws_source=True)
    _stock_actions(alarm, old_state, new_state, reason)


def embedded_metrics(message: str, now_ms: float) -> list[tuple[str, dict[str, Any]]]:
    """(namespace, arguments of stock's _store_datum) of each metric in a log line of CloudWatch's embedded metric
    format; empty for any other line. `now_ms` is the line's time in milliseconds since the epoch."""
    start = message.find("{")
    if start < 0 or '"CloudWatchMetrics"' not in message:
        return []
    try:
        document = json.loads(message[start:])
        directives = document["_aws"]["CloudWatchMetrics"]
        seconds = float(document["_aws"].get("Timestamp", now_ms)) / 1000
        data = []
        for directive in directives:
            for names in directive.get("Dimensions") or [[]]:
                dimensions = {name: str(document[name]) for name in names}
                for metric in directive["Metrics"]:
                    value = document[metric["Name"]]
                    values = [float(item) for item in (value if isinstance(value, list) else [value])]
                    datum = {
                        "name": metric["Name"],
                        "dims": dimensions,
                        "ts": seconds,
                        "unit": metric.get("Unit", "None"),
                        "values": values,
                    }
                    data.append((directive["Namespace"], datum))
        return data
    except (KeyError, TypeError, ValueError, AttributeError):
        return []  # CloudWatch keeps a malformed line as a plain log line


def _append_log_events(stream: dict[str, Any], events: list[dict[str, Any]]) -> None:
    _stock_append(stream, events)
    metrics = set()
    for event in events:
        for namespace, datum in embedded_metrics(event["message"], event["timestamp"]):
            cloudwatch._store_datum(namespace, value=None, counts=None, stat_values=None, **datum)
            metrics.add((namespace, datum["name"]))
    if metrics:
        _evaluate_matching(metrics)


_stock_actions = cloudwatch._dispatch_alarm_actions
_stock_append = cloudwatch_logs._append_log_events


def install() -> None:
    """Hook in, and start the thread that evaluates alarms once a second."""
    cloudwatch._evaluate_alarm = evaluate
    cloudwatch._dispatch_alarm_actions = announce
    cloudwatch_logs._append_log_events = _append_log_events
    threading.Thread(target=_tick, daemon=True, name="alarms").start()
