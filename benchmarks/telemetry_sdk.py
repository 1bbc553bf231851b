"""What the Python SDK costs its host: a call of `submit_feedback()`, and the import. `python -m
benchmarks.telemetry_sdk`.

The service behind is on loopback, in a process of its own, and answers every batch; the SDK spools and sends in the
background meanwhile.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from benchmarks.result import percentile

CALLS = 20_000
HOST_ROWS = 100
IMPORTS = 7
SDK = Path(__file__).parents[1] / "clients/python/src"


class _Accepting(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Every event is new."""
        events = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["events"]
        body = json.dumps({"results": [{"status": 201, "id": "x", "idempotent_replay": False, "pending": False} for _ in events]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def serve() -> None:
    """Print the port and answer until ended."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Accepting)
    print(server.server_address[1], flush=True)
    server.serve_forever()


def submit_feedback_us() -> list[float]:
    """Microseconds of each call in a busy host, after a warm-up of a tenth: between two calls the host does work of its
    own."""
    from rlaas_sdk import Client

    server = subprocess.Popen(
        [sys.executable, "-c", "from benchmarks.telemetry_sdk import serve; serve()"], stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    samples = []
    try:
        with tempfile.TemporaryDirectory() as folder:
            client = Client(f"http://127.0.0.1:{server.stdout.readline().strip()}", "rlk_bench_secret", spool=Path(folder) / "spool.db")
            interaction = client.log_interaction("support-email-draft", inputs={"email": "where is my parcel?"})
            page = {"rows": [{"number": number, "text": "where is my parcel?"} for number in range(HOST_ROWS)]}
            for number in range(CALLS + CALLS // 10):
                start = time.perf_counter()
                client.submit_feedback("support-email-draft", interaction_id=interaction, rating=number % 11 / 10, user_id="u-1")
                samples.append((time.perf_counter() - start) * 1e6)
                json.loads(json.dumps(page))
            if not client.close(60) or client.stats().acknowledged != len(samples) + 1:
                raise RuntimeError(f"not all of it arrived: {client.stats()}")
    finally:
        server.terminate()
        server.wait()
    return samples[CALLS // 10 :]


def import_ms() -> float:
    """Milliseconds to import the SDK in a fresh interpreter that has httpx; the median of some."""
    program = "import time, httpx; t = time.perf_counter(); import rlaas_sdk; print((time.perf_counter() - t) * 1000)"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPATH"] = str(SDK)
    runs = [
        subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True) for _ in range(IMPORTS)
    ]
    return statistics.median(float(run.stdout) for run in runs)


def figures() -> dict[str, float]:
    """The SDK's figures of `make bench-telemetry`."""
    calls = submit_feedback_us()
    return {
        "submit_feedback_p50_us": percentile(calls, 0.5),
        "submit_feedback_p99_us": percentile(calls, 0.99),
        "sdk_import_ms": import_ms(),
    }


if __name__ == "__main__":
    for name, value in figures().items():
        print(f"{name:<28} {value:>10.3f}")
