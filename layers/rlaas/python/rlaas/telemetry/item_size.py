"""What one item of DynamoDB holds of an event, and what is cut of an output that is larger."""

from collections.abc import Sequence

from pydantic import BaseModel

from rlaas.chat import Message
from rlaas.ids import encode_canonical_json
from rlaas.telemetry.events import OutputProduced

MAX_STORED_BYTES = 380 * 1024
"""The largest event stored, in bytes of JSON: masks may be longer than what they stand for, and an item of DynamoDB
ends at 400 KB."""
MIN_ANSWER_BYTES = 64 * 1024
"""How much room a prompt must leave for the answer to be stored with it, in bytes of JSON."""
_MOST_BYTES = len(r"\u0000")
"""The most bytes of JSON that a character takes."""


def count_bytes(text: str) -> int:
    """The bytes of `text` in UTF-8; half of a surrogate pair has three."""
    return len(text.encode(errors="surrogatepass"))


def may_fit(messages: Sequence[Message] | None, room: int) -> bool:
    """Whether `messages` may fit into `room` bytes of JSON: their texts alone have no more characters."""
    return sum(len(message.content) for message in messages or ()) <= room


def cut_output(output: OutputProduced) -> OutputProduced:
    """`output` as an item holds it: its text cut at the end; tool calls, the prompt and what the model thought as
    a whole. `metadata` names the cut fields, under `cut`."""

    def size(value: BaseModel | tuple[BaseModel, ...]) -> int:
        parts = value if isinstance(value, tuple) else (value,)
        return sum(count_bytes(part.model_dump_json(exclude_none=True)) + 1 for part in parts)

    bare = output.model_copy(update={"text": "", "tool_calls": (), "reasoning_content": None, "messages": None})
    room = MAX_STORED_BYTES - size(bare) - 1024
    changes: dict[str, object] = {}
    messages = size(output.messages or ())
    if messages > room - MIN_ANSWER_BYTES:
        changes["messages"], messages = None, 0
    calls = size(output.tool_calls)
    if calls > room - messages:
        changes["tool_calls"], calls = (), 0
    room -= messages + calls
    text = cut(output.text, room)
    if text != output.text:
        changes["text"] = text
    if output.reasoning_content is not None:
        thoughts = cut(output.reasoning_content, room - count_bytes(encode_canonical_json(text)))
        if thoughts != output.reasoning_content:
            changes["reasoning_content"] = None  # no vendor takes back a part of it
    return output.model_copy(update={**changes, "metadata": {**output.metadata, "cut": [*output.cut_fields, *changes]}})


def cut(text: str, room: int) -> str:
    """As much of the beginning of `text` as takes up to `room` bytes as JSON."""
    if _MOST_BYTES * len(text) + len('""') <= room:
        return text
    if count_bytes(encode_canonical_json(text)) <= room:
        return text
    fits, too_long = 0, len(text)
    while too_long - fits > 1:
        middle = (fits + too_long) // 2
        fits, too_long = (middle, too_long) if count_bytes(encode_canonical_json(text[:middle])) <= room else (fits, middle)
    return text[:fits]
