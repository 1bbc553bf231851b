"""Makes ids that depend on the record alone, so that importing a record twice stores it once."""

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

    `origin` is the format of the record, `namespace` tells apart two sources with the same ids. Both are hashed with
    the skill, so that the same log imported for two skills makes two sets of events.
    """

    origin: str
    skill: str
    namespace: str = ""

    def make_interaction_id(self, own_id: str) -> str:
        """`int_<ULID>` of the record `own_id`."""
        return "int_" + self._make_ulid("interaction", own_id)

    def make_unbound_id(self, prefix: str, own_id: str) -> str:
        """`<prefix>_<ULID>` of a record that has an id of its own; its interaction is left out of the id, because
        another export of the record may name another."""
        return f"{prefix}_" + self._make_ulid(prefix, own_id)

    def _make_ulid(self, kind: str, own_id: str) -> str:
        return _encode_crockford(_hash_parts(self.origin, self.namespace, self.skill, kind, own_id), 26)


def make_output_id(interaction_id: str, n: int = 0) -> str:
    """The id of the interaction's `n`-th output, from 0."""
    ulid = interaction_id.removeprefix("int_")
    return f"out_{ulid}" if n == 0 else f"out_{ulid}_{make_tail('output', str(n))}"


def make_bound_id(prefix: str, interaction_id: str, *parts: str) -> str:
    """`<prefix>_<ULID>_<tail>`: the id of an event of the interaction; `parts` tell it from the others."""
    return f"{prefix}_{interaction_id.removeprefix('int_')}_{make_tail(*parts)}"


def make_tail(*parts: str) -> str:
    """Ten characters of Crockford's base 32, a hash of `parts`."""
    return _encode_crockford(_hash_parts(*parts), 10)


def external_id(prefix: str, value: str) -> str:
    """`value` where it can be an id of RLaaS; else, as for an e-mail address or a name with spaces, `<prefix>_` and 26
    characters of its hash."""
    return value if _EXTERNAL_ID.fullmatch(value) else f"{prefix}_{_encode_crockford(_hash_parts(prefix, value), 26)}"


def make_metric_name(name: str) -> str:
    """`name` as a metric's name: lower-case words joined by underscores (`User-Feedback` becomes `user_feedback`), at
    most 64 characters; empty where `name` has no letter a-z or digit."""
    return "_".join(re.findall(r"[a-z0-9]+", name.lower()))[:64].rstrip("_")


def _hash_parts(*parts: str) -> int:
    return int.from_bytes(hashlib.sha256(json.dumps(parts).encode()).digest()[:16], "big")


def _encode_crockford(number: int, length: int) -> str:
    return "".join(_CROCKFORD[(number >> (5 * place)) & 31] for place in reversed(range(length)))
