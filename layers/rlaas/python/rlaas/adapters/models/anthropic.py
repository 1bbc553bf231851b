"""Answers from Anthropic's Messages API, for requests and with answers in the form of OpenAI's chat API."""

import re
from collections.abc import Generator, Iterable, Iterator, Mapping
from typing import Annotated

from pydantic import BaseModel, ValidationError

from rlaas.adapters.aws.secrets import VendorKeys
from rlaas.adapters.models.answer_repair import NO_ARGUMENTS, repair_completion, repair_deltas
from rlaas.adapters.models.anthropic_requests import VENDOR, messages_body
from rlaas.adapters.models.trace_context import context_headers
from rlaas.adapters.models.vendor_failures import blame_translation, failure, make_usage
from rlaas.adapters.models.vendor_http import VendorHttp, VendorRefused
from rlaas.adapters.models.vendor_json import CountOrNone, OrNone, read_json
from rlaas.chat import (
    BackendFailed,
    CalledFunction,
    ChatCall,
    Choice,
    Completion,
    Delta,
    JsonObject,
    Processing,
    ToolCall,
    ToolCallDelta,
    Usage,
    arguments_text,
)
from rlaas.errors import RlaasError
from rlaas.inference.anthropic_words import FINISH_REASONS, PARAMETERS, SERVICE_TIERS
from rlaas.policies.backend import AnthropicBackend
from rlaas.policies.hosts import find_host

VERSION = "2023-06-01"
_PARAMETER = re.compile(r"`?([a-z_]{1,32})\b")
_OPENAI_NAMES: Mapping[str, str] = {**PARAMETERS, "prompt": "messages"}
"""OpenAI's names of the parameters in the API's messages. `prompt` begins the one about a prompt that is too long."""


class _Block(BaseModel):
    type: str
    text: str | None = None
    thinking: str | None = None
    id: str | None = None
    name: str | None = None
    input: JsonObject | None = None


class _OutputDetails(BaseModel):
    thinking_tokens: CountOrNone = None


class _CacheCreation(BaseModel):
    ephemeral_5m_input_tokens: CountOrNone = None
    ephemeral_1h_input_tokens: CountOrNone = None


class _Usage(BaseModel):
    input_tokens: Annotated[int | None, OrNone] = None
    output_tokens: Annotated[int | None, OrNone] = None
    cache_creation_input_tokens: CountOrNone = None
    cache_creation: Annotated[_CacheCreation | None, OrNone] = None
    cache_read_input_tokens: CountOrNone = None
    output_tokens_details: Annotated[_OutputDetails | None, OrNone] = None
    service_tier: Annotated[str | None, OrNone] = None

    def plain(self) -> Usage | None:
        """The usage with all input tokens: the API's `input_tokens` leaves out tokens read from the cache or written to
        it. None where the vendor does not say both counts."""
        if self.input_tokens is None or self.output_tokens is None:
            return None
        cached, by_ttl = self.cache_read_input_tokens or 0, self.cache_creation or _CacheCreation()
        for_an_hour = by_ttl.ephemeral_1h_input_tokens or 0
        writes = max(self.cache_creation_input_tokens or 0, (by_ttl.ephemeral_5m_input_tokens or 0) + for_an_hour)
        thought = self.output_tokens_details.thinking_tokens if self.output_tokens_details is not None else None
        return make_usage(
            input_tokens=self.input_tokens + writes + cached,
            output_tokens=self.output_tokens,
            cached_tokens=cached,
            cache_write_tokens=writes,
            cache_write_1h_tokens=for_an_hour,
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
                tools[event.index] = _StreamedTool(len(tools), arguments_text(block.input or {}))
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
                tool = tools[event.index]
                yield Delta(tool_calls=(ToolCallDelta(tool.index, arguments=tool.begun_with),), model=model)
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
    """A tool call of which more is to come: its index among the calls, whether any of its arguments has come, and those
    that it has without any: proxies that do not stream begin a block with all of its input."""

    def __init__(self, index: int, begun_with: str = NO_ARGUMENTS) -> None:
        self.index = index
        self.begun_with = begun_with
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
