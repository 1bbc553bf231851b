"""The router's own work: one request with the stores in memory and the backend's time taken out, the decision alone, and the import."""

import subprocess
import sys
import time

from benchmarks.result import percentile, report
from rlaas.inference.infer import InferRequest, infer
from rlaas.routing.assign import assign
from tests.fakes.backend import EchoBackend
from tests.fakes.events import MemoryEventStore
from tests.fakes.privacy import AS_IT_IS
from tests.fakes.worlds import NOW, SKILL, TENANT, canary, clock, furnished

REQUESTS = 5_000
DECISIONS = 50_000
IMPORTS = 5
SEED_OF_THREADS = "thread"


def overhead_ms() -> list[float]:
    """Milliseconds outside the backend for each request, after a warm-up of a tenth."""
    registry, store = furnished((canary(2, 0.5),)), MemoryEventStore()
    samples = []
    for number in range(REQUESTS + REQUESTS // 10):
        request = InferRequest(skill=SKILL, inputs={"email": "where is my parcel? " * 20}, thread_id=f"{SEED_OF_THREADS}-{number}")
        answer = infer(request, TENANT, routes=registry, backend=EchoBackend(), store=store, scrubber=AS_IT_IS, clock=clock)
        samples.append(answer.overhead_ms)
    return samples[REQUESTS // 10 :]


def decision_us() -> list[float]:
    """Microseconds of each decision, the route in memory."""
    route = furnished((canary(2, 0.5),)).current_route(TENANT, SKILL)
    samples = []
    for number in range(DECISIONS):
        unit = f"{SEED_OF_THREADS}-{number}"
        started = time.perf_counter()
        assign(route, unit, decision_id="dec_1", decided_at=NOW)
        samples.append((time.perf_counter() - started) * 1e6)
    return samples


def import_ms() -> float:
    """Milliseconds to import the inference handler in a process that has boto3's DynamoDB client; the least of some runs."""
    program = (
        "import time, boto3; boto3.client('dynamodb', region_name='us-east-1'); started = time.perf_counter(); "
        "import functions.inference.handler; print((time.perf_counter() - started) * 1000)"
    )
    runs = (subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True) for _ in range(IMPORTS))
    return min(float(run.stdout) for run in runs)


def main() -> None:
    """Measure and report."""
    overheads, decisions = overhead_ms(), decision_us()
    report(
        "router",
        "make bench-router",
        {
            "overhead_p50_ms": percentile(overheads, 0.5),
            "overhead_p99_ms": percentile(overheads, 0.99),
            "decision_p50_us": percentile(decisions, 0.5),
            "decision_p99_us": percentile(decisions, 0.99),
            "import_ms": import_ms(),
        },
    )


if __name__ == "__main__":
    main()
