"""What a stage costs: a month in which nobody calls it, a million events, a million inferences. `make bench-cost`;
offline, a minute.

Idle: from the templates of the dev and prod stages (`idle_cost`). Events: `telemetry_price`, with all that follows
them: rewards, their way into the lake, and the marks by which each output counts once. The function's processor time is
the one that `make bench-telemetry` last counted on the laptop cloud. Inferences: the deployed function's code in this
process, with AWS clients whose calls are answered here and counted as they are billed, and the log lines that it
printed; an answer of the model takes `MODEL_S` seconds, for which the function is paid too.

Not in an inference's price: the GPU (an `ml.g5.xlarge` costs `gpu_hour_usd`, whatever it answers) or the vendor,
budgets (two more writes), names found in texts (another function), and what is paid by the month.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

from app import build
from benchmarks.dynamodb_units import units
from benchmarks.gateway import AGAINST_PEERS, with_aws_clients
from benchmarks.idle_cost import given_free, idle_lines, total
from benchmarks.lake import lake_usd_per_million
from benchmarks.office_requests import BATCH, ingest, requests
from benchmarks.prices import usd
from benchmarks.result import RESULTS, report
from benchmarks.telemetry_price import (
    ACCESS_LOG_BYTES,
    AUTHORIZER_TTL_S,
    DYNAMODB_S,
    FUNCTION_GIB,
    GB,
    LAKE_WRITER_S,
    MILLION,
    STREAM_BATCH,
    MeteredStore,
    figures,
    follow_up,
    invocation_usd,
)
from rlaas.adapters.aws.usage import DynamoUsage
from rlaas.telemetry.store import StoredEvent
from tests.fakes.privacy import AS_IT_IS

STAGES_COUNTED = {"dev": "dev-us-east-1", "prod": "prod-us-east-1"}
MODEL_S = 2.0
"""Assumed for an answer of a hundred tokens; the function is paid while it waits."""
INFERENCES_PER_S = 10.0
"""Assumed rate."""
ANSWERING_GIB = 0.75
"""The memory of the functions that answer; a test compares it with the template's."""


def stage_templates(id: str, folder: Path) -> list[dict[str, Any]]:
    """The stacks of the stage `id`, synthesized into `folder` without an account or a network."""
    build(outdir=str(folder), context={"stage": id}).synth()
    return [json.loads(path.read_text()) for path in sorted((folder / f"assembly-{id}").glob("*.template.json"))]


def idle_figures(stage: str, templates: list[dict[str, Any]]) -> dict[str, float]:
    """USD of the stage's idle month, of its parts, and of the month less what AWS gives every account free."""
    lines = idle_lines(templates)
    return {
        f"idle_{stage}_usd": total(lines),
        **{f"idle_{stage}_{line}_usd": price for line, price in sorted(lines.items())},
        f"idle_{stage}_after_free_usd": total(lines) - given_free(templates, lines),
    }


class BilledDynamoDB:
    """A table that takes every transaction and counts what DynamoDB would bill."""

    def __init__(self) -> None:
        self.calls = 0
        self.write_units = 0.0

    def transact_write_items(self, **request: object) -> dict[str, object]:
        """Count the units; answers as DynamoDB does when nothing was counted before."""
        self.calls += 1
        self.write_units += units("TransactWriteItems", request, {})[0]
        return {}


def usage_usd(stored_events: list[StoredEvent]) -> float:
    """USD to count the usage of a million events like `landed`, which reach the reward writer in full batches."""
    table = BilledDynamoDB()
    usage = DynamoUsage("counters", cast(Any, table))
    for first in range(0, len(stored_events), STREAM_BATCH):
        usage.count([event for event in stored_events[first : first + STREAM_BATCH] if event.event_type == "output"])
    waiting_usd = table.calls * DYNAMODB_S * FUNCTION_GIB * usd("lambda_arm_gb_second")
    return MILLION / len(stored_events) * (table.write_units * usd("dynamodb_write_unit") + waiting_usd)


def events_figures() -> dict[str, float]:
    """USD for a million events, and for what is done with them."""
    telemetry = json.loads((RESULTS / "telemetry.json").read_text())["figures"]
    event_figures = figures(telemetry["function_cpu_ms_per_request"] / 1000)
    store = MeteredStore()
    ingest(requests(250), store, AS_IT_IS)
    # In the simulation time stands still; each request has its own.
    stored_events = [
        replace(event, received_at=event.received_at + timedelta(milliseconds=250 * (place // BATCH)))
        for place, event in enumerate(store.events.values())
    ]
    parts = {
        "million_events_usd": event_figures["million_events_usd"],
        "million_events_rewards_usd": event_figures["million_events_rewards_usd"],
        "million_events_usage_usd": usage_usd(stored_events),
    }
    return {"million_events_all_usd": sum(parts.values()), **parts}


def inference_figures() -> dict[str, float]:
    """USD for a million requests to `/v1/infer` and all that follows them: two events each, followed up."""
    request_count = AGAINST_PEERS + AGAINST_PEERS // 10
    cpu_s, calls, log = with_aws_clients(AGAINST_PEERS)
    lines = log.splitlines()
    log_bytes = (len(log) + 26 * len(lines)) / request_count
    call_units = [units(*call) for call in calls if call[0] != "InvokeEndpoint"]
    writes, reads = (sum(each) / request_count for each in zip(*call_units, strict=True))
    items = [call[1]["Item"] for call in calls if call[0] == "PutItem"]
    payload = sum(len(item["payload"]["S"]) for item in items) // len(items)
    answer_bytes = payload  # an output's payload and its answer hold the same
    own_s = cpu_s / AGAINST_PEERS / (ANSWERING_GIB * 1024 / 1769) + len(call_units) / request_count * DYNAMODB_S
    api_usd = (
        MILLION * (usd("api_request") + usd("waf_request") + ACCESS_LOG_BYTES / GB * usd("log_gb"))
        + MILLION * answer_bytes / GB * usd("transfer_out_gb")
        + MILLION / INFERENCES_PER_S / AUTHORIZER_TTL_S * (invocation_usd(0.05) + usd("dynamodb_read_unit"))
    )
    parts = {
        "million_inferences_api_usd": api_usd,
        "million_inferences_function_usd": MILLION * invocation_usd(own_s, ANSWERING_GIB, 0),
        "million_inferences_waiting_usd": MILLION * MODEL_S * ANSWERING_GIB * usd("lambda_arm_gb_second"),
        "million_inferences_logs_usd": MILLION * log_bytes / GB * usd("log_gb"),
        "million_inferences_store_usd": MILLION * (writes * usd("dynamodb_write_unit") + reads * usd("dynamodb_read_unit")),
        "million_inferences_follow_up_usd": _follow_up_usd(payload),
    }
    return {
        "million_inferences_usd": sum(parts.values()),
        **parts,
        "inference_log_bytes": log_bytes,
        "busy_metrics_month_usd": len(_metrics(lines)) * usd("custom_metric_month"),
        "gpu_hour_usd": usd("hosting_hour_ml.g5.xlarge"),
    }


def _follow_up_usd(payload: int) -> float:
    """USD for the two events of each of a million inferences after they are stored: their way into the lake, the check
    for rewards, and the usage of each output."""
    batch = round(2 * INFERENCES_PER_S)  # what a stream brings in its batching window of a second
    lake = lake_usd_per_million(payload, batch=batch, events_per_second=2 * INFERENCES_PER_S)["lake_usd"]
    store = MeteredStore()
    ingest(requests(100), store, AS_IT_IS)
    stored_events = [event for event in store.events.values() if event.event_type in ("interaction", "output")]
    store.queries = store.puts = 0
    store.write_units = store.read_units = 0
    follow_up(stored_events, store)
    outputs = [
        replace(event, received_at=event.received_at + timedelta(milliseconds=place))
        for place, event in enumerate(event for event in stored_events if event.event_type == "output")
    ]
    waits_s = DYNAMODB_S * (store.puts + store.queries) / len(stored_events) * batch
    functions_usd = invocation_usd(LAKE_WRITER_S) + invocation_usd(waits_s)
    return 2 * lake + 2 * MILLION / batch * functions_usd + 2 * MILLION / len(stored_events) * store.usd() + usage_usd(outputs)


def _metrics(lines: list[str]) -> set[tuple[object, ...]]:
    """Each name with its dimensions' values, since CloudWatch bills each of these as one metric."""
    metrics = set()
    for document in (json.loads(line) for line in lines if "_aws" in line):
        for group in document["_aws"]["CloudWatchMetrics"]:
            metrics |= {(m["Name"], *(document[name] for name in names)) for m in group["Metrics"] for names in group["Dimensions"]}
    return metrics


def main() -> None:
    """Count and report."""
    totals: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for stage, id in STAGES_COUNTED.items():
            totals |= idle_figures(stage, stage_templates(id, Path(folder) / stage))
    report("cost", "make bench-cost", totals | events_figures() | inference_figures())


if __name__ == "__main__":
    main()
