"""The services that judge guardrails: an adapter for each kind, loaded when it is first asked."""

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from rlaas.adapters.aws.secrets import VendorKeys
from rlaas.chat import BackendFailed
from rlaas.policies.allowed_models import EVERY_MODEL, AllowedModels
from rlaas.policies.guardrails.guardrail import GuardrailStage
from rlaas.policies.guardrails.moderation import BedrockService, Judgement, ModerationService, Service

if TYPE_CHECKING:
    from rlaas.adapters.models.bedrock_guardrails import BedrockGuardrails
    from rlaas.adapters.models.openai_moderation import ModerationServers


class Moderators:
    """`Moderator` for every kind. A process has one: it holds the connections. `private_addresses` and `allowed` as for
    `Backends`."""

    def __init__(self, keys: VendorKeys, *, private_addresses: bool = False, allowed: AllowedModels = EVERY_MODEL) -> None:
        self._keys = keys
        self._private_addresses = private_addresses
        self._allowed = allowed

    def judge(self, guardrail: Service, texts: Sequence[str], *, source: GuardrailStage, tenant_id: str) -> Judgement | None:
        """The service's judgement of `texts` by one call; None where it has no objection. Raises: BackendFailed,
        InvalidInput where the service refuses the request."""
        if (refusal := self._allowed.find_refusal(guardrail)) is not None:
            raise BackendFailed(refusal, nothing_done=True)
        match guardrail:
            case BedrockService():
                return self._bedrock.judge(guardrail, texts, source=source)
            case ModerationService():
                return self._servers.judge(guardrail, texts, tenant_id=tenant_id)
            case _:
                raise TypeError(f"nothing judges by {type(guardrail).__name__}")

    @cached_property
    def _bedrock(self) -> "BedrockGuardrails":
        from rlaas.adapters.models.bedrock_guardrails import BedrockGuardrails

        return BedrockGuardrails()

    @cached_property
    def _servers(self) -> "ModerationServers":
        from rlaas.adapters.models.openai_moderation import ModerationServers
        from rlaas.adapters.models.vendor_http import VendorHttp

        return ModerationServers(VendorHttp(private_addresses=self._private_addresses), self._keys)
