"""Metrics by the CloudWatch embedded metric format: one line on stdout, no call.

The dimensions are exactly those given (Powertools always adds `service`) and their values few: tenants and ids are
properties, never dimensions.
"""

import sys
from collections.abc import Mapping
from datetime import datetime
from typing import Literal

from pydantic_core import to_json

from rlaas.ids import METRICS_NAMESPACE

MetricUnit = Literal["Count", "Milliseconds", "Seconds", "None"]


def emit(
    metrics: Mapping[str, tuple[float, MetricUnit]],
    *,
    dimensions: Mapping[str, str],
    at: datetime,
    properties: Mapping[str, str | None],
) -> None:
    """Write `metrics` (name to value and unit) with one set of `dimensions`; `properties` can be searched in the
    log."""
    line = {
        "_aws": {
            "Timestamp": int(at.timestamp() * 1000),
            "CloudWatchMetrics": [
                {
                    "Namespace": METRICS_NAMESPACE,
                    "Dimensions": [list(dimensions)],
                    "Metrics": [{"Name": name, "Unit": unit} for name, (_, unit) in metrics.items()],
                }
            ],
        },
        **dimensions,
        **{name: value for name, value in properties.items() if value is not None},
        **{name: value for name, (value, _) in metrics.items()},
    }
    write_line(line)


def write_line(line: Mapping[str, object]) -> None:
    """Write `line` to the log, as JSON in ASCII."""
    sys.stdout.write(to_json(line, ensure_ascii=True).decode() + "\n")
    sys.stdout.flush()
