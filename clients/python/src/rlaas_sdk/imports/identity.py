"""Ids that the same record always gets, so that importing it twice stores it once."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_EXTERNAL_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True)
class Identity:
    """Makes ids from a record's own id.

    `origin` is the format the record comes from, `namespace` tells two sources apart that use the same ids; both are
    hashed with the skill, so the same log imported for two skills makes two sets of events.
    """

    origin: str
    skill: str
    namespace: str = ""

    def interaction(self, own_id: str) -> str:
        """`int_<ULID>` of the record `own_id`."""
        return "int_" + self._ulid("interaction", own_id)

    def loose(self, prefix: str, own_id: str) -> str:
        """`<prefix>_<ULID>` of a record that brings its own id and whose interaction may be told otherwise another
        time."""
        return f"{prefix}_" + self._ulid(prefix, own_id)

    def _ulid(self, kind: str, own_id: str) -> str:
        return _crockford(_digest(self.origin, self.namespace, self.skill, kind, own_id), 26)


def output_of(interaction_id: str, n: int = 0) -> str:
    """The id of the interaction's `n`-th output, from 0."""
    ulid = interaction_id.removeprefix("int_")
    return f"out_{ulid}" if n == 0 else f"out_{ulid}_{tail('output', str(n))}"


def bound(prefix: str, interaction_id: str, *parts: str) -> str:
    """`<prefix>_<ULID>_<tail>`: an event of the interaction, told from its others by `parts`."""
    return f"{prefix}_{interaction_id.removeprefix('int_')}_{tail(*parts)}"


def tail(*parts: str) -> str:
    """Ten Crockford characters that `parts` always give."""
    return _crockford(_digest(*parts), 10)


def external_id(prefix: str, value: str) -> str:
    """`value` where it can be an id of RLaaS, else `<prefix>_` and 26 characters of its hash (an e-mail address, a name
    with spaces)."""
    return value if _EXTERNAL_ID.fullmatch(value) else f"{prefix}_{_crockford(_digest(prefix, value), 26)}"


def metric_name(name: str) -> str:
    """`name` as metrics are named: lower-case words joined by underscores (`User-Feedback` is `user_feedback`)."""
    return "_".join(re.findall(r"[a-z0-9]+", name.lower()))[:64].rstrip("_")


def _digest(*parts: str) -> int:
    return int.from_bytes(hashlib.sha256(json.dumps(parts).encode()).digest()[:16], "big")


def _crockford(number: int, length: int) -> str:
    return "".join(_CROCKFORD[(number >> (5 * place)) & 31] for place in reversed(range(length)))
