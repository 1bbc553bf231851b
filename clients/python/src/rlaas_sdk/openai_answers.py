"""Reads what a call of an `openai` client asked and what came back, in the chat completions API and in the Responses
API, from the client's objects or from the JSON they are made of."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

from rlaas_sdk.events import Json, Message, ToolCall, Usage
from rlaas_sdk.imports.messages import read_tools

_FINISH_REASONS = {"max_output_tokens": "length"}


@dataclass(frozen=True)
class Choice:
    """One answer of a call."""

    text: str
    finish_reason: str | None
    tool_calls: list[ToolCall]


@dataclass(frozen=True)
class CallAnswer:
    """What came back: the answers, and what else the report says about them, by name."""

    choices: Sequence[Choice]
    usage: Usage | None
    details: Mapping[str, Json]


class AnswerParts(Protocol):
    """A streamed answer so far."""

    def add(self, part: Any) -> bool:
        """Add a chunk or an event; True where it holds the token counts and nothing else. Never raises."""
        ...

    def build(self) -> CallAnswer:
        """The answer as far as it came."""
        ...


class OpenAIApi(Protocol):
    """How one of OpenAI's two APIs writes requests and answers."""

    details: Mapping[str, Json]
    """What tells this API's calls from the other's in a report."""
    can_add_usage: bool
    """Whether a stream tells its token counts only where the request asks for them."""

    def read_messages(self, request: Mapping[str, Any]) -> list[Message]:
        """The prompt of a request, as the service takes it."""
        ...

    def read_tools(self, request: Mapping[str, Any]) -> list[Mapping[str, Json]]:
        """The tools that a request offers the model."""
        ...

    def read_answer(self, answer: Any) -> CallAnswer | None:
        """The answer in a completion or response; None where it is neither."""
        ...

    def begin_answer(self) -> AnswerParts:
        """A streamed answer, of which nothing has come yet."""
        ...


class ChatApi:
    """Chat completions."""

    details: Mapping[str, Json] = {}
    can_add_usage = True

    def read_messages(self, request: Mapping[str, Any]) -> list[Message]:
        """As OpenAIApi.read_messages."""
        messages = request.get("messages")
        return [_convert_message(_as_mapping(message)) for message in messages] if isinstance(messages, (list, tuple)) else []

    def read_tools(self, request: Mapping[str, Any]) -> list[Mapping[str, Json]]:
        """As OpenAIApi.read_tools."""
        tools = request.get("tools")
        return [tool for tool in tools if isinstance(tool, Mapping)] if isinstance(tools, (list, tuple)) else []

    def read_answer(self, answer: Any) -> CallAnswer | None:
        """As OpenAIApi.read_answer."""
        if not isinstance(choices := _get(answer, "choices"), list):
            return None
        return CallAnswer(
            [
                Choice(_read_text(_get(choice, "message")), _get(choice, "finish_reason"), _read_calls(_get(choice, "message")))
                for choice in choices
            ],
            _convert_usage(_get(answer, "usage"), "prompt_tokens", "completion_tokens"),
            {"response_id": _get(answer, "id")},
        )

    def begin_answer(self) -> AnswerParts:
        """As OpenAIApi.begin_answer."""
        return _ChatParts()


class ResponsesApi:
    """The Responses API. What a request continues (`previous_response_id`, `conversation`) stays with OpenAI: the
    report names the former, and its messages are those of this request alone."""

    details: Mapping[str, Json] = {"api": "responses"}
    can_add_usage = False

    def read_messages(self, request: Mapping[str, Any]) -> list[Message]:
        """As OpenAIApi.read_messages."""
        messages: list[Message] = []
        if isinstance(instructions := request.get("instructions"), str):
            messages.append({"role": "system", "content": instructions})
        prompt = request.get("input")
        items = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        for item in items if isinstance(items, (list, tuple)) else ():
            _append_item(messages, _as_mapping(item))
        return messages

    def read_tools(self, request: Mapping[str, Any]) -> list[Mapping[str, Json]]:
        """As OpenAIApi.read_tools: functions alone, in the form of chat completions."""
        tools = request.get("tools")
        return cast("list[Mapping[str, Json]]", read_tools(list(tools))) if isinstance(tools, (list, tuple)) else []

    def read_answer(self, answer: Any) -> CallAnswer | None:
        """As OpenAIApi.read_answer. A response that is still being made has no choice yet."""
        if not isinstance(items := _get(answer, "output"), list):
            return None
        status, details = _get(answer, "status"), {"response_id": _get(answer, "id")}
        if status in ("queued", "in_progress", "failed", "cancelled"):
            return CallAnswer([], None, {**details, "error": _get(_get(answer, "error"), "code") or status})
        calls = _read_item_calls(items)
        incomplete = _get(_get(answer, "incomplete_details"), "reason")
        finish_reason = _FINISH_REASONS.get(incomplete, incomplete) or ("tool_calls" if calls else "stop")
        usage = _convert_usage(_get(answer, "usage"), "input_tokens", "output_tokens")
        return CallAnswer([Choice(_read_item_texts(items), finish_reason, calls)], usage, details)

    def begin_answer(self) -> AnswerParts:
        """As OpenAIApi.begin_answer."""
        return _ResponseParts(self)


def read_body(api: OpenAIApi, content: bytes, content_type: str) -> CallAnswer | None:
    """The answer in the body of a response that the application reads itself; None where there is none."""
    if not content_type.startswith("text/event-stream"):
        return api.read_answer(json.loads(content))
    parts = api.begin_answer()
    for part in _read_events(content):
        parts.add(part)
    return parts.build()


def _read_events(content: bytes) -> Iterator[Any]:
    for line in content.splitlines():
        if line.startswith(b"data:"):
            with contextlib.suppress(ValueError):  # the end ([DONE]), and a line that was cut off
                yield json.loads(line[5:])


class _ChatParts:
    """The parts of a streamed completion so far, by the index of the choice."""

    def __init__(self) -> None:
        self._response_id: str | None = None
        self._texts: dict[int, list[str]] = {}
        self._finish_reasons: dict[int, str] = {}
        self._calls: dict[int, dict[int, dict[str, str]]] = {}
        self._usage: Usage | None = None

    def add(self, part: Any) -> bool:
        with contextlib.suppress(Exception):
            self._response_id = _get(part, "id") or self._response_id
            usage, choices = _get(part, "usage"), _get(part, "choices") or []
            self._usage = _convert_usage(usage, "prompt_tokens", "completion_tokens") or self._usage
            for choice in choices:
                self._add_choice(_get(choice, "index"), choice, _get(choice, "delta"))
            return usage is not None and not choices
        return False

    def _add_choice(self, index: int, choice: Any, delta: Any) -> None:
        self._texts.setdefault(index, []).append(_read_text(delta))
        if finish_reason := _get(choice, "finish_reason"):
            self._finish_reasons[index] = finish_reason
        for part in _get(delta, "tool_calls") or ():
            call = self._calls.setdefault(index, {}).setdefault(_get(part, "index"), {"id": "", "name": "", "arguments": ""})
            call["id"] += _get(part, "id") or ""
            for name in ("name", "arguments"):
                call[name] += _get(_get(part, "function"), name) or ""

    def build(self) -> CallAnswer:
        choices = [
            Choice(
                "".join(self._texts[index]),
                self._finish_reasons.get(index),
                [_build_call(call["id"], call) for call in self._calls.get(index, {}).values()],
            )
            for index in sorted(self._texts)
        ]
        return CallAnswer(choices, self._usage, {"response_id": self._response_id})


class _ResponseParts:
    """The parts of a streamed response so far: its finished items, and the texts of the others."""

    def __init__(self, api: ResponsesApi) -> None:
        self._api = api
        self._response: Any = None
        self._items: dict[int, Any] = {}
        self._texts: dict[int, list[str]] = {}
        self._error: str | None = None

    def add(self, part: Any) -> bool:
        with contextlib.suppress(Exception):
            kind = str(_get(part, "type"))
            self._response = _get(part, "response") or self._response
            if kind in ("response.output_text.delta", "response.refusal.delta"):
                self._texts.setdefault(_get(part, "output_index"), []).append(_get(part, "delta"))
            elif kind == "response.output_item.done":
                self._items[_get(part, "output_index")] = _get(part, "item")
            elif kind == "error":
                self._error = str(_get(part, "code") or "error")
        return False

    def build(self) -> CallAnswer:
        if _get(self._response, "status") not in (None, "queued", "in_progress"):
            answer = self._api.read_answer(self._response)
            if answer is not None:
                return answer
        details: dict[str, Json] = {"response_id": _get(self._response, "id")}
        if self._error:
            details["error"] = self._error
        text = "".join(
            _read_item_texts([self._items[index]]) if index in self._items else "".join(self._texts[index])
            for index in sorted(self._items.keys() | self._texts.keys())
        )
        calls = _read_item_calls([self._items[index] for index in sorted(self._items)])
        return CallAnswer([Choice(text, None, calls)] if text or calls else [], None, details)


def _get(source: Any, name: str) -> Any:
    """The field `name` of a JSON object or of one of the client's objects; None where it has none."""
    return source.get(name) if isinstance(source, Mapping) else getattr(source, name, None)


def _as_mapping(source: Any) -> Mapping[str, Any]:
    return source if isinstance(source, Mapping) else cast("Mapping[str, Any]", source.model_dump())


def _read_text(message: Any) -> str:
    return _join_parts(_get(message, "content")) or _get(message, "refusal") or ""


def _read_calls(message: Any) -> list[ToolCall]:
    calls = _get(message, "tool_calls") or ()
    return [_build_call(_get(call, "id"), _get(call, "function")) for call in calls if _get(call, "function") is not None]


def _read_item_texts(items: Sequence[Any]) -> str:
    parts = [part for item in items if _get(item, "type") == "message" for part in _get(item, "content") or ()]
    return "".join(_get(part, "text") or _get(part, "refusal") or "" for part in parts)


def _read_item_calls(items: Sequence[Any]) -> list[ToolCall]:
    return [_build_call(_get(item, "call_id"), item) for item in items if _get(item, "type") == "function_call"]


def _build_call(call_id: str, function: Any) -> ToolCall:
    return {"id": call_id, "type": "function", "function": {"name": _get(function, "name"), "arguments": _get(function, "arguments")}}


def _convert_message(fields: Mapping[str, Any]) -> Message:
    """A message as the service takes it: the role developer becomes system, text parts are joined, tools' calls and
    results stay as they are."""
    role = fields.get("role")
    text = _join_parts(fields.get("content")) or fields.get("refusal") or ""
    if role == "tool" and fields.get("tool_call_id"):
        return {"role": "tool", "content": text, "tool_call_id": fields["tool_call_id"]}
    if role in ("tool", "function"):
        text = f"[tool result] {text}"
    if role in ("system", "developer"):
        return {"role": "system", "content": text}
    message: Message = {"role": "assistant" if role == "assistant" else "user", "content": text}
    calls = _read_calls(fields)
    return {**message, "tool_calls": calls} if calls and role == "assistant" else message


def _append_item(messages: list[Message], item: Mapping[str, Any]) -> None:
    """Append one item of a Responses request; calls join the assistant's message before them. Items that are neither
    messages nor calls of functions, such as reasoning, are left out."""
    kind = item.get("type")
    if kind == "function_call":
        calls = _read_item_calls([item])
        if messages and messages[-1]["role"] == "assistant":
            messages[-1] = {**messages[-1], "tool_calls": [*messages[-1].get("tool_calls", ()), *calls]}
        else:
            messages.append({"role": "assistant", "content": "", "tool_calls": calls})
    elif kind == "function_call_output":
        messages.append({"role": "tool", "content": _join_parts(item.get("output")), "tool_call_id": str(item.get("call_id"))})
    elif item.get("role"):
        messages.append(_convert_message(item))


def _join_parts(content: Any) -> str:
    if not isinstance(content, (list, tuple)):
        return content or ""
    return "".join(_get(part, "text") or _get(part, "refusal") or f"[{_get(part, 'type')}]" for part in content)


def _convert_usage(usage: Any, input_name: str, output_name: str) -> Usage | None:
    counts = (_get(usage, input_name), _get(usage, output_name))
    return {"input_tokens": counts[0], "output_tokens": counts[1]} if None not in counts else None
