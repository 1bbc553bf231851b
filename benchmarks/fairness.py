"""What one tenant's flood costs another: time from feedback to reward, and time of a request. `make bench-fairness`;
about twenty minutes.

On a laptop cloud of its own, one tenant floods each shared consumer in turn, as hard as its limits allow: each
connection sends again as soon as it is answered, and waits only where a 429 says so. Another tenant goes on as ever: an
edit and its reward, and a request. A quiet phase comes before each flood; a flood's 99th percentile is held against
that of all quiet phases, and the worst ratio is reported.

Limits are a matter of what a stage bears: on AWS a tenant may send a tenth of what the API takes
(`ApiConfig.tenant_rate_per_second`). So each flood comes first without a limit (the laptop's own is 500 a second, which
two cores never see), which tells how much the machine bears (`open_*`), and then under the platform's ceiling of a
half, a quarter and a tenth of that. The tenth is what is reported.

- stream: edits of 184 KB on one draft
- gateway: drafts by `/v1/infer`, whose model is the stage's own
- endpoint: streams of chat, as long as the policy lets them be
- admin: a new policy with each request

Clients, emulator, functions and model share the machine's cores here, and every AWS call of every function goes through
the emulator's one process; on AWS each call of a function has a processor of its own, and DynamoDB is not one process.
Two things tell how much of a ratio that is. `*_read_*`: how much longer one read of DynamoDB takes in the same flood,
with no function of ours in it; a reward takes many such calls in turn. `busy_*`: how much longer all takes beside as
many processes as a flood has connections, which only count.
"""

from __future__ import annotations

import itertools
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx

from benchmarks.result import percentile, report
from local import apart
from local.deployment import ROOT
from rlaas.adapters.aws.events import DynamoEventStore
from rlaas.rewards.reward import make_reward_id
from tests.laptop_cloud import PROMPT, SKILL, LaptopCloud, Tenant, drafted, until

QUIET_S = 15.0
FLOODS = {"open": (None, 25.0), "half": (1 / 2, 25.0), "quarter": (1 / 4, 40.0), "tenth": (1 / 10, 60.0)}
"""By name: the part of what the machine bears that a tenant may send, and how many seconds it is measured for."""
CONNECTIONS = 4
HEARD_AFTER_S = 11.0
"""Ceilings are remembered for ten seconds."""
LARGE = "The parcel left on Monday. " * 6_800


class Times:
    """Seconds from feedback to reward, of each request, and of each read of DynamoDB."""

    def __init__(self) -> None:
        self.rewards: list[float] = []
        self.requests: list[float] = []
        self.reads: list[float] = []

    def add(self, more: Times) -> None:
        """Those of another phase."""
        self.rewards += more.rewards
        self.requests += more.requests
        self.reads += more.reads


class Neighbour:
    """A tenant that goes on as ever, one thing after the other: an edit and its reward, a request."""

    def __init__(self, cloud: LaptopCloud) -> None:
        self._tenant = cloud.tenant()
        self._tenant.make_skill()
        self._events = DynamoEventStore("rlaas-local-events", dynamodb=cloud.client("dynamodb"))

    def go_on(self, seconds: float) -> Times:
        """How long each thing took."""
        times = Times()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            times.rewards.append(self._reward_s())
            began = time.monotonic()
            self._tenant.infer()
            finish = time.monotonic()
            self._events.read_heads(self._tenant.tenant_id, ["none"])
            times.requests.append(finish - began)
            times.reads.append(time.monotonic() - finish)
        return times

    def _reward_s(self) -> float:
        output_id = drafted(self._tenant, "The parcel left on Monday.")
        began = time.monotonic()
        edited(self._tenant, output_id, "The parcel left on Tuesday.")
        name = make_reward_id(output_id, 1)
        while not self._events.read_heads(self._tenant.tenant_id, [name]):
            time.sleep(0.02)
        return time.monotonic() - began


def edited(tenant: Tenant, output_id: str, final: str) -> httpx.Response:
    """An edit of it."""
    return tenant.post("v1/feedback.submit", {"skill": SKILL, "output_id": output_id, "kind": "edit", "final_text": final})


def floods(cloud: LaptopCloud, loud: Tenant) -> dict[str, Callable[[Tenant], httpx.Response]]:
    """What each flood sends, again and again."""
    number = itertools.count()
    output_id = drafted(loud, LARGE)
    chat = {"model": f"rlaas::{SKILL}", "messages": [{"role": "user", "content": "Where is it?"}], "stream": True}
    return {
        "stream": lambda tenant: edited(tenant, output_id, f"{next(number)} {LARGE[: -1 - next(number) % 1000]}"),
        "gateway": lambda tenant: tenant.post("v1/infer", {"skill": SKILL, "inputs": {"name": "Ada", "email": f"{next(number)}?"}}),
        "endpoint": lambda tenant: tenant.post("v1/chat/completions", chat),
        "admin": lambda tenant: tenant.post(
            f"v1/admin/skills/{SKILL}/policies", {"prompt": PROMPT, "sampling": {"temperature": 1.0, "max_tokens": 12 + next(number) % 500}}
        ),
    }


@contextmanager
def flooding(cloud: LaptopCloud, loud: Tenant, send: Callable[[Tenant], httpx.Response]) -> Iterator[list[int]]:
    """Every connection sends again as soon as it is answered, and after what `Retry-After` says; the statuses so
    far."""
    statuses: list[int] = []
    over = threading.Event()

    def flood() -> None:
        with httpx.Client(base_url=loud.http.base_url, headers=loud.http.headers, timeout=120) as http:
            tenant = Tenant(loud.tenant_id, http)
            while not over.is_set():
                answer = send(tenant)
                statuses.append(answer.status_code)
                over.wait(float(answer.headers.get("Retry-After", 0)))

    threads = [threading.Thread(target=flood, daemon=True) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    try:
        yield statuses
    finally:
        over.set()
        for thread in threads:
            thread.join()


@contextmanager
def counting() -> Iterator[None]:
    """As many busy processes as a flood has connections."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(CONNECTIONS)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def settled(cloud: LaptopCloud) -> None:
    """Wait until what was put off is done."""
    sqs = cloud.client("sqs")
    url = sqs.get_queue_url(QueueName="rlaas-local-follow-ups")["QueueUrl"]
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    until(lambda: not any(map(int, sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"].values())), seconds=300)


class Ceiling:
    """The platform's word on how many requests a second a tenant may send."""

    def __init__(self, cloud: LaptopCloud, loud: Tenant) -> None:
        operator = cloud.tenant().tenant_id  # of its own: what the loud one sends is not to be in the operator's way
        self._platform = Tenant(operator, cloud.connect(cloud.key(operator, ("platform",))))
        self._path = f"tenants/{loud.tenant_id}/ceilings"

    def put(self, per_second: int | None) -> None:
        """In force when this returns."""
        version = self._platform.admin("GET", self._path)["version"]
        self._platform.admin("PUT", self._path, {"expected_version": version, "requests_per_second": per_second})
        time.sleep(HEARD_AFTER_S)


def figures(cloud: LaptopCloud) -> dict[str, float]:
    """All floods beside all quiet phases."""
    neighbour, loud = Neighbour(cloud), cloud.tenant()
    loud.make_skill()
    ceiling = Ceiling(cloud, loud)
    neighbour.go_on(5.0)  # warm
    quiet, flooded = Times(), dict[str, Times]()
    rates: dict[str, float] = {}
    consumers = floods(cloud, loud)
    for consumer, send in consumers.items():
        for limit, (part, seconds) in FLOODS.items():
            name = f"{limit}_{consumer}"
            ceiling.put(None if part is None else max(1, round(rates[f"open_{consumer}_flood_per_s"] * part)))
            quiet.add(neighbour.go_on(QUIET_S))
            with flooding(cloud, loud, send) as statuses:
                flooded[name] = neighbour.go_on(seconds)
            settled(cloud)
            accepted = sum(status < 400 for status in statuses)
            wrong = {status for status in statuses if status >= 400 and status != 429}
            rates[f"{name}_flood_per_s"] = accepted / seconds
            print(f"{name}: {len(statuses)} sent, {accepted} taken, failures but for 429: {wrong or 'none'}", flush=True)
    with counting():
        busy = ratios("busy", quiet, neighbour.go_on(FLOODS["open"][1]))
    figures_by_name = {key: value for name, times in flooded.items() for key, value in ratios(name, quiet, times).items()}
    worst = {
        f"{limit}_{what}_delay_ratio": max(figures_by_name[f"{limit}_{consumer}_{what}_delay_ratio"] for consumer in consumers)
        for limit in FLOODS
        for what in ("reward", "request")
    }
    return {
        "reward_delay_ratio": worst["tenth_reward_delay_ratio"],
        "request_delay_ratio": worst["tenth_request_delay_ratio"],
        **worst,
        "quiet_samples": len(quiet.rewards),
        "quiet_reward_p99_ms": 1000 * percentile(quiet.rewards, 0.99),
        "quiet_request_p99_ms": 1000 * percentile(quiet.requests, 0.99),
        "quiet_read_p99_ms": 1000 * percentile(quiet.reads, 0.99),
        **busy,
        **figures_by_name,
        **rates,
    }


def ratios(name: str, quiet: Times, flooded: Times) -> dict[str, float]:
    """How the 99th percentiles and the medians compare, and in how many samples."""
    pairs = {
        "reward": (quiet.rewards, flooded.rewards),
        "request": (quiet.requests, flooded.requests),
        "read": (quiet.reads, flooded.reads),
    }
    compared: dict[str, float] = {f"{name}_samples": len(flooded.rewards)}
    for what, (before, during) in pairs.items():
        compared[f"{name}_{what}_delay_ratio"] = percentile(during, 0.99) / percentile(before, 0.99)
        compared[f"{name}_{what}_p50_ratio"] = statistics.median(during) / statistics.median(before)
    return compared


def main() -> None:
    """Measure and report."""
    state = ROOT / ".rlaas" / "bench"
    with apart.start_cloud(state) as running:
        report("fairness", "make bench-fairness", figures(LaptopCloud(running, state)))


if __name__ == "__main__":
    main()
