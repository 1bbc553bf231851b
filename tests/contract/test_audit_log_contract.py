from datetime import timedelta

from rlaas.tenancy.audit import AuditLog, RegistryChange, append_change, verify_chain
from tests.fakes.worlds import NOW, TENANT


def change(number: int, tenant: str = TENANT) -> RegistryChange:
    return RegistryChange(
        registry_event_id=f"{tenant}-{number}",
        tenant_id=tenant,
        at=NOW + timedelta(seconds=number),
        actor="key:1",
        action="change",
        target="ROUTE#reply",
        before_version=number or None,
        after_version=number + 1,
        reason="ramp",
    )


def test_changes_chain_in_order_and_the_chain_verifies(audit_log: AuditLog) -> None:
    for number in range(12):
        assert append_change(change(number), audit_log) is not None
    entries = audit_log.list_entries(TENANT)
    assert [entry.registry_event_id for entry in entries] == [f"acme-{number}" for number in range(12)]
    assert verify_chain(entries) == 12
    assert audit_log.read_last(TENANT) == entries[-1]


def test_a_change_delivered_twice_has_one_entry(audit_log: AuditLog) -> None:
    append_change(change(0), audit_log)
    append_change(change(1), audit_log)
    assert append_change(change(0), audit_log) is None
    assert verify_chain(audit_log.list_entries(TENANT)) == 2


def test_of_two_writers_of_one_seq_the_second_stores_nothing(audit_log: AuditLog) -> None:
    first = append_change(change(0), audit_log)
    assert first is not None
    assert not audit_log.append(first.model_copy(update={"registry_event_id": "another"}))
    assert not audit_log.is_recorded(TENANT, "another")
    assert verify_chain(audit_log.list_entries(TENANT)) == 1


def test_each_tenant_has_its_own_chain_and_pages_continue(audit_log: AuditLog) -> None:
    for number in range(3):
        append_change(change(number), audit_log)
    append_change(change(0, "other"), audit_log)
    assert verify_chain(audit_log.list_entries("other")) == 1
    assert [entry.seq for entry in audit_log.list_entries(TENANT, after=1, limit=1)] == [2]
    assert audit_log.read_last("third") is None
