"""Sends events to `POST /v1/events:batch` over lanes. Each lane sends one batch at a time, so that an interaction's
events keep their order."""

from __future__ import annotations

import json
import queue
import threading
import time
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import httpx

from rlaas_sdk.errors import NotConfigured
from rlaas_sdk.failures import describe_failure, describe_response, is_final, read_error
from rlaas_sdk.imports.progress import EventResult
from rlaas_sdk.imports.rows import JsonObject
from rlaas_sdk.transport import draw_backoff_s, is_body_refused, open_client, read_retry_after_s

MAX_EVENTS = 500
"""Events of a batch, at most."""
MAX_BATCH_BYTES = 4 * 1024 * 1024
"""Bytes of a batch's body, at most."""
MAX_EVENT_BYTES = 256 * 1024
"""Bytes of an event, at most."""

_LONGEST_RETRY_AFTER_S = 120.0
_FIRST_TRIES, _FIRST_TRIES_S = 5, 60.0
"""How often, and for how many seconds, a service is tried that has never answered as RLaaS does."""
_TROUBLE_EVERY_S = 5.0
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
    """Where events go. A lane gives up when the service has taken nothing of its batch for `give_up_after_s` seconds,
    and much sooner where it has never answered."""

    url: str
    key: str
    give_up_after_s: float = 600.0


Settle = Callable[[Iterable[tuple[int, EventResult]]], None]


class Lanes:
    """Sends items in batches over `lanes` connections; those of one interaction always take the same lane, in order.

    A lane's thread calls `settle` with what became of each item, and `show_trouble`, now and then, with why it tries
    again. Memory holds at most three batches per lane. Raises: Stopped where the environment's proxy or certificates
    cannot be used.
    """

    def __init__(self, service: Service, settle: Settle, show_trouble: Callable[[str], None], *, lanes: int) -> None:
        self._service, self._settle, self._show_trouble = service, settle, show_trouble
        self._is_reached, self._shown_at, self._trouble_lock = False, -_TROUBLE_EVERY_S, threading.Lock()
        limits = httpx.Limits(max_connections=lanes, max_keepalive_connections=lanes)
        try:
            self._client = open_client(service.key, httpx.Timeout(30.0, connect=5.0), limits)
        except NotConfigured as error:
            raise Stopped(str(error), usage=True) from error
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
        since, failures = time.monotonic(), 0
        while items:
            retry_after = 0.0
            try:
                content = _HEAD + b",".join(item.body for item in items) + _TAIL
                response = self._client.post(f"{self._service.url}/v1/events:batch", content=content)
            except httpx.RequestError as error:
                why = describe_failure(error)
                if is_final(error):
                    raise Stopped(f"{self._service.url} cannot be used: {why}", usage=True) from error
            else:
                why, retry_after = describe_response(response), read_retry_after_s(response)
                self._is_reached |= read_error(response) is not None
                if response.status_code == 200:
                    left = self._read(items, response)
                    if len(left) < len(items):
                        since, failures = time.monotonic(), 0
                    items = left
                    why = "503 for single events"
                elif response.status_code not in _RETRYABLE:
                    self._handle_refusal(items, response)
                    return
            if items:
                failures += 1
                self._wait(failures, retry_after, since, why)

    def _read(self, items: list[Item], response: httpx.Response) -> list[Item]:
        """Settle the items with a final result; the items to send again. Raises: Stopped."""
        try:
            results = response.json()["results"]
            statuses = [int(result["status"]) for result in results]
        except (ValueError, KeyError, TypeError) as error:
            why = f"{self._service.url} answered {describe_response(response)}; is this RLaaS's address?"
            raise Stopped(why, usage=True) from error
        if len(results) != len(items):
            raise Stopped(f"{self._service.url} answered {len(results)} results for {len(items)} events; the import stops, nothing is lost")
        self._is_reached = True
        self._settle(
            (item.row, _build_outcome(item, status, result.get("error")))
            for item, status, result in zip(items, statuses, results, strict=True)
            if status not in _EVENT_RETRYABLE
        )
        return [item for item, status in zip(items, statuses, strict=True) if status in _EVENT_RETRYABLE]

    def _handle_refusal(self, items: list[Item], response: httpx.Response) -> None:
        status, error = response.status_code, read_error(response)
        if is_body_refused(response):
            if len(items) > 1:
                self._send(items[: len(items) // 2])
                self._send(items[len(items) // 2 :])
            else:
                self._settle([(items[0].row, _build_outcome(items[0], status, error))])
            return
        why = describe_response(response)
        if status in (401, 403) and error is not None:
            raise Stopped(f"the service refused the key: {why}; give a secret key with the scope telemetry by --api-key", usage=True)
        raise Stopped(f"{self._service.url}/v1/events:batch answered {why}; check --api-url", usage=True)

    def _wait(self, failures: int, retry_after: float, since: float, why: str) -> None:
        """Wait with full jitter, on top of what `Retry-After` asks for (seconds). Raises: Stopped."""
        delay = min(retry_after, _LONGEST_RETRY_AFTER_S) + draw_backoff_s(failures)
        duration = time.monotonic() - since
        give_up_after = self._service.give_up_after_s if self._is_reached else min(self._service.give_up_after_s, _FIRST_TRIES_S)
        if duration + delay > give_up_after or (failures == _FIRST_TRIES and not self._is_reached):
            advice = "" if self._is_reached else "check --api-url and that the service runs, then "
            tries = f"{failures} {'try' if failures == 1 else 'tries'} in {duration:.0f} s"
            raise Stopped(f"{self._service.url} took nothing ({tries}, the last: {why}); {advice}run the same command again to continue")
        with self._trouble_lock:
            is_shown = time.monotonic() - self._shown_at >= _TROUBLE_EVERY_S
            self._shown_at = time.monotonic() if is_shown else self._shown_at
        if is_shown:
            self._show_trouble(f"{why}; trying again, for {give_up_after - duration:.0f} s more at most")
        self._stop.wait(delay)
        if self._stop.is_set():
            raise Stopped("stopped")


def _build_outcome(item: Item, status: int, error: object) -> EventResult:
    if status in (200, 201, 202):
        return EventResult("new" if status == 201 else "pending" if status == 202 else "replayed", event_id=item.event_id)
    error = error if isinstance(error, dict) else {}
    reason, message, param = error.get("code") or error.get("type"), error.get("message"), error.get("param")
    return EventResult(
        "refused",
        reason=str(reason or f"http_{status}"),
        message=str(message or f"the service answered {status}"),
        param=param if isinstance(param, str) else None,
        event_id=item.event_id,
    )


def encode_event(event: JsonObject) -> bytes:
    """An event's JSON in UTF-8, without spaces. Raises: UnicodeEncodeError for half a surrogate pair."""
    return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()
