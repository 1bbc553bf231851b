"""The servers where policies' models answer: an adapter for each kind, loaded when it is first valid."""

from collections.abc import Generator
from contextlib import closing
from functools import cached_property
from typing import TYPE_CHECKING

from rlaas.adapters.aws.secrets import VendorKeys
from rlaas.adapters.models.history_rules import find_rules
from rlaas.adapters.models.valid_history import ValidCall, make_valid
from rlaas.chat import ChatCall, Completion, Delta, Misconfigured
from rlaas.errors import InvalidInput, RlaasError
from rlaas.policies.allowed_models import EVERY_MODEL, AllowedModels
from rlaas.policies.backend import AnthropicBackend, BackendSpec, BedrockBackend, OpenAIBackend, SageMakerBackend

if TYPE_CHECKING:
    from rlaas.adapters.models.anthropic import AnthropicMessages
    from rlaas.adapters.models.bedrock import BedrockModels
    from rlaas.adapters.models.openai import OpenAIServers
    from rlaas.adapters.models.sagemaker import SageMakerEndpoints
    from rlaas.adapters.models.vendor_http import VendorHttp


class Backends:
    """`Backend` for every kind. A process has one: it holds the connections.

    Only `allowed` models are asked, even if an older policy names others. The stage's own endpoint serves `base_model`,
    whose family may have rules of its own. `private_addresses` lets policies name
    servers by http and on the private network: only for a stage on the developer's own machine.
    """

    def __init__(
        self, keys: VendorKeys, *, private_addresses: bool = False, allowed: AllowedModels = EVERY_MODEL, base_model: str = ""
    ) -> None:
        self._keys = keys
        self._base_model = base_model
        self._private_addresses = private_addresses
        self._allowed = allowed

    def complete(self, backend: BackendSpec, call: ChatCall, *, timeout_s: float) -> Completion:
        """The whole answer within `timeout_s` seconds. Raises: BackendFailed, InvalidInput naming the parameter,
        TranslationRefused for what the caller did not send so."""
        valid = self._prepare(backend, call)
        try:
            return valid.name_tools(self._complete(backend, valid.call, timeout_s))
        except InvalidInput as error:
            if not valid.is_changed:
                raise
            raise _blame_change(backend, error) from None

    def stream(self, backend: BackendSpec, call: ChatCall, *, timeout_s: float) -> Generator[Delta, None, None]:
        """The answer piece by piece, `timeout_s` seconds between pieces; the request is sent when the first piece is
        read.

        Raises: as `complete`.
        """
        valid = self._prepare(backend, call)
        deltas = self._stream(backend, valid.call, timeout_s)
        return valid.name_tools_in_stream(_blame_change_in_stream(backend, deltas) if valid.is_changed else deltas)

    def _complete(self, backend: BackendSpec, call: ChatCall, timeout_s: float) -> Completion:
        match backend:
            case SageMakerBackend():
                return self._sagemaker.complete(backend, call, timeout_s=timeout_s)
            case OpenAIBackend():
                return self._openai.complete(backend, call, timeout_s=timeout_s)
            case AnthropicBackend():
                return self._anthropic.complete(backend, call, timeout_s=timeout_s)
            case BedrockBackend():
                return self._bedrock.complete(backend, call, timeout_s=timeout_s)

    def _stream(self, backend: BackendSpec, call: ChatCall, timeout_s: float) -> Generator[Delta, None, None]:
        match backend:
            case SageMakerBackend():
                return self._sagemaker.stream(backend, call, timeout_s=timeout_s)
            case OpenAIBackend():
                return self._openai.stream(backend, call, timeout_s=timeout_s)
            case AnthropicBackend():
                return self._anthropic.stream(backend, call, timeout_s=timeout_s)
            case BedrockBackend():
                return self._bedrock.stream(backend, call, timeout_s=timeout_s)

    def _prepare(self, backend: BackendSpec, call: ChatCall) -> ValidCall:
        """The call as the backend's vendor takes it. Raises: Misconfigured for a model that may not be asked,
        InvalidInput."""
        if (refusal := self._allowed.find_refusal(backend)) is not None:
            raise Misconfigured(refusal)
        return make_valid(call, find_rules(backend, base_model=self._base_model))

    @cached_property
    def _http(self) -> "VendorHttp":
        from rlaas.adapters.models.vendor_http import VendorHttp

        return VendorHttp(private_addresses=self._private_addresses)

    @cached_property
    def _sagemaker(self) -> "SageMakerEndpoints":
        from rlaas.adapters.models.sagemaker import SageMakerEndpoints

        return SageMakerEndpoints()

    @cached_property
    def _openai(self) -> "OpenAIServers":
        from rlaas.adapters.models.openai import OpenAIServers

        return OpenAIServers(self._http, self._keys)

    @cached_property
    def _anthropic(self) -> "AnthropicMessages":
        from rlaas.adapters.models.anthropic import AnthropicMessages

        return AnthropicMessages(self._http, self._keys)

    @cached_property
    def _bedrock(self) -> "BedrockModels":
        from rlaas.adapters.models.bedrock import BedrockModels

        return BedrockModels()


def _blame_change(backend: BackendSpec, error: InvalidInput) -> RlaasError:
    """The error for a request that the vendor refuses as it was made valid for it."""
    from rlaas.adapters.models.vendor_failures import blame_translation

    return blame_translation(backend.kind, error)


def _blame_change_in_stream(backend: BackendSpec, deltas: Generator[Delta, None, None]) -> Generator[Delta, None, None]:
    with closing(deltas):
        try:
            yield from deltas
        except InvalidInput as error:
            raise _blame_change(backend, error) from None
