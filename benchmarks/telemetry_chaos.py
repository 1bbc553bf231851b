"""Chaos: SDK processes report through a network that fails, they and the service are SIGKILLed, and the events of each
store are compared.

The service is the deployed one: API Gateway, authorizer, functions, DynamoDB, its stream, Firehose and Parquet of a
laptop cloud. The functions' execution environments are killed, the telemetry function's in mid-request. The emulator
itself is not: it stands for AWS's managed services and holds their tables in memory.

An event is spooled when a trigger in the spool's own transaction has seen it enter, and acknowledged when the SDK has
removed it. Events that an SDK process only had in memory when it was killed are neither spooled nor lost, as the SDK
documents (with `durable=True`, which half of the processes use, there are none). The lake is read as docs/lake.md says,
one row per tenant and event.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from benchmarks.fault_proxy import FAULTS, FaultProxy
from benchmarks.telemetry_reporter import OWNER, SKILL
from local import processes
from local.cloud import Cloud
from local.deployment import ROOT
from rlaas_sdk.spool import Spool

SEED = 7
LONGEST_DRAIN_S = 1_800.0
LONGEST_DELIVERY_S = 300.0
FOLLOWERS = ("authorizer", "lake_writer", "reward_writer")
"""Functions that are killed beside the telemetry function."""


@dataclass(frozen=True)
class Stores:
    """One tenant's events in the hot store and in the lake of a laptop cloud."""

    running: Cloud

    def hot(self) -> Counter[str]:
        """How often each event id is stored."""
        pages = (
            self.running.client("dynamodb")
            .get_paginator("scan")
            .paginate(
                TableName="rlaas-local-events",
                FilterExpression="tenant_id = :tenant AND event_type <> :reward",
                ExpressionAttributeValues={":tenant": {"S": self.running.tenant_id}, ":reward": {"S": "reward"}},
                ProjectionExpression="event_id",
                ConsistentRead=True,
            )
        )
        return Counter(item["event_id"]["S"] for page in pages for item in page["Items"])

    def lake(self) -> Counter[str]:
        """How often the documented read gives each event id."""
        rows = self._query(f"""
            SELECT event_id FROM (
                SELECT *, row_number() OVER (PARTITION BY tenant_id, event_id ORDER BY received_at) AS copy FROM events
            ) AS delivered
            WHERE copy = 1 AND tenant_id = '{self.running.tenant_id}' AND event_type <> 'reward'
        """)
        return Counter(identifier for (identifier,) in rows)

    def count_rows(self) -> tuple[int, int, int]:
        """Rows in the lake, event ids in them, and different events in them."""
        [counts] = self._query(f"""
            SELECT count(*), count(DISTINCT event_id), count(DISTINCT event_id || received_at || payload) FROM events
            WHERE tenant_id = '{self.running.tenant_id}' AND event_type <> 'reward'
        """)
        rows, ids, different = map(int, counts)
        return rows, ids, different

    def _query(self, sql: str) -> Iterator[list[str]]:
        athena = self.running.client("athena")
        query = athena.start_query_execution(QueryString=sql, QueryExecutionContext={"Database": "rlaas_local"}, WorkGroup="rlaas-local")[
            "QueryExecutionId"
        ]
        while (status := athena.get_query_execution(QueryExecutionId=query)["QueryExecution"]["Status"])["State"] in ("QUEUED", "RUNNING"):
            time.sleep(0.1)
        if status["State"] != "SUCCEEDED":
            raise RuntimeError(f"{sql} {status['State']}: {status.get('StateChangeReason')}")
        pages = athena.get_paginator("get_query_results").paginate(QueryExecutionId=query)
        rows = ([cell["VarCharValue"] for cell in row["Data"]] for page in pages for row in page["ResultSet"]["Rows"])
        next(rows)  # names the columns
        return rows


def chaos(running: Cloud, state: Path, *, events: int, reporters: int, folder: Path, faults_s: float, seed: int = SEED) -> dict[str, float]:
    """Have `reporters` SDK processes report `events` in all as the tenant of `running`, a laptop cloud with its state
    in `state`.

    Faults and kills last until all is reported and sent, `faults_s` seconds at most. Two processes share a spool. The
    tenant must be new.
    Raises: RuntimeError when the spools are not empty `LONGEST_DRAIN_S` after the last fault.
    """
    start, chance = time.monotonic(), random.Random(seed)
    httpx.put(
        f"{running.api_url.rstrip('/')}/v1/admin/skills/{SKILL}", json={}, headers={"Authorization": f"Bearer {running.api_key}"}
    ).raise_for_status()
    at = urlsplit(running.api_url)
    proxy = FaultProxy(str(at.hostname), at.port or 80)
    url = f"http://127.0.0.1:{proxy.port}{at.path}"
    spools = [folder / f"spool-{number}.db" for number in range((reporters + 1) // 2)]
    for spool in spools:
        _watch(spool)
    share = -(-events // reporters)
    fleet = [
        _Reporter(number, min(share, events - number * share), url, running.api_key, spools[number // 2], folder)
        for number in range(reporters)
    ]
    kills = 0
    try:
        end = time.monotonic() + faults_s
        while not _have_all_finished(fleet) and time.monotonic() < end:
            proxy.turn(chance.choice(FAULTS))
            time.sleep(chance.uniform(0.1, 0.8))
            if chance.random() < 0.6 or not any(reporter.kills for reporter in fleet):
                chance.choice(fleet).kill()
            proxy.turn("open")
            if (chance.random() < 0.5 or not kills) and proxy.wait_for_a_request(5.0):
                time.sleep(chance.uniform(0.0, 0.2))
                kills += _kill(state, "telemetry", chance.choice(FOLLOWERS))
            proxy.wait_for_an_answer(10.0)  # else a slow machine would get nowhere
            time.sleep(chance.uniform(0.0, 3.0))
        proxy.turn("open")
        end = time.monotonic() + LONGEST_DRAIN_S
        while not _have_all_finished(fleet):
            if time.monotonic() > end:
                raise RuntimeError(f"spools do not empty: {[_waiting(spool) for spool in spools]} events wait")
            time.sleep(0.2)
    finally:
        for reporter in fleet:
            reporter.end()
        proxy.close()
    spooled_ids, acknowledged_ids, sent = (
        _ids_in(spools, "spooled"),
        _ids_in(spools, "forgotten"),
        sum(reporter.sent() for reporter in fleet),
    )
    seconds = time.monotonic() - start
    stores = Stores(running)
    hot = stores.hot()
    end = time.monotonic() + LONGEST_DELIVERY_S
    while (rows := stores.count_rows())[1] < len(hot) and time.monotonic() < end:
        time.sleep(1)
    lake = stores.lake()
    return {
        "chaos_sent": sent,
        "chaos_spooled": len(spooled_ids),
        "chaos_acknowledged": len(acknowledged_ids),
        "chaos_hot": len(hot),
        "chaos_lake": len(lake),
        "chaos_lost": len(spooled_ids - hot.keys()) + len(spooled_ids - lake.keys()),
        "chaos_doubled": _count_doubled(hot) + _count_doubled(lake) + rows[2] - rows[1],
        "chaos_in_memory_when_killed": sent - len(spooled_ids),
        "chaos_lake_copies": rows[0] - rows[1],
        "chaos_sdk_kills": sum(reporter.kills for reporter in fleet),
        "chaos_sdk_kills_with_events_waiting": sum(reporter.kills_with_events_waiting for reporter in fleet),
        "chaos_function_kills": kills,
        "chaos_requests_failed_by_the_service": proxy.failed,
        "chaos_requests_met_by_a_fault": proxy.spoiled,
        "chaos_s": seconds,
    }


class _Reporter:
    """One SDK process, started again with the same spool after each kill, until it has reported its share and emptied
    its spool."""

    def __init__(self, number: int, events: int, url: str, key: str, spool: Path, folder: Path) -> None:
        self._progress, self._spool = folder / f"progress-{number}", spool
        self._progress.write_bytes(struct.pack("q", 0))
        self._arguments = (url, key, str(spool), str(self._progress), str(events), "durable" if number % 2 else "queued")
        self.kills = self.kills_with_events_waiting = 0
        self._process = self._start()

    def kill(self) -> None:
        """SIGKILL the process and start it again, unless it has ended."""
        if self._process.poll() is None:
            self.end()
            self.kills += 1
            self.kills_with_events_waiting += _waiting(self._spool) > 0
            self._process = self._start()

    def has_finished(self) -> bool:
        """Whether the process ended well. Raises: RuntimeError when it failed."""
        if self._process.poll():
            raise RuntimeError(f"an SDK process ended with status {self._process.returncode}")
        return self._process.returncode == 0

    def sent(self) -> int:
        """Events reported so far."""
        return int(struct.unpack("q", self._progress.read_bytes())[0])

    def end(self) -> None:
        """SIGKILL the process."""
        self._process.kill()
        self._process.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'clients/python/src'}"}
        return subprocess.Popen(
            [sys.executable, "-m", "benchmarks.telemetry_reporter", *self._arguments], cwd=ROOT, env=environment, stderr=subprocess.DEVNULL
        )


def _have_all_finished(fleet: Iterable[_Reporter]) -> bool:
    return all(reporter.has_finished() for reporter in fleet)


def _kill(state: Path, *functions: str) -> int:
    """SIGKILL every execution environment of the functions; returns how many."""
    environments = [each for name in functions for each in processes.list_marked(state, f"AWS_LAMBDA_FUNCTION_NAME=rlaas-local-{name}")]
    for process in environments:
        process.send_signal(signal.SIGKILL)
    return len(environments)


def _watch(spool: Path) -> None:
    """Make the spool, with triggers that record in the SDK's own transactions which events enter and leave it."""
    empty_spool = Spool(spool, OWNER, max_bytes=0, max_age_s=0)
    empty_spool.count()
    empty_spool.close()
    with contextlib.closing(sqlite3.connect(spool)) as file:
        file.executescript("""
            CREATE TABLE spooled (id TEXT);
            CREATE TABLE forgotten (id TEXT);
            CREATE TRIGGER enters AFTER INSERT ON events BEGIN INSERT INTO spooled VALUES (new.id); END;
            CREATE TRIGGER leaves AFTER DELETE ON events BEGIN INSERT INTO forgotten VALUES (old.id); END;
        """)


def _waiting(spool: Path) -> int:
    with contextlib.closing(sqlite3.connect(spool)) as file:
        return int(file.execute("SELECT count(*) FROM events").fetchone()[0])


def _ids_in(spools: list[Path], table: str) -> set[str]:
    ids: set[str] = set()
    for spool in spools:
        with contextlib.closing(sqlite3.connect(spool)) as file:
            ids.update(identifier for (identifier,) in file.execute(f"SELECT id FROM {table}"))
    return ids


def _count_doubled(counts: Counter[str]) -> int:
    return sum(times > 1 for times in counts.values())
