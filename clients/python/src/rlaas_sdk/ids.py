"""Ids, made once per event and kept over every retry: the id is the idempotency key.

A bound id contains its interaction's ULID, so that the service finds the interaction from the id alone.
"""

from __future__ import annotations

import os
import random
import re
import time

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = [high + low for high in _CROCKFORD for low in _CROCKFORD]
_TAIL = (1 << 50) - 1
_random = random.Random()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_random.seed)
_ULID = "[0-7][0-9A-HJKMNP-TV-Z]{25}"
_INTERACTION = re.compile(rf"int_({_ULID})")
_OUTPUT = re.compile(rf"out_({_ULID})(?:_[A-Za-z0-9_-]{{1,33}})?")


def ulid() -> str:
    """26 Crockford characters: 48 bits of milliseconds, then 80 random bits."""
    return _crockford((time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10), "big"), 13)


def interaction_id() -> str:
    """A fresh `int_<ULID>`."""
    return f"int_{ulid()}"


def first_output_id(interaction: str) -> str:
    """The id of the interaction's first output: `out_<its ULID>`."""
    return f"out_{_ulid_of(interaction) or ulid()}"


def output_id(interaction: str) -> str:
    """The id of a further output of the interaction."""
    return _tailed("out", _ulid_of(interaction))


def feedback_id(interaction: str | None, output: str | None) -> str:
    """The id of one feedback, bound to what it is about."""
    return _tailed("fbk", _ulid_of(interaction) or _ulid_of(output))


def task_result_id(interaction: str) -> str:
    """The id of one task result."""
    return _tailed("tsk", _ulid_of(interaction))


def interaction_of(output: str) -> str | None:
    """The interaction that a bound output id names; None where it is not bound."""
    match = _OUTPUT.fullmatch(output)
    return f"int_{match[1]}" if match else None


def _ulid_of(identifier: object) -> str | None:
    match = isinstance(identifier, str) and (_INTERACTION.fullmatch(identifier) or _OUTPUT.fullmatch(identifier))
    return match[1] if match else None


def _tailed(prefix: str, bound_to: str | None) -> str:
    if bound_to is None:
        return f"{prefix}_{ulid()}"
    # The clock makes tails differ where a snapshot of a process, its random state with it, is restored many times
    # (SnapStart).
    return f"{prefix}_{bound_to}_{_crockford((_random.getrandbits(50) ^ time.time_ns()) & _TAIL, 5)}"


def _crockford(number: int, pairs: int) -> str:
    return "".join([_PAIRS[number >> shift & 1023] for shift in range((pairs - 1) * 10, -1, -10)])
