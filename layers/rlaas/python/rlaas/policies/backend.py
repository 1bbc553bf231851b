"""Where a policy's model answers, and what is asked of whoever answers for it."""

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal, Protocol

from pydantic import Discriminator, Field, Tag

from rlaas.chat import ChatCall, Completion, Delta
from rlaas.policies.hosts import ANTHROPIC, OPENAI, BaseUrl, SecretName
from rlaas.wire import WireModel

Timeout = Annotated[float, Field(gt=0, le=900)]
"""How long one answer may take, in seconds; what is left of the request's own time bounds it too."""
ModelName = Annotated[str, Field(min_length=1, max_length=256)]


class SageMakerBackend(WireModel):
    """A SageMaker endpoint that speaks OpenAI's chat format; `component` is the inference component (base model,
    adapter) that answers."""

    kind: Literal["sagemaker"] = "sagemaker"
    endpoint: str
    component: str | None = None
    timeout_s: Timeout = 25.0

    @property
    def model(self) -> str:
        """What answers, as metering and traces name it."""
        return self.component or self.endpoint


class OpenAIBackend(WireModel):
    """OpenAI, or any server that speaks its chat API (vLLM, TGI, Ollama): `base_url` up to and with `/v1`."""

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
    """A model or inference profile behind Bedrock's Converse API, in the stage's own account; `region` None is the
    stage's."""

    kind: Literal["bedrock"] = "bedrock"
    model: ModelName
    region: Annotated[str, Field(pattern=r"^[a-z]{2}(-[a-z]+)+-\d$")] | None = None
    timeout_s: Timeout = 25.0


BackendSpec = Annotated[
    Annotated[SageMakerBackend, Tag("sagemaker")]
    | Annotated[OpenAIBackend, Tag("openai")]
    | Annotated[AnthropicBackend, Tag("anthropic")]
    | Annotated[BedrockBackend, Tag("bedrock")],
    Discriminator(lambda given: given.get("kind", "sagemaker") if isinstance(given, dict) else getattr(given, "kind", None)),
]
"""Where a policy's model answers; one that does not say its kind is a SageMaker endpoint."""


class Backend(Protocol):
    """Where policies' models answer. Both raise BackendFailed, and InvalidInput naming the parameter that the backend
    does not take or that it refuses; `stream` raises before its first delta or in the middle, and closes its connection
    when it is closed."""

    def complete(self, backend: BackendSpec, call: ChatCall, *, timeout_s: float) -> Completion:
        """The whole answer within `timeout_s` seconds."""
        ...

    def stream(self, backend: BackendSpec, call: ChatCall, *, timeout_s: float) -> Iterator[Delta]:
        """The answer piece by piece; `timeout_s` bounds the wait for each piece."""
        ...
