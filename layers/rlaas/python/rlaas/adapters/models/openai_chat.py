"""OpenAI's chat completions on the wire: requests, whole answers, and streams."""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, JsonValue, ValidationError

from rlaas.adapters.models.vendor_failures import failure, make_usage
from rlaas.chat import BackendFailed, CalledFunction, ChatCall, Choice, Completion, Delta, ToolCall, ToolCallDelta, Usage
from rlaas.errors import RlaasError
from rlaas.wire import Json


class _Function(BaseModel):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(BaseModel):
    id: str | None = None
    function: _Function
    index: int | None = None


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[_ToolCall] | None = None


def _shorten_reason(reason: str | None) -> str | None:
    return reason[:128] if reason else None  # some servers send an empty one with every piece


_FinishReason = Annotated[str | None, AfterValidator(_shorten_reason)]


def _text_only(reason: JsonValue) -> str | None:
    return reason if isinstance(reason, str) and reason else None


_StopReason = Annotated[str | None, BeforeValidator(_text_only)]
"""What vLLM says beside `finish_reason`: the stop sequence, or the number of the token that ended the answer."""


class _Choice(BaseModel):
    index: int = 0
    message: _Message
    finish_reason: _FinishReason = None
    stop_reason: _StopReason = None
    logprobs: Json = None


class _PromptDetails(BaseModel):
    cached_tokens: int | None = None


class _Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int = 0
    prompt_tokens_details: _PromptDetails | None = None

    def plain(self) -> Usage | None:
        cached = self.prompt_tokens_details.cached_tokens if self.prompt_tokens_details else None
        return make_usage(input_tokens=self.prompt_tokens, output_tokens=self.completion_tokens, cached_tokens=cached or 0)


class _ChatCompletion(BaseModel):
    choices: list[_Choice]
    usage: _Usage | None = None
    model: str | None = None


class _StreamedChoice(BaseModel):
    index: int = 0
    delta: _Message = _Message()
    finish_reason: _FinishReason = None
    stop_reason: _StopReason = None
    logprobs: Json = None


class _Chunk(BaseModel):
    choices: list[_StreamedChoice] = []
    usage: _Usage | None = None
    model: str | None = None
    error: JsonValue = None


def chat_body(call: ChatCall, *, stream: bool, model: str | None = None) -> dict[str, JsonValue]:
    """The request's body: every parameter as it is, without nulls. A stream is always asked to end with its usage."""
    body: dict[str, JsonValue] = {name: value for name, value in call.parameters.items() if value is not None}
    body.pop("stream_options", None)
    if model is not None:
        body["model"] = model
    body["messages"] = [message.plain() for message in call.messages]
    if stream:
        body["stream"] = True
        body["stream_options"] = {"include_usage": True}
    return body


def completion_of(vendor: str, content: bytes) -> Completion:
    """The answer in the response's body. Raises: BackendFailed when it is not a chat completion."""
    try:
        answer = _ChatCompletion.model_validate_json(content)
        choices = tuple(map(_choice, sorted(answer.choices, key=lambda choice: choice.index)))
    except ValidationError as error:
        raise _unreadable_answer(vendor) from error
    if not choices:
        raise _unreadable_answer(vendor)
    return Completion(choices=choices, usage=answer.usage.plain() if answer.usage else None, model=answer.model)


def deltas_of(vendor: str, events: Iterable[bytes], *, choices: int) -> Iterator[Delta]:
    """The answer piece by piece from each event's data; last of all the usage, where the server sends it. Some servers
    send it with every piece, so far.

    Raises: BackendFailed on an error in the stream, on an event that cannot be read, and when the stream ends before
    all of the number `choices` have finished.
    """
    finished: set[int] = set()
    usage: Usage | None = None
    model: str | None = None
    for data in events:
        if is_done(data):
            break
        try:
            chunk = _Chunk.model_validate_json(data)
        except ValidationError as error:
            raise _unreadable_answer(vendor) from error
        if chunk.error is not None:
            raise BackendFailed(f"{vendor} failed in mid-answer")
        usage = chunk.usage.plain() if chunk.usage else usage
        model = chunk.model or model
        for choice in chunk.choices:
            if choice.finish_reason:
                finished.add(choice.index)
            yield _delta(choice, model, chunk.usage.plain() if chunk.usage else None)
    if not finished.issuperset(range(choices)):
        raise BackendFailed(f"{vendor} broke off before the answer was finished")
    if usage is not None:
        yield Delta(usage=usage, model=model)


def is_done(data: bytes) -> bool:
    """Whether this is the data of a stream's last event."""
    return data == b"[DONE]"


def read_refusal(
    vendor: str, status: int, content: bytes | str, *, private: Iterable[str] = (), retry_after_s: float | None = None
) -> RlaasError:
    """The error to raise for a response other than 200, from its status and its body, which is OpenAI's error body or
    like it. What the server says is quoted without the texts `private`."""
    error = _find_error(content)
    message, param = error.get("message") or error.get("detail") or "", error.get("param")
    metadata = error.get("metadata")
    if isinstance(metadata, dict) and isinstance(metadata.get("raw"), str):  # OpenRouter, of the provider behind it
        message = f"{message}: {metadata['raw']}"
    return failure(
        vendor,
        status,
        code=error.get("code"),
        error_type=error.get("type") or error.get("error_type") or error.get("status"),
        param=param,
        message=message if isinstance(message, str) else json.dumps(message, ensure_ascii=False),
        private=private,
        retry_after_s=retry_after_s,
    )


def _find_error(content: bytes | str) -> Mapping[str, JsonValue]:
    """The error in a body: under `error`, or at the top as older versions of vLLM and FastAPI write it, or in a list as
    Google does. Empty where the body is no JSON."""
    try:
        body: JsonValue = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    if isinstance(body, list) and body:
        body = body[0]
    if not isinstance(body, dict):
        return {}
    error = body.get("error")
    if isinstance(error, str):
        return {**body, "message": error}
    return error if isinstance(error, dict) else body


def count_choices(parameters: Mapping[str, JsonValue]) -> int:
    """How many choices `parameters` ask for, at least 1."""
    count = parameters.get("n")
    return count if isinstance(count, int) and count > 0 else 1


def _choice(choice: _Choice) -> Choice:
    calls = (
        ToolCall(id=call.id or "", function=CalledFunction(name=call.function.name or "", arguments=call.function.arguments or ""))
        for call in choice.message.tool_calls or ()
    )
    return Choice(
        text=choice.message.content or "",
        finish_reason=choice.finish_reason,
        tool_calls=tuple(calls),
        refusal=choice.message.refusal,
        logprobs=choice.logprobs,
        stop_sequence=choice.stop_reason,
    )


def _delta(choice: _StreamedChoice, model: str | None, usage: Usage | None) -> Delta:
    calls = tuple(
        ToolCallDelta(
            index=position if call.index is None else call.index,
            arguments=call.function.arguments or "",
            id=call.id or None,
            name=call.function.name or None,
        )
        for position, call in enumerate(choice.delta.tool_calls or ())
    )
    return Delta(
        index=choice.index,
        text=choice.delta.content or "",
        tool_calls=calls,
        refusal=choice.delta.refusal,
        finish_reason=choice.finish_reason,
        logprobs=choice.logprobs,
        usage=usage,
        model=model,
        stop_sequence=choice.stop_reason,
    )


def _unreadable_answer(vendor: str) -> BackendFailed:
    return BackendFailed(f"{vendor}'s answer is not a chat completion")
