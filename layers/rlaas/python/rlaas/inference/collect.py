"""A streamed answer put together again, and a whole one taken apart."""

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field

from pydantic import JsonValue

from rlaas.chat import UNKNOWN_PROCESSING, CalledFunction, Choice, Completion, Delta, Processing, ToolCall, ToolCallDelta, Usage


def split_choices(
    choices: Sequence[Choice], usage: Usage | None, processing: Processing = UNKNOWN_PROCESSING
) -> Generator[Delta, None, None]:
    """A whole answer as a stream: what the model thought of each choice, the choice, then why it ended; the usage
    last."""
    for index, choice in enumerate(choices):
        calls = tuple(
            ToolCallDelta(place, call.function.arguments, call.id, call.function.name, call.extra_content)
            for place, call in enumerate(choice.tool_calls)
        )
        if choice.reasoning_content:
            yield Delta(index, reasoning_content=choice.reasoning_content, processing=processing)
        yield Delta(
            index,
            text=choice.text,
            tool_calls=calls,
            refusal=choice.refusal,
            logprobs=choice.logprobs,
            annotations=choice.annotations,
            processing=processing,
        )
        yield Delta(index, finish_reason=choice.finish_reason or "stop", stop_sequence=choice.stop_sequence, processing=processing)
    yield Delta(usage=usage, processing=processing)


@dataclass(slots=True)
class _Partial:
    texts: list[str] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    annotations: list[dict[str, JsonValue]] = field(default_factory=list)
    calls: dict[int, list[ToolCallDelta]] = field(default_factory=dict)
    finish_reason: str | None = None
    stop_sequence: str | None = None


class Collected:
    """The pieces of a streamed answer so far."""

    def __init__(self) -> None:
        self._choices: dict[int, _Partial] = {}
        self._usage: Usage | None = None
        self._is_counted = False
        self._model: str | None = None
        self._processing = UNKNOWN_PROCESSING

    def add(self, delta: Delta) -> Delta:
        """Add a piece, and return it."""
        self._model = delta.model or self._model
        if delta.processing != UNKNOWN_PROCESSING:
            self._processing = delta.processing
        if delta.text or delta.refusal or delta.tool_calls or delta.finish_reason or delta.reasoning_content or delta.annotations:
            partial = self._choices.setdefault(delta.index, _Partial())
            partial.texts.append(delta.text)
            partial.refusals.append(delta.refusal or "")
            partial.thoughts.append(delta.reasoning_content or "")
            partial.annotations += delta.annotations
            partial.finish_reason = delta.finish_reason or partial.finish_reason
            partial.stop_sequence = delta.stop_sequence or partial.stop_sequence
            for call in delta.tool_calls:
                partial.calls.setdefault(call.index, []).append(call)
        if delta.usage is not None:
            self._usage, self._is_counted = delta.usage, bool(self._choices) and all(map(_has_ended, self._choices.values()))
        return delta

    def add_all(self, deltas: Iterable[Delta]) -> None:
        """Add several pieces."""
        for delta in deltas:
            self.add(delta)

    def completion(self, *, cut_off: str | None = None) -> Completion:
        """The answer so far; choices that have not ended end with the reason `cut_off`.

        A usage that was told before all choices had ended is the one so far.
        """
        partials = [self._choices[index] for index in sorted(self._choices)] or [_Partial()]
        usage, so_far = (self._usage, None) if self._is_counted else (None, self._usage)
        choices = tuple(_join(partial, cut_off) for partial in partials)
        return Completion(choices, usage, self._model, usage_so_far=so_far, processing=self._processing)


def _has_ended(partial: _Partial) -> bool:
    return partial.finish_reason is not None


def _join(partial: _Partial, cut_off: str | None) -> Choice:
    calls = (
        ToolCall(
            id=next((piece.id for piece in pieces if piece.id), ""),
            function=CalledFunction(
                name=next((piece.name for piece in pieces if piece.name), ""), arguments="".join(piece.arguments for piece in pieces)
            ),
            extra_content=next((piece.extra_content for piece in pieces if piece.extra_content is not None), None),
        )
        for _, pieces in sorted(partial.calls.items())
    )
    return Choice(
        text="".join(partial.texts),
        finish_reason=partial.finish_reason or cut_off,
        tool_calls=tuple(calls),
        refusal="".join(partial.refusals) or None,
        stop_sequence=partial.stop_sequence,
        reasoning_content="".join(partial.thoughts) or None,
        annotations=tuple(partial.annotations),
    )
