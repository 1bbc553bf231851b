"""Chat completions of an `openai` client, reported as interactions and outputs. The call, its answer and its errors
stay as they are.

The client is changed in place: `chat.completions.create` and `.parse` (and with them `.stream`) report what they did,
also those of its copies (`with_options`). Nothing is reported for models `rlaas::<skill>`, which the service itself
records.
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

Record = Callable[[Callable[[], Event]], None]
_MARK = "__rlaas_traced__"
_common: ContextVar[Common] = ContextVar("rlaas_common")


class Trace(NamedTuple):
    """The ids under which a traced call was reported; feedback takes either."""

    interaction_id: str
    output_id: str


_traces: dict[int, tuple[weakref.ref[object], Trace]] = {}


def trace_of(answer: object) -> Trace | None:
    """The ids of a completion (or of a stream) that a wrapped client gave; None for any other object."""
    if (found := _traces.get(id(answer))) and found[0]() is answer:
        return found[1]
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


def trace_completions(client: object, record: Record, *, skill: str, stream_usage: bool) -> None:
    """Have the chat completions of `client` and of its copies reported by `record`. Wrapping a client twice changes
    nothing."""
    openai = cast("Any", client)
    for chat in (openai.chat, getattr(getattr(openai, "beta", None), "chat", None)):
        completions = getattr(chat, "completions", None)
        for name in ("create", "parse"):
            _replace(completions, name, lambda original: _traced(original, record, skill, stream_usage))
    for name in ("copy", "with_options"):
        _replace(openai, name, lambda original: _tracing_its_result(original, record, skill, stream_usage))


def _replace(owner: object, name: str, changed: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    original = getattr(owner, name, None)
    if original is not None and not hasattr(original, _MARK):
        replacement = changed(original)
        setattr(replacement, _MARK, True)
        setattr(owner, name, replacement)


def _tracing_its_result(original: Callable[..., Any], record: Record, skill: str, stream_usage: bool) -> Callable[..., Any]:
    def copied(*args: Any, **options: Any) -> Any:
        copy = original(*args, **options)
        with contextlib.suppress(Exception):
            trace_completions(copy, record, skill=skill, stream_usage=stream_usage)
        return copy

    return copied


def _traced(original: Callable[..., Any], record: Record, skill: str, stream_usage: bool) -> Callable[..., Any]:
    def begin(asked: dict[str, Any]) -> _Call | None:
        with contextlib.suppress(Exception):
            if not str(asked.get("model")).startswith("rlaas::"):
                return _Call(record, skill, asked, stream_usage=stream_usage)
        return None

    def call(*args: Any, **asked: Any) -> Any:
        if (traced := begin(asked)) is None:
            return original(*args, **asked)
        try:
            answer = original(*args, **traced.asked)
        except BaseException as error:
            traced.failed(error)
            raise
        traced.answered(answer)
        return answer

    async def call_async(*args: Any, **asked: Any) -> Any:
        if (traced := begin(asked)) is None:
            return await original(*args, **asked)
        try:
            answer = await original(*args, **traced.asked)
        except BaseException as error:
            traced.failed(error)
            raise
        traced.answered(answer)
        return answer

    wrapper = call_async if inspect.iscoroutinefunction(inspect.unwrap(original)) else call
    for attribute in ("__name__", "__qualname__", "__doc__", "__module__", "__signature__"):
        with contextlib.suppress(AttributeError, TypeError):
            setattr(wrapper, attribute, getattr(original, attribute))
    return wrapper


class _Call:
    """One traced call, from its arguments to its report."""

    def __init__(self, record: Record, skill: str, asked: dict[str, Any], *, stream_usage: bool) -> None:
        self._record = record
        self._skill = skill
        self._interaction_id = ids.interaction_id()
        self._output_id = ids.first_output_id(self._interaction_id)
        self._began = time.perf_counter()
        self._at = datetime.now(timezone.utc)
        user = next((given for name in ("user", "safety_identifier") if isinstance(given := asked.get(name), str)), None)
        self._common = cast("Common", {"user_id": user, **_common.get(cast("Common", {}))})
        self._model = str(asked.get("model"))
        messages = asked.get("messages")
        self._messages = [_message(each) for each in messages] if isinstance(messages, (list, tuple)) else []
        tools = asked.get("tools")
        self._tools = [tool for tool in tools if isinstance(tool, Mapping)] if isinstance(tools, (list, tuple)) else []
        options = asked.get("stream_options")
        self._hides_usage = stream_usage and bool(asked.get("stream")) and not isinstance(options, Mapping)
        self.asked = {**asked, "stream_options": {"include_usage": True}} if self._hides_usage else asked

    def failed(self, error: BaseException) -> None:
        """Report the interaction alone, with the error's name."""
        self._report({"error": type(error).__name__}, [], None, None)

    def answered(self, answer: Any) -> None:
        """Report a completion now, a stream when it ends; leave anything else (raw responses) as it is."""
        with contextlib.suppress(Exception):
            if isinstance(getattr(answer, "choices", None), list):
                self._remember(answer)
                choices = [(c.message.content or "", c.finish_reason, _tool_calls(c.message.tool_calls)) for c in answer.choices]
                self._report({"response_id": answer.id}, choices, _usage(answer.usage), self._elapsed_ms())
            elif hasattr(answer, "__aiter__") and hasattr(answer, "_iterator"):
                self._remember(answer)
                answer._iterator = heard_async = self._astream(answer._iterator)
                answer.close = _closing_async(answer.close, heard_async)
            elif hasattr(answer, "__iter__") and hasattr(answer, "_iterator"):
                self._remember(answer)
                answer._iterator = heard = self._stream(answer._iterator)
                answer.close = _closing(answer.close, heard)

    def _stream(self, chunks: Iterator[Any]) -> Generator[Any, None, None]:
        heard = _Heard()
        try:
            for chunk in chunks:
                if not (heard.hear(chunk) and self._hides_usage):
                    yield chunk
        except Exception as error:
            heard.error = type(error).__name__
            raise
        finally:
            self._report_heard(heard)

    async def _astream(self, chunks: AsyncIterator[Any]) -> AsyncGenerator[Any, None]:
        heard = _Heard()
        try:
            async for chunk in chunks:
                if not (heard.hear(chunk) and self._hides_usage):
                    yield chunk
        except Exception as error:
            heard.error = type(error).__name__
            raise
        finally:
            self._report_heard(heard)

    def _report_heard(self, heard: _Heard) -> None:
        tools = {index: list(calls.values()) for index, calls in heard.tools.items()}
        choices: list[tuple[str, str | None, list[ToolCall]]] = [
            ("".join(heard.texts[index]), heard.finishes.get(index), _heard_calls(tools.get(index, []))) for index in sorted(heard.texts)
        ]
        openai: dict[str, Json] = {"response_id": heard.response_id, "stream": True}
        if heard.error:
            openai["error"] = heard.error
        self._report(openai, choices, heard.usage, self._elapsed_ms())

    def _report(
        self,
        openai: Mapping[str, Json],
        choices: Sequence[tuple[str, str | None, list[ToolCall]]],
        usage: Usage | None,
        latency_ms: float | None,
    ) -> None:
        about: dict[str, Json] = {**(self._common.get("metadata") or {}), "openai": {"model": self._model, **openai}}
        asked_at = cast("Common", {"occurred_at": self._at, **self._common, "metadata": about})
        self._record(lambda: events.interaction(self._skill, self._interaction_id, None, self._messages, asked_at, self._tools))
        for index, (text, finish, tools) in enumerate(choices):
            self._report_output(index, text, finish, tools, about, usage, latency_ms)

    def _report_output(
        self,
        index: int,
        text: str,
        finish: str | None,
        tools: list[ToolCall],
        about: dict[str, Json],
        usage: Usage | None,
        latency_ms: float | None,
    ) -> None:
        identifier = ids.output_id(self._interaction_id) if index else self._output_id
        common = cast("Common", {**self._common, "metadata": about})
        self._record(
            lambda: events.output(
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
        return round((time.perf_counter() - self._began) * 1000, 3)


def _closing(close: Callable[[], None], heard: Generator[Any, None, None]) -> Callable[[], None]:
    def closed() -> None:
        try:
            close()
        finally:
            with contextlib.suppress(Exception):
                heard.close()

    return closed


def _closing_async(close: Callable[[], Awaitable[None]], heard: AsyncGenerator[Any, None]) -> Callable[[], Awaitable[None]]:
    async def closed() -> None:
        try:
            await close()
        finally:
            with contextlib.suppress(Exception):
                await heard.aclose()

    return closed


class _Heard:
    """What a stream has said so far, by choice."""

    def __init__(self) -> None:
        self.response_id: str | None = None
        self.error: str | None = None
        self.texts: dict[int, list[str]] = {}
        self.finishes: dict[int, str] = {}
        self.tools: dict[int, dict[int, dict[str, str]]] = {}
        self.usage: Usage | None = None

    def hear(self, chunk: Any) -> bool:
        """Take a chunk in; whether it holds the usage and nothing else. Never raises."""
        with contextlib.suppress(Exception):
            self.response_id = chunk.id or self.response_id
            self.usage = _usage(chunk.usage) or self.usage
            for choice in chunk.choices:
                self.texts.setdefault(choice.index, []).append(choice.delta.content or "")
                if choice.finish_reason:
                    self.finishes[choice.index] = choice.finish_reason
                for part in choice.delta.tool_calls or ():
                    tool = self.tools.setdefault(choice.index, {}).setdefault(part.index, {"id": "", "name": "", "arguments": ""})
                    tool["id"] += part.id or ""
                    tool["name"] += (part.function and part.function.name) or ""
                    tool["arguments"] += (part.function and part.function.arguments) or ""
            return chunk.usage is not None and not chunk.choices
        return False


def _message(message: Any) -> Message:
    """A message as the service has it: developer speaks as system, parts are joined, tools' calls and results stay what
    they are."""
    given = message if isinstance(message, Mapping) else message.model_dump()
    role = given.get("role")
    content = given.get("content")
    if isinstance(content, (list, tuple)):
        content = "".join(part.get("text", f"[{part.get('type')}]") for part in content)
    text = content or given.get("refusal") or ""
    if role == "tool" and given.get("tool_call_id"):
        return {"role": "tool", "content": text, "tool_call_id": given["tool_call_id"]}
    if role in ("tool", "function"):
        text = f"[tool result] {text}"
    if role in ("system", "developer"):
        return {"role": "system", "content": text}
    said: Message = {"role": "assistant" if role == "assistant" else "user", "content": text}
    calls = [_call(call["id"], call["function"]) for call in given.get("tool_calls") or () if call.get("function")]
    return {**said, "tool_calls": calls} if calls and role == "assistant" else said


def _call(call_id: str, function: Mapping[str, str]) -> ToolCall:
    return {"id": call_id, "type": "function", "function": {"name": function["name"], "arguments": function["arguments"]}}


def _tool_calls(calls: Any) -> list[ToolCall]:
    return [_call(call.id, call.function.model_dump()) for call in calls or () if call.type == "function"]


def _heard_calls(parts: Sequence[Mapping[str, str]]) -> list[ToolCall]:
    return [_call(part["id"], part) for part in parts]


def _usage(usage: Any) -> Usage | None:
    return {"input_tokens": usage.prompt_tokens, "output_tokens": usage.completion_tokens} if usage is not None else None
