"""From the host's call to the service: a bounded queue in memory, the spool, and batches sent from it.

    host thread --queue--> mover thread --spool--> sender thread --HTTP--> service

The host only appends to the queue (`submit`). The mover writes the queue to the spool `SPOOL_AFTER_S` later: until then
an event can be lost to SIGKILL, from then on it cannot. The sender claims batches from the spool and forgets what was
acknowledged.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
import weakref
from dataclasses import dataclass

from rlaas_sdk.errors import EventDropped, SpoolUnavailable
from rlaas_sdk.events import Event
from rlaas_sdk.losses import Losses
from rlaas_sdk.spool import Spool, Spooled, holder_name
from rlaas_sdk.transport import Answered, NotABatch, Transport, jittered_s

MAX_BATCH_EVENTS, MIN_BATCH_EVENTS = 500, 5
MORE_EVENTS = 25
"""By how much batches grow again with each that the service took."""
MAX_BATCH_BYTES = 5 * 1024 * 1024 - 64
EAGER_AT_EVENTS = 100
SPOOL_AFTER_S = 0.05
SEND_AFTER_S = 1.0
LOOK_AGAIN_S = 5.0


@dataclass(frozen=True)
class Stats:
    """What became of the events of this process since it began (a forked child begins anew).

    `acknowledged` and `dropped` include events that other processes left in a shared spool and this one sent.
    """

    accepted: int
    """Events that `log_*` and `submit_*` took."""
    spooled: int
    """Events written to the spool."""
    acknowledged: int
    """Events that the service has, replays included."""
    queued: int
    """Events still in memory only."""
    waiting: int
    """Events in the spool now, of every process; -1 where it cannot be read."""
    failed_batches: int
    """Batches that have to be sent again."""
    dropped: dict[str, int]
    """Events lost, by reason: queue_full, spool_full, too_old, refused, invalid, not_configured."""


class Delivery:
    """Takes events and delivers them; one for each client. Safe to call from any thread, and over a fork."""

    def __init__(self, spool: Spool, transport: Transport, losses: Losses, *, max_queue_events: int, max_queue_bytes: int) -> None:
        self._spool = spool
        self._transport = transport
        self._losses = losses
        self._max_events = max_queue_events
        self._max_bytes = max_queue_bytes
        self._begin()
        _live.add(self)

    def _begin(self) -> None:
        self._holder = holder_name()
        self._queue: list[Event] = []
        self._queue_bytes = 0
        self._queue_lock = threading.Lock()
        self._moving = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._starting = threading.Lock()
        self._stopping = threading.Event()
        self._arrived = threading.Event()
        self._to_send = threading.Event()
        self._hurry = threading.Event()
        self._progress = threading.Event()
        self._eager = False
        self._batch_events = MAX_BATCH_EVENTS
        self._accepted = self._spooled = self._acknowledged = self._failed = self._unsent = 0

    def submit(self, event: Event, *, durable: bool = False) -> None:
        """Take `event`: into the queue (microseconds), or with `durable` into the spool, which takes at most about half
        a second.

        Where the spool is busy for longer, a durable event is queued as any other. Raises: EventDropped when there is
        no room.
        """
        if durable and self._written_at_once(event):
            return
        with self._queue_lock:
            if len(self._queue) >= self._max_events or self._queue_bytes + len(event.body) > self._max_bytes:
                full = True
            else:
                full = False
                self._queue.append(event)
                self._queue_bytes += len(event.body)
                self._accepted += 1
        if full:
            self._losses.drop("queue_full")
            raise EventDropped("queue_full")
        if not self._arrived.is_set():
            self._arrived.set()
        if not self._threads:
            self._start()

    def flush(self, timeout_s: float) -> bool:
        """Deliver what was submitted before this call, and wait for it at most `timeout_s` seconds. False where some
        still waits.

        Ends a backoff, except one that the service asked for. Events that the service refused count as delivered.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                if not self._move():
                    raise SpoolUnavailable("the queue is not in the spool yet")
                mark = self._spool.last_seq()
                break
            except SpoolUnavailable:
                if time.monotonic() >= deadline:
                    return False
                time.sleep(0.01)
        self._eager = True
        self._start()
        self._hurry.set()  # once: woken at each look, the sender would look without a pause for as long as it may not send
        self._to_send.set()
        while True:
            self._progress.clear()
            try:
                if not self._spool.pending(up_to=mark):
                    return True
            except SpoolUnavailable:
                pass
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self._progress.wait(min(left, 0.05))

    def close(self, timeout_s: float) -> bool:
        """Flush, then stop the threads and close the file. An event submitted afterwards starts them again."""
        if not self._threads and not self._queue:
            self._spool.close()
            return True
        delivered = self.flush(timeout_s)
        threads = self._threads
        self._threads = []
        self._stopping.set()
        for event in (self._arrived, self._to_send, self._hurry):
            event.set()
        for thread in threads:
            thread.join(0.1)
        if not any(thread.is_alive() for thread in threads):
            self._transport.close()
        self._spool.close()
        return delivered

    def stats(self) -> Stats:
        """Counts until now."""
        try:
            waiting = self._spool.count()
        except SpoolUnavailable:
            waiting = -1
        with self._queue_lock:
            queued, accepted = len(self._queue), self._accepted
        return Stats(accepted, self._spooled, self._acknowledged, queued, waiting, self._failed, self._losses.counts())

    def before_fork(self) -> None:
        """Let no thread be inside of what the child will use."""
        self._moving.acquire()
        self._queue_lock.acquire()
        self._spool.before_fork()
        self._transport.before_fork()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self._transport.after_fork_in_parent()
        self._spool.after_fork_in_parent()
        self._queue_lock.release()
        self._moving.release()

    def after_fork_in_child(self) -> None:
        """Begin anew: the queue's events are the parent's to send, its threads and sockets do not exist here."""
        self._spool.after_fork_in_child()
        self._transport.after_fork_in_child()
        self._losses.begin()
        self._begin()

    def _start(self) -> None:
        with self._starting:
            if self._threads:
                return
            self._stopping = threading.Event()
            threads = [
                threading.Thread(target=target, args=(self._stopping,), name=name, daemon=True)
                for target, name in ((self._move_on, "rlaas-spool"), (self._send_on, "rlaas-send"))
            ]
            try:
                for thread in threads:
                    thread.start()
            except RuntimeError:  # no thread to be had, or the interpreter is ending: what can be done is to spool
                self._stopping.set()
                self._arrived.set()
                self._try_to_move()
                return
            self._threads = threads
            _close_at_the_end_of_a_worker(self)

    def _written_at_once(self, event: Event) -> bool:
        try:
            fitted = self._spool.append([event])
        except SpoolUnavailable as error:
            self._losses.note("a durable event had to be queued", detail=str(error))
            return False
        with self._queue_lock:
            self._accepted += 1
            self._spooled += fitted
        if not fitted:
            self._losses.drop("spool_full")
            raise EventDropped("spool_full")
        self._start()
        self._has_spooled(1)
        return True

    def _has_spooled(self, number: int) -> None:
        self._unsent += number
        if self._unsent >= EAGER_AT_EVENTS:
            self._hurry.set()
        self._to_send.set()

    def _move_on(self, stopping: threading.Event) -> None:
        while not stopping.is_set():
            self._arrived.wait()
            stopping.wait(SPOOL_AFTER_S)
            self._arrived.clear()
            if not self._try_to_move():
                self._arrived.set()

    def _try_to_move(self) -> bool:
        try:
            return self._move()
        except SpoolUnavailable as error:
            self._losses.note("the spool cannot be written, events wait in memory", detail=str(error))
            return False

    def _move(self) -> bool:
        """The queue into the spool, in order. False where another thread is at it for long. Raises: SpoolUnavailable
        (queue as before)."""
        if not self._moving.acquire(timeout=0.25):
            return False
        try:
            with self._queue_lock:
                events = self._queue
                self._queue = []
            if not events:
                return True
            try:
                fitted = self._spool.append(events)
            except SpoolUnavailable:
                with self._queue_lock:
                    self._queue = events + self._queue
                raise
            with self._queue_lock:
                self._queue_bytes -= sum(len(event.body) for event in events)
                self._spooled += fitted
        finally:
            self._moving.release()
        if fitted < len(events):
            self._losses.drop("spool_full", len(events) - fitted)
        self._has_spooled(fitted)
        return True

    def _send_on(self, stopping: threading.Event) -> None:
        wait_s = 0.0
        while not stopping.is_set():
            if wait_s and self._to_send.wait(wait_s):
                self._to_send.clear()
                self._hurry.wait(SEND_AFTER_S)
            if stopping.is_set():
                return
            self._hurry.clear()
            eager = self._eager
            self._eager = False
            try:
                wait_s = self._send_some(eager)
            except SpoolUnavailable as error:
                self._losses.note("the spool cannot be read, sending waits", detail=str(error))
                wait_s = 0.25
            except Exception as error:
                self._losses.note("sending failed", detail=repr(error))
                wait_s = LOOK_AGAIN_S
            self._progress.set()

    def _send_some(self, eager: bool) -> float:
        """One batch of the oldest events; seconds until it is worth while to look again."""
        self._unsent = 0
        claim = self._spool.claim(self._holder, max_events=self._batch_events, max_bytes=MAX_BATCH_BYTES, eager=eager)
        if claim.too_old:
            self._losses.drop("too_old", claim.too_old)
        if not claim.events:
            return min(claim.wait_s, LOOK_AGAIN_S)
        return self._send(claim.events, claim.failures)

    def _send(self, events: list[Spooled], failures: int, *, keep_lease: bool = False) -> float:
        answer = self._transport.send([event.body for event in events])
        if isinstance(answer, NotABatch):
            if len(events) > 1:
                half = len(events) // 2
                return self._send(events[:half], failures, keep_lease=True) or self._send(events[half:], failures, keep_lease=keep_lease)
            answer = Answered([answer.why], 0.0)
        if isinstance(answer, Answered):
            done = [event.seq for event, result in zip(events, answer.results, strict=True) if result is not None]
            refused = [result for result in answer.results if isinstance(result, str)]
            self._acknowledged += len(done) - len(refused)
            if refused:
                self._losses.drop("refused", len(refused), refused[0])
            if len(done) == len(events):
                self._batch_events = min(self._batch_events + MORE_EVENTS, MAX_BATCH_EVENTS)
                self._settle(done, keep_lease=keep_lease)
                return 0.0
            why, asked_s = "the service could not take some events yet", answer.retry_after_s
        else:
            done, why, asked_s = [], answer.why, answer.retry_after_s
            if answer.too_much:  # what is too much to be answered in time would be too much for ever
                self._batch_events = max(min(self._batch_events, len(events)) // 2, MIN_BATCH_EVENTS)
        self._failed += 1
        self._losses.note("a batch has to be sent again", detail=why)
        wait_s = jittered_s(failures + 1)
        self._settle(done, failures=failures + 1, retry_in_s=asked_s + wait_s, closed_for_s=asked_s)
        return min(asked_s + wait_s, LOOK_AGAIN_S)

    def _settle(
        self, done: list[int], *, failures: int = 0, retry_in_s: float = 0.0, closed_for_s: float = 0.0, keep_lease: bool = False
    ) -> None:
        """Note what came of a batch, however long the spool is busy: else what was acknowledged would be sent again."""
        while True:
            try:
                return self._spool.settle(
                    self._holder, done, failures=failures, retry_in_s=retry_in_s, closed_for_s=closed_for_s, keep_lease=keep_lease
                )
            except SpoolUnavailable as error:
                self._losses.note("the spool is busy after a batch", detail=str(error))
                if self._stopping.wait(0.05):
                    raise


_live: weakref.WeakSet[Delivery] = weakref.WeakSet()
_forking: list[Delivery] = []
_one_fork = threading.Lock()  # two threads may fork at once


def _before_fork() -> None:
    _one_fork.acquire()
    _forking[:] = _live
    for delivery in _forking:
        delivery.before_fork()


def _after_fork_in_parent() -> None:
    for delivery in _forking:
        delivery.after_fork_in_parent()
    _forking.clear()
    _one_fork.release()


def _after_fork_in_child() -> None:
    for delivery in _forking:
        delivery.after_fork_in_child()
    _forking.clear()
    _one_fork.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)


def close_at_exit(delivery: Delivery, timeout_s: float) -> None:
    """Close `delivery` when the interpreter ends, in at most about `timeout_s` seconds."""
    kept = weakref.ref(delivery)

    def close() -> None:
        if (still := kept()) is not None:
            still.close(timeout_s)

    _exits[delivery] = timeout_s
    atexit.register(close)


_exits: weakref.WeakKeyDictionary[Delivery, float] = weakref.WeakKeyDictionary()


def _close_at_the_end_of_a_worker(delivery: Delivery) -> None:
    """A process of `multiprocessing` ends by `os._exit`, without atexit: it has finalizers of its own."""
    util = sys.modules.get("multiprocessing.util")
    process = sys.modules.get("multiprocessing.process")
    if util is not None and process is not None and process.parent_process() is not None and delivery in _exits:
        util.Finalize(delivery, Delivery.close, args=(delivery, _exits[delivery]), exitpriority=0)
