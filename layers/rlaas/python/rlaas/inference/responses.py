"""OpenAI's Responses API in front of `infer`: requests in, responses out.

The model is a skill and the extras are RLaaS's, as in a chat. What this API has and RLaaS has not (hosted tools, stored
prompts, conversations, background work) is refused by name. A response's `id` is the output id.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated, Literal

from pydantic import Discriminator, Field, JsonValue, Tag

from rlaas.chat import Message, Processing, Usage
from rlaas.errors import InvalidInput, RlaasError
from rlaas.inference.decide import InferRequest
from rlaas.inference.earlier_response import MARK, find_earlier, find_items
from rlaas.inference.record import Answer
from rlaas.inference.response_items import InputItem, OutputItem, output_items, to_messages
from rlaas.inference.sent_parts import TEXT_OR_LIST
from rlaas.inference.skill_request import NotSupported, OpenAIRequest, extras
from rlaas.privacy.scrub import Scrubber
from rlaas.telemetry.store import EventStore
from rlaas.wire import Json, WireModel

INCOMPLETE = frozenset({"length", "content_filter", "cancelled"})
"""Why answers ended that are not whole, in a chat's words."""
_REASONS = {"length": "max_output_tokens", "content_filter": "content_filter"}
"""The same in this API's words."""


class FunctionTool(WireModel):
    """A function that the model may call. Tools that OpenAI runs itself are refused."""

    type: Literal["function"]
    name: Annotated[str, Field(min_length=1, max_length=128)]
    description: str | None = None
    parameters: dict[str, Json] | None = None
    strict: bool | None = None


class FunctionChoice(WireModel):
    """The function that the model has to call."""

    type: Literal["function"]
    name: Annotated[str, Field(min_length=1, max_length=128)]


class AllowedToolsChoice(WireModel):
    """The functions that the model may call (`auto`), or has to call one of (`required`)."""

    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: Annotated[tuple[FunctionChoice, ...], Field(min_length=1, max_length=128)]


def _choice_form(value: object) -> str:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return "text" if isinstance(value, str) else "allowed_tools" if kind == "allowed_tools" else "function"


ToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("text")]
    | Annotated[FunctionChoice, Tag("function")]
    | Annotated[AllowedToolsChoice, Tag("allowed_tools")],
    Discriminator(_choice_form),
]


class PlainText(WireModel):
    """Text of any form."""

    type: Literal["text"]


class JsonObjectFormat(WireModel):
    """Any object in JSON."""

    type: Literal["json_object"]


class JsonSchema(WireModel):
    """JSON that fits a schema."""

    type: Literal["json_schema"]
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    schema_: dict[str, Json] = Field(alias="schema")
    description: str | None = None
    strict: bool | None = None


TextFormat = Annotated[PlainText | JsonObjectFormat | JsonSchema, Field(discriminator="type")]


class TextSettings(WireModel):
    """What form the answer's text has, and how long-winded it is."""

    format: TextFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class Reasoning(WireModel):
    """How much the model thinks first."""

    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    summary: NotSupported = None
    generate_summary: NotSupported = None


class StreamSettings(WireModel):
    """Nothing of a stream is padded here, so `include_obfuscation` changes nothing."""

    include_obfuscation: bool | None = None


class ResponsesRequest(OpenAIRequest):
    """OpenAI's request for a response."""

    input: Annotated[Annotated[str, Tag("text")] | Annotated[tuple[InputItem, ...], Tag("list")], TEXT_OR_LIST]
    instructions: str | None = Field(default=None, description="A system message for this request only.")
    previous_response_id: Annotated[str, Field(min_length=1, max_length=512)] | None = Field(
        default=None, description="The response whose input and output go before this input, as they are stored: masked."
    )
    tools: tuple[FunctionTool, ...] | None = Field(default=None, max_length=128)
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    text: TextSettings | None = None
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    max_output_tokens: int | None = Field(default=None, ge=1, le=1_000_000)
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    reasoning: Reasoning | None = None
    metadata: dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]] | None = Field(default=None, max_length=16)
    store: bool | None = Field(default=None, description="false: no later request can name this response as its previous one.")
    stream: bool | None = False
    stream_options: StreamSettings | None = None
    include: tuple[Literal["message.output_text.logprobs", "reasoning.encrypted_content"], ...] | None = None
    truncation: Literal["disabled"] | None = None
    service_tier: Literal["auto", "default"] | None = None
    background: Literal[False] | None = None
    prompt_cache_key: str | None = None
    conversation: NotSupported = None
    prompt: NotSupported = None
    max_tool_calls: NotSupported = None
    moderation: NotSupported = None
    context_management: NotSupported = None
    prompt_cache_retention: NotSupported = None
    prompt_cache_options: NotSupported = None

    def parameters(self) -> dict[str, JsonValue]:
        """The parameters that go to the backend, by the names of OpenAI's chat."""
        text, effort = self.text or TextSettings(), self.reasoning.effort if self.reasoning is not None else None
        wants_logprobs = "message.output_text.logprobs" in (self.include or ()) or self.top_logprobs
        parameters: dict[str, JsonValue] = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_completion_tokens": self.max_output_tokens,
            "tools": [_chat_tool(tool) for tool in self.tools] if self.tools else None,
            "tool_choice": _chat_choice(self.tool_choice),
            "parallel_tool_calls": self.parallel_tool_calls,
            "response_format": _chat_format(text.format),
            "verbosity": text.verbosity,
            "reasoning_effort": effort,
            "logprobs": True if wants_logprobs else None,
            "top_logprobs": self.top_logprobs,
            "prompt_cache_key": self.prompt_cache_key,
        }
        return {name: value for name, value in parameters.items() if value is not None}


_OWN_NAMES = {
    "max_completion_tokens": "max_output_tokens",
    "response_format": "text.format",
    "verbosity": "text.verbosity",
    "reasoning_effort": "reasoning.effort",
    "logprobs": "include",
    "messages": "input",
}


@contextmanager
def in_own_words() -> Iterator[None]:
    """A refusal of a chat's parameter names the field of this API that stands for it."""
    try:
        yield
    except RlaasError as error:
        error.param = _OWN_NAMES.get(error.param or "", error.param)
        raise


def to_infer(request: ResponsesRequest, tenant_id: str, store: EventStore, scrubber: Scrubber) -> InferRequest:
    """The same request to `infer`, with what it refers to in the store. Its thread, and its user where it names none,
    are those of the earlier response.

    Raises: InvalidInput without any message, or for a tool's output to a call that nobody made; and as `find_earlier`
    and `find_items`.
    """
    earlier = find_earlier(request.previous_response_id, tenant_id, store) if request.previous_response_id is not None else None
    if isinstance(request.input, str):
        latest: tuple[Message, ...] = (Message(role="user", content=request.input),)
    else:
        latest = to_messages(find_items(request.input, tenant_id, store))
    messages = _name_calls((*(earlier.messages if earlier is not None else ()), *latest), scrubber)
    if not messages:
        raise InvalidInput("needs a message", param="input")
    instructions = () if request.instructions is None else (Message(role="system", content=request.instructions),)
    mark: dict[str, JsonValue] = {"instructions": True} if instructions else {}
    if request.store is False:
        mark["store"] = False
    return InferRequest(
        skill=request.skill,
        policy_id=request.policy_id,
        messages=(*instructions, *messages),
        inputs=request.inputs,
        documents=request.documents,
        parameters=request.parameters(),
        thread_id=request.thread_id or (earlier.thread_id if earlier is not None else None),
        user_id=request.whose or (earlier.user_id if earlier is not None else None),
        interaction_id=request.interaction_id,
        metadata={**(request.metadata or {}), **({MARK: mark} if mark else {})},
        tags=request.tags,
    )


def to_response(request: ResponsesRequest, answer: Answer, *, created: datetime) -> dict[str, JsonValue]:
    """OpenAI's response, with RLaaS's own fields under `rlaas::`."""
    choice = answer.choices[0]
    items = output_items(choice, answer.output_id, incomplete=choice.finish_reason in INCOMPLETE)
    reason = choice.finish_reason or "stop"
    response = describe(request, answer.output_id, items, answer.usage, reason, answer.processing, created=created)
    return {**response, **extras(answer), "rlaas::cost_usd": answer.cost_usd}


def describe(
    request: ResponsesRequest,
    output_id: str,
    items: Iterable[OutputItem],
    usage: Usage | None,
    reason: str | None,
    processing: Processing,
    *,
    created: datetime,
) -> dict[str, JsonValue]:
    """The response to `request` as far as it is; without a `reason` for its end it is in progress."""
    status = "in_progress" if reason is None else "incomplete" if reason in INCOMPLETE else "completed"
    return {
        "id": output_id,
        "object": "response",
        "created_at": int(created.timestamp()),
        "status": status,
        "error": None,
        "incomplete_details": {"reason": _REASONS[reason]} if reason in _REASONS else None,
        "model": request.model,
        "service_tier": processing.service_tier,
        "output": [*items],
        "usage": None if reason is None else build_usage(usage or Usage(input_tokens=0, output_tokens=0)),
        **_DEFAULTS,
        **request.model_dump(mode="json", include=_ECHOED, exclude_none=True),
        "tools": [tool.model_dump(mode="json") for tool in request.tools or ()],
        "text": _echo_text(request.text),
    }


def _echo_text(text: TextSettings | None) -> dict[str, JsonValue]:
    form = text.format if text is not None and text.format is not None else PlainText(type="text")
    return {"format": form.model_dump(mode="json", by_alias=True), "verbosity": text.verbosity if text is not None else None}


def build_usage(usage: Usage) -> dict[str, JsonValue]:
    """OpenAI's `usage`."""
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": usage.cache_write_tokens},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def _name_calls(messages: tuple[Message, ...], scrubber: Scrubber) -> tuple[Message, ...]:
    """The messages, in which calls that were stored have the ids that their outputs know them by: digits in an id may
    have been masked. Raises: InvalidInput for a tool's output whose call is not there."""
    calls = {call.id for message in messages for call in message.tool_calls}
    lost = [message.tool_call_id for message in messages if message.tool_call_id is not None and message.tool_call_id not in calls]
    if not lost:
        return messages
    own = dict(zip(scrubber.by_patterns.scrub(lost), lost, strict=True))
    if unknown := next((one for masked, one in own.items() if masked not in calls), None):
        raise InvalidInput(f"there is no function_call with the call_id {unknown!r}", param="input")
    return tuple(
        message.model_copy(
            update={"tool_calls": tuple(call.model_copy(update={"id": own.get(call.id, call.id)}) for call in message.tool_calls)}
        )
        for message in messages
    )


def _chat_tool(tool: FunctionTool) -> dict[str, JsonValue]:
    return {"type": "function", "function": tool.model_dump(mode="json", exclude={"type"}, exclude_none=True)}


def _chat_choice(choice: str | FunctionChoice | AllowedToolsChoice | None) -> JsonValue:
    match choice:
        case FunctionChoice():
            return {"type": "function", "function": {"name": choice.name}}
        case AllowedToolsChoice():
            tools: JsonValue = [_chat_choice(tool) for tool in choice.tools]
            return {"type": "allowed_tools", "allowed_tools": {"mode": choice.mode, "tools": tools}}
        case _:
            return choice


def _chat_format(form: PlainText | JsonObjectFormat | JsonSchema | None) -> JsonValue:
    if isinstance(form, JsonSchema):
        return {"type": "json_schema", "json_schema": form.model_dump(mode="json", by_alias=True, exclude={"type"}, exclude_none=True)}
    return {"type": "json_object"} if isinstance(form, JsonObjectFormat) else None


_DEFAULTS: dict[str, JsonValue] = {
    "instructions": None,
    "previous_response_id": None,
    "metadata": {},
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    "reasoning": {"effort": None, "summary": None},
    "temperature": None,
    "top_p": None,
    "max_output_tokens": None,
    "top_logprobs": None,
    "truncation": "disabled",
    "background": False,
    "store": True,
}
_ECHOED = set(_DEFAULTS)
