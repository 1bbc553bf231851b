"""Circuit breakers: a backend that fails again and again is left alone for a while."""

from collections.abc import Callable, Hashable
from copy import copy
from dataclasses import dataclass, field


@dataclass(slots=True)
class CircuitBreakers:
    """Which backends are left alone.

    `failures` in a row open a backend's circuit for `open_s` seconds; then one request tries again. Each process has
    its own: a shared one would cost every request a read, and a process learns of a dead backend in a few requests.
    `timer` counts seconds.
    """

    timer: Callable[[], float]
    failures: int = 5
    open_s: float = 10.0
    _in_a_row: dict[Hashable, int] = field(default_factory=dict)
    _closed_again_at: dict[Hashable, float] = field(default_factory=dict)
    _failures: dict[Hashable, Exception | None] = field(default_factory=dict)

    def allows(self, name: Hashable) -> bool:
        """Whether `name` may be asked; a yes after an open circuit's time is for one request."""
        until = self._closed_again_at.get(name)
        if until is None:
            return True
        if self.timer() < until:
            return False
        self._closed_again_at[name] = self.timer() + self.open_s
        return True

    def note_answer(self, name: Hashable) -> None:
        """Close the circuit of `name`, which has answered."""
        self._in_a_row.pop(name, None)
        self._closed_again_at.pop(name, None)
        self._failures.pop(name, None)

    def last_failure(self, name: Hashable) -> Exception | None:
        """How `name` failed the last time since it answered, if it did and that is known."""
        return self._failures.get(name)

    def note_failure(self, name: Hashable, failure: Exception | None = None) -> None:
        """Count a failure of `name`, and open its circuit when there were enough."""
        self._failures[name] = copy(failure)  # a copy has no traceback, which would hold the request in memory
        self._in_a_row[name] = self._in_a_row.get(name, 0) + 1
        if self._in_a_row[name] >= self.failures:
            self._closed_again_at[name] = self.timer() + self.open_s
