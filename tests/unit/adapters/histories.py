"""Histories for tests, by hand and by hypothesis, and what becomes of them for a vendor."""

from collections.abc import Sequence
from typing import Any, Literal

from hypothesis import strategies as st
from pydantic import JsonValue

from rlaas.adapters.models.history_rules import find_rules
from rlaas.adapters.models.openai_chat import chat_body
from rlaas.adapters.models.valid_history import ValidCall, make_valid
from rlaas.chat import CalledFunction, ChatCall, Message, ToolCall
from rlaas.parts import read_part
from rlaas.policies.backend import BackendSpec

TEXTS = st.sampled_from(["Hello", "\n\n", "", " ", "two\nlines ", "grüß dich"]) | st.text(max_size=20)
IDS = st.sampled_from(["", "call_1", "functions.f:0", "functions_f_0", "toolu_01A", "ü" * 90, "a" * 41]) | st.text(max_size=12)
TOOL_NAMES = st.sampled_from(["f", "find.order", "find_order", "functions f", "n" * 129, "find_order_" + "0" * 8])
ARGUMENTS = st.sampled_from(["", "{}", '{"n": 1}', "{broken", "[1]", "null", '{"n": NaN}', '{"n": 1e400}', '{"text": "\\ud83d"}', " "])
CALLS = st.builds(ToolCall, id=IDS, function=st.builds(CalledFunction, name=TOOL_NAMES, arguments=ARGUMENTS))
ANY_MESSAGES = st.lists(
    st.builds(Message, role=st.just("system"), content=TEXTS)
    | st.builds(Message, role=st.just("user"), content=TEXTS)
    | st.builds(Message, role=st.just("assistant"), content=TEXTS, tool_calls=st.lists(CALLS, max_size=3).map(tuple))
    | st.builds(Message, role=st.just("tool"), content=TEXTS, tool_call_id=IDS),
    max_size=8,
).map(tuple)
"""Any messages at all: of several vendors, cut off, in disorder, with results and without."""
IMAGE = read_part("image", "data:image/png;base64,AAAA")
IMAGES = st.lists(st.integers(0, 20).map(lambda place: IMAGE.model_copy(update={"at": place})), max_size=2).map(tuple)
SCHEMAS: list[JsonValue] = [{}, None, {"type": "object"}, {"properties": {"n": {"type": "integer"}}}, {"type": "object", "properties": {}}]


@st.composite
def illustrated_histories(draw: st.DrawFn) -> tuple[Message, ...]:
    """Any messages at all, with images in some."""
    shown = draw(st.sampled_from([("user",), ("tool",), ("user", "tool")]))
    return tuple(message.model_copy(update={"parts": draw(IMAGES)}) if message.role in shown else message for message in draw(ANY_MESSAGES))


@st.composite
def openai_histories(draw: st.DrawFn) -> tuple[Message, ...]:
    """Histories by OpenAI's rules: each call has an id of its own and is answered right behind its message."""
    messages = [Message(role="system", content=draw(TEXTS))] if draw(st.booleans()) else []
    number = 0
    for _ in range(draw(st.integers(1, 4))):
        messages.append(Message(role="user", content=draw(TEXTS)))
        calls = draw(st.lists(st.sampled_from(["f", "find_order"]), max_size=3))
        ids = [f"call_{number + place}" for place in range(len(calls))]
        number += len(ids)
        made = tuple(
            ToolCall(id=id_, function=CalledFunction(name=name, arguments='{"n": 1}')) for id_, name in zip(ids, calls, strict=True)
        )
        messages.append(Message(role="assistant", content=draw(TEXTS), tool_calls=made))
        messages += [Message(role="tool", content=draw(TEXTS), tool_call_id=id_) for id_ in ids]
    return tuple(messages)


@st.composite
def parameters_of_calls(draw: st.DrawFn) -> dict[str, JsonValue]:
    parameters: dict[str, JsonValue] = {"max_tokens": 64}
    names = draw(st.lists(TOOL_NAMES, unique=True, max_size=3))
    tools: list[JsonValue] = []
    for name in names:
        function: dict[str, JsonValue] = {"name": name}
        if draw(st.booleans()):
            function["parameters"] = draw(st.sampled_from(SCHEMAS))
        tools.append({"type": "function", "function": function})
    if draw(st.booleans()) or tools:
        parameters["tools"] = tools
    if tools:
        one: JsonValue = {"type": "function", "function": {"name": draw(st.sampled_from(names))}}
        parameters["tool_choice"] = draw(st.sampled_from([None, "auto", "none", "required", one]))
    return parameters


def valid(spec: BackendSpec, messages: Sequence[Message], parameters: dict[str, JsonValue] | None = None) -> ValidCall:
    return make_valid(
        ChatCall(messages=tuple(messages), parameters={"max_tokens": 64, **(parameters or {})}, tenant_id="acme"), find_rules(spec)
    )


def openai(spec: BackendSpec, messages: Sequence[Message], parameters: dict[str, JsonValue] | None = None) -> Any:
    return chat_body(valid(spec, messages, parameters).call, stream=False)["messages"]


def call(id_: str, name: str = "f", arguments: str = "{}", **more: Any) -> ToolCall:
    return ToolCall(id=id_, function=CalledFunction(name=name, arguments=arguments), **more)


def said(role: Literal["system", "user", "assistant", "tool"], content: str = "", *calls: ToolCall) -> Message:
    return Message(role=role, content=content, tool_calls=calls)


def result(id_: str, content: str = "done") -> Message:
    return Message(role="tool", content=content, tool_call_id=id_)


def say_nothing(messages: Sequence[Message]) -> bool:
    return not any(message.content.strip() or message.tool_calls or message.parts for message in messages)
