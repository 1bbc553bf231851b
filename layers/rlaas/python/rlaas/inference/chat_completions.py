"""The OpenAI chat API in front of `infer`: requests in, completions out.

The model is `rlaas::<skill>`, or `rlaas::<skill>@v<N>` for one policy of it. The messages pass through as they are;
the policy that the thread is routed to puts its own in front, unless the request brings a system message. RLaaS's
extras stand beside the standard fields under `rlaas::`. Every other parameter goes to the backend, over what the
policy says; one that the backend does not take is refused by name.
"""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, JsonValue, ValidationInfo, field_validator

from rlaas.chat import Choice
from rlaas.inference.chat_completion_chunks import build_usage, describe_processing
from rlaas.inference.chat_messages import ChatMessage, to_messages
from rlaas.inference.decide import InferRequest
from rlaas.inference.record import Answer
from rlaas.inference.sent_parts import mark_end
from rlaas.inference.skill_request import NotSupported, OpenAIRequest, extras
from rlaas.prompt_cache import CacheControl
from rlaas.wire import Json, WireModel


class StreamOptions(WireModel):
    """`include_usage` asks for a last chunk with the usage and no choices."""

    include_usage: bool = False
    include_obfuscation: bool = False


class ChatRequest(OpenAIRequest):
    """OpenAI's chat request. Fields that are not named here are parameters of the backend."""

    model_config = ConfigDict(extra="allow")

    messages: tuple[ChatMessage, ...] = Field(min_length=1)
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    metadata: dict[str, Json] | None = None
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    max_tokens: int | None = Field(default=None, ge=1, le=1_000_000)
    max_completion_tokens: int | None = Field(default=None, ge=1, le=1_000_000)
    n: int | None = Field(default=None, ge=1, le=16)
    seed: int | None = None
    stop: Annotated[str, Field(min_length=1)] | tuple[Annotated[str, Field(min_length=1)], ...] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    tools: tuple[dict[str, Json], ...] | None = Field(default=None, max_length=128)
    tool_choice: str | dict[str, Json] | None = None
    parallel_tool_calls: bool | None = None
    response_format: dict[str, Json] | None = None
    cache_control: CacheControl | None = Field(default=None, description="Keep the prompt up to the last message's end.")
    modalities: tuple[Literal["text"], ...] | None = Field(default=None, description="Answers are texts: no sound is passed on.")
    audio: NotSupported = None
    functions: NotSupported = Field(default=None, description="Send `tools`.")
    function_call: NotSupported = Field(default=None, description="Send `tool_choice`.")

    @field_validator("tools")
    @classmethod
    def _have_calls_that_are_read(cls, tools: tuple[dict[str, Json], ...] | None) -> tuple[dict[str, Json], ...] | None:
        if any(tool.get("type") == "custom" for tool in tools or ()):
            raise ValueError("tools of type custom are not supported here: send functions")
        return tools

    @field_validator("stream_options")
    @classmethod
    def _of_a_stream(cls, options: StreamOptions | None, info: ValidationInfo) -> StreamOptions | None:
        if options is not None and not info.data.get("stream"):
            raise ValueError("only allowed when stream is true")
        return options

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with its usage."""
        return self.stream_options is not None and self.stream_options.include_usage

    def parameters(self) -> dict[str, JsonValue]:
        """The parameters that go to the backend, by OpenAI's names."""
        ours = {"messages", "stream", "stream_options", "metadata", "cache_control", *OpenAIRequest.model_fields}
        return self.model_dump(mode="json", exclude=ours, exclude_none=True, exclude_unset=True)


def to_infer(request: ChatRequest) -> InferRequest:
    """The same request to `infer`. Raises: NotFound for a name that no skill can have."""
    *before, last = to_messages(request.messages)
    return InferRequest(
        skill=request.skill,
        policy_id=request.policy_id,
        messages=(*before, mark_end(last, request.cache_control)),
        inputs=request.inputs,
        documents=request.documents,
        parameters=request.parameters(),
        thread_id=request.thread_id,
        user_id=request.whose,
        interaction_id=request.interaction_id,
        metadata=request.metadata or {},
        tags=request.tags,
    )


def to_completion(request: ChatRequest, answer: Answer, *, created: datetime) -> dict[str, JsonValue]:
    """OpenAI's chat completion. `id` is the output id and takes feedback; RLaaS's own fields stand under `rlaas::`."""
    return {
        "id": answer.output_id,
        "object": "chat.completion",
        "created": int(created.timestamp()),
        "model": request.model,
        "choices": [_build_choice(choice, index) for index, choice in enumerate(answer.choices)],
        "usage": build_usage(answer.usage) if answer.usage else None,
        **describe_processing(answer.processing),
        **extras(answer),
        "rlaas::cost_usd": answer.cost_usd,
    }


def _build_choice(choice: Choice, index: int) -> dict[str, JsonValue]:
    message: dict[str, JsonValue] = {
        "role": "assistant",
        "content": choice.text if choice.text or not choice.tool_calls else None,
        "refusal": choice.refusal,
    }
    if choice.tool_calls:
        message["tool_calls"] = [call.plain() for call in choice.tool_calls]
    if choice.reasoning_content:
        message["reasoning_content"] = choice.reasoning_content
    if choice.annotations:
        message["annotations"] = [*choice.annotations]
    return {
        "index": index,
        "message": message,
        "logprobs": choice.logprobs,
        "finish_reason": choice.finish_reason or ("tool_calls" if choice.tool_calls else "stop"),
    }
