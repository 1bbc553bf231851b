"""Ids, made once per event and kept over every retry: an event's id is its idempotency key.

A bound id contains its interaction's ULID, so that the service finds the interaction by the id alone.
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
    """26 characters of Crockford's base 32: 48 bits of milliseconds since 1970, then 80 random bits."""
    return _encode_crockford((time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10), "big"), 13)


def interaction_id() -> str:
    """A fresh `int_<ULID>`."""
    return f"int_{ulid()}"


def first_output_id(interaction: str) -> str:
    """The id of the interaction's first output: `out_<its ULID>`."""
    return f"out_{_find_ulid(interaction) or ulid()}"


def output_id(interaction: str) -> str:
    """The id of a further output of the interaction."""
    return _append_tail("out", _find_ulid(interaction))


def feedback_id(interaction: str | None, output: str | None) -> str:
    """The id of one feedback event, bound to the interaction or output that it is about."""
    return _append_tail("fbk", _find_ulid(interaction) or _find_ulid(output))


def task_result_id(interaction: str) -> str:
    """The id of one task result."""
    return _append_tail("tsk", _find_ulid(interaction))


def find_interaction_id(output: str) -> str | None:
    """The interaction's id that a bound output id contains; None where the id is not bound."""
    match = _OUTPUT.fullmatch(output)
    return f"int_{match[1]}" if match else None


def _find_ulid(identifier: object) -> str | None:
    match = isinstance(identifier, str) and (_INTERACTION.fullmatch(identifier) or _OUTPUT.fullmatch(identifier))
    return match[1] if match else None


def _append_tail(prefix: str, bound_to: str | None) -> str:
    if bound_to is None:
        return f"{prefix}_{ulid()}"
    # SnapStart restores one snapshot of a process, with its random state, many times: the clock makes the tails differ.
    return f"{prefix}_{bound_to}_{_encode_crockford((_random.getrandbits(50) ^ time.time_ns()) & _TAIL, 5)}"


def _encode_crockford(number: int, pairs: int) -> str:
    return "".join([_PAIRS[number >> shift & 1023] for shift in range((pairs - 1) * 10, -1, -10)])
