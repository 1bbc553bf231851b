import pytest
from pydantic import ValidationError

from rlaas.runtime.environment import EventsEnvironment, environment


def test_the_environment_is_read_once_and_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RLAAS_STAGE": "test", "REGISTRY_TABLE": "r", "EVENTS_TABLE": "e", "EVENT_TTL_DAYS": "7"}.items():
        monkeypatch.setenv(name, value)
    environment.cache_clear()
    settings = environment(EventsEnvironment)
    assert (settings.stage, settings.events_table, settings.event_ttl_days) == ("test", "e", 7)
    assert environment(EventsEnvironment) is settings
    environment.cache_clear()


def test_a_missing_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RLAAS_STAGE", "REGISTRY_TABLE", "EVENTS_TABLE"):
        monkeypatch.delenv(name, raising=False)
    environment.cache_clear()
    with pytest.raises(ValidationError, match="EVENTS_TABLE"):
        environment(EventsEnvironment)
