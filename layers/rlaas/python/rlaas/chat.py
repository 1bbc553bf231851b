"""A chat with a model, whoever answers: messages, tools, documents, the call and its answer, as OpenAI's API has
them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, model_validator

from rlaas.errors import DependencyUnavailable
from rlaas.wire import WireModel

_MOST_TOKENS = 10**9


class CalledFunction(WireModel):
    """The function a model calls; `arguments` is the JSON it wrote, which may be malformed."""

    name: Annotated[str, Field(max_length=256)]
    arguments: str


class ToolCall(WireModel):
    """A model's call of a tool."""

    id: Annotated[str, Field(max_length=256)]
    type: Literal["function"] = "function"
    function: CalledFunction


class Message(WireModel):
    """One message of a chat, as OpenAI has it: an assistant may call tools, and a tool's message answers one call."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: Annotated[str, Field(max_length=256)] | None = None

    @model_validator(mode="after")
    def _says_or_calls_something(self) -> Self:
        if "content" not in self.model_fields_set and not (self.role == "assistant" and self.tool_calls):
            raise ValueError("needs content")
        if (self.role == "tool") != (self.tool_call_id is not None):
            raise ValueError("a message of role tool, and no other, has a tool_call_id")
        return self

    def plain(self) -> dict[str, JsonValue]:
        """The message as OpenAI's chat API takes it."""
        said: dict[str, JsonValue] = {"role": self.role, "content": self.content}
        if self.tool_calls:
            said["tool_calls"] = [call.model_dump(mode="json") for call in self.tool_calls]
        if self.tool_call_id is not None:
            said["tool_call_id"] = self.tool_call_id
        return said


class Usage(WireModel):
    """Tokens read and written; `cached_tokens` of those read came from the backend's prompt cache."""

    input_tokens: int = Field(ge=0, le=_MOST_TOKENS)
    output_tokens: int = Field(ge=0, le=_MOST_TOKENS)
    cached_tokens: int = Field(default=0, ge=0, le=_MOST_TOKENS)


class Document(WireModel):
    """A document that comes with a request, to ground the answer on."""

    text: str
    source: Annotated[str, Field(max_length=2000)] = ""


ASLEEP_S = 60.0
"""When to ask a sleeping model again, in seconds. It takes five to ten minutes to wake, and a minute is the longest
that every version of OpenAI's clients obeys: told more, some come back after a second."""


class BackendFailed(DependencyUnavailable):
    """A backend did not answer. `safe_to_repeat` says that it did no work by its own word: it was not reached, or it
    refused (429, 503).

    `nothing_done` says that nothing can have been charged for: nothing was sent, or a refusal (4xx) came before any
    model worked. Without it the call counts as spent.
    """

    def __init__(
        self, detail: str, *, safe_to_repeat: bool = False, nothing_done: bool = False, retry_after_s: float | None = None
    ) -> None:
        super().__init__(detail, retry_after_s=retry_after_s)
        self.safe_to_repeat = safe_to_repeat
        self.nothing_done = nothing_done


class NoCapacity(BackendFailed):
    """No machine holds the model: it sleeps until `runtime.waking` reports the call. No work was done."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail, safe_to_repeat=True, nothing_done=True, retry_after_s=ASLEEP_S)


@dataclass(frozen=True, slots=True)
class ChatCall:
    """One question to a model.

    `parameters` are OpenAI's by name (`temperature`, `max_tokens`, `tools`, `response_format`, `stop`, ...), without
    `model`, `messages` and `stream`, which the backend fills in. `traceparent` is W3C's trace context of the span that
    makes the call. `hops` counts the gateways that the request has passed before this one. A stream ends by `ends_at`
    on the monotonic clock, whatever each of its pieces may take; None leaves it to those.
    """

    messages: tuple[Message, ...]
    parameters: Mapping[str, JsonValue]
    tenant_id: str
    traceparent: str | None = None
    hops: int = 0
    ends_at: float | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """One of the answers. `finish_reason` is OpenAI's: stop, length, tool_calls, content_filter."""

    text: str
    finish_reason: str | None
    tool_calls: tuple[ToolCall, ...] = ()
    refusal: str | None = None
    logprobs: JsonValue = None


@dataclass(frozen=True, slots=True)
class Completion:
    """What a model answered: `n` choices, in order; usage is unknown (None) of an answer that was cut off."""

    choices: tuple[Choice, ...]
    usage: Usage | None
    model: str | None = None
    """The model that the backend says answered."""

    @property
    def text(self) -> str:
        """The first choice's text."""
        return self.choices[0].text


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A piece of the tool call at `index`: the first one has its id and name, later ones more of `arguments`."""

    index: int
    arguments: str = ""
    id: str | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of a streamed answer: more of the choice at `index`, or (last of all, without text) the usage."""

    index: int = 0
    text: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()
    refusal: str | None = None
    finish_reason: str | None = None
    logprobs: JsonValue = None
    usage: Usage | None = None
    model: str | None = None
