"""How much traffic the defaults allow: tenants of 200 to ten million requests a day against each limit that a stage has
by default.

Limits are read from the configuration and the code that holds them; arrivals are simulated. A day's busiest hour has a
tenth of its requests, and they come in clumps (an agent's parallel calls, an inbox that is opened): a geometric number
of `CLUMP` on average, at one moment.
"""

import heapq
import math
import random
from pathlib import Path

from benchmarks.result import report
from infra.config import STAGES
from rlaas.adapters.models.vendor_http import MAX_ANSWER_BYTES, MAX_STREAM_BYTES
from rlaas.policies.guardrails.moderation import Service

BUSIEST_HOUR = 0.1
CLUMP = 5
SECONDS = 20_000
DAILY = (200, 10_000, 1_000_000, 5_000_000, 10_000_000)
WIRES = Path("tests/contract/wires")
AUTHORIZERS, ADMINS, ROLLBACKS = 100, 20, 5
"""Concurrency set aside in prod (decision 24)."""
AUTHORIZE_S, RESTORE_S, ROLLBACK_S, ADMIN_S = 0.005, 0.4, 0.3, 0.15
"""Seconds of a call, and of a new environment that restores its snapshot before its first call."""


def figures() -> dict[str, float]:
    """All figures of this benchmark, by name."""
    return {**refused_by_the_rates(), **refused_for_want_of_concurrency(), **late_judges(), **longest_streams()}


def refused_by_the_rates() -> dict[str, float]:
    """The share of a tenant's requests in the busiest hour that its limit per second refuses, by requests a day."""
    ratios = {}
    for stage, most in {stage.name: stage.api.tenant_rate_per_second for stage in STAGES if stage.name != "local"}.items():
        for daily in DAILY:
            chance = random.Random(daily)
            total = refusals = 0
            for _ in range(SECONDS):
                arrivals = sum(_clump(chance) for _ in range(_poisson(chance, daily * BUSIEST_HOUR / 3600 / CLUMP)))
                total += arrivals
                refusals += max(0, arrivals - most)
            ratios[f"{stage}_{daily}_a_day_refused_ratio"] = refusals / max(total, 1)
    return ratios


def refused_for_want_of_concurrency() -> dict[str, float]:
    """The share of calls refused for lack of concurrency: of the authorizer, when keys that API Gateway has not cached
    suddenly come at this rate to two warm environments; of the admin API at this rate of requests. And the seconds that
    the last of several rollbacks at once waits."""
    results: dict[str, float] = {}
    for per_second in (10, 100, 500, 2_000):
        results[f"authorizer_{per_second}_new_keys_per_s_refused_ratio"] = _refused_share(
            per_second, AUTHORIZE_S, places=AUTHORIZERS, warm=2
        )
    for per_second in (5, 20, 100):
        results[f"admin_{per_second}_per_s_refused_ratio"] = _refused_share(per_second, ADMIN_S, places=ADMINS, warm=1)
    for at_once in (1, 20, 200):
        results[f"last_of_{at_once}_rollbacks_s"] = RESTORE_S + math.ceil(at_once / ROLLBACKS) * ROLLBACK_S
    return results


def late_judges() -> dict[str, float]:
    """The share of calls of a moderation service that take longer than the default time, were its latency lognormal
    with a median of 0.25 s and this 99th percentile."""
    timeout_s = Service().timeout_s
    ratios = {}
    for p99 in (0.6, 1.0, 2.0, 4.0):
        spread = math.log(p99 / 0.25) / 2.326
        ratios[f"moderation_p99_{p99:g}_s_late_ratio"] = 0.5 * math.erfc(math.log(timeout_s / 0.25) / spread / math.sqrt(2))
    return ratios


def longest_streams() -> dict[str, float]:
    """How many tokens fit into a stream, at the most bytes per event in any recorded stream, and into a whole answer,
    at 5 bytes a token."""
    wires = [path.read_bytes() for path in WIRES.glob("*/stream_*.txt")]
    widest = max(len(wire) / wire.count(b"data:") for wire in wires)
    return {
        "stream_bytes_per_token": widest,
        "stream_tokens": MAX_STREAM_BYTES / widest,
        "whole_answer_tokens": MAX_ANSWER_BYTES / 5,
    }


def _refused_share(per_second: float, takes_s: float, *, places: int, warm: int, seconds: float = 60.0) -> float:
    """The share of calls that come while all `places` are busy. The first call of an environment that is not warm takes
    `RESTORE_S` longer."""
    chance = random.Random(f"{per_second} {places}")
    busy: list[float] = []
    idle, environments, now, total, refusals = warm, warm, 0.0, 0, 0
    while (now := now + chance.expovariate(per_second)) < seconds:
        total += 1
        while busy and busy[0] <= now:
            heapq.heappop(busy)
            idle += 1
        if idle:
            idle -= 1
            heapq.heappush(busy, now + takes_s)
        elif environments < places:
            environments += 1
            heapq.heappush(busy, now + RESTORE_S + takes_s)
        else:
            refusals += 1
    return refusals / total


def _clump(chance: random.Random) -> int:
    return 1 + int(math.log(1 - chance.random()) / math.log(1 - 1 / CLUMP))


def _poisson(chance: random.Random, mean: float) -> int:
    """Knuth's method; a large mean is taken in parts."""
    if mean > 30:
        return _poisson(chance, 30) + _poisson(chance, mean - 30)
    end, product, count = math.exp(-mean), chance.random(), 0
    while product > end:
        product *= chance.random()
        count += 1
    return count


if __name__ == "__main__":
    report("defaults", "make bench-defaults", figures())
