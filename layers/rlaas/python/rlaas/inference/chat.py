"""The OpenAI chat API in front of `infer`: requests in, completions out.

The model is `rlaas::<skill>`. The messages pass through as they are; the policy that the thread is routed to puts its system template in
front, unless the request brings a system message of its own. Extras stand beside the standard fields under `rlaas::`. Sampling is
the policy's, so standard parameters that would change it are refused by name.
"""

from datetime import datetime
from typing import Literal

from pydantic import Field, JsonValue, ValidationInfo, field_validator

from rlaas.ids import ExternalId
from rlaas.inference.infer import Answer, InferRequest
from rlaas.telemetry.events import Message
from rlaas.wire import Json, WireModel


class ChatMessage(WireModel):
    """A message with text content, as a string or as text parts."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | tuple["TextPart", ...]
    name: str | None = None

    def plain(self) -> Message:
        """The message as RLaaS stores it: `developer` is `system`, parts are joined."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return Message(role="system" if self.role == "developer" else self.role, content=text)


class TextPart(WireModel):
    """A text part of a message."""

    type: Literal["text"]
    text: str


class StreamOptions(WireModel):
    """How a stream ends: `include_usage` adds a last chunk with the usage and no choices."""

    include_usage: bool = False


class ChatRequest(WireModel):
    """What of OpenAI's chat request is understood; every other parameter is refused by name."""

    model: str = Field(pattern=r"^rlaas::[a-z0-9]+(-[a-z0-9]+)*$", max_length=35)
    messages: tuple[ChatMessage, ...] = Field(min_length=1)
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: Literal[1] = 1
    user: ExternalId | None = None
    metadata: dict[str, Json] = Field(default_factory=dict)
    thread_id: ExternalId | None = Field(default=None, alias="rlaas::thread_id")
    user_id: ExternalId | None = Field(default=None, alias="rlaas::user_id")
    interaction_id: ExternalId | None = Field(default=None, alias="rlaas::interaction_id")
    inputs: dict[str, str] | None = Field(default=None, alias="rlaas::inputs")

    @field_validator("stream_options")
    @classmethod
    def _of_a_stream(cls, given: StreamOptions | None, info: ValidationInfo) -> StreamOptions | None:
        if given is not None and not info.data.get("stream"):
            raise ValueError("only allowed when stream is true")
        return given

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with its usage."""
        return self.stream_options is not None and self.stream_options.include_usage


def to_infer(request: ChatRequest) -> InferRequest:
    """The same request to `infer`."""
    return InferRequest(
        skill=request.model.removeprefix("rlaas::"),
        messages=tuple(message.plain() for message in request.messages),
        inputs=request.inputs,
        thread_id=request.thread_id,
        user_id=request.user_id or request.user,
        interaction_id=request.interaction_id,
        metadata=request.metadata,
    )


def to_completion(request: ChatRequest, answer: Answer, *, created: datetime) -> dict[str, JsonValue]:
    """OpenAI's chat completion. `id` is the output id and takes feedback; RLaaS's own fields stand under `rlaas::`."""
    usage = answer.usage
    return {
        "id": answer.output_id,
        "object": "chat.completion",
        "created": int(created.timestamp()),
        "model": request.model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": answer.text, "refusal": None},
                "logprobs": None,
                "finish_reason": answer.finish_reason or "stop",
            }
        ],
        "usage": {
            "prompt_tokens": usage.input_tokens,
            "completion_tokens": usage.output_tokens,
            "total_tokens": usage.input_tokens + usage.output_tokens,
        }
        if usage
        else None,
        **extras(answer),
    }


def extras(answer: Answer) -> dict[str, JsonValue]:
    """RLaaS's own fields of a completion, and of a stream's first chunk."""
    return {
        "rlaas::interaction_id": answer.interaction_id,
        "rlaas::policy_id": answer.policy_id,
        "rlaas::decision": answer.decision.model_dump(mode="json"),
    }
