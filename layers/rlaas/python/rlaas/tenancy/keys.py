"""API keys: `rlk_<id>_<secret>`, shown once, stored as a hash, scoped, revocable; `rlp_<id>_<secret>` for browsers,
publishable."""

import hashlib
import hmac
import re
import secrets
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Annotated, Literal, Protocol, Self, get_args

from pydantic import Field, StringConstraints, model_validator
from ulid import ULID

from rlaas.clock import Timestamp, rfc3339
from rlaas.errors import Conflict, Forbidden, Unauthorized
from rlaas.ids import Sha256, TenantId
from rlaas.wire import WireModel

Scope = Literal["infer", "flags", "telemetry", "admin", "platform"]
"""A right of a key: to ask for answers and to evaluate flags, only to evaluate flags, to report events, to manage its
tenant, to manage all tenants."""
_OF_PAGES: frozenset[Scope] = frozenset({"infer", "flags", "telemetry"})

_MANAGES: Mapping[str, frozenset[str]] = {
    "admin": frozenset(get_args(Scope)) - {"platform"},
    "platform": frozenset(get_args(Scope)),
}
"""By a key's scope: the scopes of the keys that it may make and revoke."""

_KEY = re.compile(r"rl[kp]_([0-9a-hjkmnp-tv-z]{26})_([A-Za-z0-9_-]{43})")


Origin = Annotated[str, StringConstraints(pattern=r"^(https?|chrome-extension|moz-extension)://[a-z0-9.\[\]:-]+$", max_length=200)]
"""Scheme, host and port of a page, as browsers send it: `https://app.example.com`."""


class KeyTerms(WireModel):
    """What a key may do. With `origins` it is publishable: it may be part of a web page, and works from pages of those
    origins. There `telemetry` is the right to give feedback, and `infer` the right to ask for drafts within a budget of
    the key's own."""

    scopes: tuple[Scope, ...] = Field(min_length=1)
    origins: tuple[Origin, ...] = Field(default=(), max_length=50)
    expires_at: Timestamp | None = None

    @model_validator(mode="after")
    def _publishable_keys_manage_nothing(self) -> Self:
        if self.origins and not _OF_PAGES.issuperset(self.scopes):
            raise ValueError("a key with origins is publishable and has no scopes but infer, flags and telemetry")
        return self


class ApiKey(KeyTerms):
    """A key as stored: with the secret's hash, without the secret."""

    key_id: str
    tenant_id: TenantId
    secret_sha256: Sha256
    created_at: Timestamp
    revoked_at: Timestamp | None = None


class KeySource(Protocol):
    """Where the authorizer finds keys."""

    def find_key(self, key_id: str) -> ApiKey | None:
        """The key with this id, revoked or not."""
        ...


def make_key(
    *,
    tenant_id: str,
    scopes: Iterable[Scope],
    created_at: datetime,
    expires_at: datetime | None = None,
    origins: Iterable[str] = (),
    key_id: str | None = None,
) -> tuple[ApiKey, str]:
    """A new key to store, and its text to show once. Its secret has 256 random bits; `key_id` is a ULID in lower case,
    a new one by default."""
    key_id, secret = key_id or str(ULID()).lower(), secrets.token_urlsafe(32)
    key = ApiKey(
        key_id=key_id,
        tenant_id=tenant_id,
        scopes=tuple(scopes),
        origins=tuple(origins),
        secret_sha256=_sha256(secret),
        created_at=created_at,
        expires_at=expires_at,
    )
    return key, f"{'rlp' if key.origins else 'rlk'}_{key_id}_{secret}"


def authenticate(authorization: str | None, *, keys: KeySource, now: datetime) -> ApiKey:
    """The stored key that an `Authorization: Bearer rlk_...` header proves. Compares in constant time.

    Raises: Unauthorized when the header is missing or malformed, or the key unknown, wrong, revoked or expired; the
    message is the same for all of them.
    """
    scheme, _, text = (authorization or "").strip().partition(" ")
    match = _KEY.fullmatch(text.strip()) if scheme.lower() == "bearer" else None
    key = keys.find_key(match[1]) if match else None
    is_proved = hmac.compare_digest(_sha256(match[2] if match else ""), key.secret_sha256 if key else "0" * 64)
    if not is_proved or key is None or key.revoked_at is not None or (key.expires_at is not None and key.expires_at <= now):
        raise Unauthorized("a valid API key is needed: Authorization: Bearer rlk_<id>_<secret>")
    return key


def find_active_key(keys: KeySource, key_id: str) -> ApiKey:
    """A caller's key as it is now. Raises: Unauthorized if it was revoked since API Gateway last checked it."""
    key = keys.find_key(key_id)
    if key is None or key.revoked_at is not None:
        raise Unauthorized("the API key was revoked")
    return key


def require_scope(scopes: Collection[str], *enough: Scope) -> None:
    """Check that one of `enough` is in `scopes`. Raises: Forbidden naming the missing scope."""
    if not any(scope in scopes for scope in enough):
        raise Forbidden(f"the API key lacks the scope {enough[0]!r}")


def check_may_give(maker: ApiKey, terms: KeyTerms) -> None:
    """Check that `maker` may make a key on `terms`: with scopes that it manages, and, if `maker` expires, only with its
    own scopes and no later expiry, so that nobody extends a temporary key.

    Raises: Forbidden naming the field.
    """
    scopes = _managed_scopes(maker) if maker.expires_at is None or "platform" in maker.scopes else set(maker.scopes)
    if excess := sorted(set(terms.scopes) - scopes):
        expiry = " and expires" if maker.expires_at is not None else ""
        raise Forbidden(f"this key has the scopes {', '.join(maker.scopes)}{expiry}: it cannot give {', '.join(excess)}", param="scopes")
    if maker.expires_at is not None and (terms.expires_at is None or terms.expires_at > maker.expires_at):
        raise Forbidden(f"this key expires at {rfc3339(maker.expires_at)}: say so or sooner in expires_at", param="expires_at")


def check_may_revoke(maker: ApiKey, key: ApiKey) -> None:
    """Check that `maker` may revoke `key`.

    Raises: Forbidden for a key with scopes that `maker` does not manage; Conflict for a platform key that would revoke
    itself, since it may be the last one.
    """
    if excess := sorted(set(key.scopes) - _managed_scopes(maker)):
        raise Forbidden(f"this key cannot revoke one with the scope {', '.join(excess)}", param="key_id")
    if "platform" in key.scopes and maker.key_id == key.key_id:
        raise Conflict("a platform key is revoked by another one; the function `bootstrap` makes one", param="key_id")


def _managed_scopes(maker: ApiKey) -> set[str]:
    return {managed for scope in maker.scopes for managed in _MANAGES.get(scope, frozenset())}


def _sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
