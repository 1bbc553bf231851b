from datetime import timedelta
from typing import Any

import pytest

from rlaas.errors import Forbidden, Unauthorized
from rlaas.tenancy.keys import authenticate, make_key, require_scope
from rlaas.tenancy.registry import Change
from tests.fakes.registry import MemoryRegistry
from tests.fakes.worlds import CHANGE, NOW, TENANT


def keyring(**lifetime: Any) -> tuple[MemoryRegistry, str, str]:
    registry = MemoryRegistry()
    key, text = make_key(tenant_id=TENANT, scopes=("infer",), created_at=NOW, **lifetime)
    registry.create_key(key, CHANGE)
    return registry, key.key_id, text


def test_a_key_proves_its_tenant_and_its_secret_is_not_stored() -> None:
    registry, key_id, text = keyring()
    key = authenticate(f"Bearer {text}", keys=registry, now=NOW)
    assert (key.tenant_id, key.key_id, key.scopes) == (TENANT, key_id, ("infer",))
    secret = text.split("_", 2)[2]
    assert len(secret) == 43
    assert secret not in key.model_dump_json()


@pytest.mark.parametrize("header", ["bearer {}", "BEARER {}", "Bearer  {}", " Bearer {}", "Bearer {}\n", "Bearer {}\r\n"])
def test_a_key_with_a_line_break_or_another_case_of_its_scheme_is_the_key(header: str) -> None:
    registry, key_id, text = keyring()
    assert authenticate(header.format(text), keys=registry, now=NOW).key_id == key_id


def test_every_way_of_not_having_a_key_answers_the_same() -> None:
    registry, key_id, text = keyring()
    other = make_key(tenant_id=TENANT, scopes=("infer",), created_at=NOW)[1]
    messages = set()
    for header in (None, "", "Bearer", f"Basic {text}", text, f"Bearer {text}x", f"Bearer rlk_{key_id}_{'a' * 43}", f"Bearer {other}"):
        with pytest.raises(Unauthorized) as refused:
            authenticate(header, keys=registry, now=NOW)
        messages.add(refused.value.detail)
    assert len(messages) == 1


def test_a_revoked_key_is_refused() -> None:
    registry, key_id, text = keyring()
    registry.revoke_key(TENANT, key_id, Change(actor="key:1", reason="leaked", at=NOW))
    with pytest.raises(Unauthorized):
        authenticate(f"Bearer {text}", keys=registry, now=NOW)


def test_a_key_works_until_it_expires() -> None:
    registry, _, text = keyring(expires_at=NOW + timedelta(hours=1))
    authenticate(f"bearer {text}", keys=registry, now=NOW)
    with pytest.raises(Unauthorized):
        authenticate(f"Bearer {text}", keys=registry, now=NOW + timedelta(hours=1))


def test_a_missing_scope_is_named() -> None:
    require_scope(("infer", "admin"), "admin")
    with pytest.raises(Forbidden, match="'telemetry'"):
        require_scope(("infer", "admin"), "telemetry")
