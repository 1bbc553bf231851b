"""Images, sounds and files on the way to vendors. What a vendor does not take is refused by name."""

import base64
import re
from collections.abc import Iterable

from pydantic import JsonValue

from rlaas.chat import Message
from rlaas.errors import InvalidInput, PartRefused
from rlaas.parts import Part

_PDF = "application/pdf"


def check_texts(vendor: str, messages: Iterable[Message]) -> None:
    """Check that the messages are text alone. Raises: PartRefused naming the first part."""
    for message in messages:
        for part in message.parts:
            raise refuse_part(vendor, part)


def check_openai_parts(vendor: str, messages: Iterable[Message]) -> None:
    """Check that OpenAI's chat API has a form for every part: none in a tool's answer, and sounds and files by their
    data. Raises: PartRefused; InvalidInput for a part without its `url`, which was read from the store."""
    for message in messages:
        for part in message.parts:
            _read_url(part)
            if message.role == "tool":
                raise refuse_part(vendor, part, " in what a tool answered")
            if part.type != "image" and part.data is None:
                raise refuse_part(vendor, part, " by its link: send its data")


def anthropic_block(vendor: str, part: Part) -> dict[str, JsonValue]:
    """The part as a block of the Messages API: an `image`, or a PDF as a `document`, by its data in base64 or by its
    link. Raises: PartRefused for a sound, and for a file that is no PDF; InvalidInput for a part without its `url`,
    which was read from the store."""
    if part.type == "audio" or (part.type == "file" and part.media_type not in (None, _PDF)):
        raise refuse_part(vendor, part)
    url = _read_url(part)
    source: dict[str, JsonValue] = {"type": "url", "url": url}
    if part.data is not None:
        source = {"type": "base64", "media_type": part.media_type, "data": part.data}
    if part.type == "image":
        return {"type": "image", "source": source}
    return {"type": "document", "source": source, **({"title": part.name} if part.name else {})}


def bedrock_block(vendor: str, part: Part) -> dict[str, object]:
    """The image as a block of the Converse API: its format (`png`, `jpeg`, `gif`, `webp`) and its bytes. Raises:
    PartRefused for anything else, and for an image by its link; InvalidInput for an image without its `url`, which was
    read from the store."""
    if part.type != "image":
        raise refuse_part(vendor, part)
    _read_url(part)
    if part.data is None:
        raise refuse_part(vendor, part, " by its link: send its data")
    return {"image": {"format": re.sub("^image/", "", part.media_type or ""), "source": {"bytes": base64.b64decode(part.data)}}}


def refuse_part(vendor: str, part: Part, why: str = "") -> PartRefused:
    """The error for a part that the vendor does not take; `why` ends the sentence `<vendor> takes no <part>`."""
    noun = "sound" if part.type == "audio" else part.type
    return PartRefused(f"{vendor} takes no {noun}{why}", param="messages")


def _read_url(part: Part) -> str:
    """Where the part is. Raises: InvalidInput for one that was read from the store, which has no data."""
    if part.url is None:
        raise InvalidInput("an image, sound or file of an earlier request is not stored: send it again", param="messages")
    return part.url
