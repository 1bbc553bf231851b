"""Sends events to `POST /v1/events:batch` over lanes. Each lane sends one batch at a time, so that an interaction's
events keep their order."""

from __future__ import annotations

import json
import queue
import random
import threading
import time
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

import httpx

from rlaas_sdk.imports.progress import Outcome
from rlaas_sdk.imports.rows import JsonObject

MAX_EVENTS = 500
"""Events of a batch, at most."""
MAX_BATCH_BYTES = 4 * 1024 * 1024
"""Bytes of a batch's body, at most."""
MAX_EVENT_BYTES = 256 * 1024
"""Bytes of an event, at most."""

_FIRST_BACKOFF_S, _LONGEST_BACKOFF_S, _LONGEST_RETRY_AFTER_S = 0.25, 30.0, 120.0
_RETRYABLE = {408, 425, 429, 500, 502, 503, 504}
_EVENT_RETRYABLE = {429, 503}
_HEAD, _TAIL = b'{"events":[', b"]}"


class Stopped(Exception):
    """The import cannot continue; the message says why and what to do. `usage` where the address or the key is
    wrong."""

    def __init__(self, message: str, *, usage: bool = False) -> None:
        super().__init__(message)
        self.usage = usage


@dataclass(frozen=True, slots=True)
class Item:
    """An event to send: its row's number, its id, its JSON in UTF-8."""

    row: int
    event_id: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Service:
    """Where events go. A lane gives up when the service has taken nothing of its batch for `give_up_after_s`
    seconds."""

    url: str
    key: str
    give_up_after_s: float = 600.0


Settle = Callable[[Iterable[tuple[int, Outcome]]], None]


class Lanes:
    """Sends items in batches over `lanes` connections; those of one interaction always take the same lane, in order.

    A lane's thread calls `settle` with what became of each item. Memory holds at most three batches per lane.
    """

    def __init__(self, service: Service, settle: Settle, *, lanes: int) -> None:
        self._service, self._settle = service, settle
        limits = httpx.Limits(max_connections=lanes, max_keepalive_connections=lanes)
        self._client = httpx.Client(timeout=httpx.Timeout(60.0, connect=10.0), limits=limits)
        self._open_batches: list[list[Item]] = [[] for _ in range(lanes)]
        self._open_bytes = [0] * lanes
        self._queues: list[queue.Queue[list[Item] | None]] = [queue.Queue(maxsize=1) for _ in range(lanes)]
        self._stop = threading.Event()
        self._failure: Exception | None = None
        self._threads = [threading.Thread(target=self._run, args=(lane,), daemon=True) for lane in self._queues]
        for thread in self._threads:
            thread.start()

    def put(self, interaction_id: str, item: Item) -> None:
        """Send `item` after the interaction's earlier ones. Blocks while the lane is full. Raises: Stopped."""
        lane = zlib.crc32(interaction_id.encode()) % len(self._queues)
        room = MAX_BATCH_BYTES - len(_HEAD) - len(_TAIL)
        if len(self._open_batches[lane]) == MAX_EVENTS or self._open_bytes[lane] + len(item.body) + 1 > room:
            self._flush(lane)
        self._open_batches[lane].append(item)
        self._open_bytes[lane] += len(item.body) + 1

    def flush(self) -> None:
        """Send the batches that are not full yet. Raises: Stopped."""
        for lane in range(len(self._queues)):
            self._flush(lane)

    def finish(self) -> None:
        """Send everything and wait until all of it is settled. Raises: Stopped."""
        self.flush()
        for lane in range(len(self._queues)):
            self._hand_over(lane, None)
        for thread in self._threads:
            while thread.is_alive():
                thread.join(0.1)
        self._client.close()
        if self._failure is not None:
            raise self._failure

    def abandon(self) -> None:
        """Stop at once: what waits is not sent, and requests under way are cut off."""
        self._stop.set()
        self._client.close()

    def _flush(self, lane: int) -> None:
        items, self._open_batches[lane], self._open_bytes[lane] = self._open_batches[lane], [], 0
        if items:
            self._hand_over(lane, items)

    def _hand_over(self, lane: int, items: list[Item] | None) -> None:
        while not self._stop.is_set():
            try:
                self._queues[lane].put(items, timeout=0.1)
            except queue.Full:
                continue
            return
        if self._failure is not None:
            raise self._failure

    def _run(self, batches: queue.Queue[list[Item] | None]) -> None:
        try:
            while (items := self._take_batch(batches)) is not None:
                self._send(items)
        except Exception as error:  # the thread that reads the files raises it
            if not self._stop.is_set():
                self._failure = error
                self._stop.set()

    def _take_batch(self, batches: queue.Queue[list[Item] | None]) -> list[Item] | None:
        while not self._stop.is_set():
            try:
                return batches.get(timeout=0.1)
            except queue.Empty:
                continue
        return None

    def _send(self, items: list[Item]) -> None:
        since, attempt = time.monotonic(), 0
        while items:
            retry_after: float | None = None
            try:
                response = self._client.post(
                    f"{self._service.url}/v1/events:batch",
                    content=_HEAD + b",".join(item.body for item in items) + _TAIL,
                    headers={"Authorization": f"Bearer {self._service.key}", "Content-Type": "application/json"},
                )
            except httpx.TransportError as error:
                why = f"{type(error).__name__}: {error}"
            else:
                why = f"HTTP {response.status_code}"
                retry_after = _read_retry_after_s(response)
                if response.status_code == 200:
                    left = self._read(items, response)
                    if len(left) < len(items):
                        since, attempt = time.monotonic(), 0
                    items = left
                    why = "503 for single events"
                elif response.status_code not in _RETRYABLE:
                    self._handle_refusal(items, response)
                    return
            if items:
                self._wait(attempt, retry_after, since, why)
                attempt += 1

    def _read(self, items: list[Item], response: httpx.Response) -> list[Item]:
        """Settle the items with a final result; the items to send again. Raises: Stopped."""
        try:
            results = response.json()["results"]
            statuses = [int(result["status"]) for result in results]
        except (ValueError, KeyError, TypeError) as error:
            raise Stopped(f"the answer of {self._service.url} is not a batch's results; is this RLaaS's address?", usage=True) from error
        if len(results) != len(items):
            raise Stopped(f"{self._service.url} answered {len(results)} results for {len(items)} events; the import stops, nothing is lost")
        self._settle(
            (item.row, _build_outcome(item, status, result))
            for item, status, result in zip(items, statuses, results, strict=True)
            if status not in _EVENT_RETRYABLE
        )
        return [item for item, status in zip(items, statuses, strict=True) if status in _EVENT_RETRYABLE]

    def _handle_refusal(self, items: list[Item], response: httpx.Response) -> None:
        status, error = response.status_code, _read_error(response)
        if status in (400, 413, 422):
            if len(items) > 1:
                self._send(items[: len(items) // 2])
                self._send(items[len(items) // 2 :])
            else:
                self._settle([(items[0].row, _build_outcome(items[0], status, {"error": error}))])
            return
        message = error.get("message") or f"HTTP {status}"
        if status in (401, 403):
            raise Stopped(f"the service refused the key: {message}; give a secret key with the scope telemetry by --api-key", usage=True)
        raise Stopped(f"{self._service.url}/v1/events:batch answered HTTP {status}: {message}; check --api-url", usage=True)

    def _wait(self, attempt: int, retry_after: float | None, since: float, why: str) -> None:
        """Wait with full jitter, on top of what `Retry-After` asks for (seconds). Raises: Stopped."""
        if retry_after is None:
            delay = random.uniform(0, min(_LONGEST_BACKOFF_S, _FIRST_BACKOFF_S * 2 ** min(attempt, 16)))
        else:
            delay = min(retry_after, _LONGEST_RETRY_AFTER_S) + random.uniform(0, min(retry_after, 1.0))
        if time.monotonic() + delay - since > self._service.give_up_after_s:
            duration = f"{self._service.give_up_after_s:g} s"
            raise Stopped(f"{self._service.url} took nothing for {duration} (last: {why}); run the same command again to continue")
        self._stop.wait(delay)
        if self._stop.is_set():
            raise Stopped("stopped")


def _read_retry_after_s(response: httpx.Response) -> float | None:
    value = response.headers.get("Retry-After")
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(timezone.utc)).total_seconds())
    except (ValueError, TypeError):
        return None


def _read_error(response: httpx.Response) -> JsonObject:
    try:
        error = response.json()["error"]
    except (ValueError, KeyError, TypeError):
        return {}
    return error if isinstance(error, dict) else {}


def _build_outcome(item: Item, status: int, result: JsonObject) -> Outcome:
    if status in (200, 201, 202):
        return Outcome("new" if status == 201 else "pending" if status == 202 else "replayed", event_id=item.event_id)
    error = result.get("error")
    error = error if isinstance(error, dict) else {}
    reason, message, param = error.get("code") or error.get("type"), error.get("message"), error.get("param")
    return Outcome(
        "refused",
        reason=str(reason or f"http_{status}"),
        message=str(message or f"the service answered {status}"),
        param=param if isinstance(param, str) else None,
        event_id=item.event_id,
    )


def encode_event(event: JsonObject) -> bytes:
    """An event's JSON in UTF-8, without spaces. Raises: UnicodeEncodeError for half a surrogate pair."""
    return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()
