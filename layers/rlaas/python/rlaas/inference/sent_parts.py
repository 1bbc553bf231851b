"""Images, sounds and files as clients send them, in the words of OpenAI's chat and Responses APIs and of Anthropic's.

Files that a vendor keeps (`file_id`) belong to one vendor's account and are not taken.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal, Protocol, Self

from pydantic import ConfigDict, Discriminator, Field, Tag, model_validator

from rlaas.chat import Message
from rlaas.parts import Detail, Part, read_part
from rlaas.prompt_cache import CacheControl, CacheMark
from rlaas.wire import WireModel

FileName = Annotated[str, Field(max_length=255)]


class Sent(WireModel):
    """What a client sends in a conversation. What other servers and its own library add to it is dropped."""

    model_config = ConfigDict(extra="ignore")


class Block(Sent):
    """A piece of a prompt up to whose end a vendor may be asked to keep the prompt in its cache."""

    cache_control: CacheControl | None = None


class SentText(Protocol):
    """A part of a message that is text."""

    @property
    def text(self) -> str:
        """What it says."""
        ...


class SentPart(Block):
    """A part of a message that is no text."""

    @property
    def text(self) -> str:
        """What is said of it, before it."""
        return ""

    @cached_property
    def part(self) -> Part:
        """The part as RLaaS has it. Raises: ValueError for one that cannot be read."""
        raise NotImplementedError

    @model_validator(mode="after")
    def _can_be_read(self) -> Self:
        _ = self.part
        return self


def text_or_list(value: object) -> str | None:
    """Which of two forms a content has; None for any other value."""
    return "text" if isinstance(value, str) else "list" if isinstance(value, list | tuple) else None


TEXT_OR_LIST = Discriminator(
    text_or_list, custom_error_type="text_or_list", custom_error_message="Input should be a valid string, or a valid array"
)
"""Tells the two forms of a content apart, so that what is wrong with one is not said to be wrong with the other."""


def has_parts(content: str | Iterable[SentText | SentPart] | None) -> bool:
    """Whether a message's content holds anything but text."""
    return content is not None and not isinstance(content, str) and any(isinstance(item, SentPart) for item in content)


@dataclass(frozen=True, slots=True)
class JoinedContent:
    """A message's content: its texts as one; the images, sounds and files, whose `at` is the number of characters of
    the text before them; and the cache marks in the text, whose `at` means the same."""

    text: str
    parts: tuple[Part, ...] = ()
    cache_marks: tuple[CacheMark, ...] = ()


def join_content(content: str | Iterable[SentText | SentPart], *, between: str = "", begin: str = "") -> JoinedContent:
    """`begin` and the texts of a message's content, joined by `between`; the parts and marks in their order."""
    if isinstance(content, str):
        return JoinedContent(begin + content)
    text, parts, marks = begin, list[Part](), list[CacheMark]()
    has_text = False
    for item in content:
        if item.text or not isinstance(item, SentPart):
            text += between * has_text + item.text
            has_text = True
        ttl = item.cache_control.lasts if isinstance(item, Block) and item.cache_control is not None else None
        if isinstance(item, SentPart):
            parts.append(item.part.model_copy(update={"at": len(text), "cached_for": ttl}))
        elif ttl is not None:
            marks.append(CacheMark(ttl=ttl, at=len(text)))
    return JoinedContent(text, tuple(parts), tuple(marks))


def add_content(message: Message, content: JoinedContent) -> Message:
    """The message with the content's parts and cache marks in place of its own; as it is where there are none."""
    beside = {name: value for name in ("parts", "cache_marks") if (value := getattr(content, name))}
    return message.model_copy(update=beside) if beside else message


def mark_end(message: Message, *controls: CacheControl | None) -> Message:
    """The message with a mark at its end, where one of `controls` says so, for as long as the last of them."""
    ttls = [control.lasts for control in controls if control is not None]
    if not ttls:
        return message
    before = (mark for mark in message.cache_marks if mark.at is not None and (mark.at < len(message.content) or message.tool_calls))
    return message.model_copy(update={"cache_marks": (*before, CacheMark(ttl=ttls[-1]))})


def add_thoughts(message: Message, thoughts: str | None) -> Message:
    """The message of an assistant with what it thought; any other as it is."""
    return message.model_copy(update={"reasoning_content": thoughts}) if thoughts and message.role == "assistant" else message


def add_name(message: Message, name: str | None) -> Message:
    """The message with the name of who says it; a tool's as it is."""
    return message.model_copy(update={"name": name}) if name and message.role != "tool" else message


class ImageUrl(Sent):
    """Where an image is, and how closely to look at it."""

    url: str
    detail: Detail | None = None


class ChatImage(SentPart):
    """An image in a chat, as a data URL or a link."""

    type: Literal["image_url"]
    image_url: ImageUrl

    @cached_property
    def part(self) -> Part:
        """The image."""
        return read_part("image", self.image_url.url, detail=self.image_url.detail)


class Sound(Sent):
    """A sound in base64."""

    data: str
    format: Literal["wav", "mp3"]


class ChatAudio(SentPart):
    """A sound in a chat."""

    type: Literal["input_audio"]
    input_audio: Sound

    @cached_property
    def part(self) -> Part:
        """The sound."""
        return read_part("audio", f"data:audio/{self.input_audio.format};base64,{self.input_audio.data}")


class FileData(Sent):
    """A file as a data URL."""

    file_data: str
    filename: FileName | None = None


class ChatFile(SentPart):
    """A file in a chat."""

    type: Literal["file"]
    file: FileData

    @cached_property
    def part(self) -> Part:
        """The file."""
        return read_part("file", self.file.file_data, name=self.file.filename)


class InputImage(SentPart):
    """An image in the Responses API, as a data URL or a link."""

    type: Literal["input_image"]
    image_url: str
    detail: Detail | None = None

    @cached_property
    def part(self) -> Part:
        """The image."""
        return read_part("image", self.image_url, detail=self.detail)


class InputFile(SentPart):
    """A file in the Responses API, as a data URL or a link."""

    type: Literal["input_file"]
    file_data: str | None = None
    file_url: str | None = None
    filename: FileName | None = None

    @cached_property
    def part(self) -> Part:
        """The file. Raises: ValueError unless it is data or a link."""
        if (self.file_data is None) == (self.file_url is None):
            raise ValueError("needs either file_data or file_url")
        return read_part("file", self.file_data or self.file_url or "", name=self.filename)


class Base64Source(Sent):
    """What a block of Anthropic's holds, in base64."""

    type: Literal["base64"]
    media_type: Annotated[str, Field(max_length=128)]
    data: str

    @property
    def link(self) -> str:
        """It as a data URL."""
        return f"data:{self.media_type};base64,{self.data}"


class UrlSource(Sent):
    """Where it is."""

    type: Literal["url"]
    url: str

    @property
    def link(self) -> str:
        """Its link."""
        return self.url


class ImageBlock(SentPart):
    """An image in Anthropic's API."""

    type: Literal["image"]
    source: Annotated[Base64Source | UrlSource, Field(discriminator="type")]

    @cached_property
    def part(self) -> Part:
        """The image."""
        return read_part("image", self.source.link)


class DocumentBlock(SentPart):
    """A PDF in Anthropic's API. `context` is what the model may know about it."""

    type: Literal["document"]
    source: Annotated[Base64Source | UrlSource, Field(discriminator="type")]
    title: FileName | None = None
    context: str | None = None

    @property
    def text(self) -> str:
        """Its context."""
        return self.context or ""

    @cached_property
    def part(self) -> Part:
        """The PDF."""
        return read_part("file", self.source.link, name=self.title)


class PlainTextSource(Sent):
    """A document's text."""

    type: Literal["text"]
    data: str


class TextDocumentBlock(Block):
    """A document that is text, in Anthropic's API: it is read as a text of the message."""

    type: Literal["document"]
    source: PlainTextSource
    title: FileName | None = None
    context: str | None = None

    @property
    def text(self) -> str:
        """Its title, its context and its text."""
        return "\n\n".join(filter(None, (self.title, self.context, self.source.data)))


def _source_type(block: object) -> object:
    source = block.get("source") if isinstance(block, dict) else getattr(block, "source", None)
    kind = source.get("type") if isinstance(source, dict) else getattr(source, "type", None)
    return "text" if kind == "text" else "file"


AnyDocument = Annotated[Annotated[DocumentBlock, Tag("file")] | Annotated[TextDocumentBlock, Tag("text")], Discriminator(_source_type)]
"""A document block of Anthropic's."""
