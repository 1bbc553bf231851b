"""What a message holds beside its text: images, sounds and files."""

import base64
import binascii
import hashlib
import re
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, model_validator

from rlaas.ids import Sha256, hash_text
from rlaas.prompt_cache import CacheTtl
from rlaas.wire import WireModel

PartType = Literal["image", "audio", "file"]
Detail = Literal["auto", "low", "high", "original"]
MOST_PARTS = 100
"""The most parts of a request, as Anthropic takes them."""
_LONGEST_LINK = 8192
_MEDIA_TYPES: dict[PartType, str] = {
    "image": r"image/(png|jpeg|gif|webp)",
    "audio": r"audio/(wav|mp3)",
    "file": r"[a-z]+/[a-z0-9.+-]{1,100}",
}
"""The media types that all vendors take who take the part at all."""
_OTHER_NAMES = {"image/jpg": "image/jpeg"}
"""What many call a media type, by its own name, which is the only one that Anthropic and Bedrock take."""
_DATA_URL = re.compile(r"data:([^;,]{1,128})(?:;[^;,]{0,255}){0,8};base64", re.IGNORECASE)
_IMAGE_TOKENS = 12_000
"""The most tokens of an image: OpenAI's models take up to 10,000 patches of one of detail `original`, some by a factor
of 1.2; Anthropic's up to 4,784. A `gpt-4o-mini` counts up to 48,169 of its cheap tokens, which settling mends."""
_FILE_TOKENS = 300_000
"""The most tokens of a file: 3,000 for each of 100 pages, by Anthropic's guide to PDFs. How many bytes it has says
nothing of it, unless it is text: a PDF may show one page a hundred times, and office files are packed."""
_BYTES_OF_SOUND_PER_TOKEN = 100
"""Ten tokens a second, by OpenAI's guide, of the slowest MP3 (8 kbit/s)."""


class Part(WireModel):
    """An image, a sound or a file in a message.

    `url` is a data URL or a link. It goes to the model and is neither stored nor logged: what is stored says what it
    was. `sha256` and `size` (bytes) are those of the data, or of the link, which has no `media_type`. `at` is where it
    stands in the message's text, in characters. `cached_for` asks vendors with such a cache to keep the prompt up
    to the part's end; it is not stored either.
    """

    type: PartType
    url: str | None = Field(default=None, exclude=True, repr=False, description="A data URL, or a link. It is not stored.")
    media_type: Annotated[str, Field(max_length=128)] | None = None
    sha256: Sha256 | None = None
    size: int | None = Field(default=None, ge=0)
    name: Annotated[str, Field(max_length=255)] | None = None
    detail: Detail | None = Field(default=None, description="How closely OpenAI's models look at an image.")
    at: int = Field(default=0, ge=0)
    cached_for: CacheTtl | None = Field(default=None, exclude=True, repr=False)

    @model_validator(mode="before")
    @classmethod
    def _describe(cls, value: object) -> object:
        """Say what the `url` holds, whatever the sender says of it, and write a data URL as all vendors read it."""
        if not isinstance(value, dict) or not isinstance(url := value.get("url"), str):
            return value
        return {**value, **_describe_url(value.get("type"), url)}

    @property
    def data(self) -> str | None:
        """The base64 of a data URL."""
        return self.url.partition(",")[2] if self.url is not None and self.media_type is not None else None

    @property
    def most_tokens(self) -> int:
        """The most tokens that a model counts for it, by vendors' published rules."""
        if self.type == "image":
            return _IMAGE_TOKENS
        size = self.size if self.media_type is not None else None
        if self.type == "audio":
            return (size or 0) // _BYTES_OF_SOUND_PER_TOKEN + 1
        is_text = self.media_type is not None and self.media_type.startswith("text/")
        return min(size, _FILE_TOKENS) if is_text and size is not None else _FILE_TOKENS

    def plain(self) -> dict[str, JsonValue]:
        """The part in the format of OpenAI's chat API; one from the store has no `url` and no data."""
        match self.type:
            case "image":
                return {"type": "image_url", "image_url": _leave_out_none({"url": self.url, "detail": self.detail})}
            case "audio":
                form = (self.media_type or "").removeprefix("audio/")
                return {"type": "input_audio", "input_audio": {"data": self.data, "format": form}}
            case "file":
                return {"type": "file", "file": {"filename": self.name or self._make_name(), "file_data": self.url}}

    def _make_name(self) -> str:
        """A name for a file that has none, since OpenAI refuses one without: `file.pdf`, `file.csv`, or `file`."""
        subtype = (self.media_type or "").partition("/")[2]
        return f"file.{subtype}" if re.fullmatch("[a-z]{2,4}", subtype) else "file"


def read_part(part_type: PartType, url: str, *, name: str | None = None, detail: Detail | None = None) -> Part:
    """The part that `url` holds or leads to. Raises: ValueError, as a validator does, for what is neither a data URL
    nor a link, and for data of another type than `part_type`."""
    return Part.model_construct(type=part_type, name=name, detail=detail, **_describe_url(part_type, url))


def _describe_url(part_type: object, url: str) -> dict[str, Any]:
    """`media_type`, `sha256` and `size` of what `url` holds, and the `url`."""
    if url[:5].lower() == "data:":
        media_type, text, data = _read_data_url(url)
        pattern = next((pattern for one, pattern in _MEDIA_TYPES.items() if one == part_type), None)
        if pattern is not None and not re.fullmatch(pattern, media_type):
            raise ValueError(f"the media type is none of {pattern}")
        head = f"data:{media_type};base64,"
        url = url if url.startswith(head) else head + text
        return {"url": url, "media_type": media_type, "sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    if len(url) > _LONGEST_LINK or not re.fullmatch(r"https?://[\x21-\x7e]+", url):
        raise ValueError("is neither a data URL (data:<media type>;base64,<data>) nor a link (https://...)")
    return {"url": url, "media_type": None, "sha256": hash_text(url), "size": len(url)}


def _leave_out_none(value: dict[str, JsonValue]) -> dict[str, JsonValue]:
    return {name: item for name, item in value.items() if item is not None}


def _read_data_url(url: str) -> tuple[str, str, bytes]:
    """The media type, the base64 and the data. What else the URL says of itself (`;charset=utf-8`) is passed over.

    Raises: ValueError for another form than `data:<media type>;base64,<data>`, and without data.
    """
    head, comma, text = url.partition(",")
    match = _DATA_URL.fullmatch(head)
    if match is None or not comma:
        raise ValueError("a data URL has the form data:<media type>;base64,<data>")
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError("a data URL's data is not base64") from None
    if not data:
        raise ValueError("a data URL has no data")
    media_type = match[1].lower()
    return _OTHER_NAMES.get(media_type, media_type), text, data
