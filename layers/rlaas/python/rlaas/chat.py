"""A chat with a model of any vendor: messages, tools, documents, the call and its answer, in the terms of OpenAI's
API."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, JsonValue, TypeAdapter, ValidationError, model_validator

from rlaas.errors import DependencyUnavailable
from rlaas.parts import MOST_PARTS, Part
from rlaas.prompt_cache import CacheMark, CacheTtl, find_longest
from rlaas.wire import Json, WireModel

JsonObject = dict[str, JsonValue]
LONGEST_CALL_ID = 8192
CallId = Annotated[str, Field(max_length=LONGEST_CALL_ID)]
"""The id of a tool's call. LiteLLM puts Gemini's signature into it, of some thousand characters."""
_MOST_TOKENS = 10**9
_ARGUMENTS: TypeAdapter[JsonObject] = TypeAdapter(dict[str, Json], config=ConfigDict(defer_build=True))


class CalledFunction(WireModel):
    """The function that a model calls; `arguments` is the JSON that the model wrote, which may be malformed."""

    name: Annotated[str, Field(max_length=256)]
    arguments: str


class ToolCall(WireModel):
    """A model's call of a tool. `extra_content` is what a vendor adds to it and must get back with it, such as Gemini's
    `{"google": {"thought_signature": ...}}`."""

    id: CallId
    type: Literal["function"] = "function"
    function: CalledFunction
    extra_content: dict[str, Json] | None = None

    def plain(self) -> dict[str, JsonValue]:
        """The call in the format of OpenAI's chat API."""
        return self.model_dump(mode="json", exclude_none=True)


class Message(WireModel):
    """One message of a chat, as in OpenAI's API: an assistant may call tools, and a tool's message answers one call.

    `content` is its text; images, sounds and files stand beside it. `reasoning_content` is what the assistant thought,
    which some vendors want back. `name` tells speakers of one role apart. `cache_marks` go to vendors with such a
    cache; they are not stored.
    """

    role: Literal["system", "user", "assistant", "tool"]
    content: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: CallId | None = None
    reasoning_content: str | None = None
    name: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    parts: tuple[Part, ...] = Field(default=(), max_length=MOST_PARTS)
    cache_marks: tuple[CacheMark, ...] = Field(default=(), exclude=True, repr=False)

    @model_validator(mode="after")
    def _says_or_calls_something(self) -> Self:
        if "content" not in self.model_fields_set and not (self.role == "assistant" and self.tool_calls):
            raise ValueError("needs content")
        if (self.role == "tool") != (self.tool_call_id is not None):
            raise ValueError("a message of role tool, and no other, has a tool_call_id")
        if self.parts and self.role not in ("user", "tool"):
            raise ValueError("only messages of the roles user and tool have parts")
        return self

    def pieces(self) -> Iterator["str | Part"]:
        """The text and the parts in it, in order; blank text between them is left out."""
        return (piece for piece, _ in self._cut(()))

    def marked_pieces(self) -> Iterator[tuple["str | Part", CacheTtl | None]]:
        """The same, cut at the cache marks too; beside each piece how long a cache is to keep the prompt up to its end.

        A mark at the message's end stands at no piece.
        """
        return iter(self._cut(self.cache_marks))

    def _cut(self, marks: Iterable[CacheMark]) -> list[tuple["str | Part", CacheTtl | None]]:
        pieces: list[tuple[str | Part, CacheTtl | None]] = []
        start = 0
        places: list[tuple[int, CacheMark | Part]] = [(mark.at, mark) for mark in marks if mark.at is not None]
        places += [(part.at, part) for part in self.parts]  # behind a mark of the text that ends where the part stands
        for at, place in sorted(places, key=lambda place: place[0]):
            if (text := self.content[start:at]).strip():
                pieces.append((text, None))
            start = max(start, at)
            if isinstance(place, Part):
                pieces.append((place, place.cached_for))
            elif pieces:
                pieces[-1] = (pieces[-1][0], place.ttl)
        if (text := self.content[start:]).strip():
            pieces.append((text, None))
        return pieces

    @property
    def ends_cached_for(self) -> CacheTtl | None:
        """How long a cache is to keep the prompt up to the message's end; None without a mark there."""
        return next((mark.ttl for mark in self.cache_marks if mark.at is None), None)

    def list_cache_ttls(self) -> list[CacheTtl]:
        """How long the prompt is to be kept, for each of the message's marks."""
        if not self.cache_marks and not self.parts:
            return []
        return [*(mark.ttl for mark in self.cache_marks), *(part.cached_for for part in self.parts if part.cached_for is not None)]

    def plain(self) -> dict[str, JsonValue]:
        """The message in the format of OpenAI's chat API."""
        message: dict[str, JsonValue] = {"role": self.role, "content": self.content}
        if self.name is not None:
            message["name"] = self.name
        if self.parts:
            message["content"] = [make_piece(piece) for piece in self.pieces()]
        if self.tool_calls:
            message["tool_calls"] = [call.plain() for call in self.tool_calls]
        if self.tool_call_id is not None:
            message["tool_call_id"] = self.tool_call_id
        if self.reasoning_content is not None:
            message["reasoning_content"] = self.reasoning_content
        return message

    def without_extras(self) -> Self:
        """The message in the fields of OpenAI's own API: without `reasoning_content` and `extra_content`."""
        if self.reasoning_content is None and all(call.extra_content is None for call in self.tool_calls):
            return self
        calls = tuple(call.model_copy(update={"extra_content": None}) for call in self.tool_calls)
        return self.model_copy(update={"reasoning_content": None, "tool_calls": calls})


def make_piece(piece: str | Part) -> dict[str, JsonValue]:
    """A text or another part in the format of OpenAI's chat API."""
    return {"type": "text", "text": piece} if isinstance(piece, str) else piece.plain()


def parse_arguments(call: ToolCall) -> JsonObject | None:
    """The arguments that a model wrote; none written is an empty object. None where they are no JSON object."""
    try:
        return _ARGUMENTS.validate_json(call.function.arguments) if call.function.arguments.strip() else {}
    except ValidationError:
        return None


def read_arguments(call: ToolCall) -> JsonObject:
    """The arguments that a model wrote. Where they are no JSON object, they stand as a text under `INVALID_JSON`, as
    Anthropic advises to show them to the model again."""
    arguments = parse_arguments(call)
    return {"INVALID_JSON": call.function.arguments} if arguments is None else arguments


def arguments_text(arguments: Mapping[str, JsonValue]) -> str:
    """A tool call's arguments as OpenAI's clients expect them: a JSON text."""
    return json.dumps(arguments, ensure_ascii=False)


def _is_zero(count: int) -> bool:
    return count == 0


class Usage(WireModel):
    """Tokens of the prompt and of the answer.

    `cached_tokens` of the prompt came from the backend's prompt cache, and `cache_write_tokens` were written to it, of
    which `cache_write_1h_tokens` are to stay there for an hour (both are left out where they are 0: an event that is a
    few bytes longer than a KiB costs twice as much to write). `reasoning_tokens` of the answer are what the model
    thought before it.
    """

    input_tokens: int = Field(ge=0, le=_MOST_TOKENS)
    output_tokens: int = Field(ge=0, le=_MOST_TOKENS)
    cached_tokens: int = Field(default=0, ge=0, le=_MOST_TOKENS)
    cache_write_tokens: int = Field(default=0, ge=0, le=_MOST_TOKENS, exclude_if=_is_zero)
    cache_write_1h_tokens: int = Field(default=0, ge=0, le=_MOST_TOKENS, exclude_if=_is_zero)
    reasoning_tokens: int = Field(default=0, ge=0, le=_MOST_TOKENS)


class Document(WireModel):
    """A document in a request, on which the answer should be based."""

    text: str
    source: Annotated[str, Field(max_length=2000)] = ""


ASLEEP_S = 60.0
"""How long to wait before asking a sleeping model again, in seconds. The model takes five to ten minutes to wake, but a
minute is the longest wait that every version of OpenAI's clients respects: when asked to wait longer, some come back
after a second."""


class BackendFailed(DependencyUnavailable):
    """A backend did not answer. `safe_to_repeat`: it was not reached, or it says that it did no work (429, 503).

    `nothing_done`: the call cannot have cost anything, because nothing was sent or because it was refused (4xx) before
    a model worked. Otherwise its cost counts as spent: as `usage`, where the backend told it before it failed.
    """

    usage: Usage | None = None

    def __init__(
        self,
        detail: str,
        *,
        safe_to_repeat: bool = False,
        nothing_done: bool = False,
        retry_after_s: float | None = None,
        quote: str = "",
    ) -> None:
        super().__init__(detail, retry_after_s=retry_after_s, quote=quote)
        self.safe_to_repeat = safe_to_repeat
        self.nothing_done = nothing_done


class RateLimited(BackendFailed):
    """A backend takes no more requests for now. No work was done."""

    code = "rate_limit_exceeded"

    def __init__(self, detail: str, *, retry_after_s: float | None = None, quote: str = "") -> None:
        super().__init__(detail, safe_to_repeat=True, nothing_done=True, retry_after_s=retry_after_s, quote=quote)


class Misconfigured(BackendFailed):
    """A backend refuses what the policy names: its key, its model, its address, or an account with nothing left to
    spend. Asking again changes nothing until the tenant mends it. No work was done."""

    code = "backend_misconfigured"
    retryable = False

    def __init__(self, detail: str, *, quote: str = "") -> None:
        super().__init__(detail, nothing_done=True, quote=quote)


class NoCapacity(BackendFailed):
    """No machine runs the model: it sleeps until `runtime.waking` reports the call. No work was done."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail, safe_to_repeat=True, nothing_done=True, retry_after_s=ASLEEP_S)


@dataclass(frozen=True, slots=True)
class ChatCall:
    """One call of a model.

    `parameters` are OpenAI's by name (`temperature`, `max_tokens`, `tools`, `response_format`, `stop`, ...), without
    `model`, `messages` and `stream`, which the backend fills in. `traceparent` is W3C's trace context of the span that
    makes the call. `hops` is the number of gateways that the request has passed before this one. A stream ends at
    `ends_at` (seconds of the monotonic clock) at the latest; with None only the wait for each piece is limited.
    `tool_marks` say how long a cache is to keep the prompt up to a tool, by its place in `tools`.
    """

    messages: tuple[Message, ...]
    parameters: Mapping[str, JsonValue]
    tenant_id: str
    traceparent: str | None = None
    hops: int = 0
    ends_at: float | None = None
    tool_marks: Mapping[int, CacheTtl] = field(default_factory=dict)

    @property
    def writes_for(self) -> CacheTtl | None:
        """The longest that a cache is asked to keep the prompt; None where it is not asked to."""
        return find_longest([*self.tool_marks.values(), *(ttl for message in self.messages for ttl in message.list_cache_ttls())])


@dataclass(frozen=True, slots=True)
class Choice:
    """One of the answers to a call. `finish_reason` is OpenAI's: stop, length, tool_calls, content_filter.

    `stop_sequence` is the text of the request's `stop` that ended it, where the backend says so. `reasoning_content` is
    what the model thought, `annotations` are OpenAI's: the pages that the text cites.
    """

    text: str
    finish_reason: str | None
    tool_calls: tuple[ToolCall, ...] = ()
    refusal: str | None = None
    logprobs: JsonValue = None
    stop_sequence: str | None = None
    reasoning_content: str | None = None
    annotations: tuple[dict[str, JsonValue], ...] = ()


@dataclass(frozen=True, slots=True)
class Processing:
    """How a vendor processed a call, in OpenAI's words: on which configuration of its system, and at which tier."""

    system_fingerprint: str | None = None
    service_tier: str | None = None


UNKNOWN_PROCESSING = Processing()


@dataclass(frozen=True, slots=True)
class Completion:
    """What a model answered: `n` choices, in order. `usage` is None where the backend told none."""

    choices: tuple[Choice, ...]
    usage: Usage | None
    model: str | None = None
    """The model that the backend says answered."""
    usage_so_far: Usage | None = None
    """Of an answer that was cut off: what the backend had told until then. What it read is known, what it wrote is more
    or less."""
    processing: Processing = UNKNOWN_PROCESSING

    @property
    def text(self) -> str:
        """The first choice's text."""
        return self.choices[0].text


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A piece of the tool call at `index`: the first piece has its id and name, later ones have more `arguments`."""

    index: int
    arguments: str = ""
    id: str | None = None
    name: str | None = None
    extra_content: dict[str, JsonValue] | None = None


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of a streamed answer: more of the choice at `index`, or the usage: so far, or in the last piece all."""

    index: int = 0
    text: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()
    refusal: str | None = None
    finish_reason: str | None = None
    logprobs: JsonValue = None
    usage: Usage | None = None
    model: str | None = None
    stop_sequence: str | None = None
    reasoning_content: str | None = None
    annotations: tuple[dict[str, JsonValue], ...] = ()
    processing: Processing = UNKNOWN_PROCESSING

    @property
    def has_content(self) -> bool:
        """Whether it is more of an answer, and not only its usage or the model's name."""
        return self != Delta(usage=self.usage, model=self.model, processing=self.processing)
