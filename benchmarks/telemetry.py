"""Telemetry: its throughput, its price, and its losses under faults. `make bench-telemetry`; about twenty minutes, most
of them chaos.

In process, events taken per second and core; in a host, what the Python SDK costs; and on a laptop cloud of its own,
started and stopped here beside whatever the user runs, the price of a million events and the chaos of 200,000.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import httpx

from benchmarks import telemetry_price, telemetry_sdk
from benchmarks.office_requests import BATCH, batches, ingest, requests
from benchmarks.result import report
from benchmarks.telemetry_chaos import chaos
from benchmarks.telemetry_reporter import SKILL
from local import apart, processes
from local.cloud import Cloud
from local.deployment import ROOT
from rlaas.privacy.scrub import Scrubber
from rlaas.privacy.settings import PrivacySettings
from tests.fakes.events import MemoryEventStore
from tests.fakes.privacy import AS_IT_IS

REQUESTS, RUNS = 800, 5
EVENTS, REPORTERS = 200_000, 8
FAULTS_S = 420.0


def ingest_figures() -> dict[str, float]:
    """Events taken per second of one core, batches of 25, stores in memory."""
    api_events = requests(REQUESTS)
    scrubs = Scrubber(PrivacySettings(), salt=b"bench")
    ingest(api_events[:20], MemoryEventStore(), scrubs)  # warm
    runs = [(ingest(api_events, MemoryEventStore(), AS_IT_IS), ingest(api_events, MemoryEventStore(), scrubs)) for _ in range(RUNS)]
    plain_s, scrubbed_s = (statistics.median(times) for times in zip(*runs, strict=True))
    return {
        "ingest_events_per_s": REQUESTS * BATCH / plain_s,
        "ingest_scrubbed_events_per_s": REQUESTS * BATCH / scrubbed_s,
    }


def function_cpu_s(running: Cloud, state: Path, *, number: int = 100) -> float:
    """CPU seconds of the deployed telemetry function for a request of 25 new events, mean of `number` requests after as
    many to warm up."""
    with httpx.Client(
        base_url=running.api_url.rstrip("/") + "/", headers={"Authorization": f"Bearer {running.api_key}"}, timeout=60
    ) as http:
        http.put(f"v1/admin/skills/{SKILL}", json={}).raise_for_status()
        start_s = 0.0
        for place, batch in enumerate(batches(2 * number)):
            if place == number:
                start_s = _telemetry_cpu_s(state)
            http.post("v1/events:batch", json={"events": batch}).raise_for_status()
    return (_telemetry_cpu_s(state) - start_s) / number


def _telemetry_cpu_s(state: Path) -> float:
    ticks = 0
    for process in processes.list_marked(state, "AWS_LAMBDA_FUNCTION_NAME=rlaas-local-telemetry"):
        user, system = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        ticks += int(user) + int(system)
    return ticks / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Print the table and keep it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=EVENTS)
    arguments = parser.parse_args()
    start = time.monotonic()
    figures = ingest_figures() | telemetry_sdk.figures()
    state = ROOT / ".rlaas" / "bench"
    with apart.start_cloud(state) as running, tempfile.TemporaryDirectory() as folder:
        figures |= telemetry_price.figures(function_cpu_s(running, state))
        tenant = apart.make_tenant(running, "chaos")
        figures |= chaos(tenant, state, events=arguments.events, reporters=REPORTERS, folder=Path(folder), faults_s=FAULTS_S)
    figures["bench_s"] = time.monotonic() - start
    command = "make bench-telemetry" if arguments.events == EVENTS else f"python -m benchmarks.telemetry --events {arguments.events}"
    report("telemetry", command, figures)


if __name__ == "__main__":
    main()
