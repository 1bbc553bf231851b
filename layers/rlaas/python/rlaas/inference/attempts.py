"""Asking one backend after another until one answers: time shared out, repeats only where they are safe, circuits broken."""

import random
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from rlaas.chat import BackendFailed, NoCapacity
from rlaas.errors import DependencyUnavailable
from rlaas.policies.backend import BackendSpec
from rlaas.policies.bundle import Policy

T = TypeVar("T")

_FIRST_SHARE = 0.55
"""What of the time left an attempt may take while others follow it."""
_LONGEST_PAUSE_S = 2.0
"""A backend that asks to wait longer than this before a repeat is given up on."""
_LEAST_TIME_S = 0.5
"""With less time left than this nobody is asked."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """A backend to ask for a policy. `more` says that others follow."""

    policy: Policy
    backend: BackendSpec
    more: bool

    @property
    def named(self) -> str:
        """Who is asked for what, as decisions say it."""
        return f"{self.policy.policy_id} by {self.backend.kind} {self.backend.model}"

    @property
    def circuit(self) -> Hashable:
        """What fails together. A tenant's own: another's key or address says nothing about this one's."""
        return self.policy.tenant_id, self.backend


@dataclass(slots=True)
class CircuitBreakers:
    """Which backends are left alone for a while: `failures` in a row open a circuit for `open_s` seconds, then one request tries again.

    Each process has its own: a shared one would cost every request a read, and a process learns of a dead backend in a few requests.
    """

    timer: Callable[[], float]
    failures: int = 5
    open_s: float = 10.0
    _in_a_row: dict[Hashable, int] = field(default_factory=dict)
    _closed_again_at: dict[Hashable, float] = field(default_factory=dict)

    def allows(self, name: Hashable) -> bool:
        """Whether `name` may be asked; a yes after an open circuit's time is for one request."""
        until = self._closed_again_at.get(name)
        if until is None:
            return True
        if self.timer() < until:
            return False
        self._closed_again_at[name] = self.timer() + self.open_s
        return True

    def answered(self, name: Hashable) -> None:
        """`name` is well."""
        self._in_a_row.pop(name, None)
        self._closed_again_at.pop(name, None)

    def failed(self, name: Hashable) -> None:
        """`name` did not answer."""
        self._in_a_row[name] = self._in_a_row.get(name, 0) + 1
        if self._in_a_row[name] >= self.failures:
            self._closed_again_at[name] = self.timer() + self.open_s


def first_answer(
    attempts: Iterable[Attempt],
    ask: Callable[[Attempt, float], T],
    *,
    until: float,
    breakers: CircuitBreakers,
    timer: Callable[[], float],
    pause: Callable[[float], None],
) -> tuple[Attempt, T, tuple[str, ...]]:
    """The first of `attempts` that answers, its answer, and why those before it did not.

    `ask` gets an attempt and the seconds it may take. All of it ends by `until` (on `timer`). Raises: DependencyUnavailable when none
    answers, with the shortest wait that any of them asked for; whatever else `ask` raises.
    """
    failures: list[str] = []
    waits: list[float] = []
    for attempt in attempts:
        if not breakers.allows(attempt.circuit):
            failures.append(f"{attempt.named}: failed too often just now")
            continue
        for repeated in (False, True):
            left = until - timer()
            if left < _LEAST_TIME_S:
                failures.append(f"{attempt.named}: no time left")
                break
            try:
                answer = ask(attempt, min(attempt.backend.timeout_s, left * _FIRST_SHARE if attempt.more else left))
            except BackendFailed as error:
                if not isinstance(error, NoCapacity):  # one that sleeps says so at once, and has to hear that it is wanted
                    breakers.failed(attempt.circuit)
                wait = error.retry_after_s if error.retry_after_s is not None else random.uniform(0.05, 0.25)
                again = error.safe_to_repeat and not repeated and not attempt.more and wait <= min(_LONGEST_PAUSE_S, left / 2)
                if not again:
                    failures.append(f"{attempt.named}: {error.detail}")
                    waits += [error.retry_after_s] if error.retry_after_s is not None else []
                    break
                pause(wait)
            else:
                breakers.answered(attempt.circuit)
                return attempt, answer, tuple(failures)
    raise DependencyUnavailable(f"no model answered: {'; '.join(failures)}", retry_after_s=min(waits, default=None))
