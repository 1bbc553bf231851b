"""Makes and revokes keys at the request of other keys: within what the caller's key may do, the secret shown once."""

from dataclasses import dataclass
from typing import Protocol

from rlaas.errors import Conflict, NotFound
from rlaas.ids import derive_id
from rlaas.tenancy.keys import ApiKey, KeySource, KeyTerms, check_may_give, check_may_revoke, find_active_key, make_key
from rlaas.tenancy.registry import TENANT, Change, Registry, key_key
from rlaas.tenancy.tenant import Tenant


class Keys(Registry, KeySource, Protocol):
    """The registry with the authorizer's copies of keys."""


@dataclass(frozen=True, slots=True)
class Maker:
    """The key that a request came with, and its tenant."""

    tenant_id: str
    key_id: str


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key as stored, and its text; the text is `None` if an earlier request made the key."""

    key: ApiKey
    text: str | None


def create_key(keys: Keys, maker: Maker, terms: KeyTerms, *, tenant_id: str, request_name: str | None, change: Change) -> NewKey:
    """Make a key of `tenant_id`. The same request again, by its `request_name`, returns the key that it made, without
    its text.

    Raises: NotFound for a tenant that does not exist; Unauthorized when the maker was revoked; Forbidden for terms that
    it may not give; Conflict when the same name made a key on other terms; DependencyUnavailable.
    """
    if tenant_id != maker.tenant_id:
        keys.get(Tenant, tenant_id, TENANT)
    check_may_give(find_active_key(keys, maker.key_id), terms)
    key, text = make_key(
        tenant_id=tenant_id,
        scopes=terms.scopes,
        created_at=change.at,
        expires_at=terms.expires_at,
        origins=terms.origins,
        key_id=derive_id("dec", request_name).removeprefix("dec_").lower() if request_name is not None else None,
    )
    try:
        keys.create_key(key, change)
    except Conflict:
        earlier = keys.get(ApiKey, tenant_id, key_key(key.key_id)).record
        if (earlier.scopes, earlier.expires_at, earlier.origins) != (key.scopes, key.expires_at, key.origins):
            raise Conflict("this Idempotency-Key made another key", param="Idempotency-Key") from None
        return NewKey(earlier, None)
    return NewKey(key, text)


def revoke_key(keys: Keys, maker: Maker, key_id: str, *, any_tenants: bool, change: Change) -> ApiKey:
    """Revoke a key of the maker's tenant; with `any_tenants`, of any tenant.

    Raises: NotFound; Unauthorized when the maker was revoked; Forbidden or Conflict for a key that it may not revoke;
    DependencyUnavailable.
    """
    key = keys.find_key(key_id)
    if key is None or (key.tenant_id != maker.tenant_id and not any_tenants):
        raise NotFound(f"there is no key {key_id!r}", param="key_id")
    check_may_revoke(find_active_key(keys, maker.key_id), key)
    return keys.revoke_key(key.tenant_id, key_id, change)
