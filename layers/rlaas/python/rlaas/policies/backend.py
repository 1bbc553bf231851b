"""The backends of policies: where a model answers, and the protocol for asking it."""

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal, Protocol

from pydantic import Discriminator, Field, Tag

from rlaas.chat import ChatCall, Completion, Delta
from rlaas.metering.prices import ModelName
from rlaas.policies.hosts import ANTHROPIC, OPENAI, BaseUrl, SecretName
from rlaas.wire import WireModel

Timeout = Annotated[float, Field(gt=0, le=900)]
"""How long one answer may take, in seconds; it may also not take longer than the rest of the request's own time."""


class SageMakerBackend(WireModel):
    """A SageMaker endpoint that speaks OpenAI's chat format; `component` is the inference component (a base model or an
    adapter) that answers."""

    kind: Literal["sagemaker"] = "sagemaker"
    endpoint: str
    component: str | None = None
    timeout_s: Timeout = 25.0

    @property
    def model(self) -> str:
        """The name of what answers, for metering and traces."""
        return self.component or self.endpoint


class OpenAIBackend(WireModel):
    """OpenAI, or any server that speaks its chat API (vLLM, TGI, Ollama): `base_url` up to and including `/v1`."""

    OWN_HOST: ClassVar[str] = OPENAI

    kind: Literal["openai"] = "openai"
    model: ModelName
    base_url: BaseUrl = "https://api.openai.com/v1"
    secret: SecretName | None = None
    timeout_s: Timeout = 25.0


class AnthropicBackend(WireModel):
    """Anthropic's Messages API."""

    OWN_HOST: ClassVar[str] = ANTHROPIC

    kind: Literal["anthropic"] = "anthropic"
    model: ModelName
    base_url: BaseUrl = "https://api.anthropic.com/v1"
    secret: SecretName
    timeout_s: Timeout = 25.0


class BedrockBackend(WireModel):
    """A model or inference profile behind Bedrock's Converse API, in the stage's own account; without `region`, in the
    stage's region."""

    kind: Literal["bedrock"] = "bedrock"
    model: ModelName
    region: Annotated[str, Field(pattern=r"^[a-z]{2}(-[a-z]+)+-\d$")] | None = None
    timeout_s: Timeout = 25.0


BackendSpec = Annotated[
    Annotated[SageMakerBackend, Tag("sagemaker")]
    | Annotated[OpenAIBackend, Tag("openai")]
    | Annotated[AnthropicBackend, Tag("anthropic")]
    | Annotated[BedrockBackend, Tag("bedrock")],
    Discriminator(lambda value: value.get("kind", "sagemaker") if isinstance(value, dict) else getattr(value, "kind", None)),
]
"""Where a policy's model answers; without a `kind` it is a SageMaker endpoint."""


class Backend(Protocol):
    """Asks the models of policies.

    Both methods raise BackendFailed, and InvalidInput naming a parameter that the backend does not know or refuses.
    `stream` may raise before its first delta or later, and closes its connection when it is closed.
    """

    def complete(self, backend: BackendSpec, call: ChatCall, *, timeout_s: float) -> Completion:
        """The whole answer within `timeout_s` seconds."""
        ...

    def stream(self, backend: BackendSpec, call: ChatCall, *, timeout_s: float) -> Iterator[Delta]:
        """The answer piece by piece; `timeout_s` bounds the wait for each piece."""
        ...
