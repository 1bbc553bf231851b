"""Dropped events: counted by reason, and logged once per reason and interval with the number since the last line."""

from __future__ import annotations

import logging
import threading
import time

INTERVAL_S = 60.0
_logger = logging.getLogger("rlaas_sdk")


class Losses:
    """Counts of dropped events and of troubles, each logged at most once a minute. Log lines hold ids and reasons,
    never an event's text."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Count from zero, with a new lock: a thread of the parent may have held the old one during a fork."""
        self._lock = threading.Lock()
        self._dropped: dict[str, int] = {}
        self._unlogged: dict[str, int] = {}
        self._logged_at: dict[str, float] = {}

    def drop(self, reason: str, number: int = 1, detail: str = "") -> None:
        """Count `number` dropped events under `reason`."""
        with self._lock:
            self._dropped[reason] = self._dropped.get(reason, 0) + number
        self.note(f"events dropped, {reason}", number, detail)

    def note(self, trouble: str, number: int = 1, detail: str = "") -> None:
        """Log a trouble that dropped nothing, at most once a minute too."""
        with self._lock:
            number = self._unlogged.pop(trouble, 0) + number
            now = time.monotonic()
            if now - self._logged_at.get(trouble, -INTERVAL_S) < INTERVAL_S:
                self._unlogged[trouble] = number
                return
            self._logged_at[trouble] = now
        _logger.warning("rlaas: %s (%d)%s", trouble, number, f": {detail}" if detail else "")

    def counts(self) -> dict[str, int]:
        """Dropped events by reason."""
        with self._lock:
            return dict(self._dropped)
