"""Reports chat completions of an `openai` client as interactions and outputs. The call, its answer and its errors stay
as they are.

The client is changed in place: `chat.completions.create` and `.parse` (and with them `.stream`) report each call, and
so do those of its copies (`with_options`). Calls with a model `rlaas::<skill>` are not reported: the service records
them itself.
"""

from __future__ import annotations

import contextlib
import inspect
import time
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from rlaas_sdk import events, ids
from rlaas_sdk.events import Common, Event, Json, Message, ToolCall, Usage

if TYPE_CHECKING:
    from typing_extensions import Unpack

RecordEvent = Callable[[Callable[[], Event]], None]
_TRACED_ATTRIBUTE = "__rlaas_traced__"
_common: ContextVar[Common] = ContextVar("rlaas_common")


class Trace(NamedTuple):
    """The ids under which a traced call was reported; feedback needs one of them."""

    interaction_id: str
    output_id: str


_traces: dict[int, tuple[weakref.ref[object], Trace]] = {}


def trace_of(answer: object) -> Trace | None:
    """The ids of a completion or a stream that a wrapped client returned; None for any other object."""
    if (entry := _traces.get(id(answer))) and entry[0]() is answer:
        return entry[1]
    identifier = getattr(answer, "id", None)
    interaction = ids.interaction_of(identifier) if isinstance(identifier, str) else None
    return Trace(interaction, identifier) if interaction is not None and isinstance(identifier, str) else None


@contextmanager
def tracing(**common: Unpack[Common]) -> Iterator[None]:
    """Within the block, traced calls carry these fields: `with tracing(thread_id="t-7", user_id="u-1"):`."""
    token = _common.set(cast("Common", {**_common.get(cast("Common", {})), **common}))
    try:
        yield
    finally:
        _common.reset(token)


def trace_completions(client: object, record: RecordEvent, *, skill: str, stream_usage: bool) -> None:
    """Call `record` for each chat completion of `client` and of its copies. Wrapping a client twice changes nothing."""
    openai = cast("Any", client)
    for chat in (openai.chat, getattr(getattr(openai, "beta", None), "chat", None)):
        completions = getattr(chat, "completions", None)
        for name in ("create", "parse"):
            _replace(completions, name, lambda original: _trace_method(original, record, skill, stream_usage))
    for name in ("copy", "with_options"):
        _replace(openai, name, lambda original: _trace_copies(original, record, skill, stream_usage))


def _replace(owner: object, name: str, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    original = getattr(owner, name, None)
    if original is not None and not hasattr(original, _TRACED_ATTRIBUTE):
        replacement = wrap(original)
        setattr(replacement, _TRACED_ATTRIBUTE, True)
        setattr(owner, name, replacement)


def _trace_copies(original: Callable[..., Any], record: RecordEvent, skill: str, stream_usage: bool) -> Callable[..., Any]:
    def copy_and_trace(*args: Any, **options: Any) -> Any:
        copy = original(*args, **options)
        with contextlib.suppress(Exception):
            trace_completions(copy, record, skill=skill, stream_usage=stream_usage)
        return copy

    return copy_and_trace


def _trace_method(original: Callable[..., Any], record: RecordEvent, skill: str, stream_usage: bool) -> Callable[..., Any]:
    def begin_trace(request: dict[str, Any]) -> _TracedCall | None:
        with contextlib.suppress(Exception):
            if not str(request.get("model")).startswith("rlaas::"):
                return _TracedCall(record, skill, request, stream_usage=stream_usage)
        return None

    def create(*args: Any, **request: Any) -> Any:
        if (traced_call := begin_trace(request)) is None:
            return original(*args, **request)
        try:
            answer = original(*args, **traced_call.request)
        except BaseException as error:
            traced_call.report_error(error)
            raise
        traced_call.report_answer(answer)
        return answer

    async def create_async(*args: Any, **request: Any) -> Any:
        if (traced_call := begin_trace(request)) is None:
            return await original(*args, **request)
        try:
            answer = await original(*args, **traced_call.request)
        except BaseException as error:
            traced_call.report_error(error)
            raise
        traced_call.report_answer(answer)
        return answer

    wrapper = create_async if inspect.iscoroutinefunction(inspect.unwrap(original)) else create
    for attribute in ("__name__", "__qualname__", "__doc__", "__module__", "__signature__"):
        with contextlib.suppress(AttributeError, TypeError):
            setattr(wrapper, attribute, getattr(original, attribute))
    return wrapper


class _TracedCall:
    """One traced call, from its arguments to its report."""

    def __init__(self, record: RecordEvent, skill: str, request: dict[str, Any], *, stream_usage: bool) -> None:
        self._record = record
        self._skill = skill
        self._interaction_id = ids.interaction_id()
        self._output_id = ids.first_output_id(self._interaction_id)
        self._start_s = time.perf_counter()
        self._started_at = datetime.now(timezone.utc)
        user = next((value for name in ("user", "safety_identifier") if isinstance(value := request.get(name), str)), None)
        self._common = cast("Common", {"user_id": user, **_common.get(cast("Common", {}))})
        self._model = str(request.get("model"))
        messages = request.get("messages")
        self._messages = [_convert_message(message) for message in messages] if isinstance(messages, (list, tuple)) else []
        tools = request.get("tools")
        self._tools = [tool for tool in tools if isinstance(tool, Mapping)] if isinstance(tools, (list, tuple)) else []
        options = request.get("stream_options")
        self._hides_usage = stream_usage and bool(request.get("stream")) and not isinstance(options, Mapping)
        self.request = {**request, "stream_options": {"include_usage": True}} if self._hides_usage else request

    def report_error(self, error: BaseException) -> None:
        """Report the interaction alone, with the error's name."""
        self._report({"error": type(error).__name__}, [], None, None)

    def report_answer(self, answer: Any) -> None:
        """Report a completion now and a stream when it ends; do not report anything else (raw responses)."""
        with contextlib.suppress(Exception):
            if isinstance(getattr(answer, "choices", None), list):
                self._remember(answer)
                choices = [(c.message.content or "", c.finish_reason, _convert_tool_calls(c.message.tool_calls)) for c in answer.choices]
                self._report({"response_id": answer.id}, choices, _convert_usage(answer.usage), self._elapsed_ms())
            elif hasattr(answer, "__aiter__") and hasattr(answer, "_iterator"):
                self._remember(answer)
                answer._iterator = async_chunks = self._astream(answer._iterator)
                answer.close = _close_with_async(answer.close, async_chunks)
            elif hasattr(answer, "__iter__") and hasattr(answer, "_iterator"):
                self._remember(answer)
                answer._iterator = chunks = self._stream(answer._iterator)
                answer.close = _close_with(answer.close, chunks)

    def _stream(self, chunks: Iterator[Any]) -> Generator[Any, None, None]:
        answer = _StreamedAnswer()
        try:
            for chunk in chunks:
                if not (answer.add(chunk) and self._hides_usage):
                    yield chunk
        except Exception as error:
            answer.error = type(error).__name__
            raise
        finally:
            self._report_stream(answer)

    async def _astream(self, chunks: AsyncIterator[Any]) -> AsyncGenerator[Any, None]:
        answer = _StreamedAnswer()
        try:
            async for chunk in chunks:
                if not (answer.add(chunk) and self._hides_usage):
                    yield chunk
        except Exception as error:
            answer.error = type(error).__name__
            raise
        finally:
            self._report_stream(answer)

    def _report_stream(self, answer: _StreamedAnswer) -> None:
        tools = {index: list(calls.values()) for index, calls in answer.tools.items()}
        choices: list[tuple[str, str | None, list[ToolCall]]] = [
            ("".join(answer.texts[index]), answer.finish_reasons.get(index), _build_tool_calls(tools.get(index, [])))
            for index in sorted(answer.texts)
        ]
        openai: dict[str, Json] = {"response_id": answer.response_id, "stream": True}
        if answer.error:
            openai["error"] = answer.error
        self._report(openai, choices, answer.usage, self._elapsed_ms())

    def _report(
        self,
        openai: Mapping[str, Json],
        choices: Sequence[tuple[str, str | None, list[ToolCall]]],
        usage: Usage | None,
        latency_ms: float | None,
    ) -> None:
        metadata: dict[str, Json] = {**(self._common.get("metadata") or {}), "openai": {"model": self._model, **openai}}
        common = cast("Common", {"occurred_at": self._started_at, **self._common, "metadata": metadata})
        self._record(lambda: events.build_interaction(self._skill, self._interaction_id, None, self._messages, common, self._tools))
        for index, (text, finish, tools) in enumerate(choices):
            self._report_output(index, text, finish, tools, metadata, usage, latency_ms)

    def _report_output(
        self,
        index: int,
        text: str,
        finish: str | None,
        tools: list[ToolCall],
        metadata: dict[str, Json],
        usage: Usage | None,
        latency_ms: float | None,
    ) -> None:
        identifier = ids.output_id(self._interaction_id) if index else self._output_id
        common = cast("Common", {**self._common, "metadata": metadata})
        self._record(
            lambda: events.build_output(
                self._skill,
                identifier,
                self._interaction_id,
                text,
                policy_id=None,
                messages=self._messages,
                usage=None if index else usage,
                latency_ms=latency_ms,
                finish_reason=finish,
                common=common,
                tool_calls=tools,
            )
        )

    def _remember(self, answer: object) -> None:
        key = id(answer)
        _traces[key] = (weakref.ref(answer, lambda _: _traces.pop(key, None)), Trace(self._interaction_id, self._output_id))

    def _elapsed_ms(self) -> float:
        return round((time.perf_counter() - self._start_s) * 1000, 3)


def _close_with(close: Callable[[], None], chunks: Generator[Any, None, None]) -> Callable[[], None]:
    def close_both() -> None:
        try:
            close()
        finally:
            with contextlib.suppress(Exception):
                chunks.close()

    return close_both


def _close_with_async(close: Callable[[], Awaitable[None]], chunks: AsyncGenerator[Any, None]) -> Callable[[], Awaitable[None]]:
    async def close_both() -> None:
        try:
            await close()
        finally:
            with contextlib.suppress(Exception):
                await chunks.aclose()

    return close_both


class _StreamedAnswer:
    """The parts of a stream's answer so far, by the index of the choice."""

    def __init__(self) -> None:
        self.response_id: str | None = None
        self.error: str | None = None
        self.texts: dict[int, list[str]] = {}
        self.finish_reasons: dict[int, str] = {}
        self.tools: dict[int, dict[int, dict[str, str]]] = {}
        self.usage: Usage | None = None

    def add(self, chunk: Any) -> bool:
        """Add a chunk; True where it holds the usage and nothing else. Never raises."""
        with contextlib.suppress(Exception):
            self.response_id = chunk.id or self.response_id
            self.usage = _convert_usage(chunk.usage) or self.usage
            for choice in chunk.choices:
                self.texts.setdefault(choice.index, []).append(choice.delta.content or "")
                if choice.finish_reason:
                    self.finish_reasons[choice.index] = choice.finish_reason
                for part in choice.delta.tool_calls or ():
                    tool = self.tools.setdefault(choice.index, {}).setdefault(part.index, {"id": "", "name": "", "arguments": ""})
                    tool["id"] += part.id or ""
                    tool["name"] += (part.function and part.function.name) or ""
                    tool["arguments"] += (part.function and part.function.arguments) or ""
            return chunk.usage is not None and not chunk.choices
        return False


def _convert_message(message: Any) -> Message:
    """A message as the service takes it: the role developer becomes system, text parts are joined, tools' calls and
    results stay as they are."""
    fields = message if isinstance(message, Mapping) else message.model_dump()
    role = fields.get("role")
    content = fields.get("content")
    if isinstance(content, (list, tuple)):
        content = "".join(part.get("text", f"[{part.get('type')}]") for part in content)
    text = content or fields.get("refusal") or ""
    if role == "tool" and fields.get("tool_call_id"):
        return {"role": "tool", "content": text, "tool_call_id": fields["tool_call_id"]}
    if role in ("tool", "function"):
        text = f"[tool result] {text}"
    if role in ("system", "developer"):
        return {"role": "system", "content": text}
    converted: Message = {"role": "assistant" if role == "assistant" else "user", "content": text}
    calls = [_build_tool_call(call["id"], call["function"]) for call in fields.get("tool_calls") or () if call.get("function")]
    return {**converted, "tool_calls": calls} if calls and role == "assistant" else converted


def _build_tool_call(call_id: str, function: Mapping[str, str]) -> ToolCall:
    return {"id": call_id, "type": "function", "function": {"name": function["name"], "arguments": function["arguments"]}}


def _convert_tool_calls(calls: Any) -> list[ToolCall]:
    return [_build_tool_call(call.id, call.function.model_dump()) for call in calls or () if call.type == "function"]


def _build_tool_calls(parts: Sequence[Mapping[str, str]]) -> list[ToolCall]:
    return [_build_tool_call(part["id"], part) for part in parts]


def _convert_usage(usage: Any) -> Usage | None:
    return {"input_tokens": usage.prompt_tokens, "output_tokens": usage.completion_tokens} if usage is not None else None
