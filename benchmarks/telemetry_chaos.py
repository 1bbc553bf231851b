"""Chaos: SDK processes report through a network that fails and are SIGKILLed, the service is killed too; then it is counted who has what.

`python -m benchmarks.telemetry_chaos --events 200000 --processes 8` is the large run, against a stub of the service in its own process.
`--cloud` takes the laptop cloud that runs instead (`make up`), which is not killed. `chaos(...)` takes any `Target`.

What counts as spooled is what a trigger in the spool's own transaction has seen; what an SDK process only had in memory when it was
killed is neither spooled nor lost: the SDK documents it (`durable=True`, which half of the processes use, leaves none of it).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import socket
import sqlite3
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from benchmarks.result import report
from rlaas_sdk import Client
from rlaas_sdk.spool import Spool

SKILL = "support-email-draft"
OWNER = "chaos"
SEED = 7
EVENTS_PER_INTERACTION = 4
PAUSE_S = 0.005
"""What a worker waits after each interaction's events."""
LONGEST_DRAIN_S = 300.0
Mode = Literal["open", "refuse", "hang", "cut", "fail", "busy"]
MODES: tuple[Mode, ...] = ("open", "open", "open", "refuse", "hang", "cut", "fail", "busy")
CANNED = {
    "fail": b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    "busy": b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
}


@dataclass(frozen=True)
class Target:
    """A service under test. `hot` and `lake` say how often each event id is stored after the documented read; `restart` kills it and
    starts it again, and is None where that is not ours to do."""

    host: str
    port: int
    path: str
    key: str
    hot: Callable[[], Counter[str]]
    lake: Callable[[], Counter[str]]
    restart: Callable[[], None] | None = None


class FaultProxy:
    """TCP to `host:port` through a loopback port, as `mode` says: open, refuse connections, hang, cut off the answer, 500, 429."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._loop = asyncio.new_event_loop()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._mode: Mode = "open"
        self.port = _free_port()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.turn("open")

    def turn(self, mode: Mode) -> None:
        """From now on be so; connections of before are cut."""
        asyncio.run_coroutine_threadsafe(self._turn(mode), self._loop).result()

    def close(self) -> None:
        """Refuse everything and end."""
        self.turn("refuse")
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    async def _turn(self, mode: Mode) -> None:
        self._mode = mode
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()
        if mode == "refuse" and self._server is not None:
            self._server.close()
            self._server = None
        elif mode != "refuse" and self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        mode = self._mode
        with contextlib.suppress(OSError):
            if mode == "hang":
                return
            if canned := CANNED.get(mode):
                await self._read_request(reader)
                writer.write(canned)
                await writer.drain()
                writer.close()
                return
            above_reader, above = await asyncio.open_connection(*self._target)
            self._writers.add(above)
            for source, sink, limit in ((reader, above, None), (above_reader, writer, 40 if mode == "cut" else None)):
                task = asyncio.ensure_future(self._pump(source, sink, limit))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            return
        writer.transport.abort()

    async def _read_request(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            await reader.readexactly(int(head.split("content-length:")[1].split("\r\n")[0]))

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, limit: int | None) -> None:
        with contextlib.suppress(OSError):
            while some := await source.read(65_536):
                sink.write(some[:limit])
                await sink.drain()
                if limit is not None:
                    break
        sink.transport.abort() if limit is not None else sink.close()


class StubServer:
    """The stub of the service in a process of its own, its store in a file, so that it can be killed."""

    def __init__(self, folder: Path) -> None:
        self._store = folder / "store.db"
        self._port = _free_port()
        with contextlib.closing(sqlite3.connect(self._store)) as store:
            store.executescript(
                "PRAGMA journal_mode = WAL; CREATE TABLE hot (id TEXT PRIMARY KEY, payload TEXT); CREATE TABLE lake (id TEXT);"
            )
        self._process = self._started()

    def target(self) -> Target:
        """This stub, to be tested."""
        return Target("127.0.0.1", self._port, "", "rlk_chaos_secret", lambda: self._ids("hot"), lambda: self._ids("lake"), self.restart)

    def restart(self) -> None:
        """SIGKILL, then start again."""
        self.stop()
        self._process = self._started()

    def stop(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.wait()

    def _ids(self, table: str) -> Counter[str]:
        with contextlib.closing(sqlite3.connect(self._store)) as store:
            return Counter(dict(store.execute(f"SELECT id, count(*) FROM {table} GROUP BY id").fetchall()))

    def _started(self) -> subprocess.Popen[bytes]:
        return _python("--serve", str(self._port), str(self._store))


def chaos(target: Target, *, events: int, processes: int, folder: Path, seed: int = SEED, faults_s: float = 120.0) -> dict[str, float]:
    """Have `processes` SDK processes report `events` in all to `target`; faults and kills last until they are done, `faults_s` at most.

    Two processes share a spool. Raises: RuntimeError when the spools are not empty `LONGEST_DRAIN_S` after the last fault.
    """
    chance = random.Random(seed)
    proxy = FaultProxy(target.host, target.port)
    url = f"http://127.0.0.1:{proxy.port}{target.path}"
    spools = [folder / f"spool-{number}.db" for number in range((processes + 1) // 2)]
    for spool in spools:
        _watch(spool)
    share = -(-events // processes)
    workers = [
        _Worker(number, min(share, events - number * share), url, target.key, spools[number // 2], folder) for number in range(processes)
    ]
    try:
        end = time.monotonic() + faults_s
        while not all(worker.finished() for worker in workers):
            if time.monotonic() < end:
                proxy.turn(chance.choice(MODES))
                time.sleep(chance.uniform(0.1, 0.8))
                if chance.random() < 0.6:
                    chance.choice(workers).kill()
                if target.restart is not None and chance.random() < 0.2:
                    target.restart()
            else:
                proxy.turn("open")
                time.sleep(0.2)
        proxy.turn("open")
        for spool in spools:
            with Client(url, target.key, spool=spool, owner=OWNER) as client:
                drained = time.monotonic() + LONGEST_DRAIN_S
                while not client.flush(5):
                    if time.monotonic() > drained:
                        raise RuntimeError(f"the spool does not empty: {client.stats()}")
    finally:
        for worker in workers:
            worker.end()
        proxy.close()
    spooled, acknowledged = _seen(spools, "spooled"), _seen(spools, "forgotten")
    hot, lake = target.hot(), target.lake()
    return {
        "chaos_sent": sum(worker.sent() for worker in workers),
        "chaos_killed": sum(worker.kills for worker in workers),
        "chaos_spooled": len(spooled),
        "chaos_acknowledged": len(acknowledged),
        "chaos_hot": len(spooled & hot.keys()),
        "chaos_lake": len(spooled & lake.keys()),
        "chaos_lost": len(spooled - hot.keys()) + len(spooled - lake.keys()),
        "chaos_doubled": sum(hot[each] > 1 for each in spooled) + sum(lake[each] > 1 for each in spooled),
    }


class _Worker:
    """One SDK process, started again with the same spool after each kill, until it has reported its events."""

    def __init__(self, number: int, events: int, url: str, key: str, spool: Path, folder: Path) -> None:
        self._progress = folder / f"progress-{number}"
        self._progress.write_bytes(struct.pack("q", 0))
        self._events = events
        self._arguments = ("--report", url, key, str(spool), str(self._progress), str(events), "durable" if number % 2 else "queued")
        self.kills = 0
        self._process = _python(*self._arguments)

    def kill(self) -> None:
        """SIGKILL, and start again where work is left."""
        if self._process.poll() is None:
            self.end()
            self.kills += 1
        self.finished()

    def finished(self) -> bool:
        """Whether all events were reported and the process is over; one that ended before is started again."""
        if self._process.poll() is None:
            return False
        if self.sent() < self._events:
            self._process = _python(*self._arguments)
            return False
        return True

    def sent(self) -> int:
        """Events reported so far."""
        return int(struct.unpack("q", self._progress.read_bytes())[0])

    def end(self) -> None:
        """Whatever it does."""
        self._process.kill()
        self._process.wait()


def report_events(url: str, key: str, spool: str, progress: str, events: int, *, durable: bool) -> None:
    """An SDK process's work: go on where the process before it was killed."""
    client = Client(url, key, spool=spool, owner=OWNER, durable=durable)
    file = os.open(progress, os.O_RDWR)
    (number,) = struct.unpack("q", os.pread(file, 8, 0))
    interaction = output = ""
    while number < events:
        number += 1
        os.pwrite(file, struct.pack("q", number), 0)
        step = number % EVENTS_PER_INTERACTION
        if step == 1 or not interaction:
            interaction = client.log_interaction(SKILL, inputs={"email": f"Where is parcel {number}?"}, thread_id=f"thread-{number}")
            output = ""
        elif step == 2 or not output:
            output = client.log_output(SKILL, interaction, f"Parcel {number} is on its way.")
        elif step == 3:
            client.submit_feedback(SKILL, output_id=output, final_text=f"Parcel {number} comes tomorrow.")
        else:
            client.submit_feedback(SKILL, output_id=output, action="sent")
            time.sleep(PAUSE_S)


def serve(port: int, store: str) -> None:
    """The stub of the service: each new event once into the hot table and once into the lake, in one transaction."""
    lock = threading.Lock()
    fields = {"interaction": "interaction_id", "output": "output_id", "feedback": "feedback_id", "task_result": "task_result_id"}
    database = sqlite3.connect(store, isolation_level=None, check_same_thread=False)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            events = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["events"]
            with lock:
                database.execute("BEGIN IMMEDIATE")
                results = [self.stored(str(event[fields[event["type"]]]), json.dumps(event, sort_keys=True)) for event in events]
                database.execute("COMMIT")
            body = json.dumps({"results": results}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def stored(self, identifier: str, payload: str) -> dict[str, object]:
            found = database.execute("SELECT payload FROM hot WHERE id = ?", (identifier,)).fetchone()
            if found is not None and found[0] != payload:
                return {"status": 409, "error": {"code": "conflict", "message": "another payload", "param": None}}
            if found is None:
                database.execute("INSERT INTO hot VALUES (?, ?)", (identifier, payload))
                database.execute("INSERT INTO lake VALUES (?)", (identifier,))
            return {"status": 200 if found else 201, "id": identifier, "idempotent_replay": found is not None, "pending": False}

        def log_message(self, format: str, *args: object) -> None:
            pass

    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


def stub_chaos(*, events: int, processes: int, seed: int = SEED) -> dict[str, float]:
    """`chaos` against the stub."""
    with tempfile.TemporaryDirectory() as name:
        server = StubServer(Path(name))
        try:
            return chaos(server.target(), events=events, processes=processes, folder=Path(name), seed=seed)
        finally:
            server.stop()


def cloud_chaos(*, events: int, processes: int, seed: int = SEED) -> dict[str, float]:
    """`chaos` against the laptop cloud: the events table and the lake of its first tenant. Raises: RuntimeError when it is not up."""
    from local import cloud

    running = cloud.status()["cloud"]
    if running is None:
        raise RuntimeError("the laptop cloud is not up: make up")
    running.use()
    import boto3

    from local.demo_evidence import DeployedStack

    def hot() -> Counter[str]:
        pages = boto3.client("dynamodb").get_paginator("scan")
        found: Counter[str] = Counter()
        for page in pages.paginate(TableName="rlaas-local-events", ProjectionExpression="event_id, tenant_id", ConsistentRead=True):
            found.update(
                item["event_id"]["S"] for item in page["Items"] if "event_id" in item and item["tenant_id"]["S"] == running.tenant_id
            )
        return found

    def lake() -> Counter[str]:
        stack = DeployedStack(stage="local", tenant_id=running.tenant_id)
        expected, end = set(hot()), time.monotonic() + LONGEST_DRAIN_S
        found = stack.lake_event_ids()
        while expected - found.keys() and time.monotonic() < end:
            time.sleep(2)
            found = stack.lake_event_ids()
        return Counter(found.keys())  # the documented read keeps one of each id

    url = urlsplit(running.api_url)
    target = Target(str(url.hostname), url.port or 80, url.path.rstrip("/"), running.api_key, hot, lake)
    with tempfile.TemporaryDirectory() as name:
        return chaos(target, events=events, processes=processes, folder=Path(name), seed=seed)


def _watch(spool: Path) -> None:
    """Make the spool and have it write down, in the SDK's own transactions, what enters and what leaves it."""
    made = Spool(spool, OWNER, max_bytes=0, max_age_s=0)
    made.count()
    made.close()
    with contextlib.closing(sqlite3.connect(spool)) as file:
        file.executescript("""
            CREATE TABLE spooled (id TEXT);
            CREATE TABLE forgotten (id TEXT);
            CREATE TRIGGER enters AFTER INSERT ON events BEGIN INSERT INTO spooled VALUES (new.id); END;
            CREATE TRIGGER leaves AFTER DELETE ON events BEGIN INSERT INTO forgotten VALUES (old.id); END;
        """)


def _seen(spools: list[Path], table: str) -> set[str]:
    found: set[str] = set()
    for spool in spools:
        with contextlib.closing(sqlite3.connect(spool)) as file:
            found.update(identifier for (identifier,) in file.execute(f"SELECT id FROM {table}"))
    return found


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _python(*arguments: str) -> subprocess.Popen[bytes]:
    root = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": f"{root}:{root / 'clients/python/src'}"}
    quiet = subprocess.DEVNULL
    return subprocess.Popen([sys.executable, "-m", __spec__.name, *arguments], cwd=root, env=environment, stdout=quiet, stderr=quiet)


def main() -> None:
    """Run, or be one of the run's processes."""
    match sys.argv[1:]:
        case ["--serve", port, store]:
            serve(int(port), store)
        case ["--report", url, key, spool, progress, events, kind]:
            report_events(url, key, spool, progress, int(events), durable=kind == "durable")
        case _:
            parser = argparse.ArgumentParser(description=__doc__)
            parser.add_argument("--events", type=int, default=4_000)
            parser.add_argument("--processes", type=int, default=4)
            parser.add_argument("--seed", type=int, default=SEED)
            parser.add_argument("--cloud", action="store_true", help="against the laptop cloud that runs")
            asked = parser.parse_args()
            run, name = (cloud_chaos, "telemetry_chaos") if asked.cloud else (stub_chaos, "telemetry_chaos_stub")
            command = f"python -m benchmarks.telemetry_chaos {' '.join(sys.argv[1:])}".rstrip()
            report(name, command, run(events=asked.events, processes=asked.processes, seed=asked.seed))


if __name__ == "__main__":
    main()
