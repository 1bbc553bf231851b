"""The messages of OpenAI's chat API, as clients send them: new ones, and answers that they send back.

Answers come back with everything that this or another server, or the client's own library, put beside what was said:
nulls, positions in a stream, parsed arguments. Fields that no model needs are taken and dropped.
"""

from collections.abc import Iterable
from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from rlaas.chat import CalledFunction, Message, ToolCall
from rlaas.wire import WireModel


class _Sent(WireModel):
    model_config = ConfigDict(extra="ignore")


class TextPart(_Sent):
    """A text part of a message."""

    type: Literal["text"]
    text: str


class RefusalPart(_Sent):
    """A model's refusal, as a part of its message."""

    type: Literal["refusal"]
    refusal: str


class SentFunction(_Sent):
    """The function that a model called."""

    name: Annotated[str, Field(max_length=256)]
    arguments: str | None = None

    def plain(self, call_id: str) -> ToolCall:
        """The call as RLaaS stores it."""
        return ToolCall(id=call_id, function=CalledFunction(name=self.name, arguments=self.arguments or ""))


class SentCall(_Sent):
    """A model's call of a tool. Some servers leave out the id and the type."""

    id: Annotated[str, Field(max_length=256)] | None = None
    type: Literal["function"] | None = None
    function: SentFunction


class SentAudio(_Sent):
    """An answer that was spoken. Only what was said is kept."""

    transcript: str | None = None


class ChatMessage(_Sent):
    """A message with text content, a string or text parts. Fields that are not named here are taken and not kept.

    `function_call` and the role `function` are how the API called tools before it had `tool_calls`.
    """

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | tuple[Annotated[TextPart | RefusalPart, Field(discriminator="type")], ...] | None = None
    refusal: str | None = None
    audio: SentAudio | None = None
    tool_calls: tuple[SentCall, ...] | None = None
    tool_call_id: Annotated[str, Field(max_length=256)] | None = None
    function_call: SentFunction | None = None

    @model_validator(mode="after")
    def _fits_its_role(self) -> Self:
        if self.content is None and self.role not in ("assistant", "function"):
            raise ValueError("needs content")
        if (self.role == "tool") != (self.tool_call_id is not None):
            raise ValueError("a message of role tool, and no other, has a tool_call_id")
        return self

    @property
    def text(self) -> str:
        """What it says: its content, parts joined, or else the refusal or what was spoken."""
        if self.content is not None and not isinstance(self.content, str):
            content = "".join(part.text if isinstance(part, TextPart) else part.refusal for part in self.content)
        else:
            content = self.content or ""
        return content or self.refusal or (self.audio.transcript if self.audio is not None else None) or ""


def to_messages(sent: Iterable[ChatMessage]) -> tuple[Message, ...]:
    """The messages as RLaaS stores them: `developer` is `system`, and functions are tools.

    The call of a function, which had no id, gets one by its message's place, and the next message of role `function`
    answers it.
    """
    messages: list[Message] = []
    function_id = ""
    for place, message in enumerate(sent):
        calls = tuple(call.function.plain(call.id or "") for call in message.tool_calls or ())
        if message.function_call is not None or (message.role == "function" and not function_id):
            function_id = f"call_{place}"
        if message.function_call is not None:
            calls = (*calls, message.function_call.plain(function_id))
        match message.role:
            case "function":
                messages.append(Message(role="tool", content=message.text, tool_call_id=function_id))
            case "developer":
                messages.append(Message(role="system", content=message.text))
            case role:
                messages.append(Message(role=role, content=message.text, tool_calls=calls, tool_call_id=message.tool_call_id))
    return tuple(messages)
