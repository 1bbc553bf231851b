"""Reads OpenAI's chat completions, whole and streamed, as many servers write them.

Vendors leave fields out, send null or another type, or use names of their own. An answer that was billed is refused
only when it cannot be read at all. The fields whose type may be wrong are read as any JSON: a
stream has thousands of pieces, and checking in pydantic's own code costs a third of checking in Python.
"""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TypeGuard

from pydantic import BaseModel, JsonValue, ValidationError

from rlaas.adapters.models.answer_repair import NO_ARGUMENTS, repair_completion, repair_deltas
from rlaas.adapters.models.openai_chat import read_refusal
from rlaas.adapters.models.openai_usage import ReportedUsage
from rlaas.adapters.models.vendor_json import keep_finite, read_json
from rlaas.chat import (
    UNKNOWN_PROCESSING,
    BackendFailed,
    CalledFunction,
    Choice,
    Completion,
    Delta,
    Processing,
    ToolCall,
    ToolCallDelta,
    Usage,
)
from rlaas.errors import RlaasError
from rlaas.inference.growing_json import GrowingObject

_SERVICE_TIERS = ("auto", "default", "flex", "scale", "priority")
"""The tiers that every version of OpenAI's clients knows; some of those that check answers refuse others."""
_REASONS = {
    **{reason: reason for reason in ("stop", "length", "tool_calls", "content_filter")},
    **dict.fromkeys(("max_tokens", "max_output_tokens", "model_length", "model_context_window_exceeded"), "length"),
    **dict.fromkeys(("function_call", "tool_call", "tool_use"), "tool_calls"),
    **dict.fromkeys(("safety", "recitation", "prohibited_content", "blocklist", "spii"), "content_filter"),
    **dict.fromkeys(("sensitive", "refusal", "content_filtered", "guardrail_intervened"), "content_filter"),
}
_FAILURE = re.compile(r"error|fail|abort|cancel|timeout|malformed|function_call_filter|insufficient", re.IGNORECASE)
"""In the reasons of servers whose model did not finish: OpenRouter's and vLLM's `error`, DeepSeek's
`insufficient_system_resource`, Zhipu's `network_error`, Gemini's `malformed_function_call`."""
_NO_IDS = ("", "null", "None")


class _Function(BaseModel):
    name: object = None
    arguments: object = None

    @property
    def text(self) -> str:
        """The arguments as JSON; some servers send the value itself."""
        if isinstance(self.arguments, str):
            return self.arguments
        return "" if self.arguments is None else json.dumps(self.arguments, ensure_ascii=False)


class _ToolCall(BaseModel):
    id: object = None
    function: _Function | None = None
    index: object = None
    extra_content: object = None

    @property
    def own_id(self) -> str | None:
        """The id, if it is one."""
        return None if self.id in _NO_IDS else _text(self.id)

    @property
    def extras(self) -> dict[str, JsonValue] | None:
        """What has to go back to the vendor with the call."""
        extras = keep_finite(self.extra_content)
        return extras if isinstance(extras, dict) and extras else None


class _Message(BaseModel):
    content: str | list[object] | None = None
    refusal: object = None
    tool_calls: list[_ToolCall] | None = None
    function_call: object = None
    reasoning_content: object = None
    reasoning: object = None
    reasoning_details: object = None
    annotations: object = None

    @property
    def text(self) -> str:
        """The text; parts are joined, and those that are no text are skipped."""
        if isinstance(self.content, str):
            return self.content
        return "".join(_read_part(part, "text") for part in self.content or ())

    @property
    def calls(self) -> list[_ToolCall]:
        """The tools that are called, also the one by the API's older name for it."""
        if isinstance(self.function_call, dict) and not self.tool_calls and any(self.function_call.values()):
            return [_ToolCall(function=_Function.model_validate(self.function_call))]
        return self.tool_calls or []

    @property
    def thoughts(self) -> str | None:
        """What the model thought, by the names that vendors have for it."""
        if isinstance(self.content, list) and (words := "".join(_read_part(part, "thinking") for part in self.content)):
            return words
        return _text(self.reasoning_content) or _text(self.reasoning) or self._detailed_thoughts

    @property
    def _detailed_thoughts(self) -> str | None:
        """OpenRouter's texts and summaries; what is encrypted only its vendor reads."""
        details = self.reasoning_details if isinstance(self.reasoning_details, list) else ()
        return "".join(_text(one.get("text")) or _text(one.get("summary")) or "" for one in details if isinstance(one, dict)) or None

    @property
    def citations(self) -> tuple[dict[str, JsonValue], ...]:
        """The annotations that are OpenAI's."""
        return tuple(one for one in self.annotations if _is_citation(one)) if isinstance(self.annotations, list) else ()


class _Choice(BaseModel):
    """A choice of a whole answer, or its next piece in a stream: `message` or `delta`."""

    index: object = None
    message: _Message | None = None
    delta: _Message | None = None
    finish_reason: object = None
    stop_reason: object = None
    """What vLLM says beside `finish_reason`: the stop sequence, or the number of the token that ended the answer."""
    logprobs: object = None
    error: object = None
    """OpenRouter's, where the provider behind it failed."""

    @property
    def place(self) -> int:
        """Its place among the choices."""
        return self.index if isinstance(self.index, int) else 0

    @property
    def words(self) -> _Message:
        """What it says."""
        return self.delta or self.message or _NOTHING


class _Answer(BaseModel):
    """A whole answer, or a chunk of a stream."""

    choices: list[_Choice] | None = None
    usage: object = None
    model: object = None
    system_fingerprint: object = None
    service_tier: object = None
    error: object = None

    @property
    def counts(self) -> Usage | None:
        """The usage; None where the vendor reports none, or an impossible one."""
        return ReportedUsage.model_validate(self.usage).plain() if isinstance(self.usage, dict) else None

    @property
    def processing(self) -> Processing:
        """How the vendor processed the call."""
        tier = self.service_tier if self.service_tier in _SERVICE_TIERS else None
        return Processing(_text(self.system_fingerprint), _text(tier))


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


_NOTHING = _Message()


def read_completion(vendor: str, content: bytes) -> Completion:
    """The answer in the response's body. Raises: BackendFailed when it is not a chat completion or the model did not
    finish; and for an error in its place, whatever its status, as `read_refusal`."""
    answer = _read(vendor, content)
    if answer.error:
        raise _read_error(vendor, content, answer.error)
    if not answer.choices:
        raise _unreadable_answer(vendor)
    try:
        choices = tuple(_build_choice(vendor, choice) for choice in sorted(answer.choices, key=lambda choice: choice.place))
    except ValidationError as error:
        raise _unreadable_answer(vendor) from error
    completion = Completion(choices=choices, usage=answer.counts, model=_text(answer.model), processing=answer.processing)
    return repair_completion(completion)


def read_deltas(vendor: str, events: Iterable[bytes], *, choices: int) -> Iterator[Delta]:
    """The answer piece by piece from each event's data; last of all the usage, where the server sends it. Some
    servers send the usage so far with every piece.

    Raises: BackendFailed on an error in the stream, on an event that cannot be read, where the model did not finish,
    and when the stream ends before all `choices` (their number) have finished; for an error in place of the first
    piece, as `read_refusal`.
    """
    return repair_deltas(_read_chunks(vendor, events, choices=choices))


def is_done(data: bytes) -> bool:
    """Whether this is the data of a stream's last event."""
    return data.strip() == b"[DONE]"


def _read_chunks(vendor: str, events: Iterable[bytes], *, choices: int) -> Iterator[Delta]:
    finished: set[int] = set()
    calls: dict[int, _CallPlaces] = {}
    usage: Usage | None = None
    model: str | None = None
    processing = UNKNOWN_PROCESSING
    has_begun = False
    for data in events:
        if is_done(data):
            break
        if not data.strip():
            continue  # keeps the connection alive
        chunk = _read(vendor, data)
        if chunk.error:
            raise BackendFailed(f"{vendor} failed in mid-answer") if has_begun else _read_error(vendor, data, chunk.error)
        so_far = chunk.counts
        usage = so_far or usage
        model = _text(chunk.model) or model
        if (processing.system_fingerprint, processing.service_tier) != (chunk.system_fingerprint, chunk.service_tier):
            processing = chunk.processing
        for choice in chunk.choices or ():
            place = choice.place
            if place not in calls:
                calls[place] = _CallPlaces()
            delta = _build_delta(vendor, choice, place, calls[place], model, processing)
            if delta.finish_reason:
                finished.add(place)
            has_begun = has_begun or bool(delta.text or delta.tool_calls or delta.reasoning_content)
            yield delta if so_far is None else replace(delta, usage=so_far)
    if not finished.issuperset(range(choices)):
        raise BackendFailed(f"{vendor} broke off before the answer was finished")
    if usage is not None:
        yield Delta(usage=usage, model=model)


@dataclass(slots=True)
class _OpenCall:
    """A call that is being streamed."""

    place: int
    id: str | None
    name: str | None
    arguments: GrowingObject = field(default_factory=GrowingObject)


class _CallPlaces:
    """The place of each call among those of a choice.

    A vendor's index says which call a piece belongs to, but some give parallel calls the same one or none: then another
    id and name begins another call, and so does a name after the arguments before it are whole. Servers that send the
    id or name of a call again, with each piece, mean the same call.
    """

    def __init__(self) -> None:
        self._latest: dict[int, _OpenCall] = {}
        self._by_id: dict[tuple[int, str], _OpenCall] = {}
        self._count = 0

    def find(self, piece: _ToolCall, position: int, name: str | None) -> _OpenCall:
        """The call that `piece` belongs to; `position` is the piece's among those that came with it."""
        index = piece.index if isinstance(piece.index, int) else position
        call = self._find_open(index, piece.own_id, name)
        if call is None:
            call = _OpenCall(self._count, piece.own_id, name)
            self._count += 1
        call.id, call.name = call.id or piece.own_id, call.name or name
        self._latest[index] = call
        if piece.own_id is not None:
            self._by_id[index, piece.own_id] = call
        return call

    def _find_open(self, index: int, identifier: str | None, name: str | None) -> _OpenCall | None:
        latest = self._latest.get(index)
        if latest is None or name is None:
            return self._by_id.get((index, identifier), latest) if identifier is not None else latest
        if identifier is not None:
            same = self._by_id.get((index, identifier))
            return same or (latest if latest.id is None and not latest.arguments.has_ended else None)
        return None if latest.name is not None and (name != latest.name or latest.arguments.has_ended) else latest


def _build_choice(vendor: str, choice: _Choice) -> Choice:
    words = choice.words
    calls = (
        ToolCall(
            id=call.own_id or "",
            function=CalledFunction(name=_text(call.function.name) or "", arguments=call.function.text),
            extra_content=call.extras,
        )
        for call in words.calls
        if call.function is not None
    )
    return Choice(
        text=words.text,
        finish_reason=_read_reason(vendor, choice),
        tool_calls=tuple(calls),
        refusal=_text(words.refusal),
        logprobs=keep_finite(choice.logprobs),
        stop_sequence=_text(choice.stop_reason),
        reasoning_content=words.thoughts,
        annotations=words.citations,
    )


def _build_delta(vendor: str, choice: _Choice, place: int, places: _CallPlaces, model: str | None, processing: Processing) -> Delta:
    words = choice.words
    return Delta(
        index=place,
        text=words.text,
        tool_calls=tuple(_build_pieces(calls, places)) if (calls := words.calls) else (),
        refusal=_text(words.refusal),
        finish_reason=_read_reason(vendor, choice),
        logprobs=keep_finite(choice.logprobs),
        model=model,
        stop_sequence=_text(choice.stop_reason),
        reasoning_content=words.thoughts,
        annotations=words.citations,
        processing=processing,
    )


def _build_pieces(calls: Iterable[_ToolCall], places: _CallPlaces) -> Iterator[ToolCallDelta]:
    for position, call in enumerate(calls):
        name, arguments = (_text(call.function.name), call.function.text) if call.function is not None else (None, "")
        open_call = places.find(call, position, name)
        # Some servers begin each call with `{}`. One that gets no other arguments has them from its repair.
        new = "" if name and arguments == NO_ARGUMENTS and not open_call.arguments.text else arguments
        open_call.arguments.add(arguments)
        yield ToolCallDelta(open_call.place, new, call.own_id, name, call.extras)


def _read_reason(vendor: str, choice: _Choice) -> str | None:
    """Why the answer ended, in OpenAI's words; `stop` for an unknown word.

    Raises: BackendFailed where the model did not finish.
    """
    word = choice.finish_reason
    if choice.error:
        raise BackendFailed(f"{vendor}'s model did not finish its answer")
    if not isinstance(word, str) or not word:
        return None
    if word in _REASONS:
        return _REASONS[word]
    reason = word.partition(":")[0].strip().lower()  # Gemini gives details after a colon
    if _FAILURE.search(reason):
        raise BackendFailed(f"{vendor}'s model did not finish its answer")
    return _REASONS.get(reason, "stop")


def _read_part(part: object, kind: str) -> str:
    """The text of a content's part of type `kind` (text or thinking); empty for other parts."""
    if isinstance(part, str):
        return part if kind == "text" else ""
    if not isinstance(part, dict) or part.get("type", "text") not in ((kind,) if kind == "thinking" else (kind, "output_text")):
        return ""
    inner = part.get(kind)
    if isinstance(inner, list):
        return "".join(_read_part(one, "text") for one in inner)
    return inner if isinstance(inner, str) else ""


def _is_citation(annotation: object) -> TypeGuard[dict[str, JsonValue]]:
    citation = annotation.get("url_citation") if isinstance(annotation, dict) and annotation.get("type") == "url_citation" else None
    if not isinstance(citation, dict) or keep_finite(annotation) is None:
        return False
    texts, places = (citation.get("url"), citation.get("title")), (citation.get("start_index"), citation.get("end_index"))
    return all(isinstance(one, str) for one in texts) and all(isinstance(one, int) for one in places)


def _read(vendor: str, content: bytes) -> _Answer:
    try:
        return read_json(_Answer, content)
    except ValidationError as error:
        raise _unreadable_answer(vendor) from error


def _read_error(vendor: str, content: bytes, error: object) -> RlaasError:
    """The error to raise for an error in the place of an answer. Its code may be the status that it should have had."""
    code = error.get("code") if isinstance(error, dict) else None
    status = int(code) if isinstance(code, int | str) and re.fullmatch(r"[45]\d\d", str(code)) else 502
    return read_refusal(vendor, status, content)


def _unreadable_answer(vendor: str) -> BackendFailed:
    return BackendFailed(f"{vendor}'s answer is not a chat completion")
