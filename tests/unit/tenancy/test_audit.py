from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaas.ids import hash_canonical_json
from rlaas.tenancy.audit import AuditEntry, RegistryChange, append_change, verify_chain
from tests.fakes.audit import MemoryAuditLog
from tests.fakes.worlds import NOW, TENANT


def chain(reasons: list[str]) -> list[AuditEntry]:
    log = MemoryAuditLog()
    for number, reason in enumerate(reasons):
        change = RegistryChange(
            registry_event_id=str(number),
            tenant_id=TENANT,
            at=NOW,
            actor="key:1",
            action="change",
            target="ROUTE#reply",
            before_version=number,
            after_version=number + 1,
            reason=reason,
        )
        append_change(change, log)
    return log.list_entries(TENANT)


@given(st.lists(st.text(max_size=8), min_size=1, max_size=6), st.data())
def test_any_alteration_gap_or_swap_breaks_the_chain(reasons: list[str], data: st.DataObject) -> None:
    entries = chain(reasons)
    assert verify_chain(entries) == len(entries)
    position = data.draw(st.integers(0, len(entries) - 1))
    altered = [*entries]
    altered[position] = entries[position].model_copy(update={"reason": reasons[position] + "!"})
    with pytest.raises(ValueError, match=f"breaks at seq {position + 1}$"):
        verify_chain(altered)
    if position < len(entries) - 1:
        with pytest.raises(ValueError, match="breaks at seq"):
            verify_chain(entries[:position] + entries[position + 1 :])
        swapped = [*entries]
        swapped[position], swapped[position + 1] = swapped[position + 1], swapped[position]
        with pytest.raises(ValueError, match="breaks at seq"):
            verify_chain(swapped)


def test_an_empty_chain_has_no_entries() -> None:
    assert verify_chain([]) == 0


def test_an_entry_from_before_contents_were_hashed_keeps_its_hash_and_cannot_lose_one() -> None:
    entries = chain(["one", "two"])
    body = {name: value for name, value in entries[0].model_dump(mode="json").items() if name not in ("hash", "content_sha256")}
    assert entries[0].hash == hash_canonical_json(body)
    log = MemoryAuditLog()
    hashed = append_change(RegistryChange(**{**_fields(entries[0]), "content_sha256": "a" * 64}), log)
    assert hashed is not None
    assert verify_chain([hashed]) == 1
    for other in (None, "b" * 64):
        with pytest.raises(ValueError, match="breaks at seq 1"):
            verify_chain([hashed.model_copy(update={"content_sha256": other})])


def _fields(entry: AuditEntry) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in RegistryChange.model_fields}
