import subprocess
import sys

import pytest
from pydantic import ValidationError

from rlaas.adapters.aws import clients
from rlaas.runtime.environment import EventsEnvironment
from rlaas.runtime.stage import Stage, current_stage, import_ahead, replace_stage

VARIABLES = {
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "RLAAS_STAGE": "test",
    "REGISTRY_TABLE": "r",
    "EVENTS_TABLE": "e",
    "EVENT_TTL_DAYS": "7",
    "COUNTERS_TABLE": "c",
    "AUDIT_TABLE": "a",
    "TENANT_REQUESTS_PER_SECOND": "1",
    "FIND_ENTITIES_FUNCTION": "find_entities",
    "GRANT_ROLE_ARN": "arn:aws:iam::123456789012:role/grants",
    "ENDPOINT_NAME": "rlaas-test",
    "BASE_MODEL": "tiny",
    "LEARNING_STATE_MACHINE_ARN": "learning",
    "ROLLOUT_STATE_MACHINE_ARN": "rollout",
    "REDRIVE_FUNCTION": "redrive",
}
ANSWERING = "registry events counters limits rates scrubbers spendings allowed secrets backends moderators breakers"
PARTS = {
    "authorizer": "registry",
    "telemetry": "registry events limits rates scrubbers",
    "inference": f"{ANSWERING} grants",
    "chat": ANSWERING,
    "admin": "registry tenants events audit guards trials counters usage learning rollouts adapters redriver secrets allowed limits rates",
}
"""By function: the parts of the stage that it uses while a user waits."""


def test_the_environment_is_read_once_and_typed() -> None:
    stage = Stage(VARIABLES)
    settings = stage.settings(EventsEnvironment)
    assert (settings.stage, settings.events_table, settings.event_ttl_days) == ("test", "e", 7)
    assert stage.settings(EventsEnvironment) is settings


def test_a_missing_variable_is_named() -> None:
    with pytest.raises(ValidationError, match="EVENTS_TABLE"):
        Stage({"RLAAS_STAGE": "test", "REGISTRY_TABLE": "r"}).settings(EventsEnvironment)


def test_another_stage_takes_the_place_of_the_processs_own_for_a_while() -> None:
    before = current_stage()
    with replace_stage(Stage(VARIABLES)) as stage:
        assert current_stage() is stage
        assert stage.name == "test"
    assert current_stage() is before


def run(statement: str) -> list[str]:
    """What `statement` prints in a process of its own."""
    variables = {"PYTHONPATH": ":".join(sys.path), **VARIABLES}
    result = subprocess.run([sys.executable, "-c", statement], env=variables, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


@pytest.mark.parametrize("name", PARTS)
def test_no_request_of_a_user_waits_for_an_import(name: str) -> None:
    program = f"""
import sys
import functions.{name}.handler
from rlaas.runtime.stage import current_stage
loaded = set(sys.modules)
for part in {PARTS[name].split()}:
    getattr(current_stage(), part)
print(*(module for module in set(sys.modules) - loaded if module.startswith("rlaas")))
"""
    assert run(program) == []


@pytest.mark.parametrize("name", ["authorizer", "telemetry", "inference", "chat"])
def test_no_import_of_a_hot_function_builds_the_schema_of_a_model(name: str) -> None:
    program = f"""
import gc
import functions.{name}.handler
from pydantic import TypeAdapter
from rlaas.wire import WireModel
models = [WireModel]
for model in models:
    models += model.__subclasses__()
assert len(models) > 10
print(*(model.__name__ for model in models if model.__pydantic_complete__))
print(*(repr(one.core_schema) for one in gc.get_objects() if isinstance(one, TypeAdapter) and one.pydantic_complete))
"""
    assert run(program) == []


@pytest.mark.parametrize("name", ["inference", "chat"])
def test_no_request_for_the_stages_own_model_waits_for_an_import(name: str) -> None:
    program = f"""
import sys
import functions.{name}.handler
loaded = set(sys.modules)
from rlaas.adapters.models import sagemaker
print(*(module for module in set(sys.modules) - loaded if module.startswith("rlaas")))
"""
    assert run(program) == []


def test_who_asks_for_the_registry_loads_nothing_that_answers() -> None:
    program = "import sys; from rlaas.runtime.stage import current_stage; current_stage().registry; print(*sys.modules)"
    loaded = set(run(program))
    assert "rlaas.adapters.aws.registry" in loaded
    assert not {"rlaas.inference", "rlaas.adapters.aws.events", "rlaas.adapters.models", "rlaas.runtime.scrubbers"} & loaded


def test_in_lambda_a_process_makes_its_client_while_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    clients._client.cache_clear()
    import_ahead()
    assert clients._client.cache_info().currsize == 0
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "rlaas-test-chat")
    import_ahead()
    assert clients._client.cache_info().currsize == 1
    clients._client.cache_clear()
