"""Repairs the answers of every vendor: halves of characters, tool calls without an id of their own or without
arguments, and a finish reason that contradicts the tools that are called."""

import re
import secrets
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field, replace

from rlaas.chat import CalledFunction, Choice, Completion, Delta, ToolCall, ToolCallDelta

NO_ARGUMENTS = "{}"
_HALF = re.compile("[\ud800-\udfff]")


def repair_completion(completion: Completion) -> Completion:
    """The whole answer, repaired. A half of a character whose other half is missing becomes U+FFFD."""
    return replace(completion, choices=tuple(map(_repair_choice, completion.choices)))


def repair_deltas(deltas: Iterable[Delta]) -> Iterator[Delta]:
    """The streamed answer, repaired: a half of a character waits for the next piece, and empty pieces are left out."""
    choices: dict[int, _StreamedChoice] = {}
    for delta in deltas:
        if delta.index not in choices:
            choices[delta.index] = _StreamedChoice()
        repaired = choices[delta.index].repair(delta)
        if not _is_empty(repaired):
            yield repaired


def _repair_choice(choice: Choice) -> Choice:
    ids: set[str] = set()
    reason = _repair_reason(choice.finish_reason, calls=bool(choice.tool_calls))
    if not choice.tool_calls and reason == choice.finish_reason and not _has_half(choice):
        return choice
    return replace(
        choice,
        text=join_halves(choice.text),
        refusal=join_halves(choice.refusal) if choice.refusal else None,
        reasoning_content=join_halves(choice.reasoning_content) if choice.reasoning_content else None,
        tool_calls=tuple(_repair_call(call, ids, is_whole=reason == "tool_calls") for call in choice.tool_calls),
        finish_reason=reason,
    )


def _repair_call(call: ToolCall, ids: set[str], *, is_whole: bool) -> ToolCall:
    identifier, arguments = _choose_id(call.id, ids), join_halves(call.function.arguments)
    if is_whole and not arguments.strip():
        arguments = NO_ARGUMENTS
    if (identifier, arguments) == (call.id, call.function.arguments):
        return call
    return call.model_copy(update={"id": identifier, "function": CalledFunction(name=call.function.name, arguments=arguments)})


def _repair_reason(reason: str | None, *, calls: bool) -> str | None:
    """A model that calls tools has ended in order to call them, and one that calls none has not."""
    if calls:
        return "tool_calls" if reason in (None, "stop") else reason
    return "stop" if reason == "tool_calls" else reason


def _choose_id(identifier: str | None, ids: set[str]) -> str:
    """The call's own id if it has one that no other call of the answer has, else a new one."""
    if not identifier or identifier in ids:
        identifier = f"call_{secrets.token_hex(12)}"
    ids.add(identifier)
    return identifier


@dataclass(slots=True)
class _StreamedCall:
    has_name: bool = False
    has_arguments: bool = False


@dataclass(slots=True)
class _StreamedChoice:
    """What the repair of a choice's next piece has to know of the pieces before it."""

    halves: dict[Hashable, str] = field(default_factory=dict)
    calls: dict[int, _StreamedCall] = field(default_factory=dict)
    ids: set[str] = field(default_factory=set)

    def repair(self, delta: Delta) -> Delta:
        """The piece, repaired."""
        if not (delta.tool_calls or delta.finish_reason or self.halves or _has_half(delta)):
            return delta
        is_last = delta.finish_reason is not None
        text = self._join("text", delta.text, is_last=is_last)
        refusal = self._join("refusal", delta.refusal or "", is_last=is_last)
        reasoning = self._join("reasoning", delta.reasoning_content or "", is_last=is_last)
        calls = tuple(self._repair_call(call) for call in delta.tool_calls)
        reason = _repair_reason(delta.finish_reason, calls=bool(self.calls)) if is_last else None
        if reason == "tool_calls":
            calls += tuple(ToolCallDelta(index, NO_ARGUMENTS) for index, call in self.calls.items() if not call.has_arguments)
        return replace(
            delta, text=text, refusal=refusal or None, reasoning_content=reasoning or None, tool_calls=calls, finish_reason=reason
        )

    def _repair_call(self, piece: ToolCallDelta) -> ToolCallDelta:
        """The piece, with an id only if it is the call's first, and the name only once: clients join what they get."""
        call = self.calls.get(piece.index)
        identifier = None
        if call is None:
            call = self.calls[piece.index] = _StreamedCall()
            identifier = _choose_id(piece.id, self.ids)
        name = None if call.has_name else piece.name or None
        call.has_name = call.has_name or name is not None
        arguments = self._join(piece.index, piece.arguments)
        call.has_arguments = call.has_arguments or bool(arguments.strip())
        return replace(piece, id=identifier, name=name, arguments=arguments)

    def _join(self, key: Hashable, text: str, *, is_last: bool = False) -> str:
        """The text after the half that waited for it, without a half at its own end, which waits for the next."""
        if not text and not (is_last and self.halves):
            return text
        text = self.halves.pop(key, "") + text
        if not is_last and "\ud800" <= text[-1:] <= "\udbff":
            self.halves[key], text = text[-1], text[:-1]
        return join_halves(text)


def join_halves(text: str) -> str:
    """The text with each pair of surrogates joined to its character, and U+FFFD for a single one."""
    if text.isascii() or _HALF.search(text) is None:
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _has_half(piece: Choice | Delta) -> bool:
    texts = (piece.text, piece.refusal, piece.reasoning_content)
    return any(text and not text.isascii() and _HALF.search(text) for text in texts)


def _is_empty(delta: Delta) -> bool:
    if delta.text or delta.tool_calls or delta.refusal or delta.reasoning_content or delta.annotations:
        return False
    return delta.finish_reason is None and delta.logprobs is None and delta.usage is None
