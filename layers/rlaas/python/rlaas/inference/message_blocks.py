"""The content of Anthropic's messages, read as a chat.

What steers Anthropic's own cache and thinking (`cache_control`, `thinking` blocks) is taken and dropped.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Discriminator, Field, Tag, model_validator

from rlaas.chat import CalledFunction, Message, ToolCall
from rlaas.wire import Json, WireModel

PARAGRAPH = "\n\n"


class _Block(WireModel):
    model_config = ConfigDict(extra="ignore")


class TextBlock(_Block):
    """A text."""

    type: Literal["text"]
    text: str


class ToolUseBlock(_Block):
    """The model's call of a tool."""

    type: Literal["tool_use"]
    id: Annotated[str, Field(max_length=256)]
    name: Annotated[str, Field(max_length=256)]
    input: dict[str, Json]

    def plain(self) -> ToolCall:
        """The call as RLaaS stores it."""
        return ToolCall(id=self.id, function=CalledFunction(name=self.name, arguments=json.dumps(self.input, ensure_ascii=False)))


class ThinkingBlock(_Block):
    """What the model thought, which only Anthropic can read again."""

    type: Literal["thinking", "redacted_thinking"]


def _kind(content: object) -> str:
    """The branch of a union that `content` is of."""
    if isinstance(content, str):
        return "string"
    if isinstance(content, list | tuple):
        return "list"
    kind = content.get("type") if isinstance(content, dict) else getattr(content, "type", None)
    return "thinking" if kind == "redacted_thinking" else str(kind)


_String = Annotated[str, Tag("string")]
_Text = Annotated[TextBlock, Tag("text")]
_TextOnly = Annotated[
    _Text,
    Discriminator(_kind, custom_error_type="block", custom_error_message="only text blocks are taken: no images, no documents"),
]
Texts = Annotated[_String | Annotated[tuple[_TextOnly, ...], Tag("list")], Discriminator(_kind)]
"""A text, whole or in blocks."""


class ToolResultBlock(_Block):
    """What a tool answered to a call."""

    type: Literal["tool_result"]
    tool_use_id: Annotated[str, Field(max_length=256)]
    content: Texts | None = None
    is_error: bool | None = None

    def plain(self) -> Message:
        """The answer as RLaaS stores it: that it is an error is said in its text."""
        text = "" if self.content is None else joined(self.content)
        return Message(role="tool", content=f"Error: {text}" if self.is_error else text, tool_call_id=self.tool_use_id)


_AnyBlock = Annotated[
    _Text
    | Annotated[ToolUseBlock, Tag("tool_use")]
    | Annotated[ToolResultBlock, Tag("tool_result")]
    | Annotated[ThinkingBlock, Tag("thinking")],
    Discriminator(
        _kind,
        custom_error_type="block",
        custom_error_message="only text, tool_use, tool_result and thinking blocks are taken: no images, documents or server tools",
    ),
]
Block = TextBlock | ToolUseBlock | ToolResultBlock | ThinkingBlock


class Turn(WireModel):
    """A message: a text or blocks."""

    model_config = ConfigDict(extra="ignore")

    role: Literal["user", "assistant", "system"]
    content: Annotated[_String | Annotated[tuple[_AnyBlock, ...], Tag("list")], Discriminator(_kind)]

    @model_validator(mode="after")
    def _has_blocks_of_its_role(self) -> Self:
        for block in () if isinstance(self.content, str) else self.content:
            if isinstance(block, ToolUseBlock | ThinkingBlock) and self.role != "assistant":
                raise ValueError(f"a block of type {block.type} stands in a message of role assistant")
            if isinstance(block, ToolResultBlock) and self.role != "user":
                raise ValueError("a block of type tool_result stands in a message of role user")
        return self

    def plain(self) -> Iterator[Message]:
        """The messages as RLaaS stores them: what tools answered first, each in a message of its own.

        Nothing for a message that only thought.
        """
        if isinstance(self.content, str):
            yield Message(role=self.role, content=self.content)
            return
        texts = [block.text for block in self.content if isinstance(block, TextBlock)]
        if self.role == "assistant":
            calls = tuple(block.plain() for block in self.content if isinstance(block, ToolUseBlock))
            if texts or calls:
                yield Message(role="assistant", content="".join(texts), tool_calls=calls)
            return
        results = [block.plain() for block in self.content if isinstance(block, ToolResultBlock)]
        yield from results
        if texts or not results:
            yield Message(role=self.role, content=PARAGRAPH.join(texts))


def joined(texts: str | Iterable[TextBlock]) -> str:
    """A text in blocks as one, each block a paragraph."""
    return texts if isinstance(texts, str) else PARAGRAPH.join(block.text for block in texts)
