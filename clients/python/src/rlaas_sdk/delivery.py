"""From the host's call to the service: a bounded queue in memory, the spool, and batches sent from it.

    host thread --queue--> mover thread --spool--> sender thread --HTTP--> service

The host only appends to the queue (`submit`). The mover writes the queue to the spool `SPOOL_AFTER_S` seconds later: a
SIGKILL before that can lose the event, a later one cannot. The sender claims batches from the spool and deletes what
the service has acknowledged.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from rlaas_sdk.errors import EventDropped, SpoolUnavailable
from rlaas_sdk.events import Event
from rlaas_sdk.losses import Losses
from rlaas_sdk.processes import close_at_worker_exit, follow_forks
from rlaas_sdk.spool import Spool, SpooledEvent, make_holder_name
from rlaas_sdk.transport import BatchResults, NotABatch, Transport, draw_backoff_s

MAX_BATCH_EVENTS, MIN_BATCH_EVENTS = 500, 5
MORE_EVENTS = 25
"""By how many events the next batch grows after the service took one whole."""
MAX_BATCH_BYTES = 4 * 1024 * 1024 - 64
EAGER_AT_EVENTS = 100
SPOOL_AFTER_S = 0.05
SEND_AFTER_S = 1.0
LOOK_AGAIN_S = 5.0


@dataclass(frozen=True)
class Stats:
    """What became of the events of this process since it started (a forked child counts from zero).

    `acknowledged` and `dropped` include events that other processes left in a shared spool and this one sent.
    """

    accepted: int
    """Events that the client took from its caller."""
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
    """Takes events and delivers them; each client has one. It may be called from any thread, and its process may
    fork."""

    def __init__(self, spool: Spool, transport: Transport, losses: Losses, *, max_queue_events: int, max_queue_bytes: int) -> None:
        self._spool = spool
        self._transport = transport
        self._losses = losses
        self._max_events = max_queue_events
        self._max_bytes = max_queue_bytes
        self._begin()
        follow_forks(self)

    def _begin(self) -> None:
        self._holder = make_holder_name()
        self._queue: list[Event] = []
        self._reports: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._queue_bytes = 0
        self._queue_lock = threading.Lock()
        self._move_lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._start_lock = threading.Lock()
        self._stopping = threading.Event()
        self._arrived = threading.Event()
        self._to_send = threading.Event()
        self._hurry = threading.Event()
        self._progress = threading.Event()
        self._eager = False
        self._batch_events = MAX_BATCH_EVENTS
        self._accepted = self._spooled = self._acknowledged = self._failed = self._unsent = 0

    def submit(self, event: Event, *, durable: bool = False) -> None:
        """Put `event` into the queue, in microseconds, or with `durable` into the spool, in at most about half a
        second.

        Where the spool is busy for longer, a durable event is queued like any other. Raises: EventDropped where the
        queue or the spool is full.
        """
        if durable and self._write_at_once(event):
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

    def run_later(self, report: Callable[[], None]) -> None:
        """Call `report`, which may submit events, in the thread that next writes to the spool, at the latest
        `LOOK_AGAIN_S` seconds later where the threads run. Takes no lock: the garbage collector may call this while
        this thread holds one."""
        self._reports.put(report)

    def flush(self, timeout_s: float) -> bool:
        """Deliver what was submitted before this call, in at most `timeout_s` seconds; False where some of it still
        waits.

        Ends a backoff, except one that the service asked for. An event that the service refused counts as delivered.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                if not self._move():
                    raise SpoolUnavailable("the queue is not in the spool yet")
                last_seq = self._spool.last_seq()
                break
            except SpoolUnavailable:
                if time.monotonic() >= deadline:
                    return False
                time.sleep(0.01)
        self._eager = True
        self._start()
        self._hurry.set()  # once, not in the loop below: a sender that may not send yet would look again without a pause
        self._to_send.set()
        while True:
            self._progress.clear()
            try:
                if not self._spool.pending(up_to=last_seq):
                    return True
            except SpoolUnavailable:
                pass
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self._progress.wait(min(left, 0.05))

    def close(self, timeout_s: float) -> bool:
        """Flush for at most `timeout_s` seconds, then stop the threads and close the file; False where events still
        wait. A later event starts the threads again."""
        if not self._threads and not self._queue and self._reports.empty():
            self._spool.close()
            return True
        is_delivered = self.flush(timeout_s)
        threads = self._threads
        self._threads = []
        self._stopping.set()
        for signal in (self._arrived, self._to_send, self._hurry):
            signal.set()
        for thread in threads:
            thread.join(0.1)
        if not any(thread.is_alive() for thread in threads):
            self._transport.close()
        self._spool.close()
        return is_delivered

    def stats(self) -> Stats:
        """The counts so far."""
        try:
            waiting = self._spool.count()
        except SpoolUnavailable:
            waiting = -1
        with self._queue_lock:
            queued, accepted = len(self._queue), self._accepted
        return Stats(accepted, self._spooled, self._acknowledged, queued, waiting, self._failed, self._losses.counts())

    def before_fork(self) -> None:
        """Take every lock, so that no thread is changing what the child will use."""
        self._move_lock.acquire()
        self._queue_lock.acquire()
        self._spool.before_fork()
        self._transport.before_fork()

    def after_fork_in_parent(self) -> None:
        """Release the locks."""
        self._transport.after_fork_in_parent()
        self._spool.after_fork_in_parent()
        self._queue_lock.release()
        self._move_lock.release()

    def after_fork_in_child(self) -> None:
        """Start empty: the parent sends the queue's events, and its threads and sockets do not exist here."""
        self._spool.after_fork_in_child()
        self._transport.after_fork_in_child()
        self._losses.begin()
        self._begin()

    def _start(self) -> None:
        with self._start_lock:
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
            except RuntimeError:  # no thread can start, or the interpreter is ending: the events can still be spooled
                self._stopping.set()
                self._arrived.set()
                self._try_to_move()
                return
            self._threads = threads
            close_at_worker_exit(self)

    def _write_at_once(self, event: Event) -> bool:
        try:
            count = self._spool.append([event])
        except SpoolUnavailable as error:
            self._losses.note("a durable event had to be queued", detail=str(error))
            return False
        with self._queue_lock:
            self._accepted += 1
            self._spooled += count
        if not count:
            self._losses.drop("spool_full")
            raise EventDropped("spool_full")
        self._start()
        self._note_spooled(1)
        return True

    def _note_spooled(self, number: int) -> None:
        self._unsent += number
        if self._unsent >= EAGER_AT_EVENTS:
            self._hurry.set()
        self._to_send.set()

    def _move_on(self, stopping: threading.Event) -> None:
        while not stopping.is_set():
            self._arrived.wait(LOOK_AGAIN_S)
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
        """Write the queue to the spool, in order; False where another thread has been doing so for 0.25 s. Raises:
        SpoolUnavailable, which leaves the queue as it was."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._reports.get_nowait()()
        if not self._move_lock.acquire(timeout=0.25):
            return False
        try:
            with self._queue_lock:
                events = self._queue
                self._queue = []
            if not events:
                return True
            try:
                count = self._spool.append(events)
            except SpoolUnavailable:
                with self._queue_lock:
                    self._queue = events + self._queue
                raise
            with self._queue_lock:
                self._queue_bytes -= sum(len(event.body) for event in events)
                self._spooled += count
        finally:
            self._move_lock.release()
        if count < len(events):
            self._losses.drop("spool_full", len(events) - count)
        self._note_spooled(count)
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
        """Send one batch of the oldest events; the seconds to wait before looking for more."""
        self._unsent = 0
        claim = self._spool.claim(self._holder, max_events=self._batch_events, max_bytes=MAX_BATCH_BYTES, eager=eager)
        if claim.too_old:
            self._losses.drop("too_old", claim.too_old)
        if not claim.events:
            return min(claim.wait_s, LOOK_AGAIN_S)
        return self._send(claim.events, claim.failures)

    def _send(self, events: list[SpooledEvent], failures: int, *, keep_lease: bool = False) -> float:
        answer = self._transport.send([event.body for event in events])
        if isinstance(answer, NotABatch):
            if len(events) > 1:
                half = len(events) // 2
                return self._send(events[:half], failures, keep_lease=True) or self._send(events[half:], failures, keep_lease=keep_lease)
            answer = BatchResults([answer.why], 0.0)
        if isinstance(answer, BatchResults):
            done = [event.seq for event, result in zip(events, answer.results, strict=True) if result is not None]
            reasons = [result for result in answer.results if isinstance(result, str)]
            self._acknowledged += len(done) - len(reasons)
            if reasons:
                self._losses.drop("refused", len(reasons), reasons[0])
            if len(done) == len(events):
                self._batch_events = min(self._batch_events + MORE_EVENTS, MAX_BATCH_EVENTS)
                self._settle(done, keep_lease=keep_lease)
                return 0.0
            why, retry_after_s = "the service could not take some events yet", answer.retry_after_s
        else:
            done, why, retry_after_s = [], answer.why, answer.retry_after_s
            if answer.too_much:  # the same batch would time out for ever
                self._batch_events = max(min(self._batch_events, len(events)) // 2, MIN_BATCH_EVENTS)
        self._failed += 1
        self._losses.note("a batch has to be sent again", detail=why)
        wait_s = draw_backoff_s(failures + 1)
        self._settle(done, failures=failures + 1, retry_in_s=retry_after_s + wait_s, closed_for_s=retry_after_s)
        return min(retry_after_s + wait_s, LOOK_AGAIN_S)

    def _settle(
        self, done: list[int], *, failures: int = 0, retry_in_s: float = 0.0, closed_for_s: float = 0.0, keep_lease: bool = False
    ) -> None:
        """Write down what became of a batch, however long the spool is busy: otherwise acknowledged events would be
        sent again."""
        while True:
            try:
                return self._spool.settle(
                    self._holder, done, failures=failures, retry_in_s=retry_in_s, closed_for_s=closed_for_s, keep_lease=keep_lease
                )
            except SpoolUnavailable as error:
                self._losses.note("the spool is busy after a batch", detail=str(error))
                if self._stopping.wait(0.05):
                    raise
