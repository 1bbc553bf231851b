"""The items of OpenAI's Responses API: input items as the messages of a chat, and an answer as output items.

Clients send output items back with the next request. Fields that no model needs (ids, status, annotations, parsed
arguments) are accepted and dropped. A message with a text and calls is one message of a chat and several items. The id
of an output item contains its output's id.
"""

import re
from collections.abc import Iterable
from typing import Annotated, Literal, Self

from pydantic import Discriminator, Field, JsonValue, Tag, model_validator

from rlaas.chat import CalledFunction, CallId, Choice, Message, ToolCall
from rlaas.inference.sent_parts import (
    TEXT_OR_LIST,
    Block,
    InputFile,
    InputImage,
    JoinedContent,
    Sent,
    add_content,
    add_thoughts,
    has_parts,
    join_content,
)

OutputItem = dict[str, JsonValue]
ItemStatus = Literal["in_progress", "completed", "incomplete"]


class InputText(Block):
    """Text for the model."""

    type: Literal["input_text"]
    text: str


class OutputText(Block):
    """Text that a model wrote, as it was answered."""

    type: Literal["output_text"]
    text: str


class RefusalText(Sent):
    """A model's refusal."""

    type: Literal["refusal"]
    refusal: str

    @property
    def text(self) -> str:
        """What it says."""
        return self.refusal


InputPart = Annotated[InputText | InputImage | InputFile | OutputText | RefusalText, Field(discriminator="type")]
OutputPart = Annotated[InputText | InputImage | InputFile, Field(discriminator="type")]


class InputMessage(Sent):
    """A message: a text, or parts."""

    type: Literal["message"] | None = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: Annotated[Annotated[str, Tag("text")] | Annotated[tuple[InputPart, ...], Tag("list")], TEXT_OR_LIST]

    @model_validator(mode="after")
    def _fits_its_role(self) -> Self:
        if self.role != "user" and has_parts(self.content):
            raise ValueError(f"a message of role {self.role} has text alone")
        return self

    def read(self) -> JoinedContent:
        """Its texts joined, and its other parts."""
        return join_content(self.content)


class FunctionCall(Sent):
    """A model's call of a tool, as it was answered."""

    type: Literal["function_call"]
    call_id: CallId
    name: Annotated[str, Field(max_length=256)]
    arguments: str


class FunctionCallOutput(Sent):
    """What a tool answered to the call `call_id`."""

    type: Literal["function_call_output"]
    call_id: CallId
    output: Annotated[Annotated[str, Tag("text")] | Annotated[tuple[OutputPart, ...], Tag("list")], TEXT_OR_LIST]


class ReasoningText(Sent):
    """What a model thought."""

    type: Literal["reasoning_text"]
    text: str


class ReasoningItem(Sent):
    """What a model thought before it spoke or called, as it was answered. Summaries, and what OpenAI encrypted, are
    dropped."""

    type: Literal["reasoning"]
    content: tuple[ReasoningText, ...] | None = None


class ItemReference(Sent):
    """An item of an earlier response, by its id."""

    type: Literal["item_reference"] | None = None
    id: Annotated[str, Field(min_length=1, max_length=128)]


def item_type(item: object) -> object:
    """The `type` of an input item. A message may leave it out; so may a reference, which has an id and no role."""
    if not isinstance(item, dict):
        return getattr(item, "type", None)
    return item.get("type") or ("item_reference" if "id" in item and "role" not in item else "message")


InputItem = Annotated[
    Annotated[InputMessage, Tag("message")]
    | Annotated[FunctionCall, Tag("function_call")]
    | Annotated[FunctionCallOutput, Tag("function_call_output")]
    | Annotated[ReasoningItem, Tag("reasoning")]
    | Annotated[ItemReference, Tag("item_reference")],
    Discriminator(item_type),
]


def to_messages(items: Iterable[InputItem]) -> tuple[Message, ...]:
    """The items as a chat's messages: `developer` becomes `system`, and consecutive thoughts, texts and calls of a
    model become one message."""
    messages: list[Message] = []
    thoughts = ""
    for item in items:
        if isinstance(item, ReasoningItem):
            thoughts += "".join(part.text for part in item.content or ())
            continue
        _add_item(messages, item)
        messages[-1:] = [add_thoughts(last, (last.reasoning_content or "") + thoughts) for last in messages[-1:]]
        thoughts = ""
    return tuple(messages)


def _add_item(messages: list[Message], item: InputItem) -> None:
    last = messages[-1] if messages and messages[-1].role == "assistant" else None
    if isinstance(item, InputMessage):
        content = item.read()
        if item.role == "assistant" and last is not None and last.tool_calls and not last.content:
            messages[-1] = last.model_copy(update={"content": content.text})
        else:
            role = "system" if item.role == "developer" else item.role
            messages.append(add_content(Message(role=role, content=content.text), content))
    elif isinstance(item, FunctionCall):
        call = ToolCall(id=item.call_id, function=CalledFunction(name=item.name, arguments=item.arguments))
        if last is not None:
            messages[-1] = last.model_copy(update={"tool_calls": (*last.tool_calls, call)})
        else:
            messages.append(Message(role="assistant", content="", tool_calls=(call,)))
    elif isinstance(item, FunctionCallOutput):
        content = join_content(item.output)
        messages.append(add_content(Message(role="tool", content=content.text, tool_call_id=item.call_id), content))


def output_items(choice: Choice, output_id: str, *, incomplete: bool) -> list[OutputItem]:
    """The answer as items: the model's thoughts, its text, then its calls. The last item of an `incomplete` answer has
    the status `incomplete`."""
    parts: list[OutputItem] = []
    if choice.text or not (choice.refusal or choice.tool_calls):
        parts.append(text_part(choice.text, list_logprobs(choice.logprobs), list_annotations(choice.annotations)))
    if choice.refusal:
        parts.append({"type": "refusal", "refusal": choice.refusal})
    items: list[OutputItem] = []
    if choice.reasoning_content:
        thoughts: OutputItem = {"type": "reasoning_text", "text": choice.reasoning_content}
        items.append(reasoning_item(reasoning_id(output_id), [thoughts], "completed"))
    if parts:
        items.append(message_item(message_id(output_id), parts, "completed"))
    for index, call in enumerate(choice.tool_calls):
        items.append(call_item(call_id(output_id, index), call, "completed"))
    if incomplete:
        items[-1]["status"] = "incomplete"
    return items


def message_id(output_id: str, number: int = 0) -> str:
    """The id of a message of the output. A stream has several where the model speaks again after it has called."""
    return f"msg_{output_id.removeprefix('out_')}" + (f".{number}" if number else "")


def reasoning_id(output_id: str, number: int = 0) -> str:
    """The id of what the model thought. A stream has several where the model thinks again after it has spoken."""
    return f"rs_{output_id.removeprefix('out_')}" + (f".{number}" if number else "")


def call_id(output_id: str, index: int) -> str:
    """The id of a call's item. It is not the `call_id` that a tool's output names."""
    return f"fc_{output_id.removeprefix('out_')}_{index}"


def parse_item_id(item_id: str) -> tuple[str, int | Literal["msg", "rs"]] | None:
    """The id of the output that contains the item, and the item's place there: the index of a call, `msg` for the text
    or `rs` for the thoughts. None for an id of another form."""
    if match := re.fullmatch(r"fc_(.+)_([0-9]{1,4})", item_id):
        return f"out_{match[1]}", int(match[2])
    match = re.fullmatch(r"(msg|rs)_([^.]+)(?:\.[0-9]+)?", item_id)
    return (f"out_{match[2]}", "msg" if match[1] == "msg" else "rs") if match else None


def message_item(identifier: str, parts: list[OutputItem], status: ItemStatus) -> OutputItem:
    """A message of the model."""
    return {"id": identifier, "type": "message", "status": status, "role": "assistant", "content": [*parts]}


def reasoning_item(identifier: str, parts: list[OutputItem], status: ItemStatus) -> OutputItem:
    """What the model thought."""
    return {"id": identifier, "type": "reasoning", "status": status, "summary": [], "content": [*parts]}


def call_item(identifier: str, call: ToolCall, status: ItemStatus) -> OutputItem:
    """A call of a tool."""
    name, arguments = call.function.name, call.function.arguments
    return {"id": identifier, "type": "function_call", "status": status, "call_id": call.id, "name": name, "arguments": arguments}


def text_part(text: str, logprobs: list[JsonValue], annotations: list[JsonValue]) -> OutputItem:
    """Text of the model."""
    return {"type": "output_text", "annotations": annotations, "logprobs": logprobs, "text": text}


def list_annotations(annotations: Iterable[OutputItem]) -> list[JsonValue]:
    """The pages that a text cites, from a chat's annotations."""
    citations = (annotation.get("url_citation") for annotation in annotations)
    names = ("start_index", "end_index", "title", "url")
    return [{"type": "url_citation", **{name: one[name] for name in names}} for one in citations if isinstance(one, dict)]


def list_logprobs(logprobs: JsonValue) -> list[JsonValue]:
    """The log probabilities of a text's tokens, from those of OpenAI's chat API."""
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    return content if isinstance(content, list) else []
