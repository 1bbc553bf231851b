"""The backends of policies: where a model answers, and the protocol for asking it."""

import re
from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal, Protocol

from pydantic import Discriminator, Field, Tag

from rlaas.chat import ChatCall, Completion, Delta
from rlaas.metering.prices import ModelName
from rlaas.policies.hosts import ANTHROPIC, OPENAI, OPENROUTER, BaseUrl, SecretName, find_host, is_openai
from rlaas.prompt_cache import CacheTtl
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


_CACHES_ON_BEDROCK = re.compile(r"anthropic\.claude-(?!instant|v2|3-(?:haiku|sonnet|opus)|3-5-sonnet)|amazon\.nova-")
_WRITES_FOR_NOTHING = re.compile(r"(?:ft:)?(?:gpt-(?:3|4|5(?:\.[0-5])?(?![\d.]))|chatgpt-|o\d)")
_KEEPS_AN_HOUR = re.compile(r"claude-(?:opus|sonnet|haiku)-4-[5-9]\b|claude-[a-z]+-(?:[5-9]|\d\d)\b")
"""By Bedrock's guide to prompt caching. A model that cannot do it refuses a request with marks."""


def find_cache_marks(backend: BackendSpec) -> CacheTtl | None:
    """The longest that the backend's cache keeps a prompt where a request marks it; None where it takes no marks."""
    match backend:
        case AnthropicBackend():
            return "1h"
        case BedrockBackend():
            if not _CACHES_ON_BEDROCK.search(backend.model):
                return None
            return "1h" if _KEEPS_AN_HOUR.search(backend.model) else "5m"
        case OpenAIBackend():
            return "1h" if find_host(backend.base_url) == OPENROUTER else None
        case SageMakerBackend():
            return None


def find_cache_writes(backend: BackendSpec, call: ChatCall) -> CacheTtl | None:
    """The longest for which the backend may write the prompt of `call` to a cache and charge for it; None: it does not.

    OpenAI writes by itself, and charges for it from GPT-5.6 on.
    """
    longest, marked = find_cache_marks(backend), call.writes_for
    if longest is not None and marked is not None:
        return "5m" if "5m" in (longest, marked) else "1h"
    writes_itself = isinstance(backend, OpenAIBackend) and is_openai(find_host(backend.base_url))
    return "5m" if writes_itself and not _WRITES_FOR_NOTHING.match(backend.model) else None


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
