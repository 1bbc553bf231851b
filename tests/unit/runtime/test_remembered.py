from datetime import timedelta

from rlaas.privacy.settings import PrivacySettings, TenantPrivacy
from rlaas.runtime.remembered import REMEMBERED, Remembered
from rlaas.runtime.scrubbers import Scrubbers
from rlaas.tenancy.registry import PRIVACY
from tests.fakes.entities import WordFinder
from tests.fakes.registry import MemoryRegistry
from tests.fakes.worlds import CHANGE, NOW, TENANT


def test_what_is_remembered_is_read_again_when_it_is_too_old_each_tenants_by_itself() -> None:
    now, read = NOW, list[str]()

    def reader(tenant_id: str) -> int:
        read.append(tenant_id)
        return len(read)

    values = Remembered(reader, clock=lambda: now)
    assert [values.of("a"), values.of("b"), values.of("a")] == [1, 2, 1]
    now += REMEMBERED
    assert values.of("a") == 1
    now += timedelta(microseconds=1)
    assert [values.of("a"), values.of("a"), values.of("b")] == [3, 3, 4]
    assert read == ["a", "b", "a", "b"]


def test_a_scrubber_is_made_again_only_when_its_settings_have_changed() -> None:
    now, registry = NOW, MemoryRegistry()
    privacy = TenantPrivacy()
    registry.put(TENANT, PRIVACY, privacy, CHANGE)
    scrubbers = Scrubbers(registry, clock=lambda: now, finder=WordFinder({}))
    first = scrubbers.of(TENANT)
    now += 2 * REMEMBERED
    assert scrubbers.of(TENANT) is first
    changed = PrivacySettings(actions={"EMAIL_ADDRESS": "drop"})
    registry.replace(TENANT, PRIVACY, privacy.model_copy(update={"settings": changed}), expected_version=1, change=CHANGE)
    assert scrubbers.of(TENANT) is first
    now += 2 * REMEMBERED
    assert scrubbers.of(TENANT).settings == changed
