"""A network that fails: TCP through a loopback port that refuses, hangs, cuts answers off, or answers for itself."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable
from typing import Literal

Mode = Literal["open", "refuse", "hang", "cut", "fail", "busy"]
FAULTS: tuple[Mode, ...] = ("refuse", "hang", "cut", "fail", "busy")
CANNED = {
    "fail": b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    "busy": b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
}


class FaultProxy:
    """TCP to `host:port` through a loopback port, as `mode` says: open, refuse connections, hang, cut off the answer,
    500, 429."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._loop = asyncio.new_event_loop()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._mode: Mode = "open"
        self._open_requests: set[asyncio.StreamReader] = set()
        self.port = _free_port()
        self.passed = self.failed = self.spoiled = 0
        """Answers of the target, those of them with a 5xx, and requests that met a fault (not those refused)."""
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.turn("open")

    def turn(self, mode: Mode) -> None:
        """Switch to `mode` and cut all open connections."""
        asyncio.run_coroutine_threadsafe(self._turn(mode), self._loop).result()

    def wait_for_a_request(self, seconds: float) -> bool:
        """Whether a request waits for the target's answer, now or within `seconds`."""
        return self._wait_until(lambda: bool(self._open_requests), seconds)

    def wait_for_an_answer(self, seconds: float) -> bool:
        """Whether the target answers within `seconds`."""
        passed = self.passed
        return self._wait_until(lambda: self.passed > passed, seconds)

    def _wait_until(self, done: Callable[[], bool], seconds: float) -> bool:
        end = time.monotonic() + seconds
        while not done() and time.monotonic() < end:
            time.sleep(0.005)
        return done()

    def close(self) -> None:
        """Refuse everything and end."""
        self.turn("refuse")
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    async def _turn(self, mode: Mode) -> None:
        self._mode = mode
        self.spoiled += len(self._open_requests)
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
        self.spoiled += mode != "open"
        with contextlib.suppress(OSError):
            if mode == "hang":
                return
            if answer := CANNED.get(mode):
                await self._read_request(reader)
                writer.write(answer)
                await writer.drain()
                writer.close()
                return
            above_reader, above = await asyncio.open_connection(*self._target)
            self._writers.add(above)
            for pump in (self._pump_up(reader, above), self._pump_down(reader, above_reader, writer, 40 if mode == "cut" else None)):
                task = asyncio.ensure_future(pump)
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            return
        writer.transport.abort()

    async def _read_request(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            await reader.readexactly(int(head.split("content-length:")[1].split("\r\n")[0]))

    async def _pump_up(self, reader: asyncio.StreamReader, above: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while some := await reader.read(65_536):
                self._open_requests.add(reader)
                above.write(some)
                await above.drain()
        self._open_requests.discard(reader)
        above.close()

    async def _pump_down(
        self, asker: asyncio.StreamReader, above: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: int | None
    ) -> None:
        with contextlib.suppress(OSError):
            while some := await above.read(65_536):
                self._open_requests.discard(asker)
                self.passed += some.startswith(b"HTTP/1.1 ")
                self.failed += some.startswith(b"HTTP/1.1 5")
                writer.write(some[:limit])
                await writer.drain()
                if limit is not None:
                    break
        writer.transport.abort() if limit is not None else writer.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
