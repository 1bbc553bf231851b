"""The content of Anthropic's messages, read as a chat.

The signatures of what was thought are taken and dropped: they go back to nobody, since Anthropic takes a history
without its thoughts.
"""

import json
from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from rlaas.chat import CalledFunction, CallId, Message, ToolCall
from rlaas.inference.sent_parts import (
    TEXT_OR_LIST,
    AnyDocument,
    Block,
    ImageBlock,
    Sent,
    SentPart,
    TextDocumentBlock,
    add_content,
    add_thoughts,
    join_content,
    mark_end,
)
from rlaas.wire import Json

PARAGRAPH = "\n\n"


class TextBlock(Block):
    """A text."""

    type: Literal["text"]
    text: str


class ToolUseBlock(Block):
    """The model's call of a tool."""

    type: Literal["tool_use"]
    id: CallId
    name: Annotated[str, Field(max_length=256)]
    input: dict[str, Json]

    def plain(self) -> ToolCall:
        """The call as RLaaS stores it."""
        return ToolCall(id=self.id, function=CalledFunction(name=self.name, arguments=json.dumps(self.input, ensure_ascii=False)))


class ThinkingBlock(Sent):
    """What the model thought; nothing where only Anthropic can read it again."""

    type: Literal["thinking", "redacted_thinking"]
    thinking: str | None = None


def _block_type(block: object) -> str:
    """The branch of a union that the block is of."""
    kind = block.get("type") if isinstance(block, dict) else getattr(block, "type", None)
    return "thinking" if kind == "redacted_thinking" else str(kind)


_Text = Annotated[TextBlock, Tag("text")]
_TextOnly = Annotated[
    _Text,
    Discriminator(_block_type, custom_error_type="block", custom_error_message="only text blocks are taken"),
]
Texts = Annotated[Annotated[str, Tag("text")] | Annotated[tuple[_TextOnly, ...], Tag("list")], TEXT_OR_LIST]
"""A text, whole or in blocks."""


_Image = Annotated[ImageBlock, Tag("image")]
_Document = Annotated[AnyDocument, Tag("document")]
_Result = Annotated[
    _Text | _Image | _Document,
    Discriminator(_block_type, custom_error_type="block", custom_error_message="only text, image and document blocks are taken"),
]


class ToolResultBlock(Block):
    """What a tool answered to a call."""

    type: Literal["tool_result"]
    tool_use_id: CallId
    content: Annotated[Annotated[str, Tag("text")] | Annotated[tuple[_Result, ...], Tag("list")], TEXT_OR_LIST] | None = None
    is_error: bool | None = None

    def plain(self) -> Message:
        """The answer as one message of role `tool`. Where it is an error, its text begins with `Error: `."""
        content = join_content(self.content or "", between=PARAGRAPH, begin="Error: " if self.is_error else "")
        message = add_content(Message(role="tool", content=content.text, tool_call_id=self.tool_use_id), content)
        return mark_end(message, self.cache_control)


_AnyBlock = Annotated[
    _Text
    | Annotated[ToolUseBlock, Tag("tool_use")]
    | Annotated[ToolResultBlock, Tag("tool_result")]
    | Annotated[ThinkingBlock, Tag("thinking")]
    | _Image
    | _Document,
    Discriminator(
        _block_type,
        custom_error_type="block",
        custom_error_message="only text, image, document, tool_use, tool_result and thinking blocks are taken: no server tools",
    ),
]
_Spoken = TextBlock | TextDocumentBlock | SentPart


class Turn(Sent):
    """A message: a text or blocks."""

    role: Literal["user", "assistant", "system"]
    content: Annotated[Annotated[str, Tag("text")] | Annotated[tuple[_AnyBlock, ...], Tag("list")], TEXT_OR_LIST]

    @model_validator(mode="after")
    def _has_blocks_of_its_role(self) -> Self:
        for block in () if isinstance(self.content, str) else self.content:
            if isinstance(block, ToolUseBlock | ThinkingBlock) and self.role != "assistant":
                raise ValueError(f"a block of type {block.type} stands in a message of role assistant")
            if isinstance(block, ToolResultBlock) and self.role != "user":
                raise ValueError("a block of type tool_result stands in a message of role user")
            if isinstance(block, SentPart) and self.role != "user":
                raise ValueError("images and documents stand in a message of role user")
        return self

    def plain(self) -> Iterator[Message]:
        """The turn as messages, in order: each tool's answer in a message of its own, then what was said. Nothing for a
        turn of the assistant that only thought."""
        if isinstance(self.content, str):
            yield Message(role=self.role, content=self.content)
            return
        spoken = [block for block in self.content if isinstance(block, _Spoken)]
        if self.role == "assistant":
            uses = [block for block in self.content if isinstance(block, ToolUseBlock)]
            if spoken or uses:
                thoughts = "".join(block.thinking or "" for block in self.content if isinstance(block, ThinkingBlock))
                content = join_content(spoken)
                message = Message(role="assistant", content=content.text, tool_calls=tuple(block.plain() for block in uses))
                message = add_content(add_thoughts(message, thoughts), content)
                yield mark_end(message, *(block.cache_control for block in uses))
            return
        results = [block.plain() for block in self.content if isinstance(block, ToolResultBlock)]
        yield from results
        if spoken or not results:
            content = join_content(spoken, between=PARAGRAPH)
            yield add_content(Message(role=self.role, content=content.text), content)
