"""Ids and names: their shapes, how new ones are made, and how compound ones are built and split."""

import hashlib
import json
import re
from base64 import b32encode
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, JsonValue, StringConstraints
from ulid import ULID

_NAME = r"^[a-z0-9]+(-[a-z0-9]+)*$"

TenantId = Annotated[str, StringConstraints(pattern=_NAME, max_length=20)]
"""Lower-case words joined by single hyphens."""
SkillName = Annotated[str, StringConstraints(pattern=_NAME, max_length=28)]
"""Lower-case words joined by single hyphens."""
MODEL_PREFIX = "rlaas::"
"""What makes a skill's name the name of a model, for clients that name one."""
_EXTERNAL_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
ExternalId = Annotated[str, StringConstraints(pattern=rf"^{_EXTERNAL_ID.pattern}$")]
"""An id that clients may choose, of events, threads and users."""
PolicyId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*@v[1-9][0-9]{0,7}$", max_length=38)]
"""`<skill>@v<N>`."""
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""A SHA-256 digest, lower-case hexadecimal."""

MetricName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(_[a-z0-9]+)*$", max_length=64)]
"""Lower-case words joined by single underscores."""

METRICS_NAMESPACE = "RLaaS"
"""Where the stages' own metrics are in CloudWatch."""

_LONGEST_COMPONENT = 63
"""The most characters that SageMaker accepts in the name of an inference component."""

_BOUND = re.compile(r"(?:rew_)?(?:out|fbk|tsk|grd|fal)_([0-7][0-9A-HJKMNP-TV-Z]{25})(?:_[A-Za-z0-9_-]+)?")

IdPrefix = Literal["int", "out", "fbk", "tsk", "rew", "dec", "run", "rol", "grd", "fal", "usr", "red"]


def new_id(prefix: IdPrefix) -> str:
    """A new id, `<prefix>_<ULID>`; ids with one prefix sort by the millisecond in which they were made."""
    return f"{prefix}_{ULID()}"


def derive_id(prefix: IdPrefix, *parts: str) -> str:
    """An id in the shape of `new_id` made from the hash of `parts`, so that equal parts always give the same id."""
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    return f"{prefix}_{ULID.from_bytes(digest[:16])}"


def is_external_id(text: str) -> bool:
    """Whether `text` can be an id that a client chose, or one of ours."""
    return _EXTERNAL_ID.fullmatch(text) is not None


def make_pseudonym(name: str | None) -> str | None:
    """The id of the user whom a client calls `name`: `name` itself if it can be an id, else its hash; None without a
    name.

    Imports and SDKs make the same id, so that a person is one user on every way that events come in. Whoever knows a
    person's e-mail address can compute the id, but the address cannot be computed from the id.
    """
    if not name:
        return None
    return name if _EXTERNAL_ID.fullmatch(name) else derive_id("usr", "usr", name)


UserId = Annotated[
    str | None,
    AfterValidator(make_pseudonym),
    Field(description="A pseudonym of the user. A text that cannot be an id is replaced by `usr_` and its hash."),
]
"""Any text; it is stored as an id."""


def make_bound_id(prefix: IdPrefix, interaction_id: str, tail: str = "") -> str | None:
    """The id `<prefix>_<ULID>[_<tail>]` of an event of the interaction `int_<ULID>`; `None` for an interaction whose id
    has another shape.

    Such an id says under which interaction the event is stored, so that one write both stores it and makes sure that
    its id is unique.
    """
    event_id = f"{prefix}_{interaction_id.removeprefix('int_')}" + (f"_{tail}" if tail else "")
    return event_id if find_interaction_id(event_id) == interaction_id else None


def find_interaction_id(event_id: str) -> str | None:
    """The interaction of an event with a bound id; `None` for any other id."""
    match = _BOUND.fullmatch(event_id)
    return f"int_{match[1]}" if match else None


def make_policy_id(skill: str, version: int) -> str:
    """`<skill>@v<version>`."""
    return f"{skill}@v{version}"


def parse_policy_id(identifier: str) -> tuple[str, int]:
    """The skill and version in a policy id. Raises: ValueError for any other text."""
    match = re.fullmatch(r"([a-z0-9]+(?:-[a-z0-9]+)*)@v([1-9][0-9]*)", identifier)
    if match is None:
        raise ValueError(f"not a policy id: {identifier!r}, expected <skill>@v<N>")
    return match[1], int(match[2])


def make_adapter_name(endpoint: str, tenant_id: str, skill: str, version: int, *, sft_only: bool = False) -> str:
    """The name of an adapter and of its inference component: `<endpoint>--<tenant>--<skill>--v<N>`, with `--sft` for
    the SFT-only control.

    The endpoint's name is part of it because components of all stages in an account and region share one namespace.
    When the name would be longer than SageMaker accepts, the end of the skill is replaced by three hyphens, which no
    skill has, and 40 bits of the skill's hash. The tenant is never shortened.

    Raises: ValueError when the endpoint's name is too long even for that.
    """
    head, tail = f"{endpoint}--{tenant_id}", f"--v{version}" + ("--sft" if sft_only else "")
    whole = f"{head}--{skill}{tail}"
    if len(whole) <= _LONGEST_COMPONENT:
        return whole
    digest = b32encode(hashlib.sha256(skill.encode()).digest()[:5]).decode().lower()
    room = _LONGEST_COMPONENT - len(f"{head}---{digest}{tail}")
    if room < 0:
        raise ValueError(f"an adapter of {endpoint!r} has no name of {_LONGEST_COMPONENT} characters: the endpoint's is too long")
    beginning = skill[: max(0, room - 2)].rstrip("-")
    return f"{head}--{beginning}---{digest}{tail}" if beginning else f"{head}---{digest}{tail}"


def make_base_component_name(endpoint: str) -> str:
    """The name of the base model's inference component at a stage's endpoint."""
    return f"{endpoint}--base"


def find_adapter_owner(name: str, endpoint: str) -> str | None:
    """The tenant that owns the adapter whose inference component at `endpoint` is called `name`; `None` if `name` is
    not an adapter's."""
    match = re.fullmatch(re.escape(endpoint) + r"--([a-z0-9]+(?:-[a-z0-9]+)*)--.+--v[1-9][0-9]*(?:--sft)?", name)
    return match[1] if match else None


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def encode_canonical_json(value: JsonValue) -> str:
    """The canonical JSON of `value`: sorted keys, no spaces, no escapes for non-ASCII characters. Raises: ValueError
    for NaN and infinity."""
    return _CANONICAL.encode(value)


def hash_canonical_json(value: JsonValue) -> str:
    """SHA-256 (hex) of `encode_canonical_json(value)`."""
    return hash_text(encode_canonical_json(value))


def hash_text(text: str) -> str:
    """SHA-256 (hex) of `text` in UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()
