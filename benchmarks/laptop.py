"""What a laptop cloud adds to a request: `make bench-laptop`; three minutes.

A laptop cloud of its own, with the model of `make up`. First, before anything else was asked, a burst of 32 requests at
once, and the same again three times. Then, in turn, a short chat through the gateway and the same chat from vLLM's own
port: the difference of their medians is what the gateway adds, with API Gateway, Lambda, DynamoDB and SageMaker as the
emulator plays them on the same cores.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from benchmarks.result import percentile, report
from local import apart, base_model, processes
from local.cloud import BASE_MODEL
from local.deployment import ROOT
from tests.laptop_cloud import PROMPT, SKILL, LaptopCloud, Tenant

AT_ONCE = 32
NEXT_BURSTS = 3
REQUESTS = 100
WARM_UP = 10
PAUSE_S = 0.15
"""Between requests: the functions that read the stream of events have done their work by then."""
TOKENS = 4
QUESTION = {"role": "user", "content": "Where is my parcel?"}
EXACT = {"temperature": 0.0, "max_tokens": TOKENS}


def burst_s(tenant: Tenant) -> list[float]:
    """Seconds of each of `AT_ONCE` requests at once."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(lambda _: seconds_of(lambda: chat(tenant.http)), range(AT_ONCE)))


def seconds_of(ask: Callable[[], httpx.Response]) -> float:
    """How long `ask` takes. Raises: httpx.HTTPStatusError."""
    started = time.perf_counter()
    ask().raise_for_status()
    return time.perf_counter() - started


def chat(http: httpx.Client) -> httpx.Response:
    """A short chat through the gateway."""
    return http.post("v1/chat/completions", json={"model": f"rlaas::{SKILL}", "messages": [QUESTION], **EXACT})


def draft(http: httpx.Client) -> httpx.Response:
    """The same by `/v1/infer`."""
    return http.post("v1/infer", json={"skill": SKILL, "messages": [QUESTION], "parameters": EXACT})


def ask_model(http: httpx.Client) -> httpx.Response:
    """The chat that the gateway makes of it, from the model itself."""
    messages = [{"role": "system", "content": PROMPT["system"]}, QUESTION]
    return http.post("invocations", json={"messages": messages, **EXACT})


def connect_model(state: Path) -> httpx.Client:
    """A client of the served model's own port, with its key."""
    for process in processes.list_marked(state, "HOST=127.0.0.1"):
        entries = Path(f"/proc/{process.pid}/environ").read_text().split("\0")
        variables = dict(entry.split("=", 1) for entry in entries if "=" in entry)
        if "RLAAS_HOSTING_KEY" in variables:
            headers = {"X-RLAAS-Hosting-Key": variables["RLAAS_HOSTING_KEY"]}
            return httpx.Client(base_url=f"http://127.0.0.1:{variables['PORT']}/", headers=headers, timeout=60)
    raise RuntimeError("no model is served")


def burst_figures(tenant: Tenant) -> dict[str, float]:
    """The median of the first burst beside that of those that follow, which are the median of their medians."""
    first, *following = (statistics.median(burst_s(tenant)) for _ in range(1 + NEXT_BURSTS))
    next_s = statistics.median(following)
    return {"first_burst_p50_s": first, "next_burst_p50_s": next_s, "first_burst_ratio": first / next_s}


def latency_figures(tenant: Tenant, state: Path) -> dict[str, float]:
    """Medians in milliseconds of requests that take turns, and what the gateway adds to the model's."""
    samples: dict[str, list[float]] = {"model": [], "chat": [], "infer": []}
    with connect_model(state) as model:
        ways = {"model": lambda: ask_model(model), "chat": lambda: chat(tenant.http), "infer": lambda: draft(tenant.http)}
        for number in range(WARM_UP + REQUESTS):
            for name, ask in ways.items():
                time.sleep(PAUSE_S)
                milliseconds = 1000 * seconds_of(ask)
                if number >= WARM_UP:
                    samples[name].append(milliseconds)
    figures = {f"{name}_p50_ms": statistics.median(times) for name, times in samples.items()}
    return {
        "added_latency_ms": figures["chat_p50_ms"] - figures["model_p50_ms"],
        "added_infer_latency_ms": figures["infer_p50_ms"] - figures["model_p50_ms"],
        **figures,
        **{f"{name}_p90_ms": percentile(times, 0.9) for name, times in samples.items()},
    }


def main() -> None:
    """Measure and report."""
    model = base_model.ensure_base_model(ROOT / ".rlaas" / "models" / BASE_MODEL)
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder)
        started = time.monotonic()
        with apart.start_cloud(state, model=model) as running:
            start_s = time.monotonic() - started
            tenant = LaptopCloud(running, state).tenant()
            tenant.make_skill()
            figures = burst_figures(tenant) | latency_figures(tenant, state)
    report("laptop", "make bench-laptop", {**figures, "start_s": start_s})


if __name__ == "__main__":
    main()
