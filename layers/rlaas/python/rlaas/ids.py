"""Ids and names: their shapes, how they are made, and how the compound ones are put together and taken apart."""

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
_EXTERNAL_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
ExternalId = Annotated[str, StringConstraints(pattern=rf"^{_EXTERNAL_ID.pattern}$")]
"""An id that a client may choose: events, threads, users."""
PolicyId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*@v[1-9][0-9]{0,7}$", max_length=38)]
"""`<skill>@v<N>`."""
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""A SHA-256 digest, lower-case hexadecimal."""

MetricName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(_[a-z0-9]+)*$", max_length=64)]
"""Lower-case words joined by single underscores."""

_LONGEST_COMPONENT = 63
"""Characters that SageMaker takes in an inference component's name."""

_BOUND = re.compile(r"(?:rew_)?(?:out|fbk|tsk|grd|fal)_([0-7][0-9A-HJKMNP-TV-Z]{25})(?:_[A-Za-z0-9_-]+)?")

IdPrefix = Literal["int", "out", "fbk", "tsk", "rew", "dec", "run", "rol", "grd", "fal", "usr", "red"]


def new_id(prefix: IdPrefix) -> str:
    """A fresh id, `<prefix>_<ULID>`; ids of one prefix sort by the millisecond they were made in."""
    return f"{prefix}_{ULID()}"


def derived_id(prefix: IdPrefix, *parts: str) -> str:
    """The id that `parts` always give: the shape of `new_id`, from their hash instead of time and chance."""
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    return f"{prefix}_{ULID.from_bytes(digest[:16])}"


def pseudonym_of(given: str | None) -> str | None:
    """The id that stands for the user whom a client calls `given`: `given` itself where it can be an id, else its hash;
    None for no text.

    Imports and SDKs make the same one, so that a person is one user, whichever way the events came. Whoever knows an
    address can find its hash, and nobody the address who does not know it.
    """
    if not given:
        return None
    return given if _EXTERNAL_ID.fullmatch(given) else derived_id("usr", "usr", given)


UserId = Annotated[
    str | None,
    AfterValidator(pseudonym_of),
    Field(description="A pseudonym of the user. Any text that is no id is taken as `usr_` and its hash."),
]
"""Any text, kept as an id."""


def bound_id(prefix: IdPrefix, interaction_id: str, tail: str = "") -> str | None:
    """The id `<prefix>_<ULID>[_<tail>]` of something of the interaction `int_<ULID>`; `None` for an interaction named
    otherwise.

    Such an id says where the thing lies, so that one write both stores it there and keeps its id unique.
    """
    made = f"{prefix}_{interaction_id.removeprefix('int_')}" + (f"_{tail}" if tail else "")
    return made if interaction_of(made) == interaction_id else None


def interaction_of(event_id: str) -> str | None:
    """The interaction that a bound id names; `None` for any other id."""
    match = _BOUND.fullmatch(event_id)
    return f"int_{match[1]}" if match else None


def policy_id(skill: str, version: int) -> str:
    """`<skill>@v<version>`."""
    return f"{skill}@v{version}"


def policy_version(identifier: str) -> tuple[str, int]:
    """The skill and version of a policy id. Raises: ValueError when it is not one."""
    match = re.fullmatch(r"([a-z0-9]+(?:-[a-z0-9]+)*)@v([1-9][0-9]*)", identifier)
    if match is None:
        raise ValueError(f"not a policy id: {identifier!r}, expected <skill>@v<N>")
    return match[1], int(match[2])


def adapter_name(endpoint: str, tenant_id: str, skill: str, version: int, *, sft_control: bool = False) -> str:
    """`<endpoint>--<tenant>--<skill>--v<N>`, with `--sft` for the SFT-only control; also the inference component's
    name.

    The endpoint's name says the stage: components are named once in an account and region. In a name longer than
    SageMaker takes, three hyphens, which no skill has, and 40 bits of the skill's hash stand for what of the skill has
    no room; the tenant always stands in full.
    Raises: ValueError for an endpoint whose name leaves no room even for that.
    """
    head, tail = f"{endpoint}--{tenant_id}", f"--v{version}" + ("--sft" if sft_control else "")
    whole = f"{head}--{skill}{tail}"
    if len(whole) <= _LONGEST_COMPONENT:
        return whole
    digest = b32encode(hashlib.sha256(skill.encode()).digest()[:5]).decode().lower()
    room = _LONGEST_COMPONENT - len(f"{head}---{digest}{tail}")
    if room < 0:
        raise ValueError(f"an adapter of {endpoint!r} has no name of {_LONGEST_COMPONENT} characters: the endpoint's is too long")
    beginning = skill[: max(0, room - 2)].rstrip("-")
    return f"{head}--{beginning}---{digest}{tail}" if beginning else f"{head}---{digest}{tail}"


def base_component(endpoint: str) -> str:
    """The inference component of the base model at a stage's endpoint."""
    return f"{endpoint}--base"


def adapters_owner(name: str, endpoint: str) -> str | None:
    """The tenant whose adapter at the stage's `endpoint` the inference component `name` is; `None` for any other
    component."""
    match = re.fullmatch(re.escape(endpoint) + r"--([a-z0-9]+(?:-[a-z0-9]+)*)--.+--v[1-9][0-9]*(?:--sft)?", name)
    return match[1] if match else None


def canonical_json(value: JsonValue) -> str:
    """The one JSON text of `value`: sorted keys, no spaces, UTF-8 unescaped, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def canonical_sha256(value: JsonValue) -> str:
    """SHA-256 (hex) of `canonical_json(value)`."""
    return text_sha256(canonical_json(value))


def text_sha256(text: str) -> str:
    """SHA-256 (hex) of `text` in UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()
