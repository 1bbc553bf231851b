"""What happens to deliveries when their process forks or ends."""

from __future__ import annotations

import atexit
import os
import sys
import threading
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rlaas_sdk.delivery import Delivery

_live: weakref.WeakSet[Delivery] = weakref.WeakSet()
_forking: list[Delivery] = []
_fork_lock = threading.Lock()  # two threads may fork at once
_exit_timeouts: weakref.WeakKeyDictionary[Delivery, float] = weakref.WeakKeyDictionary()


def follow_forks(delivery: Delivery) -> None:
    """Prepare `delivery` for each fork of this process, for as long as it is in use."""
    _live.add(delivery)


def close_at_exit(delivery: Delivery, timeout_s: float) -> None:
    """Close `delivery` when the interpreter ends, in at most about `timeout_s` seconds."""
    reference = weakref.ref(delivery)

    def close() -> None:
        if (target := reference()) is not None:
            target.close(timeout_s)

    _exit_timeouts[delivery] = timeout_s
    atexit.register(close)


def close_at_worker_exit(delivery: Delivery) -> None:
    """Register with `multiprocessing`'s own finalizers where this process is a worker of it: workers end by `os._exit`,
    which runs no atexit function."""
    util = sys.modules.get("multiprocessing.util")
    process = sys.modules.get("multiprocessing.process")
    if util is not None and process is not None and process.parent_process() is not None and delivery in _exit_timeouts:
        util.Finalize(delivery, type(delivery).close, args=(delivery, _exit_timeouts[delivery]), exitpriority=0)


def _before_fork() -> None:
    _fork_lock.acquire()
    _forking[:] = _live
    for delivery in _forking:
        delivery.before_fork()


def _after_fork_in_parent() -> None:
    for delivery in _forking:
        delivery.after_fork_in_parent()
    _forking.clear()
    _fork_lock.release()


def _after_fork_in_child() -> None:
    for delivery in _forking:
        delivery.after_fork_in_child()
    _forking.clear()
    _fork_lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
