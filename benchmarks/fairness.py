"""What one tenant's flood costs another: time from feedback to reward, and time of a request. `make bench-fairness`; about seven minutes.

On a laptop cloud of its own, one tenant floods each shared consumer in turn, as hard as its limits allow: each connection sends again as
soon as it is answered, and waits only where a 429 says so. Another tenant goes on as ever: an edit and its reward, and a request. A quiet
phase comes before each flood, so that both meet the same machine, and the worst ratio of the 99th percentiles is what is reported.

Limits are a matter of what a stage bears. In `prod` a tenant may send a tenth of what the API takes (200 requests a second of 2,000). So
each flood comes twice: without a limit (the laptop's own is 500 a second, which two cores never see), which tells how much the machine
bears (`open_*`), and under the platform's ceiling of a tenth of that, one a second at least. The latter is what is reported.

- stream: edits of 184 KB on one draft
- gateway: drafts by `/v1/infer`, whose model is the stage's own
- endpoint: streams of chat, as long as the policy lets them be
- admin: a new policy with each request

Clients, emulator, functions and model share the machine's cores here; on AWS each call of a function has its own. `busy_request_ratio`
tells how much of a ratio that is: how much longer a request takes beside as many processes as a flood has connections, which only count.
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
from rlaas.rewards.reward import reward_id
from tests.laptop_cloud import PROMPT, SKILL, LaptopCloud, Tenant, drafted, until

QUIET_S, FLOOD_S = 15.0, 25.0
CONNECTIONS = 4
HEARD_AFTER_S = 11.0
"""Ceilings are remembered for ten seconds."""
LARGE = "The parcel left on Monday. " * 6_800

Times = tuple[list[float], list[float]]


class Neighbour:
    """A tenant that goes on as ever, one thing after the other: an edit and its reward, a request."""

    def __init__(self, cloud: LaptopCloud) -> None:
        self._tenant = cloud.tenant()
        self._tenant.make_skill()
        self._events = DynamoEventStore("rlaas-local-events", dynamodb=cloud.client("dynamodb"))

    def go_on(self, seconds: float) -> Times:
        """Seconds from feedback to reward, and seconds of each request."""
        rewards: list[float] = []
        requests: list[float] = []
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            rewards.append(self._reward_s())
            began = time.monotonic()
            self._tenant.infer()
            requests.append(time.monotonic() - began)
        return rewards, requests

    def _reward_s(self) -> float:
        output_id = drafted(self._tenant, "The parcel left on Monday.")
        began = time.monotonic()
        edited(self._tenant, output_id, "The parcel left on Tuesday.")
        name = reward_id(output_id, 1)
        while not self._events.heads(self._tenant.tenant_id, [name]):
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
    """Every connection sends again as soon as it is answered, and after what `Retry-After` says; the statuses so far."""
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
    """All floods, each beside the quiet phase before it."""
    neighbour, loud = Neighbour(cloud), cloud.tenant()
    loud.make_skill()
    ceiling = Ceiling(cloud, loud)
    neighbour.go_on(5.0)  # warm
    found: dict[str, float] = {}
    quiet: Times = ([], [])
    for name, send in floods(cloud, loud).items():
        for limited in (False, True):
            ceiling.put(max(1, round(found[f"open_{name}_flood_per_s"] / 10)) if limited else None)
            before = neighbour.go_on(QUIET_S)
            with flooding(cloud, loud, send) as statuses:
                during = neighbour.go_on(FLOOD_S)
            settled(cloud)
            answered = sum(status < 400 for status in statuses)
            wrong = {status for status in statuses if status >= 400 and status != 429}
            told = name if limited else f"open_{name}"
            found |= ratios(told, before, during) | {f"{told}_flood_per_s": answered / FLOOD_S}
            print(f"{told}: {len(statuses)} sent, {answered} taken, failures but for 429: {wrong or 'none'}", flush=True)
            quiet[0].extend(before[0])
            quiet[1].extend(before[1])
    with counting():
        beside = neighbour.go_on(FLOOD_S)
    limited_only = {name: value for name, value in found.items() if not name.startswith("open_")}
    return {
        "reward_delay_ratio": max(value for name, value in limited_only.items() if name.endswith("_reward_delay_ratio")),
        "request_delay_ratio": max(value for name, value in limited_only.items() if name.endswith("_request_delay_ratio")),
        "busy_reward_ratio": percentile(beside[0], 0.99) / percentile(quiet[0], 0.99),
        "busy_request_ratio": percentile(beside[1], 0.99) / percentile(quiet[1], 0.99),
        **found,
    }


def ratios(name: str, before: Times, during: Times) -> dict[str, float]:
    """The 99th percentiles, in ms, and how they compare."""
    told: dict[str, float] = {}
    for what, quiet, flooded in zip(("reward", "request"), before, during, strict=True):
        told |= {
            f"{name}_{what}_delay_ratio": percentile(flooded, 0.99) / percentile(quiet, 0.99),
            f"{name}_{what}_p50_ratio": statistics.median(flooded) / statistics.median(quiet),
            f"{name}_{what}_quiet_p99_ms": 1000 * percentile(quiet, 0.99),
            f"{name}_{what}_flooded_p99_ms": 1000 * percentile(flooded, 0.99),
        }
    return told


def main() -> None:
    """Measure and report."""
    state = ROOT / ".rlaas" / "bench"
    with apart.cloud(state) as running:
        report("fairness", "make bench-fairness", figures(LaptopCloud(running, state)))


if __name__ == "__main__":
    main()
