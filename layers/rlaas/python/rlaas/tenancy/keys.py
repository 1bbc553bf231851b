"""API keys: `rlk_<id>_<secret>`, shown once, stored as a hash, scoped, revocable; `rlp_<id>_<secret>` for browsers, publishable."""

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Literal, Protocol, Self

from pydantic import Field, StringConstraints, model_validator
from ulid import ULID

from rlaas.clock import Timestamp
from rlaas.errors import Forbidden, Unauthorized
from rlaas.ids import Sha256, TenantId
from rlaas.wire import WireModel

Scope = Literal["infer", "telemetry", "admin", "platform"]
"""What a key may do: ask for answers, report events, manage its tenant, manage tenants."""

_KEY = re.compile(r"rl[kp]_([0-9a-hjkmnp-tv-z]{26})_([A-Za-z0-9_-]{43})")


Origin = Annotated[str, StringConstraints(pattern=r"^(https?|chrome-extension|moz-extension)://[a-z0-9.\[\]:-]+$", max_length=200)]
"""Scheme, host and port of a page, as browsers send it: `https://app.example.com`."""


class KeyTerms(WireModel):
    """What a key may do. With `origins` it is publishable: it may stand in a web page, reports events only, and only from those pages."""

    scopes: tuple[Scope, ...] = Field(min_length=1)
    origins: tuple[Origin, ...] = Field(default=(), max_length=50)
    expires_at: Timestamp | None = None

    @model_validator(mode="after")
    def _publishable_keys_report_only(self) -> Self:
        if self.origins and set(self.scopes) != {"telemetry"}:
            raise ValueError("a key with origins is publishable and has the scope telemetry only")
        return self


class ApiKey(KeyTerms):
    """A key as stored: the secret's hash, never the secret."""

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
) -> tuple[ApiKey, str]:
    """A new key to store and its text to show once; the secret has 256 random bits."""
    key_id, secret = str(ULID()).lower(), secrets.token_urlsafe(32)
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

    Raises: Unauthorized when the header is missing or malformed, or the key unknown, wrong, revoked or expired; the message is the
    same for all of them.
    """
    scheme, _, text = (authorization or "").partition(" ")
    match = _KEY.fullmatch(text) if scheme.lower() == "bearer" else None
    key = keys.find_key(match[1]) if match else None
    proved = hmac.compare_digest(_sha256(match[2] if match else ""), key.secret_sha256 if key else "0" * 64)
    if not proved or key is None or key.revoked_at is not None or (key.expires_at is not None and key.expires_at <= now):
        raise Unauthorized("a valid API key is needed: Authorization: Bearer rlk_<id>_<secret>")
    return key


def require_scope(scopes: Iterable[str], needed: Scope) -> None:
    """Raises: Forbidden naming the missing scope."""
    if needed not in scopes:
        raise Forbidden(f"the API key lacks the scope {needed!r}")


def _sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
