from typing import Any

import pytest

from infra.config import LOCAL
from rlaas.adapters.aws.secrets import VendorKeys
from rlaas.adapters.models.backends import Backends
from rlaas.adapters.models.moderators import Moderators
from rlaas.chat import BackendFailed, ChatCall
from rlaas.policies.allowed_models import AllowedModels, name_server
from rlaas.policies.backend import AnthropicBackend, BackendSpec, BedrockBackend, OpenAIBackend, SageMakerBackend
from rlaas.policies.guardrails.moderation import BedrockGuardrail, Moderation

SERVERS: dict[str, Any] = {
    "sagemaker:rlaas-dev--base": SageMakerBackend(endpoint="rlaas-dev", component="rlaas-dev--base"),
    "openai:gpt-4.1": OpenAIBackend(model="gpt-4.1"),
    "openai@llm.acme.com:gpt-4.1": OpenAIBackend(model="gpt-4.1", base_url="https://LLM.acme.com/v1"),
    "openai@api.openai.com:gpt-4.1": OpenAIBackend(model="gpt-4.1", base_url="http://api.openai.com/v1"),
    "anthropic:claude-x": AnthropicBackend(model="claude-x", secret="a"),
    "bedrock:eu.anthropic.claude-x": BedrockBackend(model="eu.anthropic.claude-x"),
    "bedrock:guardrail/abc": BedrockGuardrail(guardrail_id="abc"),
    "openai:omni-moderation-latest": Moderation(),
}


@pytest.mark.parametrize("name", SERVERS)
def test_a_servers_name_has_its_vendor_a_host_that_is_not_the_vendors_own_and_its_model(name: str) -> None:
    assert name_server(SERVERS[name]) == name


@pytest.mark.parametrize(
    ("patterns", "allowed"),
    [
        (("*",), set(SERVERS)),
        ((), set()),
        (("openai:*",), {"openai:gpt-4.1", "openai:omni-moderation-latest"}),
        (("openai:gpt-4*",), {"openai:gpt-4.1"}),
        (("openai:gpt-4", "OPENAI:*"), set()),
        (("bedrock:*anthropic.*", "sagemaker:*"), {"bedrock:eu.anthropic.claude-x", "sagemaker:rlaas-dev--base"}),
        (("openai@llm.acme.com:*",), {"openai@llm.acme.com:gpt-4.1"}),
        (("openai:gpt-4.?", "anthropic:claude[-]x"), set()),  # only a star is special
    ],
)
def test_a_server_that_matches_no_pattern_is_refused(patterns: tuple[str, ...], allowed: set[str]) -> None:
    models = AllowedModels(patterns)
    assert {name for name, server in SERVERS.items() if models.find_refusal(server) is None} == allowed
    for name in set(SERVERS) - allowed:
        assert name in str(models.find_refusal(SERVERS[name]))


@pytest.mark.parametrize("method", ["complete", "stream"])
def test_an_older_policy_does_not_ask_a_model_that_is_no_longer_allowed(method: str) -> None:
    backends = Backends(VendorKeys(None), allowed=AllowedModels(("sagemaker:*",)))
    backend: BackendSpec = OpenAIBackend(model="gpt-4.1")
    with pytest.raises(BackendFailed, match="does not let policies ask") as error:
        getattr(backends, method)(backend, ChatCall(messages=(), parameters={}, tenant_id="acme"), timeout_s=1)
    assert error.value.nothing_done
    with pytest.raises(BackendFailed, match="omni-moderation"):
        Moderators(VendorKeys(None), allowed=AllowedModels(())).judge(Moderation(), ["?"], source="input", tenant_id="acme")


def test_every_model_is_allowed_until_a_stage_says_otherwise() -> None:
    assert LOCAL.allowed_models == ("*",)
