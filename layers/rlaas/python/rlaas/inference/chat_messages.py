"""The messages of OpenAI's chat API, as clients send them: new ones, and answers that they send back.

Answers come back with everything that this or another server, or the client's own library, put beside what was said:
nulls, positions in a stream, parsed arguments. Fields that no model needs are taken and dropped.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Annotated, Literal, Self

from pydantic import Field, Tag, model_validator

from rlaas.chat import CalledFunction, CallId, Message, ToolCall
from rlaas.inference.sent_parts import (
    TEXT_OR_LIST,
    Block,
    ChatAudio,
    ChatFile,
    ChatImage,
    JoinedContent,
    Sent,
    add_content,
    add_name,
    add_thoughts,
    has_parts,
    join_content,
    mark_end,
)
from rlaas.prompt_cache import CacheControl
from rlaas.wire import Json


class TextPart(Block):
    """A text part of a message."""

    type: Literal["text"]
    text: str


class RefusalPart(Sent):
    """A model's refusal, as a part of its message."""

    type: Literal["refusal"]
    refusal: str

    @property
    def text(self) -> str:
        """What it says."""
        return self.refusal


class SentFunction(Sent):
    """The function that a model called."""

    name: Annotated[str, Field(max_length=256)]
    arguments: str | None = None

    def plain(self, call_id: str) -> ToolCall:
        """The call as RLaaS stores it."""
        return ToolCall(id=call_id, function=CalledFunction(name=self.name, arguments=self.arguments or ""))


class SentCall(Sent):
    """A model's call of a tool. Some servers leave out the id and the type."""

    id: CallId | None = None
    type: Literal["function"] | None = None
    function: SentFunction
    extra_content: dict[str, Json] | None = None

    def plain(self) -> ToolCall:
        """The call as RLaaS stores it."""
        call = self.function.plain(self.id or "")
        return call.model_copy(update={"extra_content": self.extra_content}) if self.extra_content else call


class SentAudio(Sent):
    """An answer that was spoken. Only what was said is kept."""

    transcript: str | None = None


ContentPart = Annotated[TextPart | RefusalPart | ChatImage | ChatAudio | ChatFile, Field(discriminator="type")]
Content = Annotated[Annotated[str, Tag("text")] | Annotated[tuple[ContentPart, ...], Tag("list")], TEXT_OR_LIST]


class ChatMessage(Sent):
    """A message: a text, or parts. Fields that are not named here are taken and not kept.

    `name` is kept of those who speak; that of a tool stands in its call. `function_call` and the role `function` are
    how the API called tools before it had `tool_calls`.
    """

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Content | None = None
    name: Annotated[str, Field(max_length=64)] | None = None
    refusal: str | None = None
    audio: SentAudio | None = None
    tool_calls: tuple[SentCall, ...] | None = None
    tool_call_id: CallId | None = None
    function_call: SentFunction | None = None
    reasoning_content: str | None = None
    reasoning: Json = Field(default=None, description="The name that some servers have for `reasoning_content`.")
    cache_control: CacheControl | None = Field(default=None, description="As LiteLLM's clients mark a message's end.")

    @model_validator(mode="after")
    def _fits_its_role(self) -> Self:
        if self.content is None and self.role not in ("assistant", "tool", "function"):
            raise ValueError("needs content")
        if (self.role == "tool") != (self.tool_call_id is not None):
            raise ValueError("a message of role tool, and no other, has a tool_call_id")
        if self.role not in ("user", "tool") and has_parts(self.content):
            raise ValueError(f"a message of role {self.role} has text alone")
        return self

    @property
    def thoughts(self) -> str | None:
        """What the model thought, where it is a text."""
        return self.reasoning_content or (self.reasoning if isinstance(self.reasoning, str) else None) or None

    def read_content(self) -> JoinedContent:
        """What it says (its content, text parts joined, or else the refusal or what was spoken) and the rest of it."""
        content = join_content(self.content or "")
        text = content.text or self.refusal or (self.audio.transcript if self.audio is not None else None) or ""
        return replace(content, text=text)


def to_messages(sent: Iterable[ChatMessage]) -> tuple[Message, ...]:
    """The messages as RLaaS stores them: `developer` is `system`, and functions are tools.

    The call of a function, which had no id, gets one by its message's place, and the next message of role `function`
    answers it.
    """
    messages: list[Message] = []
    function_id = ""
    for place, message in enumerate(sent):
        calls = tuple(call.plain() for call in message.tool_calls or ())
        if message.function_call is not None or (message.role == "function" and not function_id):
            function_id = f"call_{place}"
        if message.function_call is not None:
            calls = (*calls, message.function_call.plain(function_id))
        content = message.read_content()
        text = content.text
        match message.role:
            case "function":
                messages.append(Message(role="tool", content=text, tool_call_id=function_id))
            case "developer":
                messages.append(add_content(add_name(Message(role="system", content=text), message.name), content))
            case role:
                plain = Message(role=role, content=text, tool_calls=calls, tool_call_id=message.tool_call_id)
                plain = add_name(plain, message.name)
                messages.append(add_thoughts(add_content(plain, content), message.thoughts))
        messages[-1] = mark_end(messages[-1], message.cache_control)
    return tuple(messages)
