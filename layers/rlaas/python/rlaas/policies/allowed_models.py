"""The models that a stage's operators let policies ask, as patterns in which `*` stands for any text."""

import re
from dataclasses import dataclass

from rlaas.errors import InvalidInput
from rlaas.policies.backend import AnthropicBackend, BackendSpec, BedrockBackend, OpenAIBackend, SageMakerBackend
from rlaas.policies.bundle import PolicyBundle, list_servers
from rlaas.policies.guardrails.moderation import BedrockService, ModerationService, Service
from rlaas.policies.hosts import find_host, is_own


@dataclass(frozen=True, slots=True)
class AllowedModels:
    """The models that match one of `patterns`: `sagemaker:*` (the stage's own endpoint), `openai:gpt-*`,
    `bedrock:*anthropic.*`, `openai@llm.acme.com:*`."""

    patterns: tuple[str, ...] = ("*",)

    def find_refusal(self, server: BackendSpec | Service) -> str | None:
        """Why `server` may not be asked; None where it may."""
        if "*" in self.patterns:
            return None
        name = name_server(server)
        if any(re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), name, re.DOTALL) for pattern in self.patterns):
            return None
        return f"this stage does not let policies ask {name!r}: its operators allow {', '.join(self.patterns) or 'none'}"


EVERY_MODEL = AllowedModels()


def name_server(server: BackendSpec | Service) -> str:
    """The name that patterns are matched with: `<vendor>:<model>` at the vendor's own address,
    `<vendor>@<host>:<model>` at any other that speaks the vendor's API."""
    match server:
        case SageMakerBackend() | BedrockBackend():
            return f"{server.kind}:{server.model}"
        case BedrockService():
            return f"bedrock:guardrail/{server.guardrail_id}"
        case OpenAIBackend() | AnthropicBackend() | ModerationService():
            vendor = "anthropic" if isinstance(server, AnthropicBackend) else "openai"
            place = vendor if is_own(server.base_url, server.OWN_HOST) else f"{vendor}@{find_host(server.base_url)}"
            return f"{place}:{server.model}"
        case _:
            raise TypeError(f"{type(server).__name__} is no server")


def check_models(bundle: PolicyBundle, allowed: AllowedModels) -> None:
    """Refuse a policy with a server that is not allowed. Raises: InvalidInput naming the first such server's field."""
    for place, server in list_servers(bundle).items():
        if (refusal := allowed.find_refusal(server)) is not None:
            raise InvalidInput(refusal, param=place)
