"""Answers from Anthropic's Messages API, for requests and with answers in the form of OpenAI's chat API."""

import re
from collections.abc import Generator, Iterable, Iterator, Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, JsonValue, ValidationError

from rlaas.adapters.aws.secrets import VendorKeys
from rlaas.adapters.models.answer_repair import NO_ARGUMENTS, repair_completion, repair_deltas
from rlaas.adapters.models.openai_parameters import NamedTool, Parameters, group_turns, join_system_texts, read_parameters
from rlaas.adapters.models.trace_context import context_headers
from rlaas.adapters.models.vendor_failures import blame_translation, failure, make_usage
from rlaas.adapters.models.vendor_http import VendorHttp, VendorRefused
from rlaas.adapters.models.vendor_json import CountOrNone, OrNone, read_json
from rlaas.adapters.models.vendor_parts import anthropic_block
from rlaas.chat import (
    BackendFailed,
    CalledFunction,
    ChatCall,
    Choice,
    Completion,
    Delta,
    JsonObject,
    Message,
    Processing,
    ToolCall,
    ToolCallDelta,
    Usage,
    arguments_text,
    read_arguments,
)
from rlaas.errors import InvalidInput, RlaasError
from rlaas.inference.anthropic_words import FINISH_REASONS, PARAMETERS, SERVICE_TIERS, TOOL_CHOICES
from rlaas.policies.backend import AnthropicBackend
from rlaas.policies.hosts import find_host

VENDOR = "Anthropic"
VERSION = "2023-06-01"
SUPPORTED = frozenset(Parameters.model_fields)
# The API's own defaults. Its newer models refuse these parameters, and some refuse both together.
DEFAULTS: Mapping[str, JsonValue] = {"temperature": 1, "top_p": 1}
_PARAMETER = re.compile(r"`?([a-z_]{1,32})\b")
_OPENAI_NAMES: Mapping[str, str] = {**PARAMETERS, "prompt": "messages"}
"""OpenAI's names of the parameters in the API's messages. `prompt` begins the one about a prompt that is too long."""
_TOOL_CHOICES = {openai: anthropic for anthropic, openai in TOOL_CHOICES.items()}


class _Block(BaseModel):
    type: str
    text: str | None = None
    thinking: str | None = None
    id: str | None = None
    name: str | None = None
    input: JsonObject | None = None


class _OutputDetails(BaseModel):
    thinking_tokens: CountOrNone = None


class _Usage(BaseModel):
    input_tokens: Annotated[int | None, OrNone] = None
    output_tokens: Annotated[int | None, OrNone] = None
    cache_creation_input_tokens: CountOrNone = None
    cache_read_input_tokens: CountOrNone = None
    output_tokens_details: Annotated[_OutputDetails | None, OrNone] = None
    service_tier: Annotated[str | None, OrNone] = None

    def plain(self) -> Usage | None:
        """The usage with all input tokens: the API's `input_tokens` leaves out tokens read from the cache or written to
        it. None where the vendor does not say both counts."""
        if self.input_tokens is None or self.output_tokens is None:
            return None
        cached = self.cache_read_input_tokens or 0
        thought = self.output_tokens_details.thinking_tokens if self.output_tokens_details is not None else None
        return make_usage(
            input_tokens=self.input_tokens + (self.cache_creation_input_tokens or 0) + cached,
            output_tokens=self.output_tokens,
            cached_tokens=cached,
            reasoning_tokens=thought or 0,
        )

    def with_later(self, later: "_Usage") -> "_Usage":
        """The usage after the event `later`: a stream's counts are cumulative, and a count that is left out stays."""
        counts = {name: getattr(later, name) for name in later.model_fields_set}
        return self.model_copy(update={name: count for name, count in counts.items() if count is not None})

    @property
    def processing(self) -> Processing:
        """The tier, in OpenAI's words."""
        return Processing(service_tier=SERVICE_TIERS.get(self.service_tier or ""))


class _StopDetails(BaseModel):
    explanation: str | None = None


class _Answer(BaseModel):
    content: list[_Block] | None = None
    model: str | None = None
    stop_reason: str | None = None
    stop_sequence: str | None = None
    stop_details: _StopDetails | None = None
    usage: Annotated[_Usage | None, OrNone] = None


class _Started(BaseModel):
    model: str | None = None
    usage: Annotated[_Usage | None, OrNone] = None


class _Piece(BaseModel):
    type: str | None = None
    text: str | None = None
    thinking: str | None = None
    partial_json: str | None = None
    stop_reason: str | None = None
    stop_sequence: str | None = None
    stop_details: _StopDetails | None = None


class _Event(BaseModel):
    type: str
    index: int = 0
    message: _Started | None = None
    content_block: _Block | None = None
    delta: _Piece | None = None
    usage: Annotated[_Usage | None, OrNone] = None


class _Error(BaseModel):
    type: str | None = None
    message: str = ""


class _Refusal(BaseModel):
    error: _Error


class AnthropicMessages:
    """`Backend` for `AnthropicBackend`."""

    def __init__(self, http: VendorHttp, secrets: VendorKeys) -> None:
        self._http = http
        self._secrets = secrets

    def complete(self, backend: AnthropicBackend, call: ChatCall, *, timeout_s: float) -> Completion:
        """The whole answer, within `timeout_s` seconds. Raises: BackendFailed, InvalidInput naming the parameter that
        Anthropic does not take or refuses."""
        body, headers = messages_body(backend.model, call), self._headers(backend, call)
        try:
            content = self._http.whole(VENDOR, _url(backend), body, headers, timeout_s=timeout_s)
        except VendorRefused as refusal:
            raise _read_refusal(refusal, backend, headers) from None
        return read_completion(content)

    def stream(self, backend: AnthropicBackend, call: ChatCall, *, timeout_s: float) -> Generator[Delta, None, None]:
        """The answer piece by piece, `timeout_s` seconds between pieces. Raises: as `complete`."""
        body = {**messages_body(backend.model, call), "stream": True}
        headers = self._headers(backend, call)
        events = self._http.events(VENDOR, _url(backend), body, headers, is_last=_is_last, timeout_s=timeout_s, ends_at=call.ends_at)
        try:
            for delta in read_deltas(events):
                yield delta
                events.restart_timeout()
        except VendorRefused as refusal:
            raise _read_refusal(refusal, backend, headers) from None
        finally:
            events.close()

    def _headers(self, backend: AnthropicBackend, call: ChatCall) -> Mapping[str, str]:
        key = self._secrets.key(call.tenant_id, backend.secret, base_url=backend.base_url, own_host=backend.OWN_HOST)
        return {"x-api-key": key, "anthropic-version": VERSION, **context_headers(call)}


def messages_body(model: str, call: ChatCall) -> JsonObject:
    """The Messages API's request. Raises: InvalidInput naming the parameter that it does not take, or `max_tokens`,
    which it requires."""
    parameters = read_parameters(VENDOR, call.parameters, SUPPORTED, defaults=DEFAULTS)
    if parameters.longest is None:
        raise InvalidInput(f"{VENDOR} needs max_tokens", param="max_tokens")
    body: JsonObject = {"model": model, "max_tokens": parameters.longest, "messages": [_turn(*turn) for turn in group_turns(call.messages)]}
    output: JsonObject = {}
    if parameters.response_format is not None:
        output["format"] = {"type": "json_schema", "schema": parameters.response_format.json_schema.json_schema}
    if parameters.reasoning_effort is not None:
        output["effort"] = parameters.reasoning_effort
    optional: JsonObject = {
        "system": join_system_texts(call.messages),
        "temperature": parameters.temperature,
        "top_p": parameters.top_p,
        "top_k": parameters.top_k,
        "stop_sequences": list[JsonValue](parameters.stops),
        "tools": _tools(parameters),
        "tool_choice": _tool_choice(parameters),
        "output_config": output,
        "metadata": {"user_id": parameters.user} if parameters.user else None,
    }
    return body | {name: value for name, value in optional.items() if value not in (None, "", [], {})}


def _turn(role: Literal["user", "assistant"], messages: Iterable[Message]) -> JsonValue:
    return {"role": role, "content": [block for message in messages for block in _blocks(message)]}


def _blocks(message: Message) -> Iterator[JsonValue]:
    if message.role == "tool":
        content: JsonValue = list(_pieces(message)) if message.parts else message.content
        yield {"type": "tool_result", "tool_use_id": message.tool_call_id, "content": content}
        return
    yield from _pieces(message)
    for call in message.tool_calls:
        yield {"type": "tool_use", "id": call.id, "name": call.function.name, "input": read_arguments(call)}


def _pieces(message: Message) -> Iterator[JsonValue]:
    for piece in message.pieces():
        yield {"type": "text", "text": piece} if isinstance(piece, str) else anthropic_block(VENDOR, piece)


def _tools(parameters: Parameters) -> list[JsonValue]:
    tools: list[JsonValue] = []
    for tool in parameters.tools or ():
        function = tool.function
        definition: JsonObject = {"name": function.name, "input_schema": function.parameters}
        if function.description:
            definition["description"] = function.description
        if function.strict:
            definition["strict"] = True
        tools.append(definition)
    return tools


def _tool_choice(parameters: Parameters) -> JsonObject | None:
    choice: JsonObject | None = None
    if not parameters.tools:
        return None
    if isinstance(parameters.tool_choice, NamedTool):
        choice = {"type": "tool", "name": parameters.tool_choice.function.name}
    elif parameters.tool_choice is not None:
        choice = {"type": _TOOL_CHOICES[parameters.tool_choice]}
    if parameters.parallel_tool_calls is False and parameters.tool_choice != "none":
        choice = {**(choice or {"type": "auto"}), "disable_parallel_tool_use": True}
    return choice


def read_completion(content: bytes) -> Completion:
    """The answer in the response's body. Raises: BackendFailed when it is not a message."""
    try:
        answer = read_json(_Answer, content)
    except ValidationError as error:
        raise _unreadable_answer() from error
    if answer.stop_reason is None:
        raise _unreadable_answer()
    blocks, usage = answer.content or (), answer.usage or _Usage()
    calls = (
        ToolCall(id=block.id or "", function=CalledFunction(name=block.name or "", arguments=arguments_text(block.input or {})))
        for block in blocks
        if block.type == "tool_use"
    )
    choice = Choice(
        text="".join(block.text or "" for block in blocks if block.type == "text"),
        finish_reason=finish_reason(answer.stop_reason),
        tool_calls=tuple(calls),
        refusal=(answer.stop_details.explanation or None) if answer.stop_details else None,
        stop_sequence=answer.stop_sequence,
        reasoning_content="".join(block.thinking or "" for block in blocks if block.type == "thinking") or None,
    )
    return repair_completion(Completion(choices=(choice,), usage=usage.plain(), model=answer.model, processing=usage.processing))


def read_deltas(events: Iterable[bytes]) -> Iterator[Delta]:
    """The answer piece by piece; first what was read, and the usage last of all.

    Raises: BackendFailed on an error in the stream, on an event that cannot be read, and when the stream ends before
    its `message_stop`.
    """
    return repair_deltas(_translate_events(events))


def _translate_events(events: Iterable[bytes]) -> Iterator[Delta]:
    tools: dict[int, _StreamedTool] = {}
    usage, model, finished = _Usage(), None, False
    for event in _read_events(events):
        match event:
            case _Event(type="message_start", message=_Started() as started):
                usage, model = started.usage or usage, started.model
                yield Delta(usage=usage.plain(), model=model)
            case _Event(type="content_block_start", content_block=_Block(type="tool_use") as block):
                tools[event.index] = _StreamedTool(len(tools))
                yield Delta(tool_calls=(ToolCallDelta(tools[event.index].index, id=block.id, name=block.name),), model=model)
            case (
                _Event(type="content_block_start", content_block=_Block(type="text", text=text))
                | _Event(type="content_block_delta", delta=_Piece(type="text_delta", text=text))
            ) if text:
                yield Delta(text=text, model=model)
            case (
                _Event(type="content_block_start", content_block=_Block(type="thinking", thinking=thinking))
                | _Event(type="content_block_delta", delta=_Piece(type="thinking_delta", thinking=thinking))
            ) if thinking:
                yield Delta(reasoning_content=thinking, model=model)
            case _Event(type="content_block_delta", delta=_Piece(type="input_json_delta") as piece) if piece.partial_json:
                tool = tools.setdefault(event.index, _StreamedTool(len(tools)))
                tool.has_arguments = True
                yield Delta(tool_calls=(ToolCallDelta(tool.index, arguments=piece.partial_json),), model=model)
            case _Event(type="content_block_stop") if event.index in tools and not tools[event.index].has_arguments:
                yield Delta(tool_calls=(ToolCallDelta(tools[event.index].index, arguments=NO_ARGUMENTS),), model=model)
            case _Event(type="message_delta", delta=_Piece() as piece):
                usage = usage.with_later(event.usage or _Usage())
                if piece.stop_reason is not None:
                    finished = True
                    refusal = piece.stop_details.explanation if piece.stop_details else None
                    reason = finish_reason(piece.stop_reason)
                    yield Delta(finish_reason=reason, refusal=refusal, model=model, stop_sequence=piece.stop_sequence)
    if not finished:
        raise _unfinished_answer()
    yield Delta(usage=usage.plain(), model=model, processing=usage.processing)


def _read_events(contents: Iterable[bytes]) -> Iterator[_Event]:
    """The events of a whole stream. Raises: BackendFailed, as `read_deltas` does."""
    has_stopped = False
    for content in contents:
        if not content.strip():
            continue  # keeps the connection alive
        try:
            event = read_json(_Event, content)
        except ValidationError as error:
            raise _unreadable_answer() from error
        if event.type == "error":
            raise BackendFailed(f"{VENDOR} failed in mid-answer")
        has_stopped = has_stopped or event.type == "message_stop"
        yield event
    if not has_stopped:
        raise _unfinished_answer()


class _StreamedTool:
    """A tool call of which more is to come: its index among the calls, and whether any of its arguments has come."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.has_arguments = False


def finish_reason(stop_reason: str) -> str:
    """OpenAI's finish reason for Anthropic's stop reason."""
    return FINISH_REASONS.get(stop_reason, "stop")


def find_parameter(message: str) -> str | None:
    """OpenAI's name of the parameter that Anthropic's error message is about: the message begins with Anthropic's
    name of it. None for a message about none."""
    match = _PARAMETER.match(message)
    return _OPENAI_NAMES.get(match[1]) if match else None


def _read_refusal(refusal: VendorRefused, backend: AnthropicBackend, headers: Mapping[str, str]) -> RlaasError:
    try:
        error = _Refusal.model_validate_json(refusal.content).error
    except ValidationError:
        error = _Error()
    failed = failure(
        VENDOR,
        refusal.status,
        error_type=error.type,
        param=find_parameter(error.message),
        message=error.message,
        private=(find_host(backend.base_url) or "", headers["x-api-key"]),
        retry_after_s=refusal.retry_after_s,
    )
    return blame_translation(VENDOR, failed) if refusal.status == 400 else failed


def _is_last(data: bytes) -> bool:
    return b'"message_stop"' in data[:40]


def _url(backend: AnthropicBackend) -> str:
    return f"{backend.base_url.rstrip('/')}/messages"


def _unfinished_answer() -> BackendFailed:
    return BackendFailed(f"{VENDOR} broke off before the answer was finished")


def _unreadable_answer() -> BackendFailed:
    return BackendFailed(f"{VENDOR}'s answer is not a message")
