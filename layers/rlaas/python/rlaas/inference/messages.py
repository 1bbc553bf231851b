"""Anthropic's Messages API in front of `infer`: requests in, messages out.

The model is `rlaas::<skill>`, or `rlaas::<skill>@v<N>` for one policy of it. A `system` of the request stands in the
place of the policy's own. RLaaS's extras stand beside the standard fields under `rlaas::`. What only Anthropic's
service can do is taken and dropped where an answer without it is as good (`thinking`, `context_management`, betas), and
refused by name where it is not (tools that Anthropic runs).
"""

from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, JsonValue, model_validator

from rlaas.chat import UNKNOWN_PROCESSING, ChatCall, Choice, Message, Processing, Usage, read_arguments
from rlaas.errors import InvalidInput, ThreadUnsupported
from rlaas.ids import UserId
from rlaas.inference.anthropic_words import SERVICE_TIERS, STOP_REASONS, TOOL_CHOICES
from rlaas.inference.decide import InferRequest
from rlaas.inference.message_blocks import PARAGRAPH, Texts, Turn
from rlaas.inference.record import Answer
from rlaas.inference.sent_parts import add_content, join_content, mark_end
from rlaas.inference.skill_request import Extras, extras, parse_model
from rlaas.inference.spending import count_prompt_tokens
from rlaas.prompt_cache import CacheControl
from rlaas.wire import Json, WireModel

_TIERS = {openai: anthropic for anthropic, openai in SERVICE_TIERS.items()}


class _Lenient(WireModel):
    """Clients send fields beside these, for betas, which are dropped."""

    model_config = ConfigDict(extra="ignore")


class MessageTool(_Lenient):
    """A tool that the client runs."""

    type: Literal["custom"] | None = None
    name: Annotated[str, Field(min_length=1, max_length=256)]
    description: str | None = None
    input_schema: dict[str, Json]
    strict: bool | None = None
    cache_control: CacheControl | None = None

    def plain(self) -> JsonValue:
        """The tool as OpenAI has it."""
        function: dict[str, JsonValue] = {"name": self.name, "parameters": self.input_schema}
        if self.description is not None:
            function["description"] = self.description
        if self.strict is not None:
            function["strict"] = self.strict
        mark: dict[str, JsonValue] = {"cache_control": self.cache_control.model_dump(exclude_none=True)} if self.cache_control else {}
        return {"type": "function", "function": function, **mark}


class MessageToolChoice(_Lenient):
    """Whether a tool has to be called, and which."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None

    @model_validator(mode="after")
    def _names_the_tool(self) -> Self:
        if (self.type == "tool") != (self.name is not None):
            raise ValueError("a tool_choice of type tool, and no other, has a name")
        return self

    def plain(self) -> JsonValue:
        """The choice as OpenAI has it."""
        return TOOL_CHOICES[self.type] if self.name is None else {"type": "function", "function": {"name": self.name}}


class MessageOutputFormat(_Lenient):
    """The JSON schema of a structured answer."""

    type: Literal["json_schema"]
    json_schema: dict[str, Json] = Field(alias="schema")


class MessageOutputConfig(_Lenient):
    """What the answer looks like, and how hard the model tries."""

    format: MessageOutputFormat | None = None
    effort: str | None = None


class MessageMetadata(_Lenient):
    """For whom the client asks."""

    user_id: UserId = None


class CountRequest(Extras):
    """Anthropic's request to count the tokens of a prompt."""

    model_config = ConfigDict(extra="allow")

    model: str = Field(description="`rlaas::<skill>`, or `rlaas::<skill>@v<N>` for one policy of it.")
    messages: tuple[Turn, ...] = Field(min_length=1)
    system: Texts | None = None
    tools: tuple[MessageTool, ...] | None = Field(default=None, max_length=128)
    cache_control: CacheControl | None = Field(default=None, description="Keep the prompt up to the last message's end.")
    tool_choice: MessageToolChoice | None = None
    output_config: MessageOutputConfig | None = None

    def chat(self) -> tuple[Message, ...]:
        """The messages as RLaaS stores them, the system's first."""
        messages = [message for turn in self.messages for message in turn.plain()]
        if self.system:
            system = join_content(self.system, between=PARAGRAPH)
            messages.insert(0, add_content(Message(role="system", content=system.text), system))
        messages[-1:] = [mark_end(message, self.cache_control) for message in messages[-1:]]
        return tuple(messages)

    def parameters(self) -> dict[str, JsonValue]:
        """The parameters that go to the backend, by OpenAI's names."""
        parameters: dict[str, JsonValue] = {}
        if self.tools:
            parameters["tools"] = [tool.plain() for tool in self.tools]
        if self.tool_choice is not None:
            parameters["tool_choice"] = self.tool_choice.plain()
            if self.tool_choice.disable_parallel_tool_use:
                parameters["parallel_tool_calls"] = False
        if self.output_config is not None and self.output_config.format is not None:
            schema: JsonValue = {"name": "answer", "schema": self.output_config.format.json_schema, "strict": True}
            parameters["response_format"] = {"type": "json_schema", "json_schema": schema}
        if self.output_config is not None and self.output_config.effort is not None:
            parameters["reasoning_effort"] = self.output_config.effort
        return parameters


class Thinking(_Lenient):
    """Whether the client wants to see what the model thinks. How much it thinks is for `output_config` to say."""

    type: str
    display: str | None = None


class MessagesRequest(CountRequest):
    """Anthropic's request for a message. Fields that are not named here are taken and dropped."""

    max_tokens: int = Field(ge=1, le=1_000_000)
    stream: bool | None = False
    metadata: MessageMetadata | None = None
    temperature: float | None = Field(default=None, ge=0, le=1)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=0)
    thinking: Thinking | None = None
    stop_sequences: tuple[Annotated[str, Field(min_length=1)], ...] | None = None
    thread: Json = Field(default=None, description="None: the conversation is sent whole each time.")
    mcp_servers: tuple[Json, ...] | None = Field(default=None, max_length=0, description="None: tools are the client's to run.")

    @property
    def shows_thoughts(self) -> bool:
        """Whether the answer may begin with a `thinking` block, which clients that ask for none do not expect."""
        return self.thinking is not None and self.thinking.type in ("enabled", "adaptive") and self.thinking.display != "omitted"

    def parameters(self) -> dict[str, JsonValue]:
        """The parameters that go to the backend, by OpenAI's names."""
        optional: dict[str, JsonValue] = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "stop": list(self.stop_sequences) if self.stop_sequences else None,
        }
        sampling = {name: value for name, value in optional.items() if value is not None}
        return {"max_tokens": self.max_tokens, **sampling, **super().parameters()}


def build_infer_request(request: MessagesRequest) -> InferRequest:
    """The same request to `infer`. Raises: NotFound for a model that is no skill's name, InvalidInput where nothing is
    left of the messages, ThreadUnsupported where they are to go on from ones that were sent before."""
    if request.thread is not None:
        raise ThreadUnsupported("conversations are not kept here: send all messages, without a thread", param="thread")
    skill, policy_id = parse_model(request.model)
    messages = request.chat()
    if not messages:
        raise InvalidInput("the messages have no content", param="messages")
    return InferRequest(
        skill=skill,
        policy_id=policy_id,
        messages=messages,
        inputs=request.inputs,
        documents=request.documents,
        parameters=request.parameters(),
        thread_id=request.thread_id,
        user_id=request.user_id or (request.metadata.user_id if request.metadata else None),
        interaction_id=request.interaction_id,
        tags=request.tags,
    )


def count_tokens(request: CountRequest, *, tenant_id: str) -> int:
    """About how many tokens the request's prompt has at most, as budgets set them aside; what the skill's policy puts
    before it is not counted. Raises: NotFound for a model that is no skill's name."""
    parse_model(request.model)
    return count_prompt_tokens(ChatCall(messages=request.chat(), parameters=request.parameters(), tenant_id=tenant_id))


def to_message(request: MessagesRequest, answer: Answer) -> dict[str, JsonValue]:
    """Anthropic's message. `id` is the output id and takes feedback; RLaaS's own fields stand under `rlaas::`."""
    choice = answer.choices[0]
    thoughts = choice.reasoning_content if request.shows_thoughts else None
    return {
        "id": answer.output_id,
        "type": "message",
        "role": "assistant",
        "model": request.model,
        "content": _build_content(choice, thoughts),
        **build_stop(choice.finish_reason, has_calls=bool(choice.tool_calls), refusal=choice.refusal, stop_sequence=choice.stop_sequence),
        "usage": build_usage(answer.usage, answer.processing),
        **extras(answer),
        "rlaas::cost_usd": answer.cost_usd,
    }


def build_usage(usage: Usage | None, processing: Processing = UNKNOWN_PROCESSING) -> dict[str, JsonValue]:
    """Anthropic's `usage`, whose `input_tokens` were neither read from a cache nor written to one; zeros where nobody
    counted."""
    usage = usage or Usage(input_tokens=0, output_tokens=0)
    for_an_hour = min(usage.cache_write_1h_tokens, usage.cache_write_tokens)
    counts: dict[str, JsonValue] = {
        "input_tokens": max(0, usage.input_tokens - usage.cached_tokens - usage.cache_write_tokens),
        "output_tokens": usage.output_tokens,
        "cache_read_input_tokens": usage.cached_tokens,
        "cache_creation_input_tokens": usage.cache_write_tokens,
        "cache_creation": {
            "ephemeral_5m_input_tokens": usage.cache_write_tokens - for_an_hour,
            "ephemeral_1h_input_tokens": for_an_hour,
        },
    }
    if usage.reasoning_tokens:
        counts["output_tokens_details"] = {"thinking_tokens": usage.reasoning_tokens}
    if processing.service_tier in _TIERS:
        counts["service_tier"] = _TIERS[processing.service_tier]
    return counts


def build_stop(
    finish_reason: str | None, *, has_calls: bool, refusal: str | None, stop_sequence: str | None = None
) -> dict[str, JsonValue]:
    """Why the answer ended, in Anthropic's words. Some servers say `stop` of an answer that calls tools."""
    reason = STOP_REASONS.get(finish_reason or "stop", "end_turn")
    if refusal:
        reason = "refusal"
    elif has_calls and reason == "end_turn":
        reason = "tool_use"
    elif stop_sequence is not None and reason == "end_turn":
        reason = "stop_sequence"
    details: JsonValue = {"type": "refusal", "category": None, "explanation": refusal} if reason == "refusal" else None
    return {"stop_reason": reason, "stop_sequence": stop_sequence if reason == "stop_sequence" else None, "stop_details": details}


def thinking_block(thoughts: str) -> dict[str, JsonValue]:
    """What the model thought. It is not signed: only Anthropic can do that, and RLaaS takes it back without."""
    return {"type": "thinking", "thinking": thoughts, "signature": ""}


def _build_content(choice: Choice, thoughts: str | None) -> list[JsonValue]:
    text = choice.text or ("" if choice.tool_calls else choice.refusal or "")
    blocks: list[JsonValue] = [thinking_block(thoughts)] if thoughts else []
    if text:
        blocks.append({"type": "text", "text": text})
    for call in choice.tool_calls:
        blocks.append({"type": "tool_use", "id": call.id, "name": call.function.name, "input": read_arguments(call)})
    return blocks
