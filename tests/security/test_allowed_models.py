"""A stage says which models policies may ask, also those that were made before. Over HTTP on the laptop cloud."""

import json
from collections.abc import Callable, Iterator

import pytest

from tests.fakes.openai_server import Script, serve_openai
from tests.laptop_cloud import SKILL, LaptopCloud, Tenant, until

FUNCTIONS = ("rlaas-local-admin", "rlaas-local-inference")
ASK = {"skill": SKILL, "inputs": {"email": "?"}}


@pytest.fixture
def vendor() -> Iterator[Script]:
    with serve_openai() as script:
        script.answer_with({"message": {"content": "hello"}})
        yield script


@pytest.fixture
def allow(cloud: LaptopCloud) -> Iterator[Callable[..., None]]:
    """Gives the stage's functions other `allowed_models`, as a deployment would; at the end they have their own
    again."""
    functions = cloud.client("lambda")
    own = {name: functions.get_function_configuration(FunctionName=name)["Environment"]["Variables"] for name in FUNCTIONS}

    def put(*patterns: str) -> None:
        for name, variables in own.items():
            new_variables = {**variables, "ALLOWED_MODELS": json.dumps(patterns)}
            functions.update_function_configuration(FunctionName=name, Environment={"Variables": new_variables})

    yield put
    for name, variables in own.items():
        functions.update_function_configuration(FunctionName=name, Environment={"Variables": variables})


def test_what_a_stage_does_not_allow_is_neither_registered_nor_asked(
    cloud: LaptopCloud, allow: Callable[..., None], vendor: Script
) -> None:
    tenant: Tenant = cloud.tenant()
    tenant.admin("PUT", f"skills/{SKILL}", {})
    backend = {"kind": "openai", "model": "m", "base_url": vendor.url}
    before = tenant.admin("POST", f"skills/{SKILL}/policies", {"prompt": {"user": "{{ email }}"}, "backend": backend})["policy_id"]
    tenant.admin("PUT", f"skills/{SKILL}/route", {"expected_version": 0, "control": before})
    assert tenant.infer(inputs={"email": "?"})["text"] == "hello"
    allow("sagemaker:*", "openai:*")  # OpenAI at its own address, and this vendor is at another
    until(lambda: tenant.post("v1/infer", ASK).status_code == 424)
    calls_before = len(vendor.requests)
    answer = tenant.post(f"v1/admin/skills/{SKILL}/policies", {"prompt": {"user": "another {{ email }}"}, "backend": backend})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "backend")
    assert "openai@127.0.0.1:m" in answer.json()["error"]["message"]
    assert tenant.post("v1/decide", ASK).status_code == 403
    assert tenant.post("v1/infer", ASK).status_code == 424
    assert len(vendor.requests) == calls_before
    allow("openai@127.0.0.1:*")
    assert until(lambda: tenant.post("v1/infer", ASK).status_code == 200)
